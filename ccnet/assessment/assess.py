"""The assessment itself: everything is run once, and one document is made of it."""

import hashlib
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ccnet import provenance
from ccnet.assessment.classes import labels_for
from ccnet.assessment.comparisons import LEAST_COMPARED, compare_all
from ccnet.assessment.gathering import CountedPasses, Gathered, draw_sequences, gather
from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.passes import LocalPasses, Passes
from ccnet.assessment.rows import Row, describe_row, draws_of, make_row
from ccnet.assessment.shifts import shift_passes, shift_tables
from ccnet.assessment.shown import describe_shown
from ccnet.assessment.verdict import notes, verdict
from ccnet.checkpoint import Checkpoint
from ccnet.data import LabelledPictures
from ccnet.errors import CcnetError
from ccnet.evaluation import method_of_draws, takes_sequence

FORMAT, FORMAT_VERSION = "ccnet-assessment", 1
_DIGITS = 6  # more say nothing, and would differ with the order in which floats are added


def assess(
    model: Checkpoint,
    dataset: LabelledPictures,
    options: AssessmentOptions | None = None,
    *,
    passes: Passes | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Assess a classifier on labelled pictures.

    Args:
        model: a checkpoint.
        dataset: pictures whose classes the network knows, matched by name (or by number, where a name is one).
        options: what is asked; None takes all defaults.
        passes: how the network is run; None runs it here.
        on_progress: called with (done, total) passes after each call of `passes`; may raise in order to stop.

    Returns:
        JSON-able document; docs/evaluation.md says what each number means.

    Raises:
        CcnetError: a class that the network does not know, a shift as large as the picture, or logits that are not
            finite.
    """
    options = AssessmentOptions() if options is None else options
    dataset = dataset if options.limit is None else dataset.first(options.limit)
    labels, matched = labels_for(model.labels, dataset)
    _require_shifts(model, options)
    started = time.monotonic()
    counted = CountedPasses(
        LocalPasses(model) if passes is None else passes, passes_needed(model, len(dataset), options), on_progress
    )
    pool, probed = draw_sequences(model, options)
    equivariance = shift_tables(model, dataset, probed, options, counted)  # first: it is short, and may refuse
    gathered = gather(model, dataset, pool, options, counted)
    rows = _rows(gathered, labels, options, with_sequences=bool(pool))
    document = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "model": _model(model),
        "dataset": _dataset(dataset, labels, model.labels, matched),
        "options": options.describe(),
        "method": _method(options, len(pool)),
        "sequences": [str(sequence) for sequence in pool],
        "rows": [describe_row(row, alone, options) for row, alone in rows],
        "comparisons": compare_all([row for row, _ in rows], options),
        "shown": describe_shown(_largest([row for row, _ in rows]), model.labels, options, dataset.files),
        "equivariance": equivariance,
        "cost": _cost(gathered, [row for row, _ in rows], options),
        "provenance": _provenance(model, time.monotonic() - started),
    }
    document = _rounded(document)
    return {"verdict": verdict(document), "notes": notes(document), **document}


def passes_needed(model: Checkpoint, images: int, options: AssessmentOptions | None = None) -> int:
    """Forward passes of single images that an assessment makes: its cost before any work.

    Args:
        model: a checkpoint.
        images: pictures in the data set; `options.limit` is taken into account.
        options: None takes all defaults.
    """
    options = AssessmentOptions() if options is None else options
    counted = images if options.limit is None else min(images, options.limit)
    members = options.pool_size if takes_sequence(model.model) else 1
    views = options.sizes[-1] - 1 if options.views else 0  # the first view is the first member's pass
    return counted * (members + views) + shift_passes(counted, options)


def _require_shifts(model: Checkpoint, options: AssessmentOptions) -> None:
    least = min(model.preprocessing.input_size)
    if options.max_shifts and options.max_shifts[-1] >= least:
        raise CcnetError(
            f"max_shifts up to {options.max_shifts[-1]} px; the input of {model.name} is {least} px wide or high: "
            "shift less, or give max_shifts=() to leave the table out"
        )


def _rows(
    gathered: Gathered, labels: Tensor, options: AssessmentOptions, *, with_sequences: bool
) -> list[tuple[Row, Row]]:
    """Every row, beside the row of its kind that its gains and losses are counted against."""
    rows: list[tuple[Row, Row]] = []
    kind, sizes = ("sequences", options.sizes) if with_sequences else ("pass", (1,))
    pool = len(gathered.members)
    found = [make_row(kind, draws_of(size, pool, options), gathered.members, labels, options) for size in sizes]
    rows += [(row, found[0]) for row in found]
    if gathered.views is not None:
        views = [make_row("views", [tuple(range(size))], gathered.views, labels, options) for size in options.sizes]
        rows += [(row, views[0]) for row in views]
    return rows


def _largest(rows: list[Row]) -> Row:
    """The largest ensemble, or the plain pass; views are what it is compared with."""
    return max((row for row in rows if row.kind != "views"), key=lambda row: row.size)


def _model(model: Checkpoint) -> dict[str, Any]:
    return {
        "name": model.name,
        "architecture": type(model.model).__name__,
        "parameters": sum(parameter.numel() for parameter in model.model.parameters()),
        "classes": list(model.labels),
        "preprocessing": model.preprocessing.to_dict(),
        "sampler": model.sampler,
        "trained_on": (model.config.get("data") or {}).get("dataset"),
        "git_commit": model.config.get("git_commit"),
    }


def _dataset(dataset: LabelledPictures, labels: Tensor, classes: tuple[str, ...], matched: str) -> dict[str, Any]:
    counts = torch.bincount(labels, minlength=len(classes)).tolist()
    return {
        "name": dataset.name,
        "split": dataset.split,
        "n": len(dataset),
        "classes": dict(zip(classes, counts, strict=True)),
        "classes_matched_by": matched,
        "sha256": _fingerprint(dataset),
    }


def _fingerprint(dataset: LabelledPictures) -> str:
    """SHA-256 over the size, the pixels and the class of every picture, in their order."""
    digest = hashlib.sha256()
    for image, label in zip(dataset.images, dataset.labels.tolist(), strict=True):
        digest.update(f"{image.shape} {dataset.classes[label]}\n".encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _method(options: AssessmentOptions, pool: int) -> dict[str, str]:
    """In words how every kind of number was measured."""
    plain = "One pass; the network takes no scale sequence."
    intervals = (
        f"95%: bootstrap of {options.resamples} resamples over images, the draws kept; for accuracies the wider of it "
        f"and Wilson's, which alone is that of a single draw; none for differences of fewer than {LEAST_COMPARED} "
        "images. They hold neither training nor the pool to account."
    )
    scaled = (
        "Cross-fitted: a temperature is fitted to one half of the images and scales the other, and the other way round."
    )
    return {
        "draws": method_of_draws(options.draws, pool) if pool else plain,
        "views": "Logits averaged over mirrored and moved views of the picture, under the pool's first sequence."
        if pool
        else "Logits averaged over mirrored and moved views of the picture.",
        "intervals": intervals,
        "scaled": scaled,
        "ece": f"Top-label confidence, {options.bins} bins of equal width; by_chance is its mean over labels drawn so "
        "that every confidence is true, by_chance_95 the 95% quantile.",
        "cost": f"Measured while the report was made: calls of at most {options.batch_size} images and one sequence.",
    }


def _cost(gathered: Gathered, rows: list[Row], options: AssessmentOptions) -> dict[str, Any]:
    members, images, _ = gathered.members.shape
    each = gathered.seconds / (members * images)
    return {
        "passes": members * images,
        "seconds_a_pass": each,
        "batch_size": options.batch_size,
        "rows": [
            {
                "kind": row.kind,
                "size": row.size,
                "seconds_an_image": row.size * each,
                "images_a_second": 1 / (row.size * each),
            }
            for row in rows
        ],
    }


def _provenance(model: Checkpoint, seconds: float) -> dict[str, Any]:
    return {
        "hardware": provenance.hardware(model.device),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "date": provenance.now(),
        "seconds": seconds,
    }


def _rounded(value: Any) -> Any:
    """Every float of a document to six significant digits."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    return [_rounded(one) for one in value] if isinstance(value, list | tuple) else value
