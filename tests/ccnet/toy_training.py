"""Training runs of a few steps on a few images, and the comparison of what they end at."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnet.data import ImageDataset
from ccnet.recipes import TrainingConfig, recipe
from ccnet.training_run import TrainingRun
from ccnet.training_state import named_tensors

CLASSES = tuple("abcdefghij")


def toy_data(count: int = 20, seed: int = 0) -> ImageDataset:
    """Images whose brightest row tells the class."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 60, (count, 28, 28, 1), dtype=np.uint8)
    labels = np.arange(count, dtype=np.int64) % 10
    images[np.arange(count), 2 * labels + 4] += 180
    return ImageDataset("toy", "train", images, labels, CLASSES, "memory")


DATA = (toy_data(), toy_data(6, seed=1))


def toy_config(**changes: Any) -> TrainingConfig:
    """Five steps an epoch, two epochs."""
    standard: dict[str, Any] = {
        "arch": "convnet", "dataset": "toy", "epochs": 2, "batch_size": 4, "threads": 1, "device": "cpu", "seed": 3,
    }  # fmt: skip
    return recipe(**standard | changes)


def all_tensors(run: TrainingRun) -> dict[str, Tensor]:
    """Copies of weights, averages and optimiser."""
    return {name: tensor.clone() for name, tensor in named_tensors(run.model, run.average, run.optimizer).items()}


def assert_identical(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    """Every tensor of the same name, equal to the last bit."""
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(second[name], tensor), f"{name} differs"


def uninterrupted(config: TrainingConfig, steps: int, folder: Path) -> dict[str, Tensor]:
    """The tensors after `steps` steps in one go."""
    folder.mkdir(exist_ok=True)
    run = TrainingRun(config, folder, *DATA)
    for _ in range(steps):
        run.take_step()
    return all_tensors(run)
