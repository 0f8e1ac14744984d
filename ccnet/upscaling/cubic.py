"""Bicubic interpolation as what it is: a CC layer whose kernel is known.

Keys' cubic convolution with a = -1/2, the value for which interpolation is exact for quadratic functions, and the one
that Pillow uses; torch's `interpolate` takes -3/4 unless it antialiases. Nothing is antialiased here: pictures are
enlarged, and then there is nothing to filter.

Source: R. G. Keys, "Cubic convolution interpolation for digital image processing", 1981.
"""

import torch
from torch import Tensor

from ccnet.grid import ScalePair
from ccnet.upscaling.axes import Axes, apply_kernel, cut, whole_axes

KEYS_A = -0.5
TAPS = 4  # neighbours along an axis: the kernel is 0 from a distance of 2 px on
REACH = 2  # input px on either side of where an output looks


def keys_kernel(points: Tensor) -> Tensor:
    """K(d) = k(d_v) k(d_h), points [M, 2] -> [M, 1, 1], for `cc_conv2d` with `kernel_input="distance"`."""
    return _cubic(points).prod(dim=1).view(-1, 1, 1)


def _cubic(distance: Tensor) -> Tensor:
    d = distance.abs()
    near = (KEYS_A + 2) * d**3 - (KEYS_A + 3) * d**2 + 1
    far = KEYS_A * (d**3 - 5 * d**2 + 8 * d - 4)
    return torch.where(d <= 1, near, torch.where(d < 2, far, torch.zeros_like(d)))


def bicubic(x: Tensor, scale: ScalePair = 1, out_size: int | tuple[int, int] | None = None) -> Tensor:
    """Enlarge pictures [N, C, H, W] -> [N, C, H', W']; edges are repeated.

    Args:
        x: floating point; values are not clipped, and those of the result may leave the range of x's.
        scale: 1 to 4, a number or a pair (vertical, horizontal).
        out_size: a number, a pair or None for ceil(scale * size).

    Raises:
        CcnetError: a scale out of range, or an output size that contradicts it.
    """
    axes = whole_axes((x.shape[2], x.shape[3]), scale, out_size, REACH)
    return bicubic_tile(cut(x, axes), axes)


def bicubic_tile(x: Tensor, axes: Axes) -> Tensor:
    """The same for x that holds the inputs of `axes` and nothing else."""
    alone = x.flatten(0, 1)[:, None]  # every channel is interpolated by itself
    out = apply_kernel(alone, keys_kernel, (TAPS, TAPS), axes)
    return out.reshape(*x.shape[:2], *out.shape[2:])
