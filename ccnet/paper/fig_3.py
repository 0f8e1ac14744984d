"""Figure 3: the continuous kernel that one CC layer learns, beside the kernel of the resizing that it imitates.

One layer is taught on one image at one random pair of scales, for both inputs of the Internal-Net; its kernel is then
looked at on 200 x 200 points. Beside the paper's two kernels stands a teacher that a CC layer cannot imitate at every
scale: antialiased resizing has another kernel at each of them, and what is learned is that of the scale of training.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image

from ccnet.layer import cc_conv2d
from ccnet.paper.context import Context
from ccnet.paper.findings import Claim, Findings, Row, judged
from ccnet.paper.imitation import (
    RASTER,
    SCALES,
    Recipe,
    kernel_errors,
    new_layer,
    random_scales,
    raster,
    seam_jump,
    widest_gap,
)
from ccnet.paper.kernel_pictures import draw_kernel, draw_layer, from_sketch, sketch_of
from ccnet.paper.known_kernels import BICUBIC_SIZE, GAUSSIAN_SIGMAS, bicubic
from ccnet.paper.lessons import TEACHERS, Lesson, errors_at, trail
from ccnet.types import KernelInput

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IMAGE_PX, QUICK_IMAGE_PX = 64, 40
RECIPE, QUICK_RECIPE = Recipe(lbfgs_steps=500), Recipe(adam_steps=100, lbfgs_steps=300)
IMITATIONS: tuple[tuple[str, KernelInput], ...] = (
    ("bicubic", "distance"),
    ("gaussian", "distance"),
    ("bicubic", "offset"),
    ("gaussian", "offset"),
)
ANTIALIASED_SCALE = (0.55, 0.7)  # at which it is taught
ANTIALIASED_OTHERS = ((0.85, 0.5), (0.85, 0.85), (1.0, 1.0))
SIMILAR = 0.2  # relative L2: what a kernel that is called recovered may be off
SEPARATE = 5.0  # times the training error
DENSE = 0.1  # px: a grid with a wider gap between its offsets leaves parts of the kernel untaught
PILLOW = 1e-5  # largest difference from Pillow's bicubic, which computes in float32


def find(context: Context) -> Findings:
    """Run it."""
    lessons = {f"{teacher}-{given}": lesson_of(teacher, given, context) for teacher, given in IMITATIONS}
    lessons["antialiased"] = lesson_of("antialiased", "distance", context)
    findings = Findings()
    shown: dict[str, Any] = {}
    with context.progress("teaching", sum(lesson.recipe.steps for lesson in lessons.values()), "steps") as progress:
        for name, lesson in lessons.items():
            moments = trail(context, name, lesson, progress)
            shown[name] = looked_over(lesson, moments)
            findings.rows += rows_of(lesson, shown[name])
    (others,) = errors_at(lesson, moments[-1:], [*ANTIALIASED_OTHERS])  # the last lesson is the antialiased one
    for name, lesson in lessons.items():
        if name != "antialiased":
            findings.claims.append(judge_recovery(lesson, shown[name]))
    judge_antialiased(findings, shown["antialiased"], others)
    off = pillow_difference(lessons["bicubic-distance"])
    findings.claims.append(
        judged(
            "(ours) the truth is what other software calls bicubic",
            off < PILLOW,
            f"Pillow enlarging by 3: {off:.0e} off",
        )
    )
    findings.notes = notes(lessons["bicubic-distance"])
    findings.series = shown
    return findings


def lesson_of(teacher: str, kernel_input: KernelInput, context: Context) -> Lesson:
    """What a layer of the figure is taught."""
    size, recipe = (QUICK_IMAGE_PX, QUICK_RECIPE) if context.quick else (IMAGE_PX, RECIPE)
    scale = ANTIALIASED_SCALE if teacher == "antialiased" else telling_scale(context.seed, size)
    return Lesson(teacher, kernel_input, size, context.seed, scale, recipe)


def telling_scale(seed: int, image_px: int) -> tuple[float, float]:
    """The first random pair of a seed whose grid has offsets everywhere; about one in seven has not."""
    drawn = random_scales(torch.Generator().manual_seed(seed), 100)
    return next(scale for scale in drawn if widest_gap(image_px, scale, BICUBIC_SIZE) <= DENSE)


def looked_over(lesson: Lesson, moments: list[dict[str, Any]]) -> dict[str, Any]:
    """The kernel's errors over a lesson, and some moments with all that is needed to draw them."""
    truth = TEACHERS[lesson.teacher].kernel(lesson.taught_scale)
    errors = [kernel_errors(lesson.layer(moment), truth) for moment in moments]
    steps = [moment["step"] for moment in moments]
    wanted = (0, lesson.recipe.adam_steps // 2, lesson.recipe.adam_steps, lesson.recipe.steps)
    drawn = [moments[max(number for number, step in enumerate(steps) if step <= last)] for last in wanted]
    return {
        "teacher": lesson.teacher,
        "kernel_input": lesson.kernel_input,
        "hidden": lesson.recipe.hidden,
        "adam_steps": lesson.recipe.adam_steps,
        "scale": lesson.taught_scale,
        "gap": lesson.gap,
        "steps": steps,
        "mse": [float(f"{moment['mse']:.4g}") for moment in moments],
        "relative_error": [float(f"{relative:.4g}") for relative, _ in errors],
        "largest_error": [float(f"{largest:.4g}") for _, largest in errors],
        "seam_jump": seam_jump(lesson.layer(moments[-1]), truth),
        "shown": [{"step": moment["step"], "sketch": sketch_of(moment["parameters"])} for moment in drawn],
    }


def rows_of(lesson: Lesson, found: dict[str, Any]) -> list[Row]:
    """A line of the table."""
    case = f'{TEACHERS[lesson.teacher].name}, "{lesson.kernel_input}"'
    scale = "{:.3f}, {:.3f}".format(*lesson.taught_scale)
    figures = {
        "image error": (found["mse"][-1], ".1e"),
        "kernel error, relative L2": (found["relative_error"][-1], ".3f"),
        "at the start": (found["relative_error"][0], ".2f"),
        "largest / peak": (found["largest_error"][-1], ".3f"),
        "jump at seams / peak": (found["seam_jump"], ".1e"),
    }
    rows = [Row(case, "scale taught at", scale)]
    return rows + [Row(case, what, format(value, style), value=value) for what, (value, style) in figures.items()]


def judge_recovery(lesson: Lesson, found: dict[str, Any]) -> Claim:
    """Whether a kernel was recovered."""
    error, start = found["relative_error"][-1], found["relative_error"][0]
    return judged(
        f'the {TEACHERS[lesson.teacher].name} kernel is recovered within {SIMILAR:.0%}, input "{lesson.kernel_input}"',
        error <= SIMILAR,
        f"relative L2 {error:.3f} on {RASTER} x {RASTER} points, {start:.2f} at the start",
    )


def judge_antialiased(findings: Findings, found: dict[str, Any], others: list[float]) -> None:
    """What becomes of a teacher with a kernel for every scale."""
    findings.claims.append(
        judged(
            "(ours) antialiased resizing is learned for the one scale only: elsewhere the error is at least "
            f"{SEPARATE:g} times as large",
            min(others) >= SEPARATE * found["mse"][-1],
            f"{found['mse'][-1]:.1e} at {found['scale'][0]}, {found['scale'][1]}; "
            + ", ".join(f"{e:.1e} at {v:g}, {h:g}" for e, (v, h) in zip(others, ANTIALIASED_OTHERS, strict=True)),
        )
    )


def pillow_difference(lesson: Lesson) -> float:
    """The largest difference between Pillow's and our bicubic, enlarging the image, where no neighbour is outside."""
    image = lesson.image()
    size = lesson.image_px * 3  # enlarging is where Pillow does not antialias
    theirs = Image.fromarray(image[0, 0].to(torch.float32).numpy()).resize((size, size), Image.Resampling.BICUBIC)
    ours = cc_conv2d(image, bicubic, BICUBIC_SIZE, scale=3)[0, 0]
    inside = slice(3 * BICUBIC_SIZE, -3 * BICUBIC_SIZE)
    return float((torch.from_numpy(np.array(theirs)) - ours)[inside, inside].abs().max())


def notes(lesson: Lesson) -> list[str]:
    """How it was done."""
    recipe = lesson.recipe
    return [
        f"One image (dead leaves, {lesson.image_px} px, variance 1); one pair of scales, uniform in {SCALES[0]} to "
        f"{SCALES[1]}, the first of this seed whose grid leaves no gap of {DENSE} px between its offsets (see fig_7); "
        f"Adam {recipe.adam_steps} steps, then L-BFGS {recipe.lbfgs_steps}; hidden widths {recipe.hidden}.",
        "Bicubic: Keys, a = -1/2, no antialiasing, since a CC layer does not widen its kernel when it makes a map "
        f"smaller. Gaussian: sigmas {GAUSSIAN_SIGMAS} px, its long axis at 45 degrees; the paper gives no numbers.",
        'Input "offset" (A.1) has a function of its own for every px of the support; they are assembled, and nothing '
        "but the image makes them meet at the seams.",
    ]


def plot(document: dict[str, Any]) -> "Figure":
    """A row a teacher: its kernel as it is learned, the true one, and the errors over the steps."""
    from ccnet.paper.drawing import figure

    series = document["series"]
    columns = len(series["antialiased"]["shown"]) + 2  # the truth, and the curves
    drawn, axes = figure(columns, len(series), panel=(1.55, 1.6))
    for number, found in enumerate(series.values()):
        panels = axes[number * columns : (number + 1) * columns]
        draw_kernels(panels[:-1], found)
        draw_errors(panels[-1], found, last=number == len(series) - 1)
    return drawn


def draw_kernels(panels: "list[Axes]", found: dict[str, Any]) -> None:
    """The moments of a lesson and the truth, on one colour scale."""
    teacher = TEACHERS[found["teacher"]]
    truth = teacher.kernel(tuple(found["scale"]))(raster(teacher.size))[:, 0, 0]
    for panel, moment in zip(panels, found["shown"], strict=False):
        layer = new_layer(teacher.size, found["kernel_input"], tuple(found["hidden"]), 0)
        draw_layer(panel, from_sketch(layer, moment["sketch"]), truth)
        panel.set_title(f"step {moment['step']}", fontsize=9)
    draw_kernel(panels[-1], truth, truth, teacher.size)
    for panel in panels[1:]:
        panel.set_yticks([])
    for panel in panels:
        panel.set_xticks([])  # as far as upwards
    panels[-1].set_title("truth at {:.2f}, {:.2f}".format(*found["scale"]), fontsize=9)
    panels[0].set_ylabel(f'{teacher.name},\ninput "{found["kernel_input"]}"', fontsize=9)


def draw_errors(axes: "Axes", found: dict[str, Any], *, last: bool) -> None:
    """Over the steps: of the kernel, and of the image that it was taught."""
    axes.plot(found["steps"], found["relative_error"], color="#0072B2", label="kernel, rel. L2")
    axes.plot(found["steps"], found["mse"], color="#D55E00", linestyle="--", label="image, MSE")
    axes.axvline(found["adam_steps"], color="gray", linestyle=":", linewidth=0.8)  # from here on L-BFGS
    axes.set_yscale("log")
    axes.set_ylim(1e-5, 5)
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=7)
    axes.set_title("errors", fontsize=9)
    if last:
        axes.set_xlabel("training step")
        axes.legend(fontsize=7, loc="lower left")
    else:
        axes.set_xticklabels([])
