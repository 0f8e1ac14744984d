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
    assert together.mean == pytest.approx(1, abs=0.01)
    # mean +- t s / sqrt(R): s = 1 of 0, 1 and 2; 4.303 is the 97.5% quantile of t with 2 degrees of freedom
    assert together.high == pytest.approx(1 + 4.303 / math.sqrt(3), rel=0.05)
    assert together.low == pytest.approx(1 - 4.303 / math.sqrt(3), rel=0.05)


@pytest.mark.parametrize("runs", [2, 3])
def test_the_interval_holds_the_truth_of_all_trainings_though_there_are_few_runs(runs: int) -> None:
    generator, repeats = torch.Generator().manual_seed(5), 80
    means, differences = 0, 0
    for seed in range(repeats):
        sides = []
        for _ in range(2):
            trained = 0.02 * torch.randn(runs, 1, generator=generator)
            sides.append(trained + 0.1 * torch.randn(runs, 60, generator=generator))
        hard = 0.1 * torch.randn(1, 60, generator=generator)
        first, second = (hard + side for side in sides)
        found = mean_interval(first, seed=seed)
        means += found.low <= 0 <= found.high
        found = paired_interval(first, second, seed=seed)
        differences += found.low <= 0 <= found.high
    assert means / repeats >= 0.9  # drawing the runs themselves anew: 0.47 and 0.67
    assert differences / repeats >= 0.9


def test_more_runs_that_disagree_as_much_narrow_the_interval() -> None:
    runs = torch.tensor([[0.0], [1.0]]).expand(2, 50)
    widths = [found.high - found.low for found in (mean_interval(runs.repeat(n, 1), seed=0) for n in (1, 2, 8))]
    assert widths[0] > 4 * widths[1] > 8 * widths[2]


def test_images_that_saw_one_sequence_are_drawn_together() -> None:
    generator = torch.Generator().manual_seed(2)
    clusters = torch.arange(960) % 32
    held, width = 0, 0.0
    for seed in range(150):
        of_sequence = torch.randn(32, generator=generator)
        values = (of_sequence[clusters] + 0.1 * torch.randn(960, generator=generator))[None]
        found = mean_interval(values, seed=seed, clusters=clusters)
        held += found.low <= 0 <= found.high
        width += (found.high - found.low) / 150
    assert held / 150 >= 0.9
    assert width == pytest.approx(2 * 1.96 / math.sqrt(32), rel=0.1)
    alone = mean_interval(values, seed=0)
    assert alone.high - alone.low < 0.3 * width, "images taken one by one look far too sure"


def test_images_that_are_each_a_cluster_of_their_own_give_the_interval_of_images() -> None:
    values = torch.rand(1, 40, generator=torch.Generator().manual_seed(0))
    order = torch.arange(40)
    assert mean_interval(values, seed=3, clusters=order) == mean_interval(values, seed=3)


def test_a_cluster_whose_images_are_all_left_out_is_none() -> None:
    values = torch.tensor([[1.0, math.nan, 3.0, math.nan]])
    found = mean_interval(values, seed=0, clusters=torch.tensor([0, 1, 2, 1]))
    assert (found.mean, found.low, found.high) == (2, 1, 3)


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
