"""Shifting images by whole pixels (by fractions: `subpixel`), and feature maps back by fractions of one.

Sign, once for all: a shift (dy, dx) moves the content *down* by dy and to the *right* by dx,

    shifted[i, j] = image[i - dy, j - dx].

A network of total scale s that is equivariant moves its map by (s dy, s dx), and so `shift_map_back` reads

    aligned[i, j] = map(i + s dy, j + s dx),

where map(.) between pixels is Keys' cubic convolution, or its Fourier series. Both are separable: one small matrix per
axis and sample.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ccnet.equivariance.protocol import Border, Outside, Undo, require_whole
from ccnet.equivariance.subpixel import axis_matrix, shift_subpixel
from ccnet.errors import CcnetError


def draw_shifts(pairs: int, max_shift: int, *, seed: int, include_zero: bool = True) -> Tensor:
    """Random whole-pixel shifts, uniform on the square [-max_shift, max_shift]^2, both axes drawn jointly.

    Args:
        pairs: how many shifts.
        max_shift: r in input px, at least 0; both -r and +r can occur.
        seed: the same seed gives the same shifts; a longer draw begins with the shorter one.
        include_zero: whether (0, 0) may occur.

    Returns:
        int64 [pairs, 2], (dy, dx).

    Raises:
        CcnetError: no shift is left to draw (max_shift 0 without zero).
    """
    require_whole("max_shift", max_shift, least=0)
    if max_shift == 0 and not include_zero:
        raise CcnetError(
            "max_shift 0 without the zero shift leaves nothing to draw; use max_shift >= 1 or include_zero"
        )
    side = 2 * max_shift + 1
    cells = side * side
    # Cells of the square are numbered row by row; (0, 0) is the middle one and is stepped over if it must not occur.
    generator = torch.Generator().manual_seed(seed)
    cell = torch.randint(cells if include_zero else cells - 1, (pairs,), generator=generator)
    if not include_zero:
        cell = cell + (cell >= cells // 2)
    return torch.stack([cell // side, cell % side], dim=1) - max_shift


def shift_images(
    images: Tensor,
    dy: Tensor,
    dx: Tensor,
    *,
    border: Border = "zero",
    fill: float | Sequence[float] = 0.0,
    margin: int = 0,
) -> Tensor:
    """Each image moved down by its dy and right by its dx pixels.

    Args:
        images: [N, C, H, W].
        dy, dx: [N], input px; numbers that are not whole interpolate (`subpixel`).
        border: what enters, for 1 px to the right: "zero" abcd -> zabc with z = `fill`, "circular" abcd -> dabc,
            "reflect" abcd -> babc, "crop" [a]bcd[e] -> abc with a margin of 1.
        fill: z, one number or one a channel, in the units of `images`.
        margin: px on each side that only border "crop" shows.

    Returns:
        [N, C, H - 2 margin, W - 2 margin].

    Raises:
        CcnetError: `fill` has another number of values than the images channels, or a shift that reaches beyond a
            reflected image or a crop's margin.
    """
    if dy.is_floating_point() or dx.is_floating_point():
        if bool((dy != dy.round()).any()) or bool((dx != dx.round()).any()):
            values = _fill_of_channels(fill, images).expand(1, images.shape[1], 1, 1)
            return shift_subpixel(images, dy, dx, border=border, fill=values, margin=margin)
        dy, dx = dy.long(), dx.long()
    if margin:
        return _crop(images, dy, dx, margin)
    height, width = images.shape[-2:]
    rows = torch.arange(height, device=images.device) - dy.to(images.device)[:, None]  # [N, H], source row
    columns = torch.arange(width, device=images.device) - dx.to(images.device)[:, None]  # [N, W], source column
    row_index, column_index = _source_index(rows, height, border), _source_index(columns, width, border)
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    moved = images.movedim(1, 3)[sample, row_index[:, :, None], column_index[:, None, :]].movedim(3, 1)
    if border != "zero":
        return moved
    inside = (rows == row_index)[:, None, :, None] & (columns == column_index)[:, None, None, :]
    return torch.where(inside, moved, _fill_of_channels(fill, images))


def shift_map_back(
    features: Tensor, dy: Tensor, dx: Tensor, *, a: float = -0.5, outside: Outside = "edge", undo: Undo = "cubic"
) -> Tensor:
    """Undo a shift of feature maps: aligned[i, j] = map(i + dy, j + dx).

    Args:
        features: [N, C, h, w].
        dy, dx: [N], shift of each map in *map* px (input px times the total scale), any real number.
        a: Keys' parameter.
        outside: what is read beyond the rim.
        undo: "cubic", Keys' convolution, or "ideal", the Fourier series of a map that goes round.

    Returns:
        [N, C, h, w], of the dtype of `features`; a shift of 0 returns the same values.

    Source: arXiv 2006.11120, Sec. 6 (ii); Keys, "Cubic convolution interpolation for digital image processing", 1981.
    """
    height, width = features.shape[-2:]
    if undo == "ideal":
        vertical, horizontal = axis_matrix(-dy, height, "circular"), axis_matrix(-dx, width, "circular")
    else:
        vertical = cubic_matrix(dy, height, a=a, outside=outside)
        horizontal = cubic_matrix(dx, width, a=a, outside=outside)
    vertical, horizontal = vertical.to(features), horizontal.to(features)
    return torch.einsum("nik,nckl,njl->ncij", vertical, features, horizontal)


def cubic_matrix(shift: Tensor, size: int, *, a: float, outside: Outside) -> Tensor:
    """The matrix of each sample that reads one axis at i + shift.

    Args:
        shift: [N], px.
        size: pixels along the axis.
        a: Keys' parameter.
        outside: "edge" gives the weight of a missing pixel to the rim, "circular" to the other side, "zero" drops it.

    Returns:
        float64 [N, size, size]; entry [n, i, k] is the weight of pixel k in output i.
    """
    position = torch.arange(size, dtype=torch.float64) + shift.to("cpu", torch.float64)[:, None]  # [N, size]
    taps = position.floor()[..., None] + torch.arange(-1.0, 3.0, dtype=torch.float64)  # [N, size, 4], four neighbours
    weights = _keys(position[..., None] - taps, a)
    taps = taps.long()
    if outside == "circular":
        pixels = taps % size
    else:
        pixels = taps.clamp(0, size - 1)
        if outside == "zero":
            weights = weights * (taps == pixels)
    return torch.zeros(len(shift), size, size, dtype=torch.float64).scatter_add_(2, pixels, weights)


def _keys(distance: Tensor, a: float) -> Tensor:
    """Keys' cubic kernel, support 2: 1 at 0, exactly 0 at every other whole number."""
    d = distance.abs()
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = a * (d - 1) * (d - 2) * (d - 2)  # a d^3 - 5a d^2 + 8a d - 4a, factored: an exact 0 at 1 and 2 for any a
    return torch.where(d < 1, near, torch.where(d < 2, far, 0.0))


def _crop(images: Tensor, dy: Tensor, dx: Tensor, margin: int) -> Tensor:
    """The window that a shift moves over an image that is larger by `margin` on each side."""
    for shift in (dy, dx):
        if int(shift.abs().max()) > margin:
            raise CcnetError(f"a shift of {int(shift.abs().max())} px leaves a margin of {margin} px; shift less")
    height, width = images.shape[-2:]
    rows = torch.arange(margin, height - margin, device=images.device) - dy.to(images.device)[:, None]
    columns = torch.arange(margin, width - margin, device=images.device) - dx.to(images.device)[:, None]
    sample = torch.arange(len(images), device=images.device)[:, None, None]
    return images.movedim(1, 3)[sample, rows[:, :, None], columns[:, None, :]].movedim(3, 1)


def _source_index(source: Tensor, size: int, border: Border) -> Tensor:
    """Where a wanted row (or column) is really read; under "zero" the caller masks what had to be clamped."""
    if border == "circular":
        return source % size
    if border == "zero":
        return source.clamp(0, size - 1)
    if bool((source <= -size).any()) or bool((source >= 2 * size - 1).any()):
        raise CcnetError(f"a reflected image of {size} px can be shifted by at most {size - 1} px; shift less")
    return (size - 1) - ((size - 1) - source.abs()).abs()


def _fill_of_channels(fill: float | Sequence[float], images: Tensor) -> Tensor:
    values = torch.as_tensor(fill, dtype=images.dtype, device=images.device).reshape(-1)
    channels = images.shape[1]
    if len(values) not in (1, channels):
        raise CcnetError(f"fill is one number or one a channel ({channels}); got {len(values)} numbers")
    return values[None, :, None, None]
