"""Networks of which is known how far their maps move with the image, and what a perfect score looks like."""

from fractions import Fraction

import torch
from torch import Tensor, nn

from ccnet.equivariance import Choices, ShiftSimilarity
from ccnet.sequences import ScaleSequence


def circular(total_scale: Fraction | int = 1) -> Choices:
    """What makes a circular network's shift undoable to the last bit: wrap everywhere, cut nothing."""
    return {"border": "circular", "cut": 0, "total_scale": total_scale}


class CircularNet(nn.Module):
    """3x3 circular convolutions; stride 1 is exactly equivariant, stride 2 to even shifts only."""

    def __init__(self, stride: int = 1, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.first = nn.Conv2d(2, 6, 3, padding=1, padding_mode="circular", dtype=dtype)
        self.last = nn.Conv2d(6, 4, 3, stride=stride, padding=1, padding_mode="circular", dtype=dtype)

    def features(self, x: Tensor) -> Tensor:
        return self.last(self.first(x).relu()).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean(dim=(2, 3))


class SequenceNet(CircularNet):
    """A stand-in whose first scale is added to the images: each sequence gives another map."""

    def features(self, x: Tensor, sequence: ScaleSequence) -> Tensor:  # type: ignore[override]
        return super().features(x + float(sequence.vertical[0]))

    def forward(self, x: Tensor, sequence: ScaleSequence) -> Tensor:  # type: ignore[override]
        return self.features(x, sequence).mean(dim=(2, 3))


def sequences_of(*scales: str) -> list[ScaleSequence]:
    return [ScaleSequence.parse(scale) for scale in scales]


def images(n: int = 5, size: int = 12, dtype: torch.dtype = torch.float64, seed: int = 1) -> Tensor:
    return torch.randn(n, 2, size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def assert_exact(result: ShiftSimilarity, tolerance: float = 1e-12) -> None:
    """Every image's map moved along perfectly."""
    assert result.skipped == 0
    for value in (result.cosine_mean, *result.per_image, *result.ci95):
        assert value is not None
        assert abs(value - 1) <= tolerance, f"similarity {value}, want 1"
    assert result.cosine_std <= tolerance
    assert result.consistency in (None, 1.0)
