"""Eq. 2 for one axis, in exact rationals: where each output pixel looks in the input.

A scale is a `Fraction` from here on. With s = p/q the projected grid (arXiv 2006.11120, Eq. 2)

    g_n = n/s + (in - 1)/2 - (out - 1)/(2s) = (2nq + p(in - 1) - q(out - 1)) / 2p

is a rational with denominator 2p, so windows and offsets come from integer arithmetic. Floats would put about one
layer in a hundred on the wrong side of a ceil.

The window of output pixel n holds the K input pixels m = start .. start + K - 1 with start = ceil(g_n - K/2). The
distance d = g_n - m of a neighbour lies in (-K/2, K/2], the offset of g_n from the window's centre in (-1/2, 1/2]:
a neighbour exactly K/2 away counts on the left and not on the right (the tie rule, stated once and used everywhere).

Since g_{n+p} = g_n + q, offsets repeat every p output pixels while windows move on by q input pixels. The outputs n,
n + p, n + 2p, ... are *phase* n: one set of weights, applied as an ordinary strided convolution.
"""

import math
import operator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from numbers import Rational, Real

from ccnet.errors import CcnetError

Scale = int | float | Fraction
ScalePair = Scale | tuple[Scale, Scale]

MAX_SIZE = 2**20  # px along an axis; a larger one is a mistaken scale, and its grid alone would fill the memory


def whole_number(name: str, value: object, least: int = 1) -> int:
    """A count or a size as a plain int; NumPy's integers are taken, floats and booleans are not.

    Raises:
        CcnetError: the value is no whole number or below `least`.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]  # what has no index is what is refused
    except TypeError:
        raise CcnetError(f"{name} is a whole number, at least {least}; got {value!r}") from None
    if number < least:
        raise CcnetError(f"{name} must be at least {least}; got {number}")
    return number


def exact_scale(scale: Scale) -> Fraction:
    """The scale as an exact rational; a float is taken at its exact binary value, NumPy's numbers like Python's.

    Args:
        scale: output pixels per input pixel along one axis; finite and above 0.

    Raises:
        CcnetError: the scale is not a number, not finite, or not above 0.
    """
    if type(scale) is Fraction and type(scale.numerator) is type(scale.denominator) is int and scale.numerator > 0:
        return scale
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise CcnetError(f"a scale is an int, a float or a Fraction; got {scale!r} of type {type(scale).__name__}")
    if not isinstance(scale, Rational):
        scale = float(scale)
        if not math.isfinite(scale):
            raise CcnetError(f"a scale must be finite; got {scale}")
    if scale <= 0:
        raise CcnetError(f"a scale must be above 0 (1/2 halves the size, 2 doubles it); got {scale}")
    return Fraction(scale) if isinstance(scale, float) else Fraction(int(scale.numerator), int(scale.denominator))


def exact_scales(scale: ScalePair) -> tuple[Fraction, Fraction]:
    """One scale for both axes, or a pair (vertical, horizontal), as exact rationals."""
    if isinstance(scale, (tuple, list)):
        if len(scale) != 2:
            raise CcnetError(f"scale is one number or a pair (vertical, horizontal); got {len(scale)} numbers: {scale}")
        return exact_scale(scale[0]), exact_scale(scale[1])
    exact = exact_scale(scale)
    return exact, exact


def projected_grid(in_size: int, out_size: int, scale: Scale) -> list[Fraction]:
    """Where every output pixel lies in the input, along one axis, in exact input-pixel coordinates.

    Args:
        in_size: input pixels along the axis, 1 to `MAX_SIZE`.
        out_size: output pixels along the axis, 1 to `MAX_SIZE`.
        scale: output pixels per input pixel.

    Returns:
        `out_size` fractions g_n; 0 is the centre of the first input pixel.

    Raises:
        CcnetError: a size out of range or a scale that is not a finite number above 0.

    Source: arXiv 2006.11120, Eq. 2.
    """
    s = exact_scale(scale)
    in_size, out_size = _size("in_size", in_size), _size("out_size", out_size)
    return [n / s + Fraction(in_size - 1, 2) - (out_size - 1) / (2 * s) for n in range(out_size)]


@dataclass(frozen=True)
class AxisGrid:
    """The projected grid of one axis, reduced to what an implementation needs. Made once, cached, immutable.

    Attributes:
        in_size, out_size: input px, output px.
        scale: s = p/q, exact.
        kernel_size: K, neighbours of an output pixel.
        starts: for each output pixel n, the first input pixel of its window (below 0 and beyond the end: padding).
        offsets: for each phase, g_n minus the centre of its window, in (-1/2, 1/2]; `offsets[n % period]` is n's.
        step: q, input px between the windows of neighbouring outputs of one phase.
        first: where output 0 looks, 2p g_0: p(in - 1) - q(out - 1) by Eq. 2, something else in a `part`.
    """

    in_size: int
    out_size: int
    scale: Fraction
    kernel_size: int
    starts: tuple[int, ...]
    offsets: tuple[Fraction, ...]
    step: int
    first: int

    @staticmethod
    def make(in_size: int, out_size: int | None, scale: Scale, kernel_size: int) -> "AxisGrid":
        """The grid of one axis; `out_size` None means ceil(scale * in_size)."""
        exact = exact_scale(scale)
        in_size = _size("in_size", in_size)
        out_size = _size("out_size", math.ceil(exact * in_size) if out_size is None else out_size)
        p, q = exact.numerator, exact.denominator
        first = p * (in_size - 1) - q * (out_size - 1)
        return _make(in_size, out_size, exact, _size("kernel_size", kernel_size), first)

    @staticmethod
    def of_key(key: tuple[int, int, int, int, int, int]) -> "AxisGrid":
        """The grid of a `key`."""
        in_size, out_size, numerator, denominator, kernel_size, first = key
        return _make(in_size, out_size, Fraction(numerator, denominator), kernel_size, first)

    def part(self, outputs: range, inputs: range) -> "AxisGrid":
        """The grid of some outputs over some inputs, each of which keeps its place: what a tile of an image needs.

        Args:
            outputs: px of this grid's output, in steps of 1; they become 0, 1, ...
            inputs: px of its input, in steps of 1, which may begin before and end behind it; they become 0, 1, ...

        Returns:
            A grid whose output n looks at the very coordinates that `outputs[n]` looks at here. Eq. 2 centres a grid
            by its sizes, so that no sizes alone could say this.

        Raises:
            CcnetError: outputs that this grid has not, or an empty range.
        """
        if outputs.step != 1 or inputs.step != 1 or not (0 <= outputs.start < outputs.stop <= self.out_size and inputs):
            raise CcnetError(
                f"a part is made of one or more of the outputs 0 to {self.out_size - 1} and one or more inputs, in "
                f"steps of 1; got {outputs} of {inputs}"
            )
        p, q = self.scale.numerator, self.scale.denominator
        first = self.first + 2 * q * outputs.start - 2 * p * inputs.start
        return _make(_size("inputs", len(inputs)), len(outputs), self.scale, self.kernel_size, first)

    @property
    def period(self) -> int:
        """Output px after which offsets repeat, the number of phases: the scale's numerator, but at most `out_size`."""
        return len(self.offsets)

    @property
    def key(self) -> tuple[int, int, int, int, int, int]:
        """What the grid follows from, quicker to hash than the grid itself."""
        return self.in_size, self.out_size, self.scale.numerator, self.scale.denominator, self.kernel_size, self.first

    @property
    def pad_before(self) -> int:
        """Zero px needed in front of the input so that every window lies inside."""
        return max(0, -self.starts[0])

    @property
    def pad_after(self) -> int:
        """Zero px needed behind the input so that every window lies inside."""
        return max(0, self.starts[-1] + self.kernel_size - self.in_size)

    def neighbours(self, n: int) -> list[int]:
        """The K input pixels of output pixel n, in order; `in_size` stands for each one outside the input."""
        window = range(self.starts[n], self.starts[n] + self.kernel_size)
        return [m if 0 <= m < self.in_size else self.in_size for m in window]

    def distances(self, phase: int) -> list[Fraction]:
        """d = g - m of the K neighbours of a phase, first neighbour first; each in (-K/2, K/2]."""
        centre = Fraction(self.kernel_size - 1, 2)
        return [self.offsets[phase] + centre - u for u in range(self.kernel_size)]


@lru_cache(maxsize=4096)
def _make(in_size: int, out_size: int, scale: Fraction, kernel_size: int, first: int) -> AxisGrid:
    p, q = scale.numerator, scale.denominator
    period = min(p, out_size)
    # All in units of 1 / 2p: whole numbers are several times faster than fractions.
    unit = 2 * p
    grid = [2 * n * q + first for n in range(period)]
    windows = [-((p * kernel_size - g) // unit) for g in grid]  # ceil(g - K/2)
    starts = tuple(windows[n % period] + n // period * q for n in range(out_size))
    centre = p * (kernel_size - 1)
    offsets = tuple(Fraction(g - start * unit - centre, unit) for g, start in zip(grid, windows, strict=True))
    return AxisGrid(in_size, out_size, scale, kernel_size, starts, offsets, q, first)


def _size(name: str, value: int) -> int:
    size = whole_number(name, value)
    if size > MAX_SIZE:
        given = str(size) if size < 10**12 else "far more"
        raise CcnetError(f"{name} is at most {MAX_SIZE} px along an axis; got {given}. Use a smaller scale or size")
    return size
