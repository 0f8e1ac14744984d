"""Kernels whose formula is known, which a CC layer is taught to imitate, and resizing by them without a CC layer.

Bicubic is Keys' cubic convolution with a = -1/2, as in MATLAB and Pillow; OpenCV and torch take a = -3/4, another
kernel. No antialiasing: a CC layer does not widen its kernel when it makes a map smaller, so that what it can imitate
at every scale is what one kernel does at every scale.
"""

import math

import torch
from torch import Tensor

from ccnet.grid import Scale, ScalePair, exact_scale, exact_scales, projected_grid
from ccnet.types import Kernel

KEYS_A = -0.5  # Keys, "Cubic convolution interpolation for digital image processing", 1981: the third-order one
BICUBIC_SIZE = 4  # px, its support along an axis
GAUSSIAN_SIGMAS = (0.8, 0.4)  # px, along its long and its short axis; the paper gives no numbers
GAUSSIAN_SIZE = 5  # px, 3.9 standard deviations to each side along an axis of the picture


def keys_cubic(distance: Tensor, a: float = KEYS_A) -> Tensor:
    """Keys' cubic at distances in px, any shape: 1 at 0, 0 at every other whole number and from 2 on.

    Source: Keys, 1981, Eq. 15 (a = -1/2).
    """
    t = distance.abs()
    near = ((a + 2) * t - (a + 3)) * t * t + 1
    far = ((a * t - 5 * a) * t + 8 * a) * t - 4 * a
    return torch.where(t <= 1, near, torch.where(t < 2, far, torch.zeros_like(t)))


def bicubic(points: Tensor) -> Tensor:
    """Keys' cubic along both axes; points [M, 2] -> weights [M, 1, 1]."""
    return keys_cubic(points).prod(dim=1)[:, None, None]


def widened_bicubic(scale: tuple[float, float]) -> Kernel:
    """What antialiased resizing by `scale` (each at most 1) uses: the bicubic kernel, 1/scale times as wide and as low.

    Another kernel for every scale: with the support of 4 / scale px along an axis.
    """
    stretch = torch.tensor(scale, dtype=torch.float64)
    return lambda points: bicubic(points * stretch.to(points)) * stretch.prod().to(points)


def rotated_gaussian(points: Tensor) -> Tensor:
    """A normal density of `GAUSSIAN_SIGMAS`, its long axis at 45 degrees (down to the right); [M, 2] -> [M, 1, 1]."""
    long = (points[:, 0] + points[:, 1]) / math.sqrt(2)
    short = (points[:, 0] - points[:, 1]) / math.sqrt(2)
    exponent = (long / GAUSSIAN_SIGMAS[0]).square() + (short / GAUSSIAN_SIGMAS[1]).square()
    return (torch.exp(-exponent / 2) / (2 * math.pi * math.prod(GAUSSIAN_SIGMAS)))[:, None, None]


def resize_bicubic(image: Tensor, scale: ScalePair) -> Tensor:
    """Bicubic resizing of [N, C, H, W] to the ceiling of its scaled size, with zeros outside the picture.

    One matrix for the rows and one for the columns, since the kernel is a product: no code in common with the layers
    that are taught by it but Eq. 2.
    """
    rows, columns = (
        resize_matrix(size, axis_scale) for size, axis_scale in zip(image.shape[2:], exact_scales(scale), strict=True)
    )
    return rows.to(image) @ image @ columns.to(image).mT


def resize_matrix(in_size: int, scale: Scale) -> Tensor:
    """[out, in]: how much of every input px is in every output px of an axis, in float64."""
    grid = projected_grid(in_size, math.ceil(exact_scale(scale) * in_size), scale)
    positions = torch.tensor([float(g) for g in grid], dtype=torch.float64)
    return keys_cubic(positions[:, None] - torch.arange(in_size))
