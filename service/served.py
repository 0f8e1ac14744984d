"""The models behind the engine: what it needs of one, and how a checkpoint folder becomes one."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnet.checkpoint import UPSCALERS_FOLDER, Checkpoint, load_checkpoint
from ccnet.ensemble import ScaleEnsemble
from ccnet.errors import CheckpointError
from ccnet.models import CCNet
from ccnet.native import kernels
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence
from service.settings import Settings

FolderState = frozenset[tuple[str, int, int, int]]

REMEMBERED_SAMPLES = 1024  # sequences of a seed and size are drawn once


class ServedModel(Protocol):
    """What the engine needs of a model."""

    @property
    def name(self) -> str:
        """By which requests call it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """The name of every class, in the order of the logits."""

    @property
    def takes_sequences(self) -> bool:
        """Whether it is run as an ensemble of scale sequences."""

    @property
    def in_size(self) -> tuple[int, int]:
        """(height, width) of its input, px."""

    @property
    def channels(self) -> int:
        """Channels of its input."""

    @property
    def black(self) -> tuple[float, ...]:
        """What a black pixel is in its input, one value a channel."""

    @property
    def facts(self) -> dict[str, Any]:
        """What `schemas.ModelInfo` tells beside the name, the labels and the input."""

    @property
    def subject(self) -> Callable[..., Tensor]:
        """What the shift probes measure."""

    @property
    def checkpoint(self) -> Checkpoint:
        """What evaluations measure."""

    def prepare(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """uint8 pictures [H, W, 1 or 3] of any sizes -> float32 [N, channels, *in_size] on the CPU."""

    def sample(self, k: int, seed: int) -> tuple[ScaleSequence, ...]:
        """The k sequences of a seed, the first ones of a larger k; none for a model without sequences."""

    def keep(self, sequences: Sequence[ScaleSequence]) -> None:
        """Prepare the weights of these sequences and keep them, as far as the cache of plans has room."""

    def member_logits(self, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> list[Tensor]:
        """Of every member over its batch of prepared images [N, channels, *in_size].

        Returns:
            [k, N, classes] of each batch, on the model's device; k = 1 without sequences.
        """


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model came from, and the state of its files when they began to be read."""

    folder: Path
    state: FolderState


class CheckpointModel:
    """A checkpoint as the engine wants it.

    Args:
        checkpoint: As `ccnet.checkpoint.load_checkpoint` gives it.
        plans: Where its prepared weights are kept, shared with the other models.
        source: Of the checkpoint.
    """

    def __init__(self, checkpoint: Checkpoint, plans: PlanCache, source: Source) -> None:
        self.checkpoint = checkpoint
        self.source = source
        self.name = checkpoint.name
        self.labels = checkpoint.labels
        self.in_size = checkpoint.preprocessing.input_size
        self.channels = checkpoint.preprocessing.channels
        self.black = checkpoint.preprocessing.black
        self.subject: Callable[..., Tensor] = checkpoint.model
        self._ensemble: ScaleEnsemble | None = None
        if isinstance(checkpoint.model, CCNet):
            self._ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler, plans=plans)
            self._sample = lru_cache(REMEMBERED_SAMPLES)(self._ensemble.sample)

    @property
    def takes_sequences(self) -> bool:
        """See `ServedModel.takes_sequences`."""
        return self._ensemble is not None

    @property
    def facts(self) -> dict[str, Any]:
        """What `GET /v1/models` tells beside the name, the labels and the input."""
        config, model = self.checkpoint.config, self.checkpoint.model
        backend = model.backend if isinstance(model, CCNet) else None
        native = kernels() if backend == "native" else None
        return {
            "architecture": config["architecture"]["name"],
            "device": str(self.checkpoint.device),
            "backend": backend,
            "instruction_set": None if native is None else native.instruction_set,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "metrics": config.get("metrics"),
            "config": config,
        }

    def prepare(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """See `ServedModel.prepare`."""
        return self.checkpoint.preprocessing(list(pictures))

    def sample(self, k: int, seed: int) -> tuple[ScaleSequence, ...]:
        """See `ServedModel.sample`."""
        return () if self._ensemble is None else self._sample(k, seed)

    def keep(self, sequences: Sequence[ScaleSequence]) -> None:
        """See `ServedModel.keep`."""
        if self._ensemble is not None:
            self._ensemble.prepare(sequences)

    def member_logits(self, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> list[Tensor]:
        """See `ServedModel.member_logits`."""
        on_device = [(images.to(self.checkpoint.device), sequences) for images, sequences in batches]
        if self._ensemble is None:
            return [self.checkpoint.model(images)[None] for images, _ in on_device]
        return self._ensemble.member_logits(on_device)


def load_models(settings: Settings, plans: PlanCache) -> dict[str, ServedModel]:
    """Load every checkpoint under `settings.checkpoints`, by name; `plans` keeps the prepared weights of all of them.

    Raises:
        CheckpointError: No such folder, no checkpoint in it, a damaged one, two of one name, or no such device.
    """
    folder = settings.checkpoints
    device = choose_device(settings.device)
    models: dict[str, ServedModel] = {}
    for path in checkpoint_folders(folder):
        model = load_model(path, device, plans)
        if model.name in models:
            raise CheckpointError(f"two checkpoints in {folder} are called {model.name!r}; rename one")
        models[model.name] = model
    if settings.model is not None and settings.model not in models:
        raise CheckpointError(f"CCNET_MODEL={settings.model!r} was given; in {folder} there are {', '.join(models)}")
    return models


def load_model(path: Path, device: torch.device, plans: PlanCache) -> CheckpointModel:
    """Load one checkpoint folder.

    Raises:
        CheckpointError: It is damaged, or no checkpoint.
        OSError: It cannot be read.
    """
    source = Source(path, folder_state(path))
    return CheckpointModel(load_checkpoint(path, device), plans, source)


def folder_state(folder: Path) -> FolderState:
    """What changes when a file in a folder is written, replaced, added or removed: (name, size, mtime, inode) of each.

    Raises:
        OSError: The folder is not there, or cannot be read.
    """
    with os.scandir(folder) as entries:
        stats = [(entry.name, _stat(entry)) for entry in entries]
    return frozenset((name, stat.st_size, stat.st_mtime_ns, stat.st_ino) for name, stat in stats)


def _stat(entry: "os.DirEntry[str]") -> os.stat_result:
    try:
        return entry.stat()  # of what a link points to, which may change while the link does not
    except FileNotFoundError:
        return entry.stat(follow_symlinks=False)


def checkpoint_folders(folder: Path) -> list[Path]:
    """The checkpoint folders inside a folder, by name; hidden ones are left out.

    Raises:
        CheckpointError: There is none.
    """
    found = visible_folders(folder) if folder.is_dir() else []
    if not found:
        raise CheckpointError(
            f"no checkpoint folder in {folder.absolute()}; set CCNET_CHECKPOINTS to the folder that holds them, "
            "or train one with `ccnet train`"
        )
    return found


def visible_folders(folder: Path) -> list[Path]:
    """The folders inside a folder, by name, but for those of upscalers and hidden ones, which are being written."""
    return sorted(path for path in folder.glob("*/") if not path.name.startswith(".") and path.name != UPSCALERS_FOLDER)


def choose_device(wanted: str) -> torch.device:
    """The device for "auto" (a GPU when there is one), "cpu" or "cuda".

    Raises:
        CheckpointError: "cuda" on a machine without one.
    """
    has_gpu = torch.cuda.is_available()
    if wanted == "cuda" and not has_gpu:
        raise CheckpointError("CCNET_DEVICE=cuda was given, but torch sees no GPU here; use auto or cpu")
    return torch.device("cuda" if has_gpu and wanted != "cpu" else "cpu")
