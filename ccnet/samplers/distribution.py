"""What the scales of one axis are drawn from, whichever the method, and the interface of the samplers."""

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from ccnet.errors import SequenceError


@dataclass(frozen=True)
class AxisDistribution:
    """The prior of a scale and what a whole axis must fulfil.

    Attributes:
        layers: free layers; the fixed first layer (1/1) comes on top.
        total: what their scales multiply to, at most 1.
        std: standard deviation of a scale before it is rounded.
        max_denominator: largest denominator of a drawn scale.
        min_scale, max_scale: range of every scale.
        max_numerator: largest numerator of a drawn scale, None for no limit.

    Raises:
        SequenceError: a total above 1, or one that no scales of that range multiply to.
    """

    layers: int
    total: Fraction
    std: float
    max_denominator: int
    min_scale: Fraction
    max_scale: Fraction
    max_numerator: int | None = None

    def __post_init__(self) -> None:
        if self.total > 1:
            raise SequenceError(f"total is at most 1, or maps would be smaller than the last one; got {self.total}")
        if not self.min_scale**self.layers <= self.total <= self.max_scale**self.layers:
            raise SequenceError(
                f"{self.layers} scales in [{self.min_scale}, {self.max_scale}] cannot multiply to {self.total}"
            )

    @property
    def mean(self) -> float:
        """Mean of a scale before it is rounded: with it in every layer the product would be right (A.2)."""
        mean: float = float(self.total) ** (1 / self.layers)
        return mean

    def product_bound(self, in_size: int) -> Fraction:
        """What the product of the first scales must stay above, so that no map is smaller than the last.

        A map of ceil(in P) px is at least as large as the last one of in * total px, a whole number, exactly if
        in P > in * total - 1 (Eq. 4).
        """
        return self.total - Fraction(1, in_size)


class AxisSampler(Protocol):
    """Draws one axis of a sequence.

    Attributes:
        rejected: draws so far that were not valid and made again.
    """

    rejected: int

    def draw(self, rng: random.Random, in_size: int) -> tuple[Fraction, ...]:
        """The scales of all layers along an axis, the fixed first one included.

        Args:
            rng: gives every random number.
            in_size: input px along the axis; times the total scale a whole number.

        Raises:
            SequenceError: there is no valid sequence, or none was found.
        """
