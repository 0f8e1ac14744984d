"""Intervals, churn and comparisons: scipy and literal loops as judges, and what must hold of any numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ccnet.assessment import AssessmentOptions
from ccnet.assessment.churn import churn, gained_and_lost
from ccnet.assessment.comparisons import LEAST_COMPARED, compare
from ccnet.assessment.intervals import bootstrap, of_share, wilson
from ccnet.assessment.rows import make_row
from tests.ccnet.assessment import oracles


@pytest.mark.parametrize(("right", "images"), [(0, 1), (1, 1), (0, 30), (30, 30), (7, 9), (930, 1000)])
def test_wilson_is_what_scipy_gives(right, images) -> None:
    expected = stats.binomtest(right, images).proportion_ci(0.95, method="wilson")
    assert wilson(right / images, images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_the_bootstrap_is_what_scipy_gives_up_to_chance() -> None:
    values = np.random.default_rng(0).beta(0.6, 0.2, 400)
    expected = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1).confidence_interval
    found = bootstrap(torch.from_numpy(values), seed=0, resamples=5000)
    assert found == pytest.approx((expected.low, expected.high), abs=2e-3)


@given(shares=st.lists(st.integers(0, 4), min_size=1, max_size=60), seed=st.integers(0, 2**40))
@settings(max_examples=60, deadline=None)
def test_an_interval_holds_its_mean(shares, seed) -> None:
    values = torch.tensor(shares, dtype=torch.float64) / 4
    (low, high), method = of_share(values, draws=4, seed=seed, resamples=300)
    assert 0 <= low <= float(values.mean()) + 1e-12
    assert float(values.mean()) - 1e-12 <= high <= 1
    by_count, drawn = wilson(float(values.mean()), len(shares)), bootstrap(values, seed=seed, resamples=300)
    assert method == "bootstrap and Wilson"
    assert low == min(by_count[0], drawn[0]) < max(by_count[1], drawn[1]) == high


def test_one_image_in_between_does_not_make_a_share_certain() -> None:
    values = torch.ones(30, dtype=torch.float64)
    certain, _ = of_share(values, draws=10, seed=0, resamples=300)
    values[0] = 0.9
    almost, _ = of_share(values, draws=10, seed=0, resamples=300)
    assert certain == pytest.approx((0.886, 1.0), abs=1e-3)
    assert almost[0] <= certain[0]
    assert almost[1] - almost[0] > 0.1


def test_a_single_draw_gets_wilsons_interval() -> None:
    values = torch.tensor([1.0, 0.0, 1.0, 1.0], dtype=torch.float64)
    assert of_share(values, draws=1, seed=0, resamples=100) == (wilson(0.75, 4), "Wilson")


def test_intervals_of_95_percent_hold_the_truth_about_as_often() -> None:
    dice = torch.Generator().manual_seed(3)
    held = 0
    for seed in range(200):
        values = (torch.rand(200, generator=dice, dtype=torch.float64) < 0.8).double()
        low, high = bootstrap(values, seed=seed, resamples=100)
        held += low <= 0.8 <= high
    assert 0.89 <= held / 200 <= 0.99


@st.composite
def predictions(draw: st.DrawFn) -> list[list[int]]:
    images = draw(st.integers(1, 12))
    one = st.lists(st.integers(0, 3), min_size=images, max_size=images)
    return draw(st.lists(one, min_size=2, max_size=6))


@given(draws=predictions())
@settings(deadline=None)
def test_churn_is_the_literal_mean_over_pairs(draws) -> None:
    assert churn(torch.tensor(draws)) == pytest.approx(oracles.churn(draws), abs=1e-12)


def test_churn_of_a_draw_with_itself_is_0_and_of_one_draw_is_nothing() -> None:
    draw = torch.randint(5, (1, 40))
    assert churn(draw.expand(3, -1)) == 0
    assert churn(draw) is None


@given(draws=predictions(), others=predictions())
@settings(deadline=None)
def test_gains_and_losses_are_those_of_all_pairs_and_differ_by_the_accuracies(draws, others) -> None:
    images = min(len(draws[0]), len(others[0]))
    now = [[float(value == 0) for value in row[:images]] for row in draws]
    before = [[float(value == 0) for value in row[:images]] for row in others]
    found = gained_and_lost(torch.tensor(now, dtype=torch.float64), torch.tensor(before, dtype=torch.float64))
    assert found == pytest.approx(oracles.gained_and_lost(now, before), abs=1e-12)
    difference = np.mean(now) - np.mean(before)
    assert found[0] - found[1] == pytest.approx(difference, abs=1e-12)


def test_a_comparison_is_paired_over_images() -> None:
    """Two models that differ on few images are told apart by pairs, where their own intervals overlap widely."""
    dice = torch.Generator().manual_seed(0)
    labels = torch.zeros(500, dtype=torch.long)
    right = torch.rand(500, generator=dice) < 0.6
    better = right.clone()
    better[torch.nonzero(~right)[:15, 0]] = True
    options = AssessmentOptions(max_shifts=(), resamples=500)

    def row(mask: torch.Tensor, size: int) -> object:
        logits = torch.stack([mask.float(), 1 - mask.float()], dim=1)
        return make_row("sequences", [tuple(range(size))], logits.expand(size, -1, -1), labels, options)

    first, second = row(better, 2), row(right, 1)
    found = compare(first, second, options)  # type: ignore[arg-type]
    assert found["accuracy"]["difference"] == pytest.approx(15 / 500)
    low, high = found["accuracy"]["interval"]
    assert 0.01 < low < 0.03 < high < 0.06
    apart = wilson(float(right.double().mean()), 500), wilson(float(better.double().mean()), 500)
    assert apart[0][1] > apart[1][0], "unpaired intervals overlap"
    same = compare(second, second, options)["accuracy"]  # type: ignore[arg-type]
    assert (same["difference"], same["interval"]) == (0, [0, 0])


@pytest.mark.parametrize(("images", "given"), [(1, False), (LEAST_COMPARED - 1, False), (LEAST_COMPARED, True)])
def test_a_difference_of_too_few_images_gets_no_interval(images: int, given: bool) -> None:
    labels = torch.zeros(images, dtype=torch.long)
    options = AssessmentOptions(max_shifts=())
    right, wrong = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    first, second = (make_row("sequences", [(0,)], one.expand(1, images, 2), labels, options) for one in (right, wrong))
    found = compare(first, second, options)["accuracy"]
    assert (found["difference"], found["interval"] is not None) == (1, given)


def test_numbers_of_a_single_image_are_finite() -> None:
    assert wilson(1.0, 1) == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert bootstrap(torch.tensor([0.5], dtype=torch.float64), seed=0) == (0.5, 0.5)
    assert math.isfinite(sum(wilson(0.0, 1)))
