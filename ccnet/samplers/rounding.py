"""How probable each rational is when a normal number is rounded to the nearest one of small denominator.

`Fraction(x).limit_denominator(D)` gives the rational of denominator at most D that is nearest to x. So each rational
stands for the interval that ends halfway to its neighbours, and its probability is the normal's mass there. (Which side
a border goes to decides nothing: a border has no mass.)
"""

import math
from fractions import Fraction
from itertools import pairwise

from ccnet.errors import SequenceError

MAX_RATIONALS = 100_000  # looked at; more is a mistake rather than a wish, and would take seconds


def rounded_normal(
    mean: float, std: float, max_denominator: int, low: Fraction, high: Fraction
) -> dict[Fraction, float]:
    """Log-probability of every value that a rounded normal number can take in a range.

    Args:
        mean, std: of the normal number; with std 0 it is always the mean.
        max_denominator: largest denominator D.
        low, high: the range, both included.

    Returns:
        log P(limit_denominator(gauss(mean, std), D) = r) for the rationals r in [low, high], ascending. Probabilities
        are those of all rationals, so they sum to less than 1; those that are too small for a float are still right,
        as their logarithms are.

    Raises:
        SequenceError: the range holds too many rationals.
    """
    if std == 0:
        value = Fraction(mean).limit_denominator(max_denominator)
        return {value: 0.0} if low <= value <= high else {}
    around = _rationals(max_denominator, math.floor(low) - 1, math.ceil(high) + 1)
    centre = Fraction(mean)
    borders = [float((a + b) / 2 - centre) / std for a, b in pairwise(around)]
    return {
        value: _log_mass(below, above)
        for value, (below, above) in zip(around[1:-1], pairwise(borders), strict=True)
        if low <= value <= high
    }


def _rationals(max_denominator: int, low: int, high: int) -> list[Fraction]:
    """Every rational of denominator up to `max_denominator` in [low, high], ascending."""
    if (high - low) * max_denominator**2 > MAX_RATIONALS:
        raise SequenceError(
            f'method "conditioned" lists every rational in the range of scales; max_denominator={max_denominator} '
            f'gives too many between {low} and {high}. Lower it, narrow the range, or use method="corrected"'
        )
    numbers = {
        Fraction(numerator, denominator)
        for denominator in range(1, max_denominator + 1)
        for numerator in range(low * denominator, high * denominator + 1)
    }
    return sorted(numbers)


def _log_mass(low: float, high: float) -> float:
    """Log of the standard normal's mass between `low` and `high`."""
    if low > 0:  # the same mass on the other side, where differences of small numbers keep their digits
        low, high = -high, -low
    if high > -1:
        mass = (math.erf(high / math.sqrt(2)) - math.erf(low / math.sqrt(2))) / 2
        return math.log(mass) if mass > 0 else -math.inf  # nothing is left of it where std is near the largest float
    outer, inner = _log_tail(low), _log_tail(high)
    return inner if outer == -math.inf else inner + math.log1p(-math.exp(outer - inner))


def _log_tail(z: float) -> float:
    """Log of the standard normal's mass below z, for z <= -1."""
    if z > -35:
        return math.log(math.erfc(-z / math.sqrt(2)) / 2)
    # erfc would underflow. Its asymptotic series; the next term is 105 / z^8 < 1e-10.
    square = z * z
    return -square / 2 - math.log(-z * math.sqrt(2 * math.pi)) + math.log1p((-1 + (3 - 15 / square) / square) / square)
