"""The same picture along several ways, and the mean or the median image of the results.

The paper (Sec. 4, "Scale Ensembles") runs one network of several CC layers with several sequences of scales of one
product and computes "the median image of the ensemble in an image-processing task". It says no more about images. Our
network has one CC layer, so a sequence of scales is made of whole passes:

    steps    s = s_1 s_2: enlarged by s_1, and the result by s_2. The first member takes s in one step, the others a
             random s_1 from 1 to s of their own along each axis. The nearest to what the paper describes.
    views    the picture turned and mirrored in the eight ways of a square, enlarged, and turned back. Not in the paper;
             usual in the literature on super-resolution ("self-ensemble").

Both are ours in everything that the sentence above leaves open. docs/upscaling.md has what they bring.
"""

import math
import random
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Literal, get_args

import torch
from torch import Tensor

from ccnet.augmentation import derived_seed
from ccnet.ensemble import aggregate_logits
from ccnet.errors import CcnetError
from ccnet.grid import ScalePair, exact_scales
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.tiles import enlarge

Members = Literal["steps", "views"]
ImageAggregate = Literal["mean", "median"]
Steps = tuple[tuple[Fraction, Fraction], ...]

VIEWS = 8
MAX_MEMBER_PIXELS = 2**27  # output px of all members together, which are in memory at once as float32
NO_CHANGE = (Fraction(1), Fraction(1))
_STEP_DENOMINATOR = 10  # of the first step's scale
_MAX_DRAWS = 1000


def draw_steps(scale: ScalePair, size: int, seed: int) -> list[Steps]:
    """The factors (vertical, horizontal) of every step of every member; each member's product is `scale`.

    Args:
        scale: of the whole, a number or a pair (vertical, horizontal).
        size: members; the first takes one step.
        seed: of the others' first steps, each uniform in the logarithm and rounded to a denominator up to 10.

    Raises:
        CcnetError: there are not as many different ones, as for a scale of 1.
    """
    whole = exact_scales(scale)
    rng = random.Random(derived_seed(seed, "steps"))
    members: list[Steps] = [(whole,)]
    for _ in range(_MAX_DRAWS):
        if len(members) == size:
            return members
        first = _first_step(whole[0], rng), _first_step(whole[1], rng)
        second = whole[0] / first[0], whole[1] / first[1]
        if (first, second) not in members and NO_CHANGE not in (first, second):
            members.append((first, second))
    raise CcnetError(
        f"a factor of {float(whole[0]):g} x {float(whole[1]):g} can be split into steps in {len(members)} ways; "
        f"{size} members were asked for: use fewer, or the eight views"
    )


def _first_step(s: Fraction, rng: random.Random) -> Fraction:
    drawn = Fraction(float(s) ** rng.random()).limit_denominator(_STEP_DENOMINATOR)
    return min(max(drawn, Fraction(1)), s)


def enlarge_ensemble(
    model: CCUpscaler,
    x: Tensor,
    scale: ScalePair,
    out_size: tuple[int, int],
    *,
    size: int,
    members: Members = "steps",
    aggregate: ImageAggregate = "median",
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> Tensor:
    """The aggregate of several ways to enlarge one grey picture.

    Args:
        model: the network.
        x: [1, 1, H, W], 0 to 1.
        scale: a number or a pair (vertical, horizontal).
        out_size: (height, width), px.
        size: members, at least 1; up to 8 views.
        members: "steps" or "views".
        aggregate: "mean", or "median" (of an even number the mean of the middle two), pixel by pixel.
        seed: of the steps.
        advance: called with the output px of every member that is finished.

    Returns:
        [1, 1, H', W'], 0 to 1.

    Raises:
        CcnetError: too many members for the picture or the scale, or an unknown kind or aggregate.
    """
    if aggregate not in get_args(ImageAggregate):
        raise CcnetError(f"the aggregate is one of {', '.join(get_args(ImageAggregate))}; got {aggregate!r}")
    images = []
    for image in member_images(model, x, scale, out_size, size=size, members=members, seed=seed):
        images.append(image)
        advance(math.prod(out_size))
    return aggregate_logits(torch.cat(images), aggregate)[None]


def member_images(
    model: CCUpscaler,
    x: Tensor,
    scale: ScalePair,
    out_size: tuple[int, int],
    *,
    size: int,
    members: Members = "steps",
    seed: int = 0,
) -> Iterator[Tensor]:
    """The members' images, [1, 1, H', W'] each, in order; arguments as in `enlarge_ensemble`.

    Raises:
        CcnetError: too many members for the picture or the scale, or an unknown kind.
    """
    if members not in get_args(Members):
        raise CcnetError(f"members are one of {', '.join(get_args(Members))}; got {members!r}")
    most = MAX_MEMBER_PIXELS // math.prod(out_size)
    most = min(VIEWS, most) if members == "views" else most
    if not 1 <= size <= most:
        raise CcnetError(
            f"{size} members were asked for; allowed are 1 to {most} {members} of a picture of "
            f"{out_size[1]} x {out_size[0]} px"
        )
    if members == "views":
        return _views(model, x, exact_scales(scale), out_size, size)
    return (_along(model, x, steps, out_size) for steps in draw_steps(scale, size, seed))


def _along(model: CCUpscaler, x: Tensor, steps: Steps, out_size: tuple[int, int]) -> Tensor:
    """One member; what lies between two steps is as large as its factor asks, rounded up."""
    for scale in steps[:-1]:
        x = enlarge(model, x, scale)
    return enlarge(model, x, steps[-1], out_size)


def _views(
    model: CCUpscaler, x: Tensor, scale: tuple[Fraction, Fraction], out_size: tuple[int, int], size: int
) -> Iterator[Tensor]:
    """Members 0 to 3 mirrored in all ways, 4 to 7 the same on the transposed picture."""
    for view in range(size):
        axes = [axis for axis, bit in ((2, 1), (3, 2)) if view & bit]
        turned = x.flip(axes)
        if view < 4:
            yield enlarge(model, turned, scale, out_size).flip(axes)
        else:
            yield enlarge(model, turned.mT.contiguous(), scale[::-1], out_size[::-1]).mT.flip(axes)
