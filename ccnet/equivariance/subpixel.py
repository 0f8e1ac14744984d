"""Shifting images by fractions of a pixel.

A picture that goes round (border "circular") has one band-limited continuation, its Fourier series, and is shifted
exactly: the row of pixels times the Dirichlet kernel. Any other picture has to be interpolated near its rim; there
Lanczos' windowed sinc with a = 3 is used, as Karras et al. (2021, EQ-T_frac) do, its weights normalised so that a flat
picture stays flat. Both are separable: one small matrix per axis and sample.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from ccnet.equivariance.protocol import Border
from ccnet.errors import CcnetError

LANCZOS = 3  # px to each side


def shift_subpixel(images: Tensor, dy: Tensor, dx: Tensor, *, border: Border, fill: Tensor, margin: int) -> Tensor:
    """Each image moved down by its dy and right by its dx px, any real numbers.

    Args:
        images: [N, C, H, W].
        dy, dx: float64 [N], input px.
        border: as in `shift_images`.
        fill: [1, C, 1, 1], what lies beyond the rim under border "zero".
        margin: px a side that only border "crop" shows, 0 for the others.

    Returns:
        [N, C, H - 2 margin, W - 2 margin]; a whole shift returns the same values as moving pixels does.
    """
    height, width = images.shape[-2:]
    vertical = axis_matrix(dy, height, border, margin).to(images)
    horizontal = axis_matrix(dx, width, border, margin).to(images)
    ground = fill if border == "zero" else torch.zeros_like(fill)
    return torch.einsum("nik,nckl,njl->ncij", vertical, images - ground, horizontal) + ground


def axis_matrix(shift: Tensor, size: int, border: Border, margin: int = 0) -> Tensor:
    """The matrix of each sample that reads one axis at i - shift.

    Args:
        shift: float64 [N], px.
        size: pixels along the axis, margins included.
        border: what is read beyond the rim.
        margin: px on both sides that are read and not shown.

    Returns:
        float64 [N, size - 2 margin, size]; entry [n, i, k] is the weight of pixel k in output i.

    Raises:
        CcnetError: a crop that reads beyond its margin, or a reflected shift as large as the image.
    """
    position = torch.arange(margin, size - margin, dtype=torch.float64) - shift.to("cpu", torch.float64)[:, None]
    if border == "circular":
        pixel = torch.arange(size, dtype=torch.float64)
        return dirichlet(position[..., None] - pixel, size)
    taps = position.floor()[..., None] + torch.arange(1.0 - LANCZOS, 1.0 + LANCZOS, dtype=torch.float64)
    weights = lanczos(position[..., None] - taps)
    weights = weights / weights.sum(dim=-1, keepdim=True)
    used = weights != 0
    taps = taps.long()
    _require_inside(taps[used], size, border)
    pixels = _reflected(taps, size) if border == "reflect" else taps.clamp(0, size - 1)
    if border == "zero":
        weights = weights * (taps == pixels)
    return torch.zeros(*position.shape, size, dtype=torch.float64).scatter_add_(2, pixels, weights)


def dirichlet(distance: Tensor, size: int) -> Tensor:
    """The kernel whose sums with `size` pixels are their Fourier series; the highest frequency of an even size is a
    cosine, so that real pictures stay real. 1 at 0, exactly 0 at every other whole number, period `size`.
    """
    slow = torch.tan if size % 2 == 0 else torch.sin
    return _snapped(distance, size, lambda d: torch.sin(math.pi * d) / (size * slow(math.pi * d / size)))


def lanczos(distance: Tensor) -> Tensor:
    """sinc(d) sinc(d / a) within a px: 1 at 0, exactly 0 at every other whole number and beyond."""
    inside = _snapped(distance, 0, lambda d: torch.sinc(d) * torch.sinc(d / LANCZOS))
    return torch.where(distance.abs() < LANCZOS, inside, 0.0)


def _snapped(distance: Tensor, period: int, between: Callable[[Tensor], Tensor]) -> Tensor:
    """Exact zeros and ones at whole distances, where sines leave a rest of 1e-17; `between` elsewhere."""
    whole = distance == distance.round()
    at_home = (distance % period == 0) if period else distance == 0
    return torch.where(whole, at_home.double(), between(torch.where(whole, 0.5, distance)))


def _reflected(taps: Tensor, size: int) -> Tensor:
    return ((size - 1) - ((size - 1) - taps.abs()).abs()).clamp(0, size - 1)


def _require_inside(taps: Tensor, size: int, border: Border) -> None:
    """Where the pixels of positive weight may lie."""
    least, most = {"crop": (0, size - 1), "reflect": (1 - size, 2 * size - 2)}.get(border, (None, None))
    if least is None or most is None or (int(taps.min()) >= least and int(taps.max()) <= most):
        return
    if border == "crop":
        raise CcnetError(
            f"a sub-pixel shift reads {LANCZOS} px beyond the moved window, which leaves the {size} px of the image; "
            "give images with a larger margin, or shift less"
        )
    raise CcnetError(f"a reflected image of {size} px can be shifted by at most {size - 1 - LANCZOS} px; shift less")
