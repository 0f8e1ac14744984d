"""Training: from a recipe and a data set to a measured checkpoint.

Notable choices
- The whole data set stays in memory as uint8; a batch is one gather (`ccnet.augmentation`).
- Whatever is random is a function of (seed, step), so an interrupted run goes on to the very weights of an uninterrupted
  one on the same machine with the same number of threads.
- CCNet sees a fresh scale sequence every batch, both axes independent (scale augmentation, A.2).
- The state is saved after every epoch, every `save_every_s` seconds, and when SIGINT or SIGTERM asks to stop.
- bfloat16 autocast on a GPU alone: on a CPU it is hundreds of times slower than float32.
"""

import copy
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccnet import provenance
from ccnet.augmentation import TrainingBatches, derived_seed
from ccnet.checkpoint import load_checkpoint, save_checkpoint, write_metrics
from ccnet.data import ImageDataset, load_dataset
from ccnet.errors import CcnetError
from ccnet.evaluation import evaluate, member_logits, takes_sequence
from ccnet.files import write_atomically
from ccnet.models import CCNet, ConvNet
from ccnet.preprocessing import Preprocessing
from ccnet.progress import ProgressReport
from ccnet.recipes import FREE_TO_CHANGE, TrainingConfig, learning_rate_at, recipe
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from ccnet.training_state import STATE_FILE, named_tensors, read_state, restore_tensors, write_state

__all__ = ["TrainingConfig", "TrainingResult", "recipe", "train"]

METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FOLDER = "checkpoint"
_STEPS_BETWEEN_READINGS = 16  # on a GPU: reading a loss waits for the step to end


@dataclass(frozen=True)
class TrainingResult:
    """What a call of `train` came to.

    Attributes:
        finished: False when it was asked to stop; calling `train` again goes on.
        steps: taken in all, earlier calls included.
        checkpoint: the folder that was written, None before the first epoch ended.
        history: one entry an epoch, the lines of metrics.jsonl.
        metrics: the final evaluation, None unless finished.
    """

    finished: bool
    steps: int
    checkpoint: Path | None
    history: tuple[dict[str, Any], ...]
    metrics: dict[str, Any] | None


def train(
    config: TrainingConfig,
    out_dir: Path | str,
    *,
    checkpoint_dir: Path | str | None = None,
    progress: bool = True,
    resume: bool = True,
    data: tuple[ImageDataset, ImageDataset] | None = None,
) -> TrainingResult:
    """Train a network, or go on with a run that was interrupted; measure it and write its checkpoint.

    Args:
        config: the recipe.
        out_dir: folder of the run: state.safetensors, metrics.jsonl and checkpoint/, renewed after every epoch.
        checkpoint_dir: where the final, measured checkpoint goes; None leaves it in `out_dir`/checkpoint.
        progress: show a bar on a terminal, a line every 30 s elsewhere.
        resume: go on from the state in `out_dir` where there is one; False starts anew.
        data: (train, test) instead of the data set that the config names.

    Raises:
        CcnetError: a loss that is not finite, or a state of another run in `out_dir`.
        DataError: the data set cannot be read.
    """
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    train_data, test_data = data or (
        load_dataset(config.dataset, "train", config.data_dir),
        load_dataset(config.dataset, "test", config.data_dir),
    )
    with _threads(config.threads), _StopRequest() as stop:
        run = _Run(config, out_dir, train_data, test_data)
        if resume and (out_dir / STATE_FILE).exists():
            run.restore()
        run.go_on(stop, progress)
        if not run.finished:
            return TrainingResult(False, run.step, run.newest_checkpoint(), tuple(run.history), None)
        folder = Path(checkpoint_dir) if checkpoint_dir is not None else out_dir / CHECKPOINT_FOLDER
        metrics = run.write_measured_checkpoint(folder, progress)
        return TrainingResult(True, run.step, folder, tuple(run.history), metrics)


class _Run:
    """The network, its optimiser and how far they are."""

    def __init__(self, config: TrainingConfig, out_dir: Path, train_data: ImageDataset, test_data: ImageDataset) -> None:
        self.config, self.out_dir = config, out_dir
        self.train_data, self.test_data = train_data, test_data
        self.device = _device(config.device)
        self.preprocessing = Preprocessing.for_dataset(train_data)
        self.model = _new_model(config, train_data, self.preprocessing).to(self.device)
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval() if config.ema_decay else None
        self.optimizer = _new_optimizer(config, self.model)
        self.batches = TrainingBatches(train_data, self.preprocessing, config, self.device)
        self.sequences = _TrainingSequences(config, self.preprocessing.input_size) if takes_sequence(self.model) else None
        self.total_steps = config.epochs * self.batches.steps_per_epoch
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.epoch_totals = _Totals()
        self._unread: list[tuple[int, Tensor, Tensor]] = []

    @property
    def finished(self) -> bool:
        return self.step >= self.total_steps

    def go_on(self, stop: "_StopRequest", progress: bool) -> None:
        """Take steps until the last one or until asked to stop; save the state on the way and at the end."""
        size, per_epoch = self.config.batch_size, self.batches.steps_per_epoch
        title = f"{self.config.arch} on {self.train_data.name}"
        saved_at = started = time.monotonic()
        before = self.seconds
        with ProgressReport(title, self.total_steps * size, done=self.step * size, enabled=progress) as report:
            while not self.finished and not stop.requested:
                self.take_step()
                self.seconds = before + time.monotonic() - started
                report.advance(size, f"epoch {(self.step - 1) // per_epoch + 1}  {self.epoch_totals}")
                if self.step % per_epoch == 0:
                    self.end_epoch(report)
                    saved_at = time.monotonic()
                elif time.monotonic() - saved_at >= self.config.save_every_s:
                    self.save()
                    saved_at = time.monotonic()
            if not self.finished:
                self.save()
                report.line(f"stopped after step {self.step:,} of {self.total_steps:,}; the same command goes on from there")

    def take_step(self) -> None:
        """One batch forward and backward, one step of the optimiser and of the average."""
        x, labels = self.batches.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.step, self.batches.steps_per_epoch)
        arguments = () if self.sequences is None else (self.sequences.at(self.step),)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(x, *arguments)
        loss = F.cross_entropy(logits.float(), labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.config.gradient_clip:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        self._move_average()
        self._unread.append((self.step, loss.detach(), (logits.detach().argmax(1) == labels).sum()))
        self.step += 1
        if self.device.type == "cpu" or len(self._unread) >= _STEPS_BETWEEN_READINGS:
            self._read_losses()

    @torch.no_grad()
    def _move_average(self) -> None:
        """average += (1 - decay) (weights - average); the decay rises with the steps, or the start would linger."""
        if self.average is not None:
            decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)

    def _read_losses(self) -> None:
        for step, loss, correct in self._unread:
            value = float(loss)
            if not torch.isfinite(loss):
                raise CcnetError(
                    f"the loss of step {step} is {value}: training has diverged. Use a lower learning rate than "
                    f"{self.config.learning_rate}; the last saved state in {self.out_dir} is from before that step"
                )
            self.epoch_totals.add(value, int(correct), self.config.batch_size)
        self._unread.clear()

    def end_epoch(self, report: ProgressReport) -> None:
        """Measure the averaged weights cheaply, then save state, metrics and a checkpoint that can be tried."""
        self._read_losses()
        accuracy, images = self._quick_accuracy()
        entry = {
            "epoch": self.step // self.batches.steps_per_epoch,
            "step": self.step,
            "train_loss": self.epoch_totals.loss,
            "train_accuracy": self.epoch_totals.accuracy,
            "test_accuracy": accuracy,
            "test_images": images,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "seconds": round(self.seconds, 1),
        }
        self.history.append(entry)
        self.epoch_totals = _Totals()
        self.save()
        self._write_history()
        self.write_checkpoint(self.out_dir / CHECKPOINT_FOLDER)
        report.line(
            f"epoch {entry['epoch']} of {self.config.epochs}: loss {entry['train_loss']:.4f}, train {entry['train_accuracy']:.2%}, "
            f"test {accuracy:.2%} of {images:,}, {self.seconds:,.0f} s"
        )

    def _quick_accuracy(self) -> tuple[float, int]:
        """(accuracy of the weights to be saved, one fixed sequence, number of test images)."""
        images = self.test_data.first(self.config.epoch_test_images)
        sequences = [] if self.sequences is None else [self.sequences.fixed()]
        logits = member_logits(self.weights_to_save(), self.preprocessing, images, sequences)[0]
        return float((logits.argmax(1) == torch.from_numpy(images.labels)).double().mean()), len(images)

    def weights_to_save(self) -> nn.Module:
        """The averaged network where there is one."""
        return self.model if self.average is None else self.average

    def save(self) -> None:
        """Write the state; nothing of it depends on anything that is not in it."""
        self._read_losses()
        values = {
            "config": self.config.to_dict(),
            "data": self._data(),
            "step": self.step,
            "seconds": self.seconds,
            "history": self.history,
            "epoch_totals": vars(self.epoch_totals),
        }
        write_state(self.out_dir / STATE_FILE, named_tensors(self.model, self.average, self.optimizer), values)

    def restore(self) -> None:
        """Go on from the saved state.

        Raises:
            CcnetError: it is damaged, or of a run with another config or data set.
        """
        path = self.out_dir / STATE_FILE
        tensors, values = read_state(path)
        mine, theirs = self.config.to_dict() | self._data(), values["config"] | values["data"]
        differing = sorted(key for key in mine if key not in FREE_TO_CHANGE and mine[key] != theirs.get(key))
        if differing:
            changes = ", ".join(f"{key} {theirs.get(key)!r} there and {mine[key]!r} here" for key in differing)
            raise CcnetError(f"{path} is of another run ({changes}); give another folder, the same options, or do not resume")
        restore_tensors(tensors, self.model, self.average, self.optimizer)
        self.step, self.seconds, self.history = values["step"], values["seconds"], values["history"]
        self.epoch_totals = _Totals(**values["epoch_totals"])
        self._write_history()  # a line that was written after the state is from steps that will be taken again

    def _data(self) -> dict[str, Any]:
        return {
            "dataset": self.train_data.name,
            "train_images": len(self.train_data),
            "test_images": len(self.test_data),
        }

    def _write_history(self) -> None:
        lines = "".join(json.dumps(entry) + "\n" for entry in self.history)
        write_atomically(self.out_dir / METRICS_FILE, lines.encode())

    def newest_checkpoint(self) -> Path | None:
        """The checkpoint of the last finished epoch."""
        return self.out_dir / CHECKPOINT_FOLDER if self.history else None

    def write_checkpoint(self, folder: Path) -> None:
        """The weights as they are now, with the recipe and how far it went."""
        scales = None
        if self.sequences is not None:
            names = {"std": "sequence_std", "method": "sequence_method", "pool_size": "pool_size"}
            scales = {name: getattr(self.config, attribute) for name, attribute in names.items()}
        recipe_used = {key: value for key, value in self.config.to_dict().items() if key != "data_dir"}
        save_checkpoint(
            self.weights_to_save(),
            folder,
            name=f"{self.train_data.name}-{self.config.arch}",
            labels=self.train_data.classes,
            preprocessing=self.preprocessing,
            scale_distribution=scales,
            training={
                "config": recipe_used,
                "epochs_done": self.step // self.batches.steps_per_epoch,
                "steps": self.step,
                "seconds": round(self.seconds, 1),
                "hardware": provenance.hardware(self.device),
                "history": self.history,
            },
            data=self._data(),
        )

    def write_measured_checkpoint(self, folder: Path, progress: bool) -> dict[str, Any]:
        """Write the checkpoint, load it again and measure what the file really holds."""
        self.write_checkpoint(folder)
        metrics = evaluate(load_checkpoint(folder, self.device), self.test_data, progress=progress)
        write_metrics(folder, metrics)
        return metrics


@dataclass
class _Totals:
    """Sums over the images of an epoch so far."""

    loss_sum: float = 0.0
    correct: int = 0
    images: int = 0

    def add(self, loss: float, correct: int, images: int) -> None:
        self.loss_sum += loss * images
        self.correct += correct
        self.images += images

    @property
    def loss(self) -> float:
        return self.loss_sum / max(1, self.images)

    @property
    def accuracy(self) -> float:
        return self.correct / max(1, self.images)

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}  accuracy {self.accuracy:.2%}"


class _TrainingSequences:
    """The scale sequence of every step, a function of (seed, step)."""

    def __init__(self, config: TrainingConfig, in_size: tuple[int, int]) -> None:
        self._config, self._in_size = config, in_size
        self._pool = self._draw(config.pool_size, "pool", 0) if config.pool_size else []

    def at(self, step: int) -> ScaleSequence:
        if self._pool:
            return self._pool[derived_seed(self._config.seed, "sequence", step) % len(self._pool)]
        return self._draw(1, "sequence", step)[0]

    def fixed(self) -> ScaleSequence:
        """The one that every epoch is measured with."""
        return self._draw(1, "fixed sequence", 0)[0]

    def _draw(self, count: int, purpose: str, step: int) -> list[ScaleSequence]:
        config = self._config
        seed = derived_seed(config.seed, purpose, step)
        method: Any = config.sequence_method
        return sample_scale_sequences(count, seed=seed, std=config.sequence_std, method=method, in_size=self._in_size)


def _new_model(config: TrainingConfig, data: ImageDataset, preprocessing: Preprocessing) -> nn.Module:
    """A network with the initial weights of the seed, without touching the random numbers of the caller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        channels, classes, in_size = data.channels, len(data.classes), preprocessing.input_size
        if config.arch == "convnet":
            return ConvNet(channels, classes, in_size=in_size)
        kernel_input: Any = config.kernel_input
        return CCNet(channels, classes, in_size=in_size, kernel_input=kernel_input, backend=config.backend)


def _new_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CcnetError(f"unknown device {name!r}; allowed are 'auto', 'cpu', 'cuda' and 'cuda:NUMBER'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CcnetError(f"device {name!r} was asked for, and torch sees no GPU; use 'auto' or 'cpu'")
    return device


@contextmanager
def _threads(count: int | None) -> Iterator[None]:
    """Run with `count` CPU threads of torch, and put the old number back."""
    before = torch.get_num_threads()
    if count is not None:
        if count < 1:
            raise CcnetError(f"threads {count}; at least 1 is needed")
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class _StopRequest:
    """Turns the first SIGINT or SIGTERM into a request to stop after the step; a second one acts as usual."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "_StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def _handle(self, *_: object) -> None:
        self.requested = True
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
