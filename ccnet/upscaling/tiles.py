"""Pictures of any size in bounded memory: tile by tile, with the answer of the whole.

An output sees `reach` input pixels around it. A tile is computed from the inputs that its outputs see and from no
others, on the part of the picture's grid that is its own, so that where tiles meet nothing shows: they agree with the
whole picture to rounding.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnet.grid import ScalePair
from ccnet.upscaling import cubic
from ccnet.upscaling.axes import Axes, cut, whole_axes
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.pixels import Residual, enlarge_tile

# Output px of a tile along each axis. Every output of a tile may need weights of its own: with "offset" the native
# kernels make them as they go; with "distance" they are stored, 32 kB an output.
TILE_SIDE = 256
TILE_SIDE_DISTANCE = 64


def tiles_of(whole: Axes, side: int, reach: int) -> Iterator[Axes]:
    """The tiles of a picture, row by row, each at most `side` x `side` outputs."""
    for top in range(0, whole[0].out_size, side):
        vertical = whole[0].tile(range(top, min(top + side, whole[0].out_size)), reach)
        for left in range(0, whole[1].out_size, side):
            yield vertical, whole[1].tile(range(left, min(left + side, whole[1].out_size)), reach)


def tile_side(model: CCUpscaler | None) -> int:
    """Output px of a tile along each axis."""
    return TILE_SIDE_DISTANCE if model is not None and model.last.kernel_input == "distance" else TILE_SIDE


@torch.inference_mode()
def enlarge(
    model: CCUpscaler | None,
    x: Tensor,
    scale: ScalePair,
    out_size: int | tuple[int, int] | None = None,
    *,
    side: int | None = None,
) -> Tensor:
    """Enlarge one picture.

    Args:
        model: None interpolates.
        x: [1, C, H, W], 0 to 1: grey, grey and opacity, RGB, or RGB and opacity.
        scale, out_size: as in `CCUpscaler.forward`.
        side: output px of a tile along each axis.

    Returns:
        [1, C, H', W'], clipped to 0 to 1.

    Raises:
        CcnetError: a scale out of range, or an output size that contradicts it.
    """
    reach = cubic.REACH if model is None else model.reach
    whole = whole_axes((x.shape[2], x.shape[3]), scale, out_size, reach)
    out = x.new_empty(1, x.shape[1], whole[0].out_size, whole[1].out_size)
    for axes in tiles_of(whole, side or tile_side(model), reach):
        out[_at(axes)] = enlarge_tile(cut(x, axes), axes, None if model is None else model.residual, reach)
    return out


@torch.inference_mode()
def enlarge_pixels(
    pixels: NDArray[np.uint8], whole: Axes, residual: Residual | None, reach: int, side: int = TILE_SIDE
) -> Iterator[tuple[Axes, NDArray[np.uint8]]]:
    """The tiles of a picture of 8 bits: floats are made for one tile at a time.

    Args:
        pixels: uint8 [H, W, C], C = 1 to 4.
        whole: both axes, with all outputs.
        residual: None interpolates.
        reach: input px that `residual` needs around an output, at least `cubic.REACH`.
        side: output px of a tile along each axis.

    Yields:
        Each tile's axes, and its pixels uint8 [rows, columns, C].
    """
    picture = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    for axes in tiles_of(whole, side, reach):
        out = enlarge_tile(cut(picture, axes).float() / 255, axes, residual, reach)
        yield axes, (out[0] * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()


def _at(axes: Axes) -> tuple[slice, slice, slice, slice]:
    """Where the outputs of a tile are in the whole."""
    rows, columns = (slice(axis.outputs.start, axis.outputs.stop) for axis in axes)
    return slice(None), slice(None), rows, columns
