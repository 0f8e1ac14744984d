"""Every choice that Table 1's protocol leaves open, named, with our default.

The paper says: shift the input by up to r, take the last convolution's map, shift it back with cubic interpolation, cut
two border pixels, take the cosine (arXiv 2006.11120, Sec. 6). What it does not say changes the numbers, so each such
choice is a field of `Protocol`, is checked once here, and comes back as plain JSON with every result.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypedDict, get_args

from ccnet.errors import CcnetError
from ccnet.grid import Scale, exact_scale

# What enters an image that is shifted by 1 px to the right: abcd -> zabc, dabc, babc. Under "crop" the image is larger
# than what the model sees, and what enters is what lies there.
Border = Literal["zero", "circular", "reflect", "crop"]
# What the cubic kernel reads beyond the map's rim: the rim itself, zero, or the other side.
Outside = Literal["edge", "zero", "circular"]
# How a map is read between its pixels: Keys' cubic, or its Fourier series (of maps that go round).
Undo = Literal["cubic", "ideal"]
# One cosine of the whole flattened map, or the mean over positions of the cosine between channel vectors.
Cosine = Literal["flatten", "position"]
# How k scale sequences are used: dealt out among the pairs, all on every pair, or as one model that averages its maps.
Members = Literal["split", "each", "ensemble"]


class Choices(TypedDict, total=False):
    """The fields of `Protocol` as keyword arguments."""

    border: Border
    fill: float | Sequence[float]
    margin: int
    include_zero: bool
    total_scale: Scale
    undo: Undo
    cubic_a: float
    outside: Outside | None
    cut: int
    cosine: Cosine
    members: Members


@dataclass(frozen=True)
class Protocol:
    """One way to run Table 1. The defaults are ours; docs/equivariance.md gives the reason for each.

    Attributes:
        border: what enters the shifted image: "zero" (the value of `fill`), "circular", "reflect" or "crop" (what
            lies beyond, in images that are `margin` px larger on each side than what the model sees).
        fill: value of the entering pixels under border "zero", in the units of the preprocessed image; one number or
            one a channel. 0 is what the network's own zero padding shows beyond the rim.
        margin: px on each side of the images that only border "crop" shows; 0 for the others.
        include_zero: whether the shift (0, 0) may be drawn; it always scores 1.
        total_scale: map px per input px, exact: an input shift of d px is d * total_scale px of the map.
        undo: how maps are shifted back: "cubic" as the paper does, or "ideal", the Fourier series of maps that go round
            (border "circular"), which is exact where a map holds no frequency beyond its grid's.
        cubic_a: Keys' parameter: -0.5 is third-order accurate and what image resizing uses, -0.75 is torch's.
        outside: what the cubic kernel reads beyond the map; None means "circular" for a circular border, else "edge".
        cut: border px removed from each side of both maps before the cosine.
        cosine: "flatten" (one vector an image) or "position" (mean over positions of channel vectors).
        members: use of the scale sequences: "split" (dealt out, one sequence a pair), "each" (every pair under every
            sequence) or "ensemble" (map and logits are the mean over sequences).

    Raises:
        CcnetError: a choice that is not among those allowed.
    """

    border: Border = "zero"
    fill: float | Sequence[float] = 0.0
    margin: int = 0
    include_zero: bool = True
    total_scale: Scale = Fraction(1, 4)
    undo: Undo = "cubic"
    cubic_a: float = -0.5
    outside: Outside | None = None
    cut: int = 2
    cosine: Cosine = "flatten"
    members: Members = "split"

    def __post_init__(self) -> None:
        _require_one_of("border", self.border, get_args(Border))
        _require_one_of("outside", self.outside, (None, *get_args(Outside)))
        _require_one_of("cosine", self.cosine, get_args(Cosine))
        _require_one_of("members", self.members, get_args(Members))
        if not -1 <= self.cubic_a <= 0:
            raise CcnetError(f"cubic_a lies in [-1, 0] (usual: -0.5 or -0.75); got {self.cubic_a}")
        _require_one_of("undo", self.undo, get_args(Undo))
        require_whole("cut", self.cut, least=0)
        require_whole("margin", self.margin, least=0)
        if (self.border == "crop") != (self.margin > 0):
            raise CcnetError(
                'border "crop" needs a margin, and no other border takes one: give images that are margin px larger on '
                f"each side than what the model sees; got border {self.border!r} and margin {self.margin}"
            )
        fill = self.fill if isinstance(self.fill, (int, float)) else tuple(float(value) for value in self.fill)
        object.__setattr__(self, "fill", fill)
        object.__setattr__(self, "total_scale", exact_scale(self.total_scale))
        if self.outside is None:
            object.__setattr__(self, "outside", "circular" if self.border == "circular" else "edge")
        if self.undo == "ideal" and (self.border, self.outside) != ("circular", "circular"):
            raise CcnetError(
                f'undo "ideal" needs maps that go round: border "circular" and outside "circular" or None; got '
                f"{self.border!r} and {self.outside!r}"
            )

    @property
    def reads_outside(self) -> Outside:
        """`outside`, decided."""
        return self.outside or "edge"

    @property
    def exact_total_scale(self) -> Fraction:
        """`total_scale` as a Fraction."""
        return exact_scale(self.total_scale)

    def describe(self) -> dict[str, object]:
        """The choices, and what is fixed here although the paper does not say it, as JSON values."""
        return {
            "source": "arXiv 2006.11120, Sec. 6, Table 1",
            "level": "last convolution, after its activation",
            "pair": "original against one shifted copy, same scale sequence",
            "shift": "whole px, uniform on the square [-max_shift, max_shift]^2",
            "undo": "separable cubic convolution" if self.undo == "cubic" else "Fourier series",
            "empty_maps": "both maps zero: pair skipped and counted; one map zero: similarity 0",
            "border": self.border,
            "fill": list(self.fill) if isinstance(self.fill, Sequence) else self.fill,
            "margin": self.margin,
            "include_zero": self.include_zero,
            "total_scale": str(self.exact_total_scale),
            "cubic_a": self.cubic_a,
            "outside": self.reads_outside,
            "cut": self.cut,
            "cosine": self.cosine,
            "members": self.members,
        }


def require_whole(name: str, value: object, *, least: int) -> None:
    """Raise `CcnetError` unless the value is an int (and no bool) of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CcnetError(f"{name} is a whole number of at least {least}; got {value!r}")


def _require_one_of(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value not in allowed:
        raise CcnetError(f"{name} is one of {', '.join(map(repr, allowed))}; got {value!r}")
