"""What a published gain is: its sign, its size, its interval, and what it is compared with; oracles in plain loops."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from ccnet.errors import CcnetError
from ccnet.upscaling import CCUpscaler, evaluation, neighbours
from ccnet.upscaling.evaluation import RESAMPLES, compare, compare_ensembles, square
from ccnet.upscaling.neighbours import compare_neighbours, trained_neighbours
from ccnet.upscaling.recipe import HELD_OUT, HELD_OUT_DISTANCE, training_factors

MODEL = CCUpscaler(1, 1)  # only the stubs below are called with it
# name: (grey level of an even picture, by how many levels bicubic is wrong, and the network)
WRONG_BY = {"a": (60, 4, 2), "b": (100, 2, 5), "c": (140, 8, 7)}
PICTURES = {name: np.full((48, 48), level, dtype=np.uint8) for name, (level, _, _) in WRONG_BY.items()}


def decibels(error):
    return 20 * math.log10(255 / error)


def expected_gains():
    return {name: decibels(ours) - decibels(theirs) for name, (_, theirs, ours) in WRONG_BY.items()}


def wrong_by_known_levels(model, small, factor, out_size):
    """`enlarge`, for even pictures whose grey level tells by how much the answer is to be wrong."""
    level = round(float(small.mean()) * 255)
    theirs, ours = next(errors for grey, *errors in WRONG_BY.values() if grey == level)
    return torch.full((1, 1, *out_size), (level + (theirs if model is None else ours)) / 255)


def bootstrap_in_a_loop(values, seed):
    rows = np.random.default_rng(seed).integers(0, len(values), (RESAMPLES, len(values)))
    means = sorted(sum(values[i] for i in row) / len(values) for row in rows.tolist())
    bounds = []
    for share in (0.025, 0.975):  # linear between the two nearest ranks
        at = share * (RESAMPLES - 1)
        low = math.floor(at)
        bounds.append(means[low] + (at - low) * (means[low + 1] - means[low]))
    return bounds


def test_a_gain_is_the_networks_psnr_minus_bicubics_picture_by_picture(monkeypatch):
    monkeypatch.setattr(evaluation, "enlarge", wrong_by_known_levels)
    (row,) = compare(MODEL, PICTURES, [square("2")], source="even", seed=3)["rows"]
    gains = expected_gains()
    assert gains["a"] == pytest.approx(6.0206, abs=1e-4)  # half the error
    assert row["by_picture"] == pytest.approx(gains, abs=1e-6)
    assert row["ours_db"] == pytest.approx(np.mean([decibels(ours) for _, _, ours in WRONG_BY.values()]), abs=1e-6)
    assert row["bicubic_db"] == pytest.approx(np.mean([decibels(its) for _, its, _ in WRONG_BY.values()]), abs=1e-6)
    assert row["difference_db"] == pytest.approx(sum(gains.values()) / 3, abs=1e-6)
    assert row["difference_db"] == pytest.approx(row["ours_db"] - row["bicubic_db"], abs=1e-6)
    assert row["better"] == pytest.approx(2 / 3)
    assert row["difference_ci95"] == pytest.approx(bootstrap_in_a_loop(list(gains.values()), 3), abs=1e-6)


def test_an_ensembles_gain_is_over_one_pass_of_the_same_network(monkeypatch):
    levels = {"steps": (2, -6, 1), "views": (2, 2, 20)}  # by how much each member is wrong

    def members_wrong_by_levels(model, small, factor, out_size, *, size, members, seed):
        level = round(float(small.mean()) * 255)
        return (torch.full((1, 1, *out_size), (level + wrong) / 255) for wrong in levels[members][:size])

    monkeypatch.setattr(evaluation, "enlarge", wrong_by_known_levels)
    monkeypatch.setattr(evaluation, "member_images", members_wrong_by_levels)
    rows = compare_ensembles(MODEL, {"a": PICTURES["a"]}, [square("2")], sizes=(2, 3))["rows"]
    found = {(row["members"], row["size"], row["aggregate"]): row["difference_db"] for row in rows}
    one = decibels(2)
    expected = {
        ("steps", 2, "mean"): decibels(2) - one, ("steps", 2, "median"): decibels(2) - one,
        ("steps", 3, "mean"): decibels(1) - one, ("steps", 3, "median"): decibels(1) - one,
        ("views", 2, "mean"): 0, ("views", 2, "median"): 0,
        ("views", 3, "mean"): decibels(8) - one, ("views", 3, "median"): 0,
    }  # fmt: skip
    assert found == pytest.approx(expected, abs=1e-6)
    assert [row["single_db"] for row in rows] == pytest.approx([one] * len(rows))


def test_neighbours_are_the_nearest_trained_factors_and_none_is_within_the_distance():
    trained = training_factors(12)
    found = {str(s): tuple(map(str, trained_neighbours(s, trained))) for s in HELD_OUT}
    assert found == {
        "137/100": ("13/10", "10/7"), "8/5": ("17/11", "5/3"), "237/100": ("23/10", "17/7"), "33/10": ("13/4", "37/11"),
    }  # fmt: skip
    distances = [abs(s - neighbour) for s in HELD_OUT for neighbour in trained_neighbours(s, trained)]
    assert HELD_OUT_DISTANCE <= min(distances) <= max(distances) == Fraction(7, 100)


@pytest.mark.parametrize("held_out", [Fraction(2), Fraction(9, 2), Fraction(1)])
def test_a_factor_without_trained_ones_around_it_has_no_neighbours(held_out):
    with pytest.raises(CcnetError, match="between two trained ones"):
        trained_neighbours(held_out, training_factors(12))


def test_what_is_lost_at_a_held_out_factor_is_its_gain_minus_its_neighbours_mean(monkeypatch):
    """Bicubic is wrong by 8 levels everywhere, the network by less at trained factors than between them."""
    ours = {Fraction(13, 4): 2, Fraction(33, 10): 4, Fraction(37, 11): 1}

    def wrong_by_factor(model, small, factor, out_size):
        level = round(float(small.mean()) * 255)
        return torch.full((1, 1, *out_size), (level + (8 if model is None else ours[factor[0]])) / 255)

    monkeypatch.setattr(neighbours, "enlarge", wrong_by_factor)
    found = compare_neighbours(MODEL, PICTURES, training_factors(12), [Fraction(33, 10)], seed=1)
    (row,) = found["rows"]
    gains = [decibels(error) - decibels(8) for error in (2, 4, 1)]
    excess = gains[1] - (gains[0] + gains[2]) / 2
    assert (row["below"], row["factor"], row["above"]) == ("13/4", "3.3", "37/11")
    assert row["gains_db"] == pytest.approx(gains, abs=1e-6)
    assert excess < 0
    assert row["by_picture"] == pytest.approx(dict.fromkeys(PICTURES, excess), abs=1e-6)
    assert [row["excess_db"], *row["excess_ci95"], found["excess_db"], *found["excess_ci95"]] == pytest.approx(
        [excess] * 6, abs=1e-6
    )


def test_neighbours_are_measured_on_the_same_pixels(monkeypatch):
    """The middles of the three factors have other sizes; what is scored has one, around the same middle."""
    scored = []

    def watched(picture, truth, factor):
        scored.append((tuple(picture.shape), tuple(truth.shape), factor))
        return 0.0

    monkeypatch.setattr(neighbours, "psnr", watched)
    monkeypatch.setattr(neighbours, "enlarge", lambda model, small, factor, size: torch.zeros(1, 1, *size))
    compare_neighbours(MODEL, {"a": np.zeros((300, 290), dtype=np.uint8)}, training_factors(12), [Fraction("2.37")])
    assert set(scored) == {((1, 1, 237, 237), (1, 1, 237, 237), (Fraction(17, 7), Fraction(17, 7)))}
    assert len(scored) == 6


def test_no_pictures_are_no_comparison():
    for nothing in (
        lambda: compare(CCUpscaler(4, 2), {}, source="nothing"),
        lambda: compare_neighbours(CCUpscaler(4, 2), {}, training_factors(12)),
    ):
        with pytest.raises(CcnetError, match="no pictures"):
            nothing()
