"""One training run: network, optimiser, how far they are, and what is written on the way.

Every step is a function of the state before it and of (seed, step); the state is complete on disk, so a run that is
restored takes the very steps that it would have taken.
"""

import copy
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ccnet import provenance
from ccnet.augmentation import TrainingBatches, TrainingSequences, derived_seed
from ccnet.checkpoint import save_checkpoint
from ccnet.data import ImageDataset
from ccnet.errors import CcnetError
from ccnet.evaluation import member_logits, takes_sequence
from ccnet.files import write_atomically
from ccnet.initialisation import unit_variance_
from ccnet.models import BlurConvNet, CCNet, ConvNet
from ccnet.preprocessing import Preprocessing
from ccnet.progress import ProgressReport
from ccnet.recipes import FREE_TO_CHANGE, TrainingConfig, learning_rate_at
from ccnet.sequences import ScaleSequence
from ccnet.stopping import StopRequest
from ccnet.training_state import STATE_FILE, named_tensors, read_state, restore_tensors, write_state

METRICS_FILE = "metrics.jsonl"
CHECKPOINT_FOLDER = "checkpoint"
_BASELINES = {"convnet": ConvNet, "blurconvnet": BlurConvNet}
_STEPS_BETWEEN_READINGS = 16  # on a GPU: reading a loss waits for the step to end


class TrainingRun:
    """The network, its optimiser and how far they are.

    Args:
        config: the recipe.
        out_dir: existing folder for state, metrics and the checkpoint of every epoch.
        train_data: what is learned from.
        test_data: what every epoch is measured on.
    """

    def __init__(
        self, config: TrainingConfig, out_dir: Path, train_data: ImageDataset, test_data: ImageDataset
    ) -> None:
        self.config, self.out_dir = config, out_dir
        self.train_data, self.test_data = train_data, test_data
        self.device = device_named(config.device)
        self.preprocessing = Preprocessing.for_images(train_data.images)
        self.batches = TrainingBatches(train_data, self.preprocessing, config, self.device)
        self.model = _new_model(config, train_data, self.preprocessing).to(self.device)
        self.sequences: TrainingSequences | None = None
        if takes_sequence(self.model):
            self.sequences = TrainingSequences(config, self.preprocessing.input_size)
        if config.init == "unit-variance":
            unit_variance_(self.model, self.batches.batch(0)[0], *self._arguments(0))
        self.average = copy.deepcopy(self.model).requires_grad_(False).eval() if config.ema_decay else None
        self.optimizer = _new_optimizer(config, self.model)
        self.total_steps = config.epochs * self.batches.steps_per_epoch
        self.step = 0
        self.seconds = 0.0
        self.history: list[dict[str, Any]] = []
        self.epoch_totals = _Totals()
        self._unread: list[tuple[int, Tensor, Tensor]] = []

    @property
    def finished(self) -> bool:
        """Whether the last step has been taken."""
        return self.step >= self.total_steps

    def go_on(self, stop: StopRequest, progress: bool) -> None:
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
                report.line(
                    f"stopped after step {self.step:,} of {self.total_steps:,}; the same command goes on from there"
                )

    def take_step(self) -> None:
        """One batch forward and backward, one step of the optimiser and of the average."""
        x, labels = self.batches.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(self.config, self.step, self.batches.steps_per_epoch)
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(x, *self._arguments(self.step))
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

    def _arguments(self, step: int) -> tuple[ScaleSequence, ...]:
        """Of the network's forward pass beside the images."""
        return () if self.sequences is None else (self.sequences.at(step),)

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
            f"epoch {entry['epoch']} of {self.config.epochs}: loss {entry['train_loss']:.4f}, "
            f"train {entry['train_accuracy']:.2%}, test {accuracy:.2%} of {images:,}, {self.seconds:,.0f} s"
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
            raise CcnetError(
                f"{path} is of another run ({changes}); give another folder, the same options, or do not resume"
            )
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
            scales = {
                "std": self.config.sequence_std,
                "method": self.config.sequence_method,
                "max_numerator": self.config.sequence_max_numerator,
                "pool_size": self.config.pool_size,
            }
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


def _new_model(config: TrainingConfig, data: ImageDataset, preprocessing: Preprocessing) -> nn.Module:
    """A network with the initial weights of the seed, without touching the random numbers of the caller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "weights"))
        channels, classes, in_size = data.channels, len(data.classes), preprocessing.input_size
        if config.arch in _BASELINES:
            return _BASELINES[config.arch](channels, classes, in_size=in_size)
        kernel_input: Any = config.kernel_input
        return CCNet(channels, classes, in_size=in_size, kernel_input=kernel_input, backend=config.backend)


def _new_optimizer(config: TrainingConfig, model: nn.Module) -> torch.optim.Optimizer:
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True)


def device_named(name: str) -> torch.device:
    """The device of a name, "auto" being a GPU where there is one.

    Raises:
        CcnetError: no such device, or no GPU where one is asked for.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise CcnetError(f"unknown device {name!r}; allowed are 'auto', 'cpu', 'cuda' and 'cuda:NUMBER'") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise CcnetError(f"device {name!r} was asked for, and torch sees no GPU; use 'auto' or 'cpu'")
    return device
