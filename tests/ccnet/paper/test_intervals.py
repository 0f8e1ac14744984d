"""Paired bootstrap intervals: what a literal loop gives, and no verdict where there is no difference."""

import math
import random
import statistics

import pytest
import torch

from ccnet import CcnetError
from ccnet.paper.intervals import Estimate, mean_interval, paired_interval


def test_a_difference_is_the_difference_of_the_means_over_images_that_both_sides_have() -> None:
    first = torch.tensor([[1.0, 2.0, math.nan, 4.0]])
    second = torch.tensor([[0.5, 1.0, 3.0, math.nan]])
    assert paired_interval(first, second, seed=0).mean == pytest.approx(((1 - 0.5) + (2 - 1.0)) / 2)


def test_the_interval_is_that_of_a_literal_bootstrap() -> None:
    values = torch.randn(60, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    dice, means = random.Random(1), []
    for _ in range(2_000):
        means.append(statistics.fmean(float(values[dice.randrange(60)]) for _ in range(60)))
    means.sort()
    found = mean_interval(values[None], seed=5)
    spread = statistics.stdev(means)
    assert found.low == pytest.approx(means[50], abs=0.3 * spread)
    assert found.high == pytest.approx(means[1_949], abs=0.3 * spread)


def test_what_both_sides_have_in_common_cancels() -> None:
    hard = 100 * torch.randn(1, 200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = paired_interval(hard + 1, hard, seed=0)
    assert found.low == pytest.approx(1)
    assert found.high == pytest.approx(1)
    assert found.above_zero is True
    assert mean_interval(hard, seed=0).above_zero is None


def test_a_copy_differs_by_exactly_nothing_and_is_not_better() -> None:
    values = torch.rand(1, 50, generator=torch.Generator().manual_seed(0))
    found = paired_interval(values, values.clone(), seed=0)
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert found.above_zero is None


def test_training_runs_that_disagree_widen_the_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.01 * torch.randn(3, 400, generator=generator)
    runs = noise + torch.tensor([[0.0], [1.0], [2.0]])
    alone = mean_interval(runs[1:2], seed=0)
    together = mean_interval(runs, seed=0)
    assert alone.high - alone.low < 0.01
    assert together.high - together.low > 0.5
    assert together.mean == pytest.approx(1, abs=0.01)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(11)
    held = 0
    for repeat in range(60):
        found = mean_interval(torch.randn(1, 80, generator=generator), seed=repeat)
        held += found.low <= 0 <= found.high
    assert 52 <= held <= 60


def test_equal_seeds_give_equal_intervals() -> None:
    values = torch.rand(2, 30, generator=torch.Generator().manual_seed(0))
    assert mean_interval(values, seed=4) == mean_interval(values, seed=4)
    assert mean_interval(values, seed=4) != mean_interval(values, seed=5)


def test_nothing_to_compare_on_is_refused() -> None:
    with pytest.raises(CcnetError, match="no image"):
        paired_interval(torch.tensor([[math.nan]]), torch.tensor([[1.0]]), seed=0)


def test_an_estimate_reads_as_mean_and_interval() -> None:
    assert Estimate(0.0123, -0.001, 0.0254).shown(100, 1) == "+1.2 (-0.1 to +2.5)"
    assert Estimate(0.5, 0.25, 0.75).shown(signed=False, digits=2) == "0.50 (0.25 to 0.75)"
