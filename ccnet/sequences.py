"""Scale sequences: one scale a layer and axis, whose product is the network's total scale.

Shapes follow Eq. 4 with the *cumulative* product, ceil(in * s_1 ... s_j), the last layer exact. A ceil of each layer's
own input would give other sizes (Table 4, example 2, layer 4: 15 columns instead of 14).

Axes are drawn independently, by one of two samplers (`ccnet.samplers`). The paper's text says standard deviation 0.01;
its own Table 4 cannot come from that and fits 0.05, which is our default (`SPREADS` names both).
"""

import logging
import math
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, get_args

from ccnet.errors import CcnetError, SequenceError
from ccnet.grid import Scale, exact_scale, whole_number
from ccnet.samplers import AxisDistribution, AxisSampler, ConditionedSampler, CorrectedSampler

TOTAL_SCALE = Fraction(1, 4)
FREE_LAYERS = 7  # the paper's first layer is fixed at 1/1; seven share the total
SPREADS = {"table4": 0.05, "text": 0.01}  # standard deviation that Table 4 fits, and the one that A.2 states
_REPEATS = 1_000  # sequences in a row that were drawn before, until there seem to be no others
_NUMBER = re.compile(r"[0-9]{1,999}(?:/[0-9]{1,999})?|[0-9]{0,999}\.[0-9]{1,999}")  # 1e999999999 would fill the memory

Method = Literal["corrected", "conditioned"]
Spread = Literal["table4", "text"]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScaleSequence:
    """The scales of every layer of one pass, for both axes; immutable and hashable.

    Attributes:
        vertical: one exact scale a layer, the fixed first layer (1/1) included.
        horizontal: the same for the other axis.

    Example:
        >>> seq = ScaleSequence.parse("1 1/2 1/2 x 1 1/4 1")
        >>> seq.shapes((32, 32))
        ((32, 32), (16, 8), (8, 8))
    """

    vertical: tuple[Fraction, ...]
    horizontal: tuple[Fraction, ...]

    def __post_init__(self) -> None:
        for name in ("vertical", "horizontal"):
            given = getattr(self, name)
            scales = tuple(given) if isinstance(given, Iterable) and not isinstance(given, str) else ()
            if not scales:
                raise SequenceError(f"{name} is a sequence of scales, one a layer; got {given!r}")
            object.__setattr__(self, name, tuple(_scale(s) for s in scales))
        if len(self.vertical) != len(self.horizontal):
            raise SequenceError(
                f"both axes need one scale a layer; got {len(self.vertical)} vertical and {len(self.horizontal)} "
                "horizontal ones"
            )

    def __hash__(self) -> int:
        """Computed once: sequences are the keys under which plans are kept."""
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.vertical, self.horizontal))

    @property
    def scales(self) -> tuple[tuple[Fraction, Fraction], ...]:
        """(vertical, horizontal) of each layer."""
        return tuple(zip(self.vertical, self.horizontal, strict=True))

    @property
    def total(self) -> tuple[Fraction, Fraction]:
        """Product of the scales along each axis."""
        return _product(self.vertical), _product(self.horizontal)

    def shapes(self, in_size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Output (height, width) in px of every layer.

        Args:
            in_size: (height, width) of the network's input in px.

        Raises:
            SequenceError: in_size is no pair of sizes, or the last layer's exact size is not a whole number.

        Source: arXiv 2006.11120, Eq. 4.
        """
        height, width = _height_and_width(in_size)
        return tuple(zip(_axis_sizes(self.vertical, height), _axis_sizes(self.horizontal, width), strict=True))

    def require_valid(
        self, *, layers: int = FREE_LAYERS + 1, total: Fraction = TOTAL_SCALE, in_size: tuple[int, int] = (32, 32)
    ) -> None:
        """Check that a network with `layers` layers and this total scale can run the sequence.

        Raises:
            SequenceError: another number of layers, another product, or a map that shrinks below the last one.
        """
        if len(self.vertical) != layers:
            raise SequenceError(
                f"the network has {layers} layers; the sequence has {len(self.vertical)} scales: {self}"
            )
        for name, scales, product in zip(
            ("vertical", "horizontal"), (self.vertical, self.horizontal), self.total, strict=True
        ):
            if product != total:
                listed = " ".join(str(s) for s in scales)
                raise SequenceError(f"the {name} scales must multiply to exactly {total}; {listed} gives {product}")
        sizes = self.shapes(in_size)
        for j, (height, width) in enumerate(sizes):
            if height < sizes[-1][0] or width < sizes[-1][1]:
                raise SequenceError(
                    f"layer {j + 1} would shrink the map to {height}x{width}, below the last map's "
                    f"{sizes[-1][0]}x{sizes[-1][1]}; maps may not be smaller than the last: {self}"
                )

    def __str__(self) -> str:
        """`"1 5/6 3/10 x 1 1/2 1/2"`: the vertical scales, an x, the horizontal ones; one list when they are equal."""
        vertical = " ".join(str(s) for s in self.vertical)
        if self.vertical == self.horizontal:
            return vertical
        return vertical + " x " + " ".join(str(s) for s in self.horizontal)

    @staticmethod
    def parse(text: str) -> "ScaleSequence":
        """The inverse of `str`: fractions or decimals, separated by spaces or commas; " x " between the axes.

        Raises:
            SequenceError: the text is not of that form.
        """
        if not isinstance(text, str):
            raise SequenceError(f'a sequence is parsed from text such as "1 5/6 3/4"; got {text!r}')
        axes = [axis.replace(",", " ").split() for axis in text.split("x")]
        if len(axes) > 2:
            raise SequenceError(f'a sequence reads "1 5/6 ... x 1 7/9 ..." with one x between the axes; got {text!r}')
        if not all(_NUMBER.fullmatch(word) for axis in axes for word in axis):
            raise SequenceError(f'a sequence reads "1 5/6 0.75 ..." (fractions or decimals); got {text!r}')
        try:
            parsed = [tuple(Fraction(word) for word in axis) for axis in axes]
        except ZeroDivisionError:
            raise SequenceError(f"a scale's denominator is above 0; got {text!r}") from None
        return ScaleSequence(parsed[0], parsed[-1])


def sample_scale_sequences(
    k: int,
    *,
    seed: int | None = None,
    layers: int = FREE_LAYERS,
    total: Scale = TOTAL_SCALE,
    std: float | Spread = SPREADS["table4"],
    max_denominator: int = 10,
    min_scale: Scale = Fraction(1, 2),
    max_scale: Scale = 1,
    in_size: tuple[int, int] = (32, 32),
    method: Method = "corrected",
    max_numerator: int | None = None,
) -> list[ScaleSequence]:
    """k distinct, valid scale sequences.

    Args:
        k: how many, at least 1.
        seed: at least 0; the same seed gives the same sequences, the first k of any larger draw; None draws a fresh
            seed.
        layers: free layers; the fixed first layer (1/1) comes on top.
        total: product of the scales along each axis, at most 1.
        std: standard deviation of a scale before rounding: a number, "table4" (0.05) or "text" (0.01).
        max_denominator: largest denominator of a drawn scale.
        min_scale, max_scale: range of every scale, a corrected one included; sequences outside are drawn again.
        in_size: (height, width) of the network's input in px, for the maps' sizes.
        method: how the product comes out right. "corrected" is A.2: every layer's scale is drawn around
            total^(1/layers) and taken to the nearest rational; then one layer, chosen uniformly, takes up what the
            product still lacks, with any numerator and denominator. "conditioned" gives every layer the same rounded
            normal prior, conditioned on the product; no layer is corrected, so that every scale has a denominator of
            at most `max_denominator` and a pass costs less.
        max_numerator: largest numerator of a drawn scale, at least 1, with "conditioned" alone; None for no limit. The
            numerator is the number of phases, which is what weights are prepared for.

    Returns:
        k different sequences, each with a product of exactly `total`, every scale in [min_scale, max_scale] and no
        map smaller than the last.

    Raises:
        SequenceError: an argument out of range, `max_numerator` with "corrected", no valid sequence (or, with
            "corrected", none found in 10,000 tries), or no new one in 1,000.

    Source: arXiv 2006.11120, A.2.
    """
    k = _whole_number("k", k)
    sizes = _height_and_width(in_size)
    distribution = AxisDistribution(
        _whole_number("layers", layers),
        _scale(total),
        _standard_deviation(std),
        _whole_number("max_denominator", max_denominator),
        _scale(min_scale),
        _scale(max_scale),
        None if max_numerator is None else _whole_number("max_numerator", max_numerator),
    )
    for size in sizes:
        _axis_sizes((distribution.total,), size)  # refuses a last map that is not a whole number of px
    sampler = _sampler(method, distribution)
    rng = random.Random(None if seed is None else _whole_number("seed", seed, least=0))
    drawn: dict[ScaleSequence, None] = {}
    repeats = 0
    while len(drawn) < k:
        sequence = ScaleSequence(*(sampler.draw(rng, size) for size in sizes))
        repeats = repeats + 1 if sequence in drawn else 0
        if repeats > _REPEATS:
            raise SequenceError(
                f"found only {len(drawn)} distinct sequences with std={std}, max_denominator={max_denominator}; "
                f"asked for {k}. Ask for fewer or widen the distribution"
            )
        drawn[sequence] = None
    logger.debug("drew %d sequences; %d axes were not valid and drawn again", k, sampler.rejected)
    return list(drawn)


def _sampler(method: Method, distribution: AxisDistribution) -> AxisSampler:
    if method not in get_args(Method):
        raise SequenceError(f'method is "corrected" (A.2) or "conditioned" (no corrected layer); got {method!r}')
    return ConditionedSampler(distribution) if method == "conditioned" else CorrectedSampler(distribution)


def _product(scales: Sequence[Fraction]) -> Fraction:
    """Of whole numbers first, which is several times faster."""
    return Fraction(math.prod(s.numerator for s in scales), math.prod(s.denominator for s in scales))


def _axis_sizes(scales: Sequence[Fraction], in_size: int) -> list[int]:
    """Eq. 4 along one axis: ceil of the cumulative product, the last one exact."""
    sizes = []
    above, below = in_size, 1  # the exact size so far; whole numbers are several times faster than fractions
    for scale in scales:
        above *= scale.numerator
        below *= scale.denominator
        sizes.append(-(-above // below))
    if above % below:
        size = Fraction(above, below)
        raise SequenceError(
            f"an input of {in_size} px scaled by {size / in_size} gives {size} px; the last layer needs a whole "
            f"number, so the input size must be a multiple of {(size / in_size).denominator}"
        )
    return sizes


def _height_and_width(in_size: tuple[int, int]) -> tuple[int, int]:
    if not isinstance(in_size, (tuple, list)) or len(in_size) != 2:
        raise SequenceError(f"in_size is a pair (height, width) in px; got {in_size!r}")
    return _whole_number("in_size", in_size[0]), _whole_number("in_size", in_size[1])


def _standard_deviation(std: float | Spread) -> float:
    try:
        value = SPREADS[std] if isinstance(std, str) else float(std)
    except (KeyError, TypeError, ValueError):
        raise SequenceError(f"std is a number or one of {', '.join(map(repr, SPREADS))}; got {std!r}") from None
    if not (math.isfinite(value) and value >= 0):
        raise SequenceError(f"std is a finite number, at least 0; got {value}")
    return value


def _whole_number(name: str, value: int, least: int = 1) -> int:
    try:
        return whole_number(name, value, least)
    except CcnetError as error:
        raise SequenceError(str(error)) from None


def _scale(value: Scale) -> Fraction:
    try:
        return exact_scale(value)
    except CcnetError as error:
        raise SequenceError(str(error)) from None
