"""Recipes: the numbers of the paper, learning rates over a run, and values that are refused."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ccnet import CcnetError
from ccnet.recipes import TrainingConfig, learning_rate_at, recipe


def test_the_paper_recipe_is_that_of_appendix_a_2() -> None:
    for arch, rate, milestones in (("ccnet", 5e-4, (200, 300)), ("convnet", 1e-3, (150, 250))):
        config = recipe("paper", arch)
        assert (config.optimizer, config.weight_decay, config.batch_size) == ("adam", 5e-4, 64)
        assert (config.epochs, config.learning_rate, config.milestones) == (400, rate, milestones)
        assert (config.crop_padding, config.flip, config.label_smoothing) == (4, "random", 0)
        assert (config.ema_decay, config.gradient_clip, config.pool_size) == (0, 0, 0)


def test_its_learning_rate_falls_by_ten_at_each_milestone() -> None:
    config = recipe("paper", "ccnet")
    rates = [learning_rate_at(config, epoch * 10, 10) for epoch in (0, 199, 200, 299, 300, 399)]
    assert rates == pytest.approx([5e-4, 5e-4, 5e-5, 5e-5, 5e-6, 5e-6])
    assert learning_rate_at(config, 1999, 10) == 5e-4


def test_one_cycle_rises_linearly_then_falls_to_almost_zero() -> None:
    config = recipe("fast", epochs=10)
    rates = [learning_rate_at(config, step, 100) for step in range(1000)]
    assert max(rates) == rates[149] == config.learning_rate
    assert np.diff(rates[:150]) == pytest.approx(np.full(149, config.learning_rate / 150))
    assert (np.diff(rates[149:]) < 0).all()
    assert 0 < rates[-1] < 1e-4 * config.learning_rate


def test_none_keeps_the_value_of_the_preset() -> None:
    assert recipe("paper", epochs=None, seed=None).epochs == 400


def test_a_config_survives_json() -> None:
    config = recipe("paper", "convnet", data_dir="x", sequence_method="conditioned", sequence_max_numerator=9)
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arch": "vgg"}, "arch 'vgg'; allowed are ccnet, convnet"),
        ({"recipe": "slow"}, "recipe 'slow'; allowed are fast, paper"),
        ({"epochs": 0}, "at least 1"),
        ({"batch_size": -3}, "at least 1"),
        ({"seed": -1}, "at least 0"),
        ({"label_smoothing": 1.0}, "from 0 to below 1"),
        ({"ema_decay": float("nan")}, "from 0 to below 1"),
        ({"learning_rate": 0.0}, "must be above 0"),
        ({"learning_rate": float("nan")}, "must be above 0"),
        ({"warmup_share": 1.5}, "from 0 to below 1"),
        ({"sequence_method": "best"}, "sequence_method 'best'; allowed are corrected, conditioned"),
        ({"sequence_max_numerator": 7}, "7 with sequence_method 'corrected'; .* with 'conditioned'"),
        ({"sequence_max_numerator": 0, "sequence_method": "conditioned"}, "numbers from 1"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CcnetError, match=message):
        replace(recipe(), **changes)


def test_an_unknown_option_lists_the_known_ones() -> None:
    with pytest.raises(CcnetError, match=r"unknown training option.*\['momentum'\]; known are"):
        recipe(momentum=0.9)
