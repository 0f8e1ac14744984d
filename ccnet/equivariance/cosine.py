"""Step (iii) of Table 1's protocol: the cosine between two aligned maps, border pixels cut off, never 0 / 0."""

import torch
from torch import Tensor

from ccnet.equivariance.protocol import Cosine
from ccnet.errors import CcnetError


def cosine_after_cut(first: Tensor, second: Tensor, *, cut: int = 2, per: Cosine = "flatten") -> Tensor:
    """Cosine similarity of two feature maps without their rim.

    Both maps zero: there is nothing to compare, the value is NaN (the caller skips and counts it). One map zero: the
    network answers one image and not the other, which is no similarity at all: 0.

    Args:
        first, second: [N, C, h, w].
        cut: px removed from each of the four sides.
        per: "flatten": one cosine of the C * h' * w' vectors; "position": the mean, over the positions where not both
            are zero, of the cosines of the C-vectors.

    Returns:
        float64 [N], in [-1, 1] or NaN.

    Raises:
        CcnetError: the cut leaves nothing of the map.
    """
    height, width = first.shape[-2:]
    if 2 * cut >= min(height, width):
        raise CcnetError(
            f"cutting {cut} px from each side leaves nothing of a {height} x {width} map; use a smaller cut "
            f"(at most {(min(height, width) - 1) // 2}) or larger images"
        )
    rows, columns = slice(cut, height - cut), slice(cut, width - cut)
    a = first[:, :, rows, columns].double().flatten(2)  # [N, C, positions]
    b = second[:, :, rows, columns].double().flatten(2)
    if per == "flatten":
        return _cosine(a.flatten(1), b.flatten(1))
    return torch.nanmean(_cosine(a.movedim(1, 2), b.movedim(1, 2)), dim=1)


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Cosine along the last axis: NaN where both vectors are zero, 0 where one is."""
    unit_a, unit_b = _unit(a), _unit(b)
    both_are_zero = (unit_a == 0).all(dim=-1) & (unit_b == 0).all(dim=-1)
    return (unit_a * unit_b).sum(dim=-1).clamp(-1, 1).masked_fill(both_are_zero, torch.nan)


def _unit(vector: Tensor) -> Tensor:
    """Vectors of length 1; a zero vector stays zero. Scaled by the largest entry first: no square can underflow."""
    largest = vector.abs().amax(dim=-1, keepdim=True)
    scaled = vector / torch.where(largest == 0, 1.0, largest)
    return scaled / torch.where(largest == 0, 1.0, scaled.norm(dim=-1, keepdim=True))
