"""Networks that answer as a test wants, behind the real interface: checkpoints whose passes are scripted."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnet import CCNet, ConvNet, ScaleSequence, load_checkpoint, save_checkpoint
from ccnet.assessment import AssessmentOptions
from ccnet.checkpoint import Checkpoint
from ccnet.data import ImageDataset
from ccnet.preprocessing import Preprocessing

CLASSES = tuple(f"class {index}" for index in range(10))
PREPROCESSING = Preprocessing(1, (28, 28), (32, 32), (0.0,), (1.0,))
QUICK: dict[str, Any] = {"sizes": (1, 2, 4), "draws": 3, "max_shifts": (), "resamples": 100}


def quick(**options: Any) -> AssessmentOptions:
    """Options that take little time; no shifts unless asked for."""
    return AssessmentOptions(**QUICK | options)


def checkpoint(folder: Path, *, sequences: bool) -> Checkpoint:
    """A tiny untrained network as a checkpoint; its passes are made by `Scripted`, or really."""
    torch.manual_seed(0)
    network = CCNet(1, 10, hidden=(4,)) if sequences else ConvNet(1, 10)
    save_checkpoint(network, folder, labels=CLASSES, preprocessing=PREPROCESSING, name="tiny")
    return load_checkpoint(folder)


def pictures(count: int, *, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> ImageDataset:
    """Noise, with the number of the class in the middle pixel, where mirrored and moved views hide it."""
    dice = np.random.default_rng(seed)
    images = dice.integers(0, 256, (count, 28, 28, 1), dtype=np.uint8)
    labels = dice.integers(0, len(classes), count)
    images[:, 14, 14, 0] = labels
    return ImageDataset("pictures", "test", images, labels.astype(np.int64), classes, "memory")


def encoded(x: Tensor) -> Tensor:
    """The class in the middle pixel of prepared pictures."""
    return (x[:, 0, 16, 16] * 255).round().long().clamp(0, 9)


class Scripted:
    """Logits that know the class in the picture, drowned in noise that depends on picture and sequence alone.

    Args:
        certainty: logit of the right class above all others.
        noise: standard deviation of what is added to all.
    """

    def __init__(self, certainty: float = 2.0, noise: float = 1.0) -> None:
        self.certainty, self.noise, self.calls = certainty, noise, 0

    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        self.calls += 1
        members: list[ScaleSequence | None] = [*sequences] or [None]
        return torch.stack([self._logits(images, member) for member in members])

    def maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        self.calls += 1
        return torch.nn.functional.avg_pool2d(images.float(), 4), self._logits(images, sequence)

    def _logits(self, images: Tensor, sequence: ScaleSequence | None) -> Tensor:
        dice = torch.Generator().manual_seed(len(str(sequence)) * 7919 + sum(map(ord, str(sequence))))
        direction = torch.randn(images[0].numel(), 10, generator=dice, dtype=torch.float64) / 10
        logits = self.noise * (images.flatten(1).double() - 0.5) @ direction
        return logits.float() + self.certainty * torch.nn.functional.one_hot(encoded(images), 10)
