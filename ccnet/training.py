"""Training: from a recipe and a data set to a measured checkpoint.

Notable choices
- The whole data set stays in memory as uint8; a batch is one gather (`ccnet.augmentation`).
- Whatever is random is a function of (seed, step), so an interrupted run goes on to the very weights of an
  uninterrupted one on the same machine with the same number of threads.
- CCNet sees a fresh scale sequence every batch, both axes independent (scale augmentation, A.2).
- The state is saved after every epoch, every `save_every_s` seconds, and when SIGINT or SIGTERM asks to stop.
- bfloat16 autocast on a GPU alone: on a CPU it is hundreds of times slower than float32.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ccnet.allocator import keep_freed_memory
from ccnet.checkpoint import load_checkpoint, write_metrics
from ccnet.data import ImageDataset, load_dataset
from ccnet.evaluation import evaluate
from ccnet.recipes import TrainingConfig, recipe
from ccnet.stopping import StopRequest, torch_threads
from ccnet.training_run import CHECKPOINT_FOLDER, TrainingRun
from ccnet.training_state import STATE_FILE

__all__ = ["TrainingConfig", "TrainingResult", "recipe", "train"]


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
    train_data, test_data = data or (
        load_dataset(config.dataset, "train", config.data_dir),
        load_dataset(config.dataset, "test", config.data_dir),
    )
    out_dir = Path(out_dir)
    out_dir.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    with torch_threads(config.threads), StopRequest() as stop:
        run = TrainingRun(config, out_dir, train_data, test_data)
        if resume and (out_dir / STATE_FILE).exists():
            run.restore()
        run.go_on(stop, progress)
        if not run.finished:
            return TrainingResult(False, run.step, run.newest_checkpoint(), tuple(run.history), None)
        folder = Path(checkpoint_dir) if checkpoint_dir is not None else out_dir / CHECKPOINT_FOLDER
        metrics = _write_measured_checkpoint(run, folder, progress)
        return TrainingResult(True, run.step, folder, tuple(run.history), metrics)


def _write_measured_checkpoint(run: TrainingRun, folder: Path, progress: bool) -> dict[str, Any]:
    """Write the checkpoint, load it again and measure what the file really holds."""
    run.write_checkpoint(folder)
    metrics = evaluate(load_checkpoint(folder, run.device), run.test_data, progress=progress)
    write_metrics(folder, metrics)
    return metrics
