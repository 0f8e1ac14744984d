"""Gains at factors held out from training beside those at the nearest factors that were trained, on the same pixels.

PSNR depends on what is in the picture, and the middles that `compare` measures depend on the factor: they are whole
periods of it. Here every picture's three middles (below, held out, above) are cut to the smallest of the three before
PSNR is taken, so that what remains between the three gains is the factor, which changes little, and whether it was
trained.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.upscaling.evaluation import describe, interval, pair_of, psnr
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.recipe import HELD_OUT
from ccnet.upscaling.tiles import enlarge

NEIGHBOUR_SIDE = 276  # px of a middle: whole periods of 1.37, 1.6, 2.37, 3.3 and of their neighbours fill most of it


def trained_neighbours(held_out: Fraction, trained: Sequence[Fraction]) -> tuple[Fraction, Fraction]:
    """The nearest factor below and the nearest above that training has.

    Raises:
        CcnetError: there is none on one side, or the factor itself was trained.
    """
    below, above = [s for s in trained if s < held_out], [s for s in trained if s > held_out]
    if not below or not above or held_out in trained:
        raise CcnetError(f"factor {held_out} is not between two trained ones without being one of them")
    return max(below), min(above)


def compare_neighbours(
    model: CCUpscaler,
    pictures: Mapping[str, NDArray[np.uint8]],
    trained: Sequence[Fraction],
    held_out: Sequence[Fraction] = HELD_OUT,
    *,
    seed: int = 0,
    max_side: int = NEIGHBOUR_SIDE,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Measure what a factor loses by not having been trained, the same along both axes.

    Args:
        model: the network.
        pictures: name -> luma, uint8 [H, W]; none of them from training.
        trained: every factor of the training.
        held_out: factors that are not among them.
        seed: of the bootstrap.
        max_side: px of a picture that is measured.
        advance: called with 1 after each picture at each held-out factor.

    Returns:
        JSON values: pictures (how many), max_side, seed, and rows of factor, below, above, gains_db (over bicubic:
        below, held out, above), and of the held-out gain minus the mean of the other two: excess_db, excess_ci95,
        by_picture. `excess_db` and `excess_ci95` beside them are of all rows together, a picture's mean over them.

    Raises:
        CcnetError: no pictures, one that is too small, or a factor without a trained one on either side.
    """
    if not pictures:
        raise CcnetError("no pictures to compare on; give at least one")
    rows, excesses = [], []
    for middle in held_out:
        factors = trained_neighbours(middle, trained)[0], middle, trained_neighbours(middle, trained)[1]
        gains = []
        for picture in pictures.values():
            gains.append(_gains(model, picture, factors, max_side))
            advance(1)
        below, own, above = np.array(gains).T
        excesses.append(own - (below + above) / 2)
        rows.append(
            {"factor": describe((middle, middle)), "below": str(factors[0]), "above": str(factors[2])}
            | {"gains_db": [float(gain.mean()) for gain in (below, own, above)]}
            | _excess(excesses[-1], seed)
            | {"by_picture": dict(zip(pictures, excesses[-1].tolist(), strict=True))}
        )
    total = _excess(np.mean(excesses, axis=0), seed)
    return {"pictures": len(pictures), "max_side": max_side, "seed": seed, "rows": rows} | total


def _gains(model: CCUpscaler, picture: NDArray[np.uint8], factors: tuple[Fraction, ...], max_side: int) -> list[float]:
    """PSNR over bicubic at each factor, in dB, on the pixels that all their middles have."""
    pairs = [pair_of(picture, (s, s), max_side) for s in factors]
    height, width = (min(large.shape[dim] for large, _ in pairs) for dim in (2, 3))
    widest = (max(factors), max(factors))  # the border that is left out
    gains = []
    for (large, small), s in zip(pairs, factors, strict=True):
        size = (large.shape[2], large.shape[3])
        ours, theirs, truth = (
            _middle(image, height, width)
            for image in (enlarge(model, small, (s, s), size), enlarge(None, small, (s, s), size), large)
        )
        gains.append(psnr(ours, truth, widest) - psnr(theirs, truth, widest))
    return gains


def _middle(image: Tensor, height: int, width: int) -> Tensor:
    top, left = (image.shape[2] - height) // 2, (image.shape[3] - width) // 2
    return image[:, :, top : top + height, left : left + width]


def _excess(values: NDArray[np.float64], seed: int) -> dict[str, Any]:
    return {"excess_db": float(values.mean()), "excess_ci95": interval(values, seed)}
