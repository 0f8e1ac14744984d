"""How sure a mean or a difference is: percentile bootstrap over images, and over training runs where there are several.

A difference is *paired*: both sides are measured on the same images, which are drawn anew together. What is common to
both, such as hard images, cancels, and the interval is that of the difference itself.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.errors import CcnetError

RESAMPLES = 1000
_PART = 50  # resamples at once: 10,000 images x 50 indices are 4 MB


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95% interval.

    Attributes:
        mean: as measured.
        low, high: 2.5% and 97.5% of the resampled means.
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


def mean_interval(values: Tensor, *, seed: int) -> Estimate:
    """Mean of values [runs, N], otherwise as `paired_interval`."""
    return paired_interval(values, torch.zeros(1, values.shape[1]), seed=seed)


def paired_interval(first: Tensor, second: Tensor, *, seed: int) -> Estimate:
    """Mean of `first` minus mean of `second`, images and, on each side, training runs drawn anew.

    Args:
        first, second: [runs, N], a value for each training run and image; the runs of the two sides are not paired and
            may differ in number. Images with a NaN on either side are left out.
        seed: of the resampling.

    Raises:
        CcnetError: no image has a value on both sides.
    """
    first, second = first.double(), second.double()
    kept = ~(first.isnan().any(dim=0) | second.isnan().any(dim=0))
    first, second = first[:, kept], second[:, kept]
    images = first.shape[1]
    if not images:
        raise CcnetError("there is no image to compare on: each lacks a value on one side")
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for _ in range(RESAMPLES // _PART):
        chosen = torch.randint(images, (_PART, images), generator=generator)
        drawn.append(_resampled(first, chosen, generator) - _resampled(second, chosen, generator))
    quantiles = torch.tensor([0.025, 0.975], dtype=torch.float64)
    low, high = torch.quantile(torch.cat(drawn), quantiles).tolist()
    return Estimate(float(first.mean() - second.mean()), low, high)


def _resampled(values: Tensor, chosen: Tensor, generator: torch.Generator) -> Tensor:
    """Means of values [runs, N] over the chosen images [R, N], each with its own draw of runs. Float64 [R]."""
    runs = len(values)
    by_run = torch.stack([run[chosen].mean(dim=1) for run in values])  # [runs, R]
    draws = torch.randint(runs, (runs, len(chosen)), generator=generator)
    return by_run.gather(0, draws).mean(dim=0)
