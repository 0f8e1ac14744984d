"""One layer that is taught one kernel on one image at one scale, as a kept step of an item."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ccnet.layer import CCConv2d, cc_conv2d
from ccnet.paper.context import Context
from ccnet.paper.dead_leaves import dead_leaves
from ccnet.paper.imitation import Recipe, new_layer, random_scales, teach, widest_gap, with_parameters
from ccnet.paper.known_kernels import bicubic, resize_bicubic, rotated_gaussian, widened_bicubic
from ccnet.progress import ProgressReport
from ccnet.types import Kernel, KernelInput

Scales = tuple[float, float]
Resizer = Callable[[Tensor, Scales], Tensor]  # image [1, 1, H, W], (vertical, horizontal) -> [1, 1, H', W']


@dataclass(frozen=True)
class Teacher:
    """A way to resize that a layer is to imitate.

    Attributes:
        name: in words.
        resize: what it does to an image.
        kernel: its kernel at a scale; the same at every scale but for "antialiased".
        size: K of the layers that imitate it.
    """

    name: str
    resize: Resizer
    kernel: Callable[[Scales], Kernel]
    size: int


TEACHERS = {
    "bicubic": Teacher("bicubic", resize_bicubic, lambda _: bicubic, 4),
    "gaussian": Teacher(
        "rotated Gaussian",
        lambda image, scale: cc_conv2d(image, rotated_gaussian, 5, scale=scale, backend="standard"),
        lambda _: rotated_gaussian,
        5,
    ),
    "antialiased": Teacher(
        "antialiased bicubic",
        lambda image, scale: cc_conv2d(image, widened_bicubic(scale), 8, scale=scale, backend="standard"),
        widened_bicubic,
        8,  # px, the widened kernel's support at scale 1/2: the smallest scale at which this teacher is right
    ),
}


@dataclass(frozen=True)
class Lesson:
    """What one layer is taught; all that its result depends on.

    Attributes:
        teacher: of `TEACHERS`.
        kernel_input: of the layer.
        image_px: side of the image.
        seed: of the image, of the random scales and of the layer's first parameters.
        scale: (vertical, horizontal) that it is taught at; None draws a pair from `imitation.SCALES`.
        recipe: how it is taught.
    """

    teacher: str
    kernel_input: KernelInput
    image_px: int
    seed: int
    scale: Scales | None
    recipe: Recipe

    @property
    def taught_scale(self) -> Scales:
        """The pair, drawn or given."""
        return self.scale or random_scales(torch.Generator().manual_seed(self.seed))[0]

    @property
    def gap(self) -> float:
        """See `widest_gap`."""
        return widest_gap(self.image_px, self.taught_scale, TEACHERS[self.teacher].size)

    def untaught(self) -> CCConv2d:
        """The layer before its first step."""
        return new_layer(TEACHERS[self.teacher].size, self.kernel_input, self.recipe.hidden, self.seed)

    def image(self) -> Tensor:
        """[1, 1, image_px, image_px] in float64, mean 0 and variance 1."""
        return dead_leaves(self.image_px, self.seed)

    def layer(self, moment: dict[str, Any]) -> CCConv2d:
        """The layer as it was at a moment of its trail."""
        return with_parameters(self.untaught(), moment["parameters"])


def trail(context: Context, name: str, lesson: Lesson, progress: ProgressReport) -> list[dict[str, Any]]:
    """The moments of a lesson (see `teach`), a kept step of the item.

    Args:
        context: of the item.
        name: of the step.
        lesson: which.
        progress: is told the steps of training.
    """

    def compute() -> list[dict[str, Any]]:
        image = lesson.image()
        target = TEACHERS[lesson.teacher].resize(image, lesson.taught_scale)
        return teach(
            lesson.untaught(), image, target, lesson.taught_scale, lesson.recipe,
            lambda steps, mse: progress.advance(steps, f"{name}: error {mse:.1e}"),
        )  # fmt: skip

    taken_up = context.taken_up
    found: list[dict[str, Any]] = context.step(name, compute, **asdict(lesson))
    if context.taken_up > taken_up:
        progress.advance(lesson.recipe.steps, f"{name}: kept")
    return found


@torch.no_grad()
def errors_at(lesson: Lesson, moments: list[dict[str, Any]], scales: list[Scales]) -> list[list[float]]:
    """Mean squared errors at other scales, in variances of the image: for each moment of a layer, at each scale."""
    image, resize = lesson.image(), TEACHERS[lesson.teacher].resize
    layers, errors = [lesson.layer(moment) for moment in moments], []
    for scale in scales:
        target = resize(image, scale)
        errors.append([float((layer(image.float(), scale) - target).square().mean()) for layer in layers])
    return [list(of_moment) for of_moment in zip(*errors, strict=True)]
