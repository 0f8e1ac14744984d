"""How sure a mean or a difference is: where it may lie for endlessly many images, sequences and training runs.

    images      percentile bootstrap: they are drawn anew, with replacement. A difference is *paired*: both sides are
                measured on the same images, which are drawn together. What is common to both, such as hard images,
                cancels, and the interval is that of the difference itself
    clusters    images that saw the same scale sequence are no independent witnesses of what sequences do: they are
                drawn together, as many clusters as there are
    runs        two or three training runs are too few to be drawn anew: their own spread is all that tells how far
                others lie, and the bootstrap of so few hardly leaves their range. The error of a side's mean over R
                runs is s / sqrt(R) times Student's t with R - 1 degrees of freedom, drawn beside the images. The
                errors of two sides add up to the interval of Behrens and Fisher (Welch's is its approximation).
                What images do to single runs counts in both, so that it is rather too wide than too narrow

Of a single training run an interval says how sure the figure of this very network is, and nothing of another training.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.errors import CcnetError

RESAMPLES = 1000
RUN_DRAWS = 20  # of the runs' error for each resample of the images: tails of t are long
_PART = 50  # resamples at once: 10,000 images x 50 indices are 4 MB


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        mean: as measured.
        low, high: 2.5% and 97.5% quantiles of what it may be.
    """

    mean: float
    low: float
    high: float

    @property
    def above_zero(self) -> bool | None:
        """True or False where the whole interval lies on one side of 0, else None: it cannot be told."""
        return True if self.low > 0 else False if self.high < 0 else None

    def shown(self, factor: float = 1.0, digits: int = 3, *, signed: bool = True) -> str:
        """For people: "+0.020 (+0.011 to +0.029)"."""
        sign = "+" if signed else ""
        mean, low, high = (
            format(factor * value + 0.0, f"{sign}.{digits}f") for value in (self.mean, self.low, self.high)
        )
        return f"{mean} ({low} to {high})"


def mean_interval(values: Tensor, *, seed: int, clusters: Tensor | None = None) -> Estimate:
    """Mean of values [runs, N], otherwise as `paired_interval`."""
    return paired_interval(values, torch.zeros(1, values.shape[1]), seed=seed, clusters=clusters)


def paired_interval(first: Tensor, second: Tensor, *, seed: int, clusters: Tensor | None = None) -> Estimate:
    """Mean of `first` minus mean of `second`.

    Args:
        first, second: [runs, N], a value for each training run and image; the runs of the two sides are not paired and
            may differ in number. Images with a NaN on either side are left out.
        seed: of the resampling.
        clusters: int64 [N], from 0, the scale sequence that each image saw; None where every image stands for itself.

    Raises:
        CcnetError: no image has a value on both sides.
    """
    first, second = first.double(), second.double()
    kept = ~(first.isnan().any(dim=0) | second.isnan().any(dim=0))
    if not kept.any():
        raise CcnetError("there is no image to compare on: each lacks a value on one side")
    generator = torch.Generator().manual_seed(seed)
    difference = (first.mean(dim=0) - second.mean(dim=0))[kept]
    drawn = _resampled(difference, None if clusters is None else clusters[kept], generator)
    errors = [_error_of_runs(side[:, kept].mean(dim=1), generator) for side in (first, second) if len(side) > 1]
    if errors:
        drawn = (drawn[:, None] + torch.stack(errors).sum(dim=0)).flatten()
    low, high = torch.quantile(drawn, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(difference.mean()), low, high)


def _resampled(values: Tensor, clusters: Tensor | None, generator: torch.Generator) -> Tensor:
    """Means of values [N] over clusters drawn anew, each with all of its images. Float64 [RESAMPLES]."""
    sums, counts = values, torch.ones_like(values)
    if clusters is not None:
        _, place = clusters.unique(return_inverse=True)
        counts = torch.bincount(place).double()
        sums = torch.bincount(place, weights=values)
    drawn = []
    for _ in range(RESAMPLES // _PART):
        chosen = torch.randint(len(sums), (_PART, len(sums)), generator=generator)
        drawn.append(sums[chosen].sum(dim=1) / counts[chosen].sum(dim=1))
    return torch.cat(drawn)


def _error_of_runs(means: Tensor, generator: torch.Generator) -> Tensor:
    """How far the mean of these runs' means [R] may lie from that of endlessly many. Float64 [RESAMPLES, RUN_DRAWS].

    Student's t is a normal variable over the root of the mean square of R - 1 others.
    """
    runs, shape = len(means), (RESAMPLES, RUN_DRAWS)
    normal = torch.randn(runs, *shape, generator=generator, dtype=torch.float64)
    student = normal[0] / normal[1:].square().mean(dim=0).sqrt()
    return means.std() / math.sqrt(runs) * student
