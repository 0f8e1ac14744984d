"""What `ccnet classify` and `ccnet probe` do behind their options: passes over pictures, with a progress bar."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ccnet.checkpoint import Checkpoint
from ccnet.cli_support import progress
from ccnet.data import load_dataset
from ccnet.ensemble import EnsembleOutput, ScaleEnsemble, aggregate_logits
from ccnet.equivariance import ShiftReport, ShiftSimilarity, noise_images, shift_grid, shift_report, table1
from ccnet.equivariance.measure import OnProgress
from ccnet.equivariance.protocol import Border
from ccnet.errors import CcnetError
from ccnet.models import CCNet
from ccnet.progress import ProgressReport
from ccnet.sequences import ScaleSequence

ENSEMBLE_SIZE = 4  # members where none are asked for
PROBE_SEQUENCES = 8  # dealt out among the images, so more of them cost no more passes
BAR_FROM_PASSES = 16  # fewer are done before a bar could be read


def draw_members(checkpoint: Checkpoint, size: int | None, seed: int) -> tuple[ScaleSequence, ...]:
    """The sequences of an ensemble, as the service draws them; none for a network that takes none.

    Raises:
        CcnetError: several members asked of such a network.
    """
    if isinstance(checkpoint.model, CCNet):
        return ScaleEnsemble(checkpoint.model, **checkpoint.sampler).sample(size or ENSEMBLE_SIZE, seed)
    if size not in (None, 1):
        raise CcnetError(
            f"-k {size} was given; {checkpoint.name} is a {type(checkpoint.model).__name__}, which takes no scale "
            "sequences: leave -k out"
        )
    return ()


@torch.inference_mode()
def run_members(checkpoint: Checkpoint, x: Tensor, sequences: Sequence[ScaleSequence]) -> EnsembleOutput:
    """The ensemble's answer for prepared pictures [N, C, H, W], member by member; one plain pass without sequences."""
    total = len(x) * max(1, len(sequences))
    rows = []
    with progress("classifying", total, "passes", shown=total >= BAR_FROM_PASSES) as report:
        if isinstance(checkpoint.model, CCNet):
            ensemble = ScaleEnsemble(checkpoint.model)
            for sequence in sequences:
                rows.append(ensemble(x, sequences=[sequence]).logits)
                report.advance(len(x))
        else:
            for part in x.split(BAR_FROM_PASSES):
                rows.append(checkpoint.model(part))
                report.advance(len(part))
            rows = [torch.cat(rows)]
    member_logits = torch.stack(rows)
    return EnsembleOutput(aggregate_logits(member_logits), member_logits, tuple(sequences))


def describe(checkpoint: Checkpoint, output: EnsembleOutput, top: int) -> list[dict[str, Any]]:
    """What each picture was classified as, as JSON values."""
    values, classes = output.logits.softmax(dim=1).topk(min(top, len(checkpoint.labels)), dim=1)
    results = []
    for ranking, probabilities, agreement in zip(
        classes.tolist(), values.tolist(), output.agreement.tolist(), strict=True
    ):
        best = [{"label": checkpoint.labels[c], "probability": p} for c, p in zip(ranking, probabilities, strict=True)]
        results.append({**best[0], "agreement": agreement, "top": best})
    return results


def measure_shifts(
    checkpoint: Checkpoint,
    shown: str,
    source: str,
    shifts: Sequence[int],
    samples: int,
    seed: int,
    data_dir: Path | None,
    border: Border = "zero",
) -> tuple[list[ShiftSimilarity], str]:
    """(the rows of Table 1, what enters a shifted image in words)."""
    images, _, fill, entering = probe_images(checkpoint, source, samples, seed, data_dir)
    with progress(f"probing {shown}", samples * len(shifts), "pairs") as bar:
        rows = table1(
            checkpoint.model, images, shifts, sequences=_probe_members(checkpoint, seed), seed=seed, border=border,
            fill=fill, on_progress=_advancing(bar),
        )  # fmt: skip
    return rows, _entering(border, entering)


def measure_all_shifts(
    checkpoint: Checkpoint,
    shown: str,
    source: str,
    max_shift: int,
    step: Fraction,
    border: Border,
    samples: int,
    seed: int,
    data_dir: Path | None,
) -> tuple[ShiftReport, str]:
    """(all measures at every shift of a grid, what enters a shifted image in words)."""
    images, labels, fill, entering = probe_images(checkpoint, source, samples, seed, data_dir)
    shifts = shift_grid(max_shift, step)
    with progress(f"probing {shown}", samples * len(shifts), "pairs") as bar:
        report = shift_report(
            checkpoint.model, images, shifts, labels=labels, sequences=_probe_members(checkpoint, seed), seed=seed,
            border=border, fill=fill, on_progress=_advancing(bar),
        )  # fmt: skip
    return report, _entering(border, entering)


def _probe_members(checkpoint: Checkpoint, seed: int) -> tuple[ScaleSequence, ...] | None:
    if not isinstance(checkpoint.model, CCNet):
        return None
    return ScaleEnsemble(checkpoint.model, **checkpoint.sampler).sample(PROBE_SEQUENCES, seed)


def _advancing(bar: ProgressReport) -> OnProgress:
    reached = 0

    def on_progress(done: int, _: int) -> None:
        nonlocal reached
        bar.advance(done - reached)
        reached = done

    return on_progress


def _entering(border: Border, under_zero: str) -> str:
    return under_zero if border == "zero" else f"nothing: no value enters under border {border}"


def probe_images(
    checkpoint: Checkpoint, source: str, samples: int, seed: int, data_dir: Path | None
) -> tuple[Tensor, Tensor | None, float | tuple[float, ...], str]:
    """(prepared images, their labels or None, the value that enters when they are shifted, that value in words).

    Raises:
        CcnetError: the data set cannot be read, or has fewer images.
    """
    preprocessing = checkpoint.preprocessing
    if source == "noise":
        shape = (preprocessing.channels, *preprocessing.input_size)
        return noise_images(samples, shape, seed).to(checkpoint.device), None, 0.0, "0, the mean of the noise"
    dataset = load_dataset(source, "test", data_dir)
    if samples > len(dataset):
        raise CcnetError(f"--samples {samples} was given; the test split of {source} has {len(dataset)} images")
    black = "black, the ground on which a picture is centred when it is prepared"
    labels = torch.from_numpy(dataset.labels[:samples]) if dataset.classes == tuple(checkpoint.labels) else None
    return checkpoint.preprocess(dataset.images[:samples]), labels, preprocessing.black, black
