"""A model small enough to foresee: its logits follow from an image's mean and the first scales of a sequence."""

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnet.sequences import ScaleSequence, sample_scale_sequences

POISON = 66  # grey value of a picture that makes `member_logits` fail


class FakeModel:
    """A `ServedModel` without a network.

    Args:
        name: Of the model.
        takes_sequences: False makes it like a ConvNet.

    Attributes:
        gate: `member_logits` waits for it; clear it to hold the inference thread.
        entered: Set whenever `member_logits` is entered.
        passes: (images, members) of every batch that `member_logits` is given.
        takes_s: Seconds that each call takes.
        dies: Makes the next call end the thread.
        kept: Every sequence that was to be prepared.
    """

    labels = ("sandal", "sneaker", "boot")
    in_size = (32, 32)
    channels = 1
    black = (0.0,)

    def __init__(self, name: str = "fake", *, takes_sequences: bool = True) -> None:
        self.name = name
        self.takes_sequences = takes_sequences
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.passes: list[tuple[int, int]] = []
        self.takes_s = 0.0
        self.dies = False
        self.kept: list[ScaleSequence] = []

    @property
    def facts(self) -> dict[str, Any]:
        return {
            "architecture": "Fake",
            "device": "cpu",
            "backend": None,
            "instruction_set": None,
            "parameters": 0,
            "metrics": None,
            "config": {"name": self.name},
        }

    @property
    def subject(self) -> Callable[..., Tensor]:
        return lambda x: x

    @property
    def checkpoint(self) -> Any:
        return SimpleNamespace(labels=self.labels)

    def prepare(self, pictures: Sequence[np.ndarray]) -> Tensor:
        return torch.tensor([float(picture.mean()) for picture in pictures]).reshape(-1, 1, 1, 1).expand(-1, 1, 32, 32)

    def sample(self, k: int, seed: int) -> tuple[ScaleSequence, ...]:
        return tuple(sample_scale_sequences(k, seed=seed)) if self.takes_sequences else ()

    def keep(self, sequences: Sequence[ScaleSequence]) -> None:
        self.kept += sequences

    def member_logits(self, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> list[Tensor]:
        return [self._member_logits(images, sequences) for images, sequences in batches]

    def _member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        self.entered.set()
        assert self.gate.wait(30), "the test never opened the gate"
        time.sleep(self.takes_s)
        if self.dies:
            raise SystemExit("as if the interpreter had ended the thread")
        mean = images.mean(dim=(1, 2, 3))
        if bool((mean == POISON).any()):
            raise RuntimeError("a picture that must not be looked at: /secret/path")
        if not torch.equal(images, torch.zeros_like(images)):  # the warm-up
            self.passes.append((len(images), len(sequences)))
        if not self.takes_sequences:
            return _logits(mean, torch.tensor([1.0, 2.0, 3.0]))[None]
        weights = [torch.tensor([float(s) for s in sequence.vertical[1:4]]) for sequence in sequences]
        return torch.stack([_logits(mean, weight) for weight in weights])


def _logits(mean: Tensor, weight: Tensor) -> Tensor:
    return mean[:, None] / 16 * weight
