"""Colour and transparency: what of a picture the network sees, and how the rest follows.

The network enlarges luma, Y of BT.601, and chroma is interpolated: the eye sees little detail in chroma, JPEG has kept
little of it, and one pass replaces three. In RGB this needs no conversion. Bicubic interpolation is linear and its
weights sum to 1, so it does the same to Y, Cb and Cr as to red, green and blue; and to add r to Y with Cb and Cr as
they are is to add r to red, green and blue. Hence

    enlarged RGB = bicubic(RGB) + residual(luma of RGB).

Transparent pixels have colours that nobody sees. Colours are multiplied by the opacity before anything is enlarged and
divided by it afterwards, so that no invisible colour bleeds into the rim of what is visible. The network would sharpen
that rim as if it were drawn in the picture; where opacity varies within its sight, the residual is faded out.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from ccnet.upscaling.axes import Axes
from ccnet.upscaling.cubic import REACH, bicubic_tile

LUMA = (0.299, 0.587, 0.114)
LEAST_OPACITY = 1 / 510  # half of what 8 bits tell from nothing: below it there is no colour

# From the luma of a tile's inputs [1, 1, rows, columns] to what is added to the bicubic tile [1, 1, rows, columns].
Residual = Callable[[Tensor, Axes], Tensor]


def luma_of(x: Tensor) -> Tensor:
    """[N, 1 or 3, H, W] -> [N, 1, H, W]."""
    if x.shape[1] == 1:
        return x
    return (x * x.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)


def premultiplied(x: Tensor) -> Tensor:
    """Colours times opacity where there is one (2 or 4 channels, opacity last); others as they are."""
    return x if x.shape[1] in (1, 3) else torch.cat([x[:, :-1] * x[:, -1:], x[:, -1:]], dim=1)


def visible_luma(x: Tensor) -> Tensor:
    """What the network sees of a picture [N, 1 to 4, H, W]: luma, of colours times opacity."""
    x = premultiplied(x)
    return luma_of(x[:, : 1 if x.shape[1] < 3 else 3])


def enlarge_tile(x: Tensor, axes: Axes, residual: Residual | None, reach: int = REACH) -> Tensor:
    """Enlarge the inputs of `axes`.

    Args:
        x: [1, C, rows, columns], 0 to 1: grey, grey and opacity, RGB, or RGB and opacity.
        axes: (vertical, horizontal).
        residual: None is bicubic interpolation.
        reach: input px around an output that `axes` have and the residual sees.

    Returns:
        [1, C, rows, columns] of their outputs, clipped to 0 to 1.
    """
    transparent = x.shape[1] in (2, 4)
    out = bicubic_tile(premultiplied(x), axes)
    colours = out[:, :-1] if transparent else out
    if residual is not None:
        added = residual(visible_luma(x), axes)
        colours = colours + (added * _even_opacity(x[:, -1:], axes, reach) if transparent else added)
    if not transparent:
        return colours.clamp(0, 1)
    opacity = out[:, -1:].clamp(0, 1)
    seen = torch.minimum(colours.clamp(min=0), opacity) / opacity.clamp(min=LEAST_OPACITY)
    return torch.cat([torch.where(opacity < LEAST_OPACITY, torch.zeros_like(seen), seen), opacity], dim=1)


def _even_opacity(opacity: Tensor, axes: Axes, reach: int) -> Tensor:
    """1 where opacity is the same everywhere around an output, down to 0 where something meets nothing."""
    margin = reach - REACH
    side = 2 * margin + 1
    highest, lowest = F.max_pool2d(opacity, side, stride=1), -F.max_pool2d(-opacity, side, stride=1)
    return bicubic_tile(
        lowest / highest.clamp(min=LEAST_OPACITY), (axes[0].narrowed(margin), axes[1].narrowed(margin))
    ).clamp(0, 1)
