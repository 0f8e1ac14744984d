"""Kernels as pictures on one colour scale, so that they can be compared, and what a result keeps to draw them."""

import base64
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from ccnet.layer import CCConv2d
from ccnet.paper.imitation import looked_at, raster, with_parameters

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = 21  # colours: steps of a tenth of the peak, as contours, and the file stays small


def sketch_of(parameters: list[float]) -> str:
    """A layer's numbers as they are kept to be drawn: half precision as base64, a thousandth off at most.

    A result holds many kernels and should be small; the exact numbers are in the item's steps.
    """
    return base64.b64encode(np.array(parameters, dtype="<f2").tobytes()).decode("ascii")


def from_sketch(layer: CCConv2d, sketch: str) -> CCConv2d:
    """The layer, changed to hold the numbers of a sketch."""
    return with_parameters(layer, np.frombuffer(base64.b64decode(sketch), dtype="<f2").astype(np.float64).tolist())


def draw_layer(axes: "Axes", layer: CCConv2d, truth: Tensor) -> None:
    """A layer's kernel over its support; `truth` as in `draw_kernel`."""
    draw_kernel(axes, looked_at(layer, raster(layer.kernel_size[0])), truth, layer.kernel_size[0])


def draw_kernel(axes: "Axes", values: Tensor, truth: Tensor, size: int) -> Any:
    """A kernel sampled on a square raster: blue below 0, white at 0, red above, as far as the true kernel goes.

    Args:
        axes: to draw on.
        values: [n * n], row by row.
        truth: the true kernel, which sets the colours.
        size: K, the support in px.

    Returns:
        what a colour bar is made of.
    """
    from matplotlib import colormaps

    side = round(len(values) ** 0.5)
    peak, half = float(truth.abs().max()), size / 2
    picture = axes.imshow(
        values.reshape(side, side).numpy(),
        cmap=colormaps["RdBu_r"].resampled(LEVELS),
        vmin=-peak,
        vmax=peak,
        extent=(-half, half, half, -half),
        interpolation="nearest",
    )
    axes.set_xticks([-half, 0, half])
    axes.set_yticks([-half, 0, half])
    axes.tick_params(labelsize=7)
    return picture
