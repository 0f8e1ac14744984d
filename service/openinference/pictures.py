"""The tensor `images` in its three forms -> what the network takes.

UINT8 [N, H, W, C] or [N, C, H, W]   pixels of any size, C = 1 or 3; prepared as files are
FP32  [N, C, h, w] or [N, h, w, C]   exactly the network's input, prepared already as `checkpoint.preprocess` does it
BYTES [N] or [N, 1]                  files: PNG, JPEG or WebP
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from service.errors import Malformed, TooLarge
from service.openinference.options import Layout
from service.openinference.tensors import Declared
from service.served import ServedModel

PREPARED_AT_ONCE = 2**20  # values of pictures that are prepared in one call of a worker thread


def check_form(tensor: Declared, layout: Layout | None, model: ServedModel, max_pixels: int) -> Layout:
    """The order of the axes, once datatype and shape fit each other and the model.

    Args:
        tensor: What is said of the input.
        layout: As asked for; None leaves it to the shape.
        model: Whose input it becomes.
        max_pixels: Most pixels of one picture.

    Raises:
        Malformed: A shape that is none of the three forms, or could be two of them.
        TooLarge: Pictures of more pixels than allowed.
    """
    shape = tensor.shape
    if tensor.datatype == "BYTES":
        if shape[1:] not in ((), (1,)):
            raise Malformed(f"BYTES of shape {list(shape)} were given; allowed are [N] and [N, 1], a file an element")
        return "NHWC"
    possible: list[Layout] = [each for each in _LAYOUTS if len(shape) == 4 and _fits(tensor, each, model)]
    if layout is not None:
        possible = [each for each in possible if each == layout]
    if not possible:
        raise Malformed(
            f"{tensor.datatype} of shape {list(shape)} was given"
            + (f" with layout {layout}" if layout else "")
            + f"; allowed are {_allowed(tensor, model)}"
        )
    if len(possible) == 2:
        raise Malformed(
            f'shape {list(shape)} could be [N, H, W, C] or [N, C, H, W]; add the parameter layout: "NHWC" or "NCHW"'
        )
    height, width = shape[1:3] if possible[0] == "NHWC" else shape[2:4]
    if height * width > max_pixels:
        raise TooLarge(f"pictures of {width}x{height} px were given; at most {max_pixels:,} pixels are allowed")
    return possible[0]


_LAYOUTS: tuple[Layout, ...] = ("NHWC", "NCHW")


def _fits(tensor: Declared, layout: Layout, model: ServedModel) -> bool:
    sizes = tensor.shape[1:]
    if tensor.datatype == "UINT8":
        return sizes[2 if layout == "NHWC" else 0] in (1, 3)
    return sizes == ((*model.in_size, model.channels) if layout == "NHWC" else (model.channels, *model.in_size))


def _allowed(tensor: Declared, model: ServedModel) -> str:
    if tensor.datatype == "UINT8":
        return "[N, H, W, C] and [N, C, H, W] with C = 1 or 3"
    height, width = model.in_size
    channels = model.channels
    return (
        f"[N, {channels}, {height}, {width}] and [N, {height}, {width}, {channels}], the network's input; send "
        "pixels of any size as UINT8"
    )


def prepared(data: NDArray[np.float32], layout: Layout) -> Tensor:
    """Prepared images as the network takes them: float32 [N, C, h, w].

    Raises:
        Malformed: A value is NaN or infinite.
    """
    if not np.isfinite(data).all():
        raise Malformed("a value of the images is not finite; send finite numbers")
    images = data.transpose(0, 3, 1, 2) if layout == "NHWC" else data
    return torch.from_numpy(np.array(images, dtype=np.float32, order="C"))


def groups(data: NDArray[np.uint8], layout: Layout) -> list[NDArray[np.uint8]]:
    """Pixels [n, H, W, C] in parts of about `PREPARED_AT_ONCE` values, at least one picture each."""
    pixels = data.transpose(0, 2, 3, 1) if layout == "NCHW" else data
    step = max(1, PREPARED_AT_ONCE // (data.size // len(data)))
    return [pixels[start : start + step] for start in range(0, len(pixels), step)]
