"""Are probabilities honest? Of images that are given 80%, are 80% right?

Images are put into bins by confidence, the probability of the predicted class; in each bin the mean confidence is
compared with the share that is right. With few images the gap of a bin is partly chance, and chance never cancels: the
error of even a perfectly calibrated classifier is above 0. `error_by_chance` says by how much.

Source: Guo et al., "On Calibration of Modern Neural Networks", 2017 (arXiv 1706.04599), Sec. 2; Naeini et al., 2015.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.augmentation import generator

CHANCE_REPEATS = 100  # of labels drawn at random
_VALUES_AT_ONCE = 2**20


@dataclass(frozen=True)
class Bins:
    """Images by confidence.

    Attributes:
        index: int64 [N], the bin of each image.
        count: int64 [bins].
        confidence: float64 [bins], mean; 0 in an empty bin.
    """

    index: Tensor
    count: Tensor
    confidence: Tensor

    @classmethod
    def equal_width(cls, confidence: Tensor, bins: int) -> "Bins":
        """Bin b holds the confidences in (b / bins, (b + 1) / bins]."""
        return cls._made(confidence, (confidence * bins).ceil().long().clamp(1, bins) - 1, bins)

    @classmethod
    def equal_mass(cls, confidence: Tensor, bins: int) -> "Bins":
        """Bins of as nearly equal numbers of images as equal confidences, which stay together, allow."""
        cuts = torch.arange(1, bins) * len(confidence) // bins
        edges = confidence.sort().values[cuts]
        return cls._made(confidence, torch.searchsorted(edges, confidence, right=True), bins)

    @classmethod
    def _made(cls, confidence: Tensor, index: Tensor, bins: int) -> "Bins":
        count = torch.bincount(index, minlength=bins)
        sums = torch.bincount(index, weights=confidence, minlength=bins)
        return cls(index, count, sums / count.clamp(min=1))

    def accuracy(self, correct: Tensor) -> Tensor:
        """Share of each bin that is right, float64 [bins]; 0 in an empty bin."""
        sums = torch.bincount(self.index, weights=correct, minlength=len(self.count))
        return sums / self.count.clamp(min=1)

    def error(self, correct: Tensor) -> float:
        """Mean over images of their bin's gap between confidence and accuracy."""
        gaps = (self.accuracy(correct) - self.confidence).abs()
        return float((self.count * gaps).sum() / self.count.sum())


def calibration_error(confidence: Tensor, correct: Tensor, bins: int, *, equal_mass: bool = False) -> float:
    """Expected calibration error (ECE) of the predicted class, 0 to 1.

    Args:
        confidence: float64 [N], in [0, 1].
        correct: float64 [N], 0 or 1.
        bins: number of bins.
        equal_mass: bins of equal numbers of images instead of equal widths.
    """
    made = Bins.equal_mass(confidence, bins) if equal_mass else Bins.equal_width(confidence, bins)
    return made.error(correct)


def error_by_chance(confidence: Tensor, bins: int, *, seed: int, repeats: int = CHANCE_REPEATS) -> tuple[float, float]:
    """The calibration error that chance alone gives, when labels are drawn so that every confidence is true.

    Args:
        confidence: float64 [N].
        bins: of equal width.
        seed: of the labels.
        repeats: how often labels are drawn.

    Returns:
        (mean, 95% quantile): an error below the latter cannot be told from honest probabilities.
    """
    made, dice, count = Bins.equal_width(confidence, bins), generator(seed, "calibrated labels"), len(confidence)
    at_once = max(1, _VALUES_AT_ONCE // count)
    errors = []
    for begun in range(0, repeats, at_once):
        shape = (min(at_once, repeats - begun), count)
        correct = (torch.rand(shape, generator=dice, dtype=torch.float64) < confidence).double()
        right = torch.zeros(shape[0], bins, dtype=torch.float64).index_add_(1, made.index, correct)
        errors.append((right - made.count * made.confidence).abs().sum(dim=1) / count)  # count * gap, bin by bin
    found = torch.cat(errors)
    return float(found.mean()), float(found.quantile(0.95))
