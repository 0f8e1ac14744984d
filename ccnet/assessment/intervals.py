"""95% intervals of means over images: where the mean over endlessly many images from the same source may lie.

    bootstrap   images are drawn anew, with replacement; the draws of scale sequences are kept, each image's value being
                the mean over them. Differences of two models are paired: an image brings both of its values along
    Wilson      of a share, where each image counts 0 or 1: of a single draw. Of several, whose images may count in
                between, it is the wider of both: near 0 and 1 the bootstrap claims a certainty that it has not

Neither holds the network's training or the choice of the pool of sequences to account.
"""

import math

import torch
from torch import Tensor

from ccnet.augmentation import generator

Interval = tuple[float, float]
_VALUES_AT_ONCE = 2**20
Z95 = 1.959963984540054  # 97.5% quantile of the normal distribution


def wilson(share: float, images: int) -> Interval:
    """Wilson's score interval of a share of `images` independent images.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", 1927.
    """
    spread = Z95 * Z95 / images
    centre = (share + spread / 2) / (1 + spread)
    half = Z95 / (1 + spread) * math.sqrt(share * (1 - share) / images + spread / (4 * images))
    # The ends of a share of 0 or 1 are exact; rounding must not put the share outside its interval.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))


def bootstrap(values: Tensor, *, seed: int, resamples: int = 1000) -> Interval:
    """Percentile interval of the mean of `values`, one an image. The same seed draws the same images.

    Args:
        values: float64 [N].
        seed: of the resampling.
        resamples: how often N images are drawn.
    """
    dice, count = generator(seed, "bootstrap"), len(values)
    at_once = max(1, _VALUES_AT_ONCE // count)
    parts = [min(at_once, resamples - begun) for begun in range(0, resamples, at_once)]
    means = torch.cat([values[torch.randint(count, (part, count), generator=dice)].mean(dim=1) for part in parts])
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def of_share(values: Tensor, *, draws: int, seed: int, resamples: int) -> tuple[Interval, str]:
    """(interval, "Wilson" or "bootstrap and Wilson") of a share.

    Args:
        values: float64 [N], the share of draws in which an image counts.
        draws: their number; of several the interval is the envelope of both.
    """
    by_count = wilson(float(values.mean()), len(values))
    if draws == 1:
        return by_count, "Wilson"
    drawn = bootstrap(values, seed=seed, resamples=resamples)
    return (min(by_count[0], drawn[0]), max(by_count[1], drawn[1])), "bootstrap and Wilson"
