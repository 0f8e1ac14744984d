"""The types of a kernel and of its points, shared by the layer, the Internal-Net and every backend."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

# What a kernel's points are: the distance g - m to one neighbour, or the sub-pixel offset of g in its window.
KernelInput = Literal["distance", "offset"]

# points [M, 2] in input px -> [M, C_out, C_in] ("distance") or [M, C_out, C_in, K_h, K_w] ("offset")
Kernel = Callable[[Tensor], Tensor]


def points_dtype(x: Tensor) -> torch.dtype:
    """The dtype of a kernel's points: that of the input, but at least float32; half precision merges close phases."""
    return torch.promote_types(x.dtype, torch.float32)
