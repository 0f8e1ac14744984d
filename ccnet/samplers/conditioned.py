"""A sampler without a corrected layer: every scale has the paper's prior, conditioned on the product.

The prior of a scale is that of A.2: a normal number, rounded to the nearest rational of denominator at most 10. Its
values are few, and so are the products of several of them, because equal primes cancel. Hence the sum over all
sequences can be taken product by product, from the last layer to the first:

    Z_0(1) = 1,    Z_r(x) = sum over scales s of p(s) Z_{r-1}(x / s)

Z_r(x) is the probability that r scales of the prior multiply to exactly x. Drawn from the first layer to the last, the
next scale is s with probability p(s) Z_{r-1}(x / s) / Z_r(x), where x is what the r layers that are left must multiply
to. The sequence then has exactly the conditional distribution; nothing is rejected and no layer has to be corrected, so
that every numerator, and with it the number of phases, stays small.

With the defaults (7 layers, product 1/4, scales in [1/2, 1]) an axis has 535,416 sequences, 86,100 of them between 2/3
and 9/10, and scales of mean 0.822 and standard deviation 0.049. A spread of 0.01 is another matter: nearly all of its
mass lies on the 1,260 orders of 3/4, 4/5, 4/5, 5/6, 5/6, 6/7, 7/8.
"""

import math
import random
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import accumulate

from ccnet.errors import SequenceError
from ccnet.samplers.distribution import AxisDistribution
from ccnet.samplers.rounding import rounded_normal

MAX_LAYERS = 100
MAX_STEPS = 1_000_000  # pairs of product and scale looked at for one table, some 3 us each; the defaults need 20,000


class ConditionedSampler:
    """Draws axes with exactly the wanted product.

    Args:
        distribution: of the scales, every one of which has a denominator and a numerator within its limits.
    """

    def __init__(self, distribution: AxisDistribution) -> None:
        self.distribution = distribution
        self.rejected = 0  # for ever

    def draw(self, rng: random.Random, in_size: int) -> tuple[Fraction, ...]:
        """See `AxisSampler.draw`."""
        wanted = self.distribution
        # Without upscaling products only fall to the total, so that one table serves all sizes.
        bound = Fraction(0) if wanted.max_scale <= 1 else wanted.product_bound(in_size)
        return (Fraction(1), *_table(wanted, bound).draw(rng))


@dataclass(frozen=True, slots=True)
class _Choices:
    """What the next scale may be.

    Attributes:
        scales: ascending.
        shares: for each, the weight of it and of all in front of it, in units of the largest.
        log_sum: log of the sum of all weights.
    """

    scales: tuple[Fraction, ...]
    shares: tuple[float, ...]
    log_sum: float

    @staticmethod
    def among(log_weights: dict[Fraction, float]) -> "_Choices":
        """Each scale in proportion to its weight; the weights themselves may be too small for a float."""
        top = max(log_weights.values())
        shares = tuple(accumulate(math.exp(weight - top) for weight in log_weights.values()))
        return _Choices(tuple(log_weights), shares, top + math.log(shares[-1]))

    def pick(self, rng: random.Random) -> Fraction:
        """One of them, by `random()`: of `random.Random` it alone is promised to stay the same in all releases."""
        return self.scales[bisect(self.shares, rng.random() * self.shares[-1], hi=len(self.shares) - 1)]


@dataclass(frozen=True)
class ProductTable:
    """Draws sequences of scales whose product is `total`, each in proportion to the product of its weights.

    Attributes:
        total: product of each sequence.
        choices: for every layer, what its scale may be, by what it and the layers after it must multiply to.
    """

    total: Fraction
    choices: tuple[dict[Fraction, _Choices], ...]

    @staticmethod
    def make(
        log_weights: Mapping[Fraction, float], layers: int, total: Fraction, bound: Fraction = Fraction(0)
    ) -> "ProductTable":
        """Sum from the last layer to the first.

        Args:
            log_weights: log of each scale's weight.
            layers: scales of a sequence.
            total: their product.
            bound: what the product of the first scales of a sequence stays above, however many they are.

        Raises:
            SequenceError: there is no such sequence, or the table would be too large.
        """
        if layers > MAX_LAYERS:
            raise SequenceError(f'method "conditioned" takes at most {MAX_LAYERS} layers; got {layers}')
        weights = {scale: weight for scale, weight in sorted(log_weights.items()) if weight > -math.inf}
        sums = {Fraction(1): 0.0}  # log Z_0
        choices: list[dict[Fraction, _Choices]] = []
        for level in _reachable(list(weights), layers, total):
            here: dict[Fraction, _Choices] = {}
            for rest in level:
                options = {s: weight + sums[after] for s, weight in weights.items() if (after := rest / s) in sums}
                if options and total / rest > bound:
                    here[rest] = _Choices.among(options)
            choices.append(here)
            sums = {rest: options.log_sum for rest, options in here.items()}
        if not choices or total not in sums:
            raise SequenceError(f"no product of {layers} scales out of {len(weights)} is exactly {total}")
        return ProductTable(total, tuple(reversed(choices)))

    @property
    def log_sum(self) -> float:
        """Log of the sum, over all sequences, of the products of their weights."""
        return self.choices[0][self.total].log_sum

    def draw(self, rng: random.Random) -> list[Fraction]:
        """One sequence."""
        scales, rest = [], self.total
        for choices in self.choices:
            scale = choices[rest].pick(rng)
            scales.append(scale)
            rest /= scale
        return scales


@lru_cache(maxsize=8)
def _table(wanted: AxisDistribution, bound: Fraction) -> ProductTable:
    """The table of a distribution, made once; a tenth of a second for the defaults."""
    prior = rounded_normal(wanted.mean, wanted.std, wanted.max_denominator, wanted.min_scale, wanted.max_scale)
    limit = math.inf if wanted.max_numerator is None else wanted.max_numerator
    prior = {scale: weight for scale, weight in prior.items() if scale.numerator <= limit}
    try:
        return ProductTable.make(prior, wanted.layers, wanted.total, bound)
    except SequenceError as error:
        numerators = "" if wanted.max_numerator is None else f" and numerator up to {wanted.max_numerator}"
        raise SequenceError(
            f"{error}. The scales are the rationals in [{wanted.min_scale}, {wanted.max_scale}] of denominator up to "
            f"{wanted.max_denominator}{numerators} that std {wanted.std} allows; change these limits, or use "
            'method="corrected"'
        ) from None


def _reachable(scales: list[Fraction], layers: int, total: Fraction) -> list[list[Fraction]]:
    """For r = 1 ... layers: the products of r scales that `layers - r` more may take to `total`; [] without scales.

    Only the shorter half is multiplied out. The longer is its mirror image: r scales multiply to `total / x` and the
    others to x exactly if these others multiply to x and the r scales to `total / x`.

    Raises:
        SequenceError: there are too many.
    """
    if not scales:
        return []
    levels = [[Fraction(1)]]
    numerators = math.lcm(*(scale.numerator for scale in scales))
    denominators = math.lcm(*(scale.denominator for scale in scales))
    for r in range(1, layers // 2 + 1):
        _require_few(2 * levels, scales)  # each will have its mirror image
        left = layers - r
        least, most = total / scales[-1] ** left, total / scales[0] ** left
        products = dict.fromkeys(product * scale for product in levels[-1] for scale in scales)
        # What is left must look like a product of `left` scales: in size, and in the primes of its two parts.
        whole_numerator, whole_denominator = numerators**left, denominators**left
        levels.append(
            [
                product
                for product in products
                if least <= product <= most
                and whole_numerator % (rest := total / product).numerator == 0
                and whole_denominator % rest.denominator == 0
            ]
        )
    levels += [[total / product for product in levels[r]] for r in range((layers - 1) // 2, -1, -1)]
    _require_few(levels, scales)
    return levels[1:]


def _require_few(levels: list[list[Fraction]], scales: list[Fraction]) -> None:
    steps = len(scales) * sum(len(level) for level in levels)
    if steps > MAX_STEPS:
        raise SequenceError(
            f"{len(scales)} scales have so many products that their sums would take {steps:,} steps, and at most "
            f"{MAX_STEPS:,} are made"
        )
