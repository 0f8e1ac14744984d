"""PSNR of luma against bicubic interpolation, at factors that training has seen and at factors that it has not.

Protocol. A picture's luma, 8 bits; the middle of it, as large as whole periods of the factor p/q allow up to
`MAX_SIDE` px, so that the reduced picture has exactly its borders; reduced as in training (`pairs.reduce`); enlarged;
clipped and rounded to 8 bits; ceil(factor) px at each border left out. PSNR = 10 log10(255^2 / mean squared error) of
each picture, averaged over pictures in dB. The interval of a difference is a bootstrap over pictures.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnet.ensemble import aggregate_logits
from ccnet.errors import CcnetError
from ccnet.upscaling.ensembles import ImageAggregate, Members, member_images
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.pairs import reduce
from ccnet.upscaling.recipe import HELD_OUT, HELD_OUT_DISTANCE
from ccnet.upscaling.tiles import enlarge

Factor = tuple[Fraction, Fraction]

MAX_SIDE = 400  # px of a picture that is measured
RESAMPLES = 10_000
METHOD = (
    "Luma of 8 bits, middles of up to 400 px, reduced by antialiased bicubic (a = -1/2) and rounded to 8 bits, "
    "enlarged, clipped and rounded, ceil(factor) px at each border left out; PSNR averaged over pictures; bicubic is "
    "a = -1/2."
)


def square(text: str) -> Factor:
    """The same factor along both axes, from a text such as "2.37" or "8/5"."""
    return Fraction(text), Fraction(text)


FACTORS: tuple[Factor, ...] = (
    square("1.37"), square("1.6"), square("2.37"), square("3.3"), (Fraction("2.37"), Fraction("1.6")),
    square("2"), square("3"), square("4"),
)  # fmt: skip


def seen(factor: Factor) -> bool:
    """Whether training may have met the factors of both axes: none of them was held out."""
    return all(abs(s - out) >= HELD_OUT_DISTANCE for s in factor for out in HELD_OUT)


def pair_of(picture: NDArray[np.uint8], factor: Factor, max_side: int = MAX_SIDE) -> tuple[Tensor, Tensor]:
    """(large, reduced) [1, 1, H, W] of the middle of a luma picture [H, W].

    Raises:
        CcnetError: the picture is smaller than a period of the factor.
    """
    sizes = []
    for side, s in zip(picture.shape, factor, strict=True):
        periods = min(side, max_side) // s.numerator
        if not periods:
            raise CcnetError(
                f"a side of {side} px is shorter than the period of factor {s}, {s.numerator} px; leave the picture out"
            )
        sizes.append((periods * s.numerator, periods * s.denominator))
    (height, low_height), (width, low_width) = sizes
    top, left = (picture.shape[0] - height) // 2, (picture.shape[1] - width) // 2
    middle = picture[top : top + height, left : left + width].copy()
    large = torch.from_numpy(middle)[None, None].float() / 255
    return large, reduce(large, (low_height, low_width))


def psnr(picture: Tensor, truth: Tensor, factor: Factor) -> float:
    """PSNR in dB of [1, 1, H, W] in 0 to 1, rounded to 8 bits, without ceil(factor) px at each border."""
    rows, columns = (slice(math.ceil(s), -math.ceil(s)) for s in factor)
    difference = (picture.clamp(0, 1) * 255).round() - (truth * 255).round()
    error = float(difference[:, :, rows, columns].double().square().mean())
    return 10 * math.log10(255**2 / max(error, 1e-6))


def compare(
    model: CCUpscaler,
    pictures: Mapping[str, NDArray[np.uint8]],
    factors: Sequence[Factor] = FACTORS,
    *,
    source: str,
    seed: int = 0,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure a network against bicubic interpolation.

    Args:
        model: the network.
        pictures: name -> luma, uint8 [H, W]; none of them from training.
        factors: (vertical, horizontal) each.
        source: what the pictures are, for the record.
        seed: of the bootstrap.
        advance: called with 1 after each picture at each factor.

    Returns:
        JSON values: source, pictures (how many), method, seed, and rows of factor, seen, bicubic_db, ours_db,
        difference_db, difference_ci95, better (share of pictures with a positive difference) and by_picture (the
        difference in dB by name).

    Raises:
        CcnetError: no pictures, or one that is too small.
    """
    if not pictures:
        raise CcnetError("no pictures to compare on; give at least one")
    rows = []
    for factor in factors:
        bicubic_db, ours_db = [], []
        for picture in pictures.values():
            large, small = pair_of(picture, factor)
            size = (large.shape[2], large.shape[3])
            bicubic_db.append(psnr(enlarge(None, small, factor, size), large, factor))
            ours_db.append(psnr(enlarge(model, small, factor, size), large, factor))
            advance(1)
        rows.append(
            {"factor": describe(factor), "seen": seen(factor), "bicubic_db": float(np.mean(bicubic_db))}
            | _difference("ours_db", ours_db, bicubic_db, list(pictures), seed)
        )
    return {"source": source, "pictures": len(pictures), "method": METHOD, "seed": seed, "rows": rows}


def compare_ensembles(
    model: CCUpscaler,
    pictures: Mapping[str, NDArray[np.uint8]],
    factors: Sequence[Factor],
    *,
    sizes: Sequence[int] = (2, 4, 8),
    seed: int = 0,
    max_side: int = MAX_SIDE,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure ensembles of steps and of views, means and medians, against one pass of the same network.

    Args:
        model, pictures, factors, seed, advance: as in `compare`; `seed` also draws the steps.
        sizes: members, up to 8; the smaller ensembles are the first members of the largest.
        max_side: px of a picture that is measured.

    Returns:
        JSON values: rows of factor, members, size, aggregate, single_db, ensemble_db, difference_db, difference_ci95,
        better, by_picture.
    """
    kinds = [(way, size, how) for way in get_args(Members) for size in sizes for how in get_args(ImageAggregate)]
    rows = []
    for factor in factors:
        single: list[float] = []
        values: dict[tuple[str, int, str], list[float]] = {kind: [] for kind in kinds}
        for picture in pictures.values():
            large, small = pair_of(picture, factor, max_side)
            out_size = (large.shape[2], large.shape[3])
            single.append(psnr(enlarge(model, small, factor, out_size), large, factor))
            images = {}
            for way in get_args(Members):
                found = member_images(model, small, factor, out_size, size=max(sizes), members=way, seed=seed)
                images[way] = torch.cat(list(found))
            for way, size, how in kinds:
                values[way, size, how].append(psnr(aggregate_logits(images[way][:size], how)[None], large, factor))
            advance(1)
        for way, size, how in kinds:
            row = {"factor": describe(factor), "members": way, "size": size, "aggregate": how}
            measured = _difference("ensemble_db", values[way, size, how], single, list(pictures), seed)
            rows.append(row | {"single_db": float(np.mean(single))} | measured)
    return {"pictures": len(pictures), "max_side": max_side, "seed": seed, "rows": rows}


def describe(factor: Factor) -> str:
    """A factor for people: "2.37", or "2.37 x 1.6" (vertical x horizontal)."""
    texts = [f"{float(s):g}" for s in factor]
    return texts[0] if factor[0] == factor[1] else f"{texts[0]} x {texts[1]}"


def interval(values: NDArray[np.float64], seed: int) -> list[float]:
    """The 95% interval of the mean: a percentile bootstrap over the values, one of each picture."""
    drawn = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    return [float(bound) for bound in np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])]


def _difference(name: str, values: list[float], others: list[float], pictures: list[str], seed: int) -> dict[str, Any]:
    """The mean of `values` under `name`, and how it differs from that of `others`, picture by picture."""
    differences = np.array(values) - np.array(others)
    return {
        name: float(np.mean(values)),
        "difference_db": float(differences.mean()),
        "difference_ci95": interval(differences, seed),
        "better": float((differences > 0).mean()),
        "by_picture": dict(zip(pictures, differences.tolist(), strict=True)),
    }
