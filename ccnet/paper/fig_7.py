"""Figure 7: a CC layer taught bicubic resizing at one random float scale resizes as well at scales it never met.

Taught at 1/2 instead it does not: there all output pixels have the same sub-pixel offset, so that sixteen points of
the kernel are all that the layer is taught. What decides is how densely the offsets of the one grid lie, and a float
scale close to 1 teaches little more than 1 does; that case, which the paper does not have, stands beside the two.
"""

from functools import partial
from statistics import median
from typing import TYPE_CHECKING, Any

import torch

from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.paper.imitation import SCALES, Recipe, kernel_errors, new_layer, random_scales, raster
from ccnet.paper.kernel_pictures import draw_kernel, draw_layer, from_sketch, sketch_of
from ccnet.paper.known_kernels import BICUBIC_SIZE, bicubic
from ccnet.paper.lessons import Lesson, errors_at, trail

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What is taught at which (vertical, horizontal) scale; None is a random pair.
CASES: dict[str, tuple[float, float] | None] = {
    "random float scales": None,
    "scale 1/2": (0.5, 0.5),
    "float scales next to 1": (1.004, 0.996),
}
FLOAT, HALF, NEAR_ONE = CASES
SEEDS, QUICK_SEEDS = 5, 3
NEAR_ONE_SEEDS, QUICK_NEAR_ONE_SEEDS = 2, 1
IMAGE_PX, QUICK_IMAGE_PX = 96, 64
QUICK_RECIPE = Recipe(adam_steps=100, lbfgs_steps=150)
TEST_SCALES, QUICK_TEST_SCALES = 100, 20
CURVE_SCALES = 5  # of them, for the error over the steps
SAME, OTHER = 2.0, 10.0  # times the error trained for: what counts as as good, and as far worse
DENSE = 0.1  # px, the widest gap between offsets that leaves nothing of the kernel untaught


def find(context: Context) -> Findings:
    """Run it."""
    lessons = {case: lessons_of(case, context) for case in CASES}
    total = sum(lesson.recipe.steps for some in lessons.values() for lesson in some)
    results: dict[str, list[dict[str, Any]]] = {case: [] for case in CASES}
    with context.progress("teaching", total, "steps") as progress:
        for case, some in lessons.items():
            slug = "-".join(case.replace("/", "-").split())
            for number, lesson in enumerate(some):
                moments = trail(context, f"{slug}-{number}", lesson, progress)
                tested = context.step(
                    f"{slug}-{number}-tested", partial(measured, lesson, moments, context), recipe=repr(lesson),
                    scales=[QUICK_TEST_SCALES if context.quick else TEST_SCALES, CURVE_SCALES, *SCALES],
                )  # fmt: skip
                results[case].append(tested)
    findings = Findings()
    findings.series = {
        "adam_steps": lessons[FLOAT][0].recipe.adam_steps,
        "cases": {case: [curves_of(result) for result in found] for case, found in results.items()},
        "kernels": {case: kernel_of(results[case]) for case in (FLOAT, HALF)},
    }
    for case, found in results.items():
        findings.rows += rows_of(case, found)
    judge(findings, results)
    recipe = lessons[FLOAT][0].recipe
    findings.notes = [
        f"Images: dead leaves of {lessons[FLOAT][0].image_px} px, another for every seed, variance 1: errors are "
        f"shares of the image's variance. Scales: uniform in {SCALES[0]} to {SCALES[1]}, drawn for each axis.",
        "Truth: Keys' cubic, a = -1/2, without antialiasing, as two matrices. "
        f"Training: Adam {recipe.adam_steps} steps, then L-BFGS {recipe.lbfgs_steps}; hidden widths {recipe.hidden}.",
        "Widest gap: the longest stretch of sub-pixel offsets that the training grid has no output pixel in.",
    ]
    return findings


def lessons_of(case: str, context: Context) -> list[Lesson]:
    """The layers that are taught for a case: one a seed."""
    count = QUICK_SEEDS if context.quick else SEEDS
    if case == NEAR_ONE:
        count = QUICK_NEAR_ONE_SEEDS if context.quick else NEAR_ONE_SEEDS
    size, recipe = (QUICK_IMAGE_PX, QUICK_RECIPE) if context.quick else (IMAGE_PX, Recipe())
    return [
        Lesson("bicubic", "distance", size, 1000 * context.seed + number, CASES[case], recipe)
        for number in range(count)
    ]


def measured(lesson: Lesson, moments: list[dict[str, Any]], context: Context) -> dict[str, Any]:
    """The errors of a taught layer at other scales, and those of its kernel."""
    generator = torch.Generator().manual_seed(lesson.seed)
    random_scales(generator)  # the pair that `lesson` itself may have drawn
    scales = random_scales(generator, QUICK_TEST_SCALES if context.quick else TEST_SCALES)
    (tested,) = errors_at(lesson, moments[-1:], scales)
    curve = errors_at(lesson, moments, scales[:CURVE_SCALES])
    kernel, _ = kernel_errors(lesson.layer(moments[-1]), bicubic)
    return {
        "scale": lesson.taught_scale,
        "gap": lesson.gap,
        "trained": moments[-1]["mse"],
        "tested": sum(tested) / len(tested),
        "tested_each": tested,
        "kernel_error": kernel,
        "steps": [moment["step"] for moment in moments],
        "trained_curve": [moment["mse"] for moment in moments],
        "tested_curve": [sum(errors) / len(errors) for errors in curve],
        "parameters": moments[-1]["parameters"],
    }


def curves_of(result: dict[str, Any]) -> dict[str, Any]:
    """What the plot needs of a layer, in few digits."""
    kept = {key: [float(f"{value:.3g}") for value in result[key]] for key in ("trained_curve", "tested_curve")}
    return kept | {key: result[key] for key in ("scale", "steps", "gap", "trained", "tested", "kernel_error")}


def kernel_of(results: list[dict[str, Any]]) -> dict[str, Any]:
    """The kernel of the seed with the median error."""
    middle = sorted(results, key=lambda result: float(result["kernel_error"]))[len(results) // 2]
    return {"kernel_error": middle["kernel_error"], "sketch": sketch_of(middle["parameters"])}


def ratios(results: list[dict[str, Any]]) -> list[float]:
    """Error at other scales over the error trained for."""
    return [result["tested"] / result["trained"] for result in results]


def rows_of(case: str, results: list[dict[str, Any]]) -> list[Row]:
    """A case's line: medians over the seeds, and ranges."""
    figures = {
        "training error": ([result["trained"] for result in results], ".1e"),
        "error at other scales": ([result["tested"] for result in results], ".1e"),
        "ratio": (ratios(results), ".3g"),
        "kernel error": ([result["kernel_error"] for result in results], ".3f"),
        "widest gap, px": ([result["gap"] for result in results], ".2f"),
    }
    paper = {FLOAT: "very close to 1", HALF: "about 100"}
    return [
        Row(
            f"{case}, {len(results)} seeds" if len(results) > 1 else f"{case}, 1 seed",
            what,
            spread(values, style),
            paper.get(case, "") if what == "ratio" else "",
            median(values),
        )
        for what, (values, style) in figures.items()
    ]


def spread(values: list[float], style: str) -> str:
    """The median, and the range where there is one."""
    low, middle, high = (format(value, style) for value in (min(values), median(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


def judge(findings: Findings, results: dict[str, list[dict[str, Any]]]) -> None:
    """The claims."""
    floats, halves, near = (results[case] for case in (FLOAT, HALF, NEAR_ONE))
    dense = [ratio for ratio, result in zip(ratios(floats), floats, strict=True) if result["gap"] <= DENSE]
    evidence = f"{spread(ratios(floats), '.3g')} times over {len(floats)} seeds"
    if len(dense) < len(floats):
        evidence += (
            f"; over the {len(dense)} whose grids leave no gap of {DENSE} px: {spread(dense, '.3g') if dense else '-'}"
        )
    findings.claims.append(
        judged(
            f"taught at one random float scale, the error at other scales is at most {SAME:g} times the training error "
            "(median over seeds)",
            median(ratios(floats)) <= SAME,
            evidence,
        )
    )
    findings.claims.append(
        judged(
            f"taught at 1/2, the error at other scales is at least {OTHER:g} times the training error (every seed)",
            min(ratios(halves)) >= OTHER,
            f"{spread(ratios(halves), '.1e')} times over {len(halves)} seeds",
        )
    )
    apart = median(result["tested"] for result in halves) / median(result["tested"] for result in floats)
    findings.claims.append(
        judged(
            f"(ours) at other scales, one taught at 1/2 errs at least {OTHER:g} times as much as at a float scale",
            apart >= OTHER,
            f"{apart:.0f} times (medians)",
        )
    )
    findings.claims.append(
        judged(
            "(ours) diverse distances are what counts: taught at floats next to 1, the error at other scales is over "
            f"{SAME:g} times the training error (every seed)",
            min(ratios(near)) > SAME,
            f"{spread(ratios(near), '.3g')} times; the grid leaves a gap of {near[0]['gap']:.2f} px",
        )
    )


def plot(document: dict[str, Any]) -> "Figure":
    """Errors over the steps, ratios over the gap, and the kernels."""
    from ccnet.paper.drawing import figure

    cases = document["series"]["cases"]
    drawn, axes = figure(3, 2, panel=(4.2, 3.4))
    for panel, case in zip(axes, (FLOAT, HALF), strict=False):
        draw_curves(panel, cases[case], document["series"]["adam_steps"])
        panel.set_title(f"taught at {case}")
    low = min(axes[0].get_ylim()[0], axes[1].get_ylim()[0])
    high = max(axes[0].get_ylim()[1], axes[1].get_ylim()[1])
    for panel in axes[:2]:
        panel.set_ylim(low, high)
    draw_gaps(axes[2], cases)
    draw_kernels(axes[3:], document["series"]["kernels"])
    return drawn


def draw_curves(axes: "Axes", results: list[dict[str, Any]], adam_steps: int) -> None:
    """Training and test errors of all seeds over the steps, medians drawn bold."""
    steps = results[0]["steps"]
    for key, colour, label in (("trained_curve", "C0", "the scale trained at"), ("tested_curve", "C1", "other scales")):
        for result in results:
            axes.plot(steps, result[key], color=colour, linewidth=0.6, alpha=0.4)
        middle = [median(values) for values in zip(*(result[key] for result in results), strict=True)]
        axes.plot(steps, middle, color=colour, linewidth=2, label=label)
    axes.axvline(adam_steps, color="gray", linestyle=":", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("training step (Adam, then L-BFGS)")
    axes.set_ylabel("mean squared error / image variance")
    axes.legend()


def draw_gaps(axes: "Axes", cases: dict[str, list[dict[str, Any]]]) -> None:
    """How much worse other scales are, over the widest gap of the training grid."""
    for case, results in cases.items():
        axes.plot([result["gap"] for result in results], ratios(results), "o", alpha=0.7, label=case)
    axes.axhline(1, color="gray", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xlabel("widest gap between the training grid's offsets, px")
    axes.set_ylabel("error at other scales / trained for")
    axes.set_title("what decides is the diversity of distances")
    axes.legend()


def draw_kernels(panels: "list[Axes]", kernels: dict[str, dict[str, Any]]) -> None:
    """A learned kernel of each of the two cases, and the true one."""
    truth = bicubic(raster(BICUBIC_SIZE))[:, 0, 0]
    for panel, case in zip(panels, (FLOAT, HALF), strict=False):
        layer = new_layer(BICUBIC_SIZE, "distance", Recipe().hidden, 0)
        draw_layer(panel, from_sketch(layer, kernels[case]["sketch"]), truth)
        panel.set_title(f"learned at {case}\n(median seed: kernel error {kernels[case]['kernel_error']:.2f})")
    shown = draw_kernel(panels[2], truth, truth, BICUBIC_SIZE)
    panels[2].set_title("truth: bicubic, a = -1/2")
    panels[2].figure.colorbar(shown, ax=panels, shrink=0.8)
