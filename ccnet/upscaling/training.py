"""Training the upscaler: L1 loss, Adam, one factor a step, averaged weights; an interrupted run goes on.

Every step is a function of the pictures, of the state before it and of (seed, step). The state on disk is complete and
holds a digest of the pictures, so that a run that was stopped or killed takes the very steps that it would have taken,
or says that the pictures are others. With another number of threads it takes them but for rounding.
"""

import copy
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ccnet import provenance
from ccnet.allocator import keep_freed_memory
from ccnet.augmentation import derived_seed
from ccnet.errors import CcnetError
from ccnet.progress import ProgressReport
from ccnet.stopping import StopRequest, torch_threads
from ccnet.training_state import STATE_FILE, named_tensors, read_state, restore_tensors, write_state
from ccnet.upscaling.cubic import bicubic
from ccnet.upscaling.evaluation import pair_of, square
from ccnet.upscaling.folder import save_upscaler
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.pairs import Pictures, TrainingPairs, read_pictures
from ccnet.upscaling.recipe import FREE_TO_CHANGE, HELD_OUT, HELD_OUT_DISTANCE, UpscalerTraining

CHECKPOINT_FOLDER = "checkpoint"
VALIDATED_FACTORS = (square("2"), square("3"), (Fraction(5, 2), Fraction(7, 5)))
VALIDATION_SIDE = 210  # px of the middle of a picture that is validated on


@dataclass(frozen=True)
class UpscalerResult:
    """What a call of `train_upscaler` came to.

    Attributes:
        finished: False when it was asked to stop; calling it again goes on.
        steps: taken in all.
        checkpoint: the folder that was written, None unless finished.
        history: measurements on the way.
    """

    finished: bool
    steps: int
    checkpoint: Path | None
    history: tuple[dict[str, Any], ...]


def train_upscaler(
    config: UpscalerTraining,
    out_dir: Path | str,
    *,
    checkpoint_dir: Path | str | None = None,
    resume: bool = True,
    progress: bool = True,
) -> UpscalerResult:
    """Train a `CCUpscaler`, or go on with a run that was interrupted, and write its checkpoint.

    Args:
        config: the run.
        out_dir: folder of the run: state.safetensors and, at the end, checkpoint/.
        checkpoint_dir: where the checkpoint goes; None puts it into `out_dir`.
        resume: go on from the state in `out_dir` where there is one; False starts anew.
        progress: show a bar on a terminal, a line every 30 s elsewhere.

    Raises:
        DataError: pictures that cannot be read, or too few.
        CcnetError: a loss that is not finite, or a state of another run in `out_dir`.
    """
    out_dir = Path(out_dir)
    pictures = read_pictures(config.source, config.max_side)
    out_dir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with torch_threads(config.threads), StopRequest() as stop:
        run = _Run(config, pictures)
        state = out_dir / STATE_FILE
        if resume and state.exists():
            run.restore(state)
        run.go_on(stop, progress, state)
        if run.step < config.steps:
            return UpscalerResult(False, run.step, None, tuple(run.history))
        folder = Path(checkpoint_dir) if checkpoint_dir is not None else out_dir / CHECKPOINT_FOLDER
        run.write_checkpoint(folder)
        return UpscalerResult(True, run.step, folder, tuple(run.history))


class _Run:
    """The network, its average, its optimiser, and how far they are."""

    def __init__(self, config: UpscalerTraining, pictures: Pictures) -> None:
        self.config, self.pictures = config, pictures
        self.digest = pictures.digest
        self.pairs = TrainingPairs(pictures, config)
        self.model = new_upscaler(config)
        self.average = copy.deepcopy(self.model).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate, fused=True)
        self.step, self.seconds = 0, 0.0
        self.loss = 0.0  # moving average
        self.history: list[dict[str, Any]] = []

    def go_on(self, stop: StopRequest, progress: bool, state: Path) -> None:
        """Take steps until the last one or until asked to stop; save the state on the way and at the end."""
        config = self.config
        saved_at = started = time.monotonic()
        before = self.seconds
        with ProgressReport("upscaler", config.steps, done=self.step, unit="steps", enabled=progress) as report:
            report.line(self.pairs.describe())
            while self.step < config.steps and not stop.requested:
                self.take_step()
                self.seconds = before + time.monotonic() - started
                report.advance(1, f"loss {self.loss:.4f}")
                if self.step % config.validate_every == 0 or self.step == config.steps:
                    self.history.append({"step": self.step, "loss": self.loss, "gain_db": self.validate()})
                    report.line(f"step {self.step:,}: {self.history[-1]['gain_db']:+.3f} dB over bicubic")
                if time.monotonic() - saved_at >= config.save_every_s:
                    self.save(state)
                    saved_at = time.monotonic()
            self.save(state)
            if self.step < config.steps:
                report.line(
                    f"stopped after step {self.step:,} of {config.steps:,}; the same command goes on from there"
                )

    def take_step(self) -> None:
        """One batch forward and backward, one step of the optimiser and of the average."""
        small, large, scale = self.pairs.batch(self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate_at(self.step)
        loss = F.l1_loss(self.model(small, scale, (large.shape[2], large.shape[3])), large)
        value = float(loss.detach())
        if not np.isfinite(value):
            raise CcnetError(
                f"the loss of step {self.step} is {value}: training has diverged. Use a lower learning rate than "
                f"{self.config.learning_rate}; the last saved state is from before that step"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
        self.optimizer.step()
        decay = min(self.config.ema_decay, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(self.model.parameters()), 1 - decay)
        self.loss = value if self.step == 0 else 0.98 * self.loss + 0.02 * value
        self.step += 1

    @torch.inference_mode()
    def validate(self) -> float:
        """Mean gain in dB over bicubic of the averaged weights, on the middles of the pictures held back."""
        gains = []
        for picture in self.pictures.validation[:64]:
            for scale in VALIDATED_FACTORS:
                large, small = pair_of(picture, scale, VALIDATION_SIDE)
                size = (large.shape[2], large.shape[3])
                ours, theirs = self.average(small, scale, size), bicubic(small, scale, size)
                errors = [float(F.mse_loss(out.clamp(0, 1), large)) for out in (ours, theirs)]
                gains.append(10 * np.log10(max(errors[1], 1e-10) / max(errors[0], 1e-10)))
        return float(np.mean(gains))

    def save(self, path: Path) -> None:
        """Write the state; nothing of it depends on anything that is not in it."""
        values = {
            "config": self.config.to_dict(),
            "pictures": self.digest,
            "step": self.step,
            "seconds": self.seconds,
            "loss": self.loss,
            "history": self.history,
        }
        write_state(path, named_tensors(self.model, self.average, self.optimizer), values)

    def restore(self, path: Path) -> None:
        """Go on from the saved state.

        Raises:
            CcnetError: it is damaged, or of a run with other numbers or other pictures.
        """
        tensors, values = read_state(path)
        mine, theirs = self.config.to_dict(), values["config"]
        differing = sorted(key for key in mine if key not in FREE_TO_CHANGE and mine[key] != theirs.get(key))
        if differing:
            changes = ", ".join(f"{key} {theirs.get(key)!r} there and {mine[key]!r} here" for key in differing)
            raise CcnetError(f"{path} is of another run ({changes}); give another folder, the same options, or --fresh")
        if values.get("pictures") != self.digest:
            raise CcnetError(
                f"{path} is of a run on other pictures than {self.config.source} holds now; put them back, "
                "give another folder, or --fresh"
            )
        restore_tensors(tensors, self.model, self.average, self.optimizer)
        self.step, self.seconds = values["step"], values["seconds"]
        self.loss, self.history = values["loss"], values["history"]

    def write_checkpoint(self, folder: Path) -> None:
        """The averaged weights, with the recipe and how far it went."""
        recipe = {key: value for key, value in self.config.to_dict().items() if key != "source"}
        save_upscaler(
            self.average,
            folder,
            training={
                "config": recipe,
                "steps": self.step,
                "seconds": round(self.seconds, 1),
                "hardware": provenance.hardware(torch.device("cpu")),
                "held_out": {"factors": [str(s) for s in HELD_OUT], "distance": str(HELD_OUT_DISTANCE)},
                "degradation": "antialiased bicubic (a = -1/2), clipped and rounded to 8 bits",
                "history": self.history,
            },
            data={
                "source": Path(self.config.source).name,
                "training_pictures": len(self.pictures.training),
                "validation_pictures": len(self.pictures.validation),
            },
        )


def new_upscaler(config: UpscalerTraining) -> CCUpscaler:
    """A network with the initial weights of the seed, without touching the random numbers of the caller."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derived_seed(config.seed, "upscaler"))
        kernel_input: Any = config.kernel_input
        return CCUpscaler(config.width, config.depth, config.kernel_size, kernel_input=kernel_input)
