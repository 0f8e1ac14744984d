"""The card of a checkpoint says what its config says, and no more where the config says little."""

from typing import Any

import pytest

from ccnet.model_card import model_card

LEAST: dict[str, Any] = {
    "format": "ccnet-checkpoint",
    "format_version": 1,
    "name": "shoes",
    "architecture": {"name": "CCNet", "kwargs": {}},
    "labels": ["boot", "sandal"],
    "preprocessing": {"channels": 1, "content_size": [28, 28], "input_size": [32, 32], "mean": [0.2], "std": [0.3]},
}
TRAINING = {
    "config": {
        "recipe": "fast", "epochs": 8, "batch_size": 64, "seed": 3, "optimizer": "adamw", "learning_rate": 0.001,
    },
    "epochs_done": 7,
    "steps": 7400,
    "seconds": 3600.0,
    "hardware": "a machine",
}  # fmt: skip


def test_the_least_that_a_config_must_hold_makes_a_card() -> None:
    card = model_card(LEAST)
    assert card.startswith("# shoes\n")
    assert "A `CCNet` for grey pictures of 28 x 28 px, centred on black in 32 x 32." in card
    assert "None yet." in card
    assert "## Training" not in card
    assert "ScaleEnsemble" in card


def test_everything_that_is_there_is_told() -> None:
    more = {
        "parameters": 1234567,
        "data": {"dataset": "fashion-mnist", "train_images": 60_000, "test_images": 10_000},
        "training": TRAINING,
        "scale_distribution": {"std": 0.05, "method": "corrected", "pool_size": 0},
        "versions": {"torch": "2.13.0"},
        "git_commit": "abc",
        "created": "today",
    }
    card = model_card(LEAST | more)
    for line in (
        "- data: fashion-mnist, 60,000 images",
        "- recipe `fast`: 7 of 8 epochs, 7,400 steps of 64 images, 60 min on a machine",
        "- seed 3, adamw, learning rate 0.001",
        "- scale sequences: std 0.05, corrected, a fresh one a batch",
        "- torch 2.13.0, commit abc, today",
    ):
        assert f"\n{line}\n" in card
    assert "with 1,234,567 parameters" in card


@pytest.mark.parametrize("data", [{"dataset": "mine"}, {"dataset": "mine", "train_images": None}])
def test_data_without_a_number_of_images_is_named_alone(data: dict[str, Any]) -> None:
    assert "\n- data: mine\n" in model_card(LEAST | {"data": data, "training": TRAINING})


@pytest.mark.parametrize("data", [None, {}, {"train_images": 5}])
def test_data_without_a_name_is_left_out(data: dict[str, Any] | None) -> None:
    assert "- data" not in model_card(LEAST | {"data": data, "training": TRAINING})


@pytest.mark.parametrize("key", ["training", "scale_distribution", "metrics", "versions", "git_commit", "parameters"])
@pytest.mark.parametrize("value", [None, {}])
def test_what_is_null_or_empty_is_left_out(key: str, value: object) -> None:
    assert "None" not in model_card(LEAST | {"metrics": {"accuracy": 0.5, "nll": 1.0}} | {key: value}).replace(
        "None yet", ""
    )


def test_a_recipe_without_its_time_is_left_out() -> None:
    card = model_card(LEAST | {"training": TRAINING | {"seconds": None}})
    assert "- recipe" not in card
    assert "- seed 3" in card


def test_metrics_that_someone_else_measured_are_shown_as_far_as_they_go() -> None:
    card = model_card(LEAST | {"metrics": {"accuracy": 0.5, "nll": 1.25}})
    assert "| one pass | 50.00% | 1.2500 |" in card
    assert "images of" not in card
    assert "Seed" not in card
