"""What a shift probe answers: one row of Table 1, or the similarity at every shift."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.equivariance.measure import Measurements, Plan
from ccnet.errors import CcnetError

BOOTSTRAP_RESAMPLES = 1000


@dataclass(frozen=True)
class ShiftSimilarity:
    """One row of Table 1.

    Attributes:
        max_shift: r, input px.
        cosine_mean: mean cosine over the pairs that were not skipped.
        cosine_std: standard deviation over those pairs (divided by their number; 0 for one pair).
        ci95: percentile bootstrap interval of `cosine_mean`, images resampled (one image: no width).
        consistency: share of pairs whose two images get the same label; None for a subject without labels.
        samples: pairs measured, skipped ones included.
        skipped: pairs without a cosine, because both maps are zero.
        per_image: mean cosine of each image that was used, None where all its pairs were skipped.
        sequence_means: mean cosine under each scale sequence, in the order of `protocol["sequences"]`, None where all
            was skipped; empty for a model without sequences and for an ensemble. Under members "split" they differ
            by the images dealt to them as well.
        sequence_std: standard deviation of `sequence_means`; None when there is none.
        protocol: every choice behind the numbers, as JSON values.

    Source: arXiv 2006.11120, Table 1.
    """

    max_shift: int
    cosine_mean: float
    cosine_std: float
    ci95: tuple[float, float]
    consistency: float | None
    samples: int
    skipped: int
    per_image: tuple[float | None, ...]
    sequence_means: tuple[float | None, ...]
    sequence_std: float | None
    protocol: dict[str, object]

    def row(self) -> dict[str, object]:
        """The numbers of the row as JSON values, without the per-image ones and the protocol."""
        return {
            "max_shift": self.max_shift,
            "cosine_mean": self.cosine_mean,
            "cosine_std": self.cosine_std,
            "ci95": list(self.ci95),
            "consistency": self.consistency,
            "samples": self.samples,
            "skipped": self.skipped,
            "sequence_std": self.sequence_std,
        }


@dataclass(frozen=True)
class SimilarityMap:
    """Mean cosine at every shift of [-r, r]^2.

    Attributes:
        max_shift: r, input px.
        cosine: 2r + 1 rows of 2r + 1 values; row r + dy, column r + dx holds the shift (dy, dx); None where every
            pair was skipped. The middle is the shift (0, 0) and is 1.
        samples: pairs measured.
        skipped: pairs without a cosine, because both maps are zero.
        protocol: every choice behind the numbers, as JSON values.
    """

    max_shift: int
    cosine: tuple[tuple[float | None, ...], ...]
    samples: int
    skipped: int
    protocol: dict[str, object]


def pair_cosines(plan: Plan, measured: Measurements) -> Tensor:
    """Mean cosine of each pair over its measurements, float64 [pairs]; NaN where there is none.

    Raises:
        CcnetError: no pair has any.
    """
    cosine = mean_by(plan.pair, measured.cosine, int(plan.pair.max()) + 1)
    if bool(cosine.isnan().all()):
        raise CcnetError(
            "every map inside the cut is zero, so there is nothing to compare; use images that the model answers to, "
            "a smaller cut, or check that its last layer is alive"
        )
    return cosine


def mean_by(index: Tensor, values: Tensor, size: int) -> Tensor:
    """Mean of the values of each index 0 .. size - 1, NaN left out; NaN where nothing is left. Float64 [size]."""
    present = ~values.isnan()
    sums = torch.zeros(size, dtype=torch.float64).index_add_(0, index[present], values[present])
    counts = torch.zeros(size, dtype=torch.float64).index_add_(0, index[present], torch.ones_like(values[present]))
    return sums / counts  # 0 / 0 is the NaN that says so


def bootstrap_interval(image: Tensor, values: Tensor, *, seed: int) -> tuple[float, float]:
    """95% percentile interval of the mean of `values` when images, not pairs, are drawn anew.

    Args:
        image: int64 [pairs], image of each value.
        values: float64 [pairs], no NaN.
        seed: of the resampling.
    """
    _, owner = torch.unique(image, return_inverse=True)
    images = int(owner.max()) + 1
    sums = torch.zeros(images, dtype=torch.float64).index_add_(0, owner, values)
    return bootstrap_ratio(sums, torch.bincount(owner, minlength=images).double(), seed=seed)


def bootstrap_ratio(numerator: Tensor, denominator: Tensor, *, seed: int) -> tuple[float, float]:
    """95% percentile interval of sum(numerator) / sum(denominator) when images are drawn anew.

    Args:
        numerator, denominator: float64 [images], not negative; images that hold nothing are left out.
        seed: of the resampling.
    """
    present = (numerator != 0) | (denominator != 0)
    numerator, denominator = numerator[present], denominator[present]
    images = len(numerator)
    generator = torch.Generator().manual_seed(seed)
    ratios = []
    for _ in range(BOOTSTRAP_RESAMPLES):
        drawn = torch.randint(images, (images,), generator=generator)
        ratios.append(numerator[drawn].sum() / denominator[drawn].sum())
    low, high = torch.quantile(torch.stack(ratios), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def none_for_nan(values: Tensor) -> tuple[float | None, ...]:
    """The values as Python floats, None for NaN (JSON has none)."""
    return tuple(None if value != value else value for value in values.tolist())
