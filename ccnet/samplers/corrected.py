"""The paper's sampler (A.2): draw every scale, then one layer, chosen uniformly, takes up what the product lacks.

The corrected layer's scale may have any numerator (189/250 and 864/875 stand in Table 4), and with it as many phases as
its map has pixels. That makes its weights the dearest of the network: see `conditioned` for a sampler without one.
"""

import math
import random
from fractions import Fraction
from itertools import accumulate
from operator import mul

from ccnet.errors import SequenceError
from ccnet.samplers.distribution import AxisDistribution

_TRIES = 10_000  # draws for one valid axis before giving up


class CorrectedSampler:
    """Draws until an axis is valid.

    Args:
        distribution: of the drawn scales; without `max_numerator`, which a corrected scale could not keep to.

    Source: arXiv 2006.11120, A.2.
    """

    def __init__(self, distribution: AxisDistribution) -> None:
        if distribution.max_numerator is not None:
            raise SequenceError(
                f'max_numerator={distribution.max_numerator} was given; with method "corrected" one layer of each axis '
                'takes whatever numerator the product needs. Use method="conditioned", or leave max_numerator out'
            )
        self.distribution = distribution
        self.rejected = 0

    def draw(self, rng: random.Random, in_size: int) -> tuple[Fraction, ...]:
        """See `AxisSampler.draw`."""
        wanted = self.distribution
        bound = wanted.product_bound(in_size)
        for _ in range(_TRIES):
            scales = self._propose(rng)
            if all(wanted.min_scale <= s <= wanted.max_scale for s in scales) and min(accumulate(scales, mul)) > bound:
                return (Fraction(1), *scales)
            self.rejected += 1
        raise SequenceError(
            f"no valid sequence in {_TRIES} tries: {wanted.layers} scales around {wanted.mean:.3f} with std "
            f"{wanted.std}, each in [{wanted.min_scale}, {wanted.max_scale}], product {wanted.total}. Widen the range "
            "or change std"
        )

    def _propose(self, rng: random.Random) -> list[Fraction]:
        """A.2 literally: draw, round, correct one layer; some scale is 0 or less where that cannot be done."""
        wanted = self.distribution
        scales = [
            Fraction(rng.gauss(wanted.mean, wanted.std)).limit_denominator(wanted.max_denominator)
            for _ in range(wanted.layers)
        ]
        corrected = rng.randrange(wanted.layers)
        others = math.prod((s for j, s in enumerate(scales) if j != corrected), start=Fraction(1))
        scales[corrected] = wanted.total / others if others > 0 else Fraction(0)
        return scales
