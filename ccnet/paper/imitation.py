"""Teaching one CC layer what a known kernel does to one image at one scale (Sec. 6), and looking at what it learned.

Recipe: Adam at a constant rate, then L-BFGS, both on all output pixels at once. The paper does not say how it trained;
a few hundred numbers are fitted here, where a second-order method needs a tenth of the steps that Adam alone does.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from ccnet.grid import AxisGrid
from ccnet.layer import CCConv2d
from ccnet.types import Kernel, KernelInput

SCALES = (0.3, 1.3)  # of random scales, as in the paper
RASTER = 200  # points along an axis at which a kernel is looked at, as in the paper


@dataclass(frozen=True)
class Recipe:
    """How a layer is taught.

    Attributes:
        adam_steps: at the constant `learning_rate`.
        lbfgs_steps: after those, with a line search: up to two evaluations a step.
        learning_rate: of Adam.
        hidden: widths of the Internal-Net.
    """

    adam_steps: int = 200
    lbfgs_steps: int = 300
    learning_rate: float = 0.01
    hidden: tuple[int, ...] = (16, 16)

    @property
    def steps(self) -> int:
        """Of both."""
        return self.adam_steps + self.lbfgs_steps

    @property
    def stops(self) -> list[int]:
        """Steps after which the layer is looked at: 0, then 1, 2, 5, 10, ... and the last of Adam and of all."""
        marks = {digit * 10**power for digit in (1, 2, 5) for power in range(6)}
        marks |= set(range(self.adam_steps, self.steps, max(1, self.lbfgs_steps // 8)))  # L-BFGS comes late and is fast
        return sorted({0, self.adam_steps, self.steps} | {mark for mark in marks if mark < self.steps})


def random_scales(generator: torch.Generator, count: int = 1) -> list[tuple[float, float]]:
    """Pairs (vertical, horizontal), uniform in `SCALES`."""
    low, high = SCALES
    drawn = low + (high - low) * torch.rand(count, 2, generator=generator, dtype=torch.float64)
    return [(vertical, horizontal) for vertical, horizontal in drawn.tolist()]


def new_layer(kernel_size: int, kernel_input: KernelInput, hidden: tuple[int, ...], seed: int) -> CCConv2d:
    """An untrained layer of one channel in float32 without a bias; nothing global is reseeded.

    The backend is the literal one: its gradients are as fast as any at this size, and it is the specification.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return CCConv2d(1, 1, kernel_size, kernel_input=kernel_input, hidden=hidden, bias=False, backend="standard")


def teach(
    layer: CCConv2d,
    image: Tensor,
    target: Tensor,
    scale: tuple[float, float],
    recipe: Recipe,
    tell: Callable[[int, float], None],
) -> list[dict[str, Any]]:
    """Train a layer so that `layer(image, scale)` is the target.

    Args:
        layer: is changed.
        image: [1, 1, H, W].
        target: [1, 1, H', W'].
        scale: (vertical, horizontal).
        recipe: how.
        tell: is told (steps since it was told last, mean squared error).

    Returns:
        at each of the recipe's stops: "step", "mse" (mean squared error) and "parameters" (see `parameters_of`).
    """
    image, target = (tensor.to(torch.float32) for tensor in (image, target))
    adam = torch.optim.Adam(layer.parameters(), lr=recipe.learning_rate)
    lbfgs = torch.optim.LBFGS(
        layer.parameters(), max_iter=1, history_size=30, line_search_fn="strong_wolfe",
        tolerance_grad=0, tolerance_change=0,
    )  # fmt: skip

    def error() -> Tensor:
        layer.zero_grad()
        loss: Tensor = (layer(image, scale) - target).square().mean()
        loss.backward()
        return loss

    found: list[dict[str, Any]] = []
    done = 0
    for stop in recipe.stops:
        for _ in range(done, min(stop, recipe.adam_steps)):
            error()
            adam.step()
        left = stop - max(done, recipe.adam_steps)
        if left > 0:
            lbfgs.param_groups[0].update(max_iter=left, max_eval=2 * left)
            lbfgs.step(error)
        with torch.no_grad():
            mse = float((layer(image, scale) - target).square().mean())
        tell(stop - done, mse)
        found.append({"step": stop, "mse": mse, "parameters": parameters_of(layer)})
        done = stop
    return found


def parameters_of(layer: CCConv2d) -> list[float]:
    """All of a layer's numbers in one row, with the nine digits that tell every float32 from all others."""
    return [float(f"{value:.9g}") for value in parameters_to_vector(layer.parameters()).tolist()]


def with_parameters(layer: CCConv2d, parameters: list[float]) -> CCConv2d:
    """The layer, changed to hold them."""
    vector_to_parameters(torch.tensor(parameters), layer.parameters())
    return layer


def raster(kernel_size: int, count: int = RASTER) -> Tensor:
    """The middles of count x count squares over the support of a kernel, [count * count, 2], in px."""
    axis = ((torch.arange(count, dtype=torch.float64) + 0.5) / count - 0.5) * kernel_size
    return torch.cartesian_prod(axis, axis)


@torch.no_grad()
def looked_at(layer: CCConv2d, points: Tensor) -> Tensor:
    """A layer's kernel as one function of the distance, whatever its input; [M, 2] in px -> [M] in float64.

    With "offset" every px of the support is a function of its own; they are put beside each other here. A distance
    on the border of two of them is the end of the left one, as in `AxisGrid`.
    """
    weights: Tensor
    if layer.kernel_input == "distance":
        weights = layer.kernel(points)[:, 0, 0]
        return weights.double()
    sizes = torch.tensor(layer.kernel_size, dtype=torch.float64)
    taps = (sizes / 2 - points).floor().clamp(min=0).minimum(sizes - 1)  # distance = offset + (K - 1) / 2 - tap
    weights = layer.kernel(points - (sizes - 1) / 2 + taps)[:, 0, 0]  # [M, K_h, K_w]
    down, across = taps.long().unbind(1)
    return weights[torch.arange(len(points)), down, across].double()


def kernel_errors(layer: CCConv2d, truth: Kernel) -> tuple[float, float]:
    """How far a layer's kernel is from the true one over its support: (relative L2, largest difference / peak)."""
    points = raster(layer.kernel_size[0])
    true = truth(points)[:, 0, 0]
    difference = looked_at(layer, points) - true
    return float(difference.norm() / true.norm()), float(difference.abs().max() / true.abs().max())


def seam_jump(layer: CCConv2d, truth: Kernel, step: float = 1e-6) -> float:
    """Root mean square of a kernel's jumps where one px of its support meets the next, in units of the true peak.

    Args:
        layer: of one channel.
        truth: what is imitated, for the peak.
        step: px from the border at which both sides are taken.
    """
    size = layer.kernel_size[0]
    along = raster(size)[:RASTER, 1]
    jumps = []
    for border in range(1, size):
        seam = torch.full_like(along, border - size / 2)
        for first, second in ((seam, along), (along, seam)):
            on = torch.stack([first, second], dim=1)
            off = step * torch.tensor([first is seam, second is seam], dtype=torch.float64)
            jumps.append(looked_at(layer, on + off) - looked_at(layer, on - off))
    peak = truth(raster(size)).abs().max()
    return float(torch.cat(jumps).square().mean().sqrt() / peak)


def widest_gap(in_size: int, scale: tuple[float, float], kernel_size: int) -> float:
    """The longest stretch of sub-pixel offsets that no output px of a grid has, in px; the worse of the two axes.

    1 / out_size at best, 1 where all output px share one offset (scale 1/2, 1/3, ...): how little a grid teaches.
    """
    widest = Fraction(0)
    for axis_scale in scale:
        offsets = sorted(set(AxisGrid.make(in_size, None, axis_scale, kernel_size).offsets))
        around = [*offsets, offsets[0] + 1]  # offsets repeat with every px
        widest = max(widest, *(after - before for before, after in pairwise(around)))
    return float(widest)
