"""A picture that is made and not taken, with the statistics of photographs: opaque discs of all sizes that occlude.

The paper does not say which image it trains on. Discs whose radii r have the density r^-3 make pictures with sharp
edges, no preferred size and a spectrum that falls as that of natural images does, and a seed is all that they need.

Source: Lee, Mumford and Huang, "Occlusion models for natural images", 2001.
"""

import math

import torch
from torch import Tensor

SMALLEST = 1.0  # px, radius
LARGEST_SHARE = 1 / 3  # of the picture's side, radius
LEAVES_A_PX = 1  # discs a px of the picture, which cover it about seven times over
SUPERSAMPLING = 2  # along an axis, so that edges are not jagged


def dead_leaves(size: int, seed: int) -> Tensor:
    """A square grey picture [1, 1, size, size] in float64, with mean 0 and variance 1.

    Args:
        size: px along each axis.
        seed: of the discs.
    """
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(LEAVES_A_PX * size * size, 4, generator=generator, dtype=torch.float64)
    canvas = torch.full((size * SUPERSAMPLING, size * SUPERSAMPLING), 0.5, dtype=torch.float64)
    largest = size * LARGEST_SHARE
    for place, down, across, grey in draws.tolist():
        # The inverse of the distribution function of a density r^-3 between the two radii.
        radius = 1 / math.sqrt((1 - place) / SMALLEST**2 + place / largest**2)
        centre = [share * (size + 2 * largest) - largest for share in (down, across)]
        _paint(canvas, [c * SUPERSAMPLING for c in centre], radius * SUPERSAMPLING, grey)
    picture = torch.nn.functional.avg_pool2d(canvas[None, None], SUPERSAMPLING)
    return (picture - picture.mean()) / picture.std()


def _paint(canvas: Tensor, centre: list[float], radius: float, grey: float) -> None:
    """A disc, clipped to the canvas; px centres lie at halves."""
    spans = [(max(0, int(c - radius)), min(len(canvas), int(c + radius) + 1)) for c in centre]
    if any(first >= last for first, last in spans):
        return
    down, across = (torch.arange(*span) + 0.5 - c for span, c in zip(spans, centre, strict=True))
    patch = canvas[spans[0][0] : spans[0][1], spans[1][0] : spans[1][1]]
    patch[down[:, None] ** 2 + across**2 < radius**2] = grey
