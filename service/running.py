"""What happens on the inference thread: slices of jobs -> forward passes, shared member by member -> their logits.

Knows neither HTTP nor the queue; `service.batcher` decides which slices come together.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnet.ensemble import Aggregate
from ccnet.errors import CheckpointError
from ccnet.sequences import ScaleSequence
from service import tracing
from service.metrics import Metrics
from service.pace import TELLING
from service.queueing import Slice
from service.served import ServedModel
from service.sharing import shared_runs
from service.statistics import Statistics
from service.warming import chosen_seed

Logits = NDArray[np.floating]  # [N, classes] of one member
Progress = Callable[[int, int], None]  # told (done, total); raises to stop the work


@dataclass(eq=False, slots=True)
class ClassifyJob:
    """One request.

    Attributes:
        model: Of the request.
        images: Prepared for it, float32 [N, C, H, W].
        members: How many, at least 1; 1 for a model without sequences.
        aggregate: How the members' logits become one.
        seed: Of the sequences; None takes that of the batch it comes into, and tells it then.
        sequences: The members; None until they are known, and for a model without sequences.
        trace: Where it stands in a trace, for the link of its batches; None where nothing is traced.
    """

    model: ServedModel
    images: Tensor
    members: int
    aggregate: Aggregate = "mean"
    seed: int | None = None
    sequences: tuple[ScaleSequence, ...] | None = None
    trace: Any = field(default_factory=tracing.current)


@dataclass(frozen=True, eq=False, slots=True)
class ProbeJob:
    """Work that runs alone on the inference thread and reports how far it is, so that it can be stopped."""

    work: Callable[[Progress], Any]
    abandoned: threading.Event = field(default_factory=threading.Event)
    trace: Any = field(default_factory=tracing.current)

    def run(self) -> Any:
        """Do the work; stops at the next report when nobody waits for it any more."""
        return self.work(self._go_on)

    def _go_on(self, done: int, total: int) -> None:
        if self.abandoned.is_set():
            raise InterruptedError(f"given up after {done} of {total} measurements: nobody waits for them")


class Runner:
    """Runs batches.

    Args:
        metrics, statistics: Where runs are counted.
        seed_pool: Seeds among which one is drawn for the requests of a batch that name none.
    """

    def __init__(self, metrics: Metrics, statistics: Statistics, seed_pool: int) -> None:
        self._metrics = metrics
        self._statistics = statistics
        self._seed_pool = seed_pool

    def run(self, slices: Sequence[Slice[ClassifyJob | ProbeJob]]) -> list[Sequence[Any]]:
        """One batch: for each slice the results of its units.

        Raises:
            MemoryError: The device has no room for a batch of this size.
        """
        first = slices[0].job
        with torch.inference_mode(), tracing.batch_span(part.job.trace for part in slices):
            if isinstance(first, ProbeJob):
                return [[first.run()]]
            by_model: dict[int, list[int]] = {}  # by identity: two may have one name while one replaces the other
            for position, part in enumerate(slices):
                by_model.setdefault(id(cast(ClassifyJob, part.job).model), []).append(position)
            results: dict[int, list[Logits]] = {}
            try:
                for positions in by_model.values():
                    parts = cast(list[Slice[ClassifyJob]], [slices[position] for position in positions])
                    results |= zip(positions, self._run_model(parts), strict=True)
            except torch.OutOfMemoryError as error:
                torch.cuda.empty_cache()
                raise MemoryError(str(error)) from error
        return [results[position] for position in range(len(slices))]

    def _run_model(self, slices: Sequence[Slice[ClassifyJob]]) -> list[list[Logits]]:
        """Slices of one model: for each the logits of its members."""
        begun = time.perf_counter()
        model = slices[0].job.model
        _choose_sequences(model, [part.job for part in slices], self._seed_pool)
        wanted: list[Sequence[ScaleSequence | None]] = [
            [None] if part.job.sequences is None else part.job.sequences[part.first : part.last] for part in slices
        ]
        runs = shared_runs(wanted)
        batches = [
            (
                torch.cat([slices[request].job.images for request in run.requests]),
                [member for member in run.members if member is not None],
            )
            for run in runs
        ]
        prepared = time.perf_counter()
        logits = [of_run.numpy(force=True) for of_run in model.member_logits(batches)]  # waits for a GPU
        self._metrics.stage("prepare", prepared - begun)
        self._metrics.stage("forward", time.perf_counter() - prepared)
        found: list[dict[ScaleSequence | None, Logits]] = [{} for _ in slices]
        for run, of_run in zip(runs, logits, strict=True):
            self._metrics.batch_images.observe(of_run.shape[1])
            begin = 0
            for request in run.requests:
                end = begin + len(slices[request].job.images)
                found[request].update(zip(run.members, of_run[:, begin:end], strict=True))
                begin = end
        self._statistics.executed(model.name, sum(len(part.job.images) for part in slices), time.perf_counter() - begun)
        return [[of_slice[member] for member in members] for of_slice, members in zip(found, wanted, strict=True)]


def first_pass(model: ServedModel) -> None:
    """Let a model make its first pass, which is its slowest.

    Raises:
        CheckpointError: Its logits are not finite.
    """
    with torch.inference_mode():
        (logits,) = model.member_logits([(torch.zeros(1, model.channels, *model.in_size), model.sample(1, seed=0))])
    if not bool(torch.isfinite(logits).all()):
        raise CheckpointError(f"{model.name} gives logits that are not finite, for a picture of zeros")


def seconds_per_pass(model: ServedModel) -> float:
    """What a pass takes among a number of them that tells the speed of full batches."""
    members = model.sample(1, seed=0)
    images = torch.zeros(TELLING, model.channels, *model.in_size)
    with torch.inference_mode():
        model.member_logits([(images, members)])[0].cpu()  # may compile or prepare something, which is not its speed
        started = time.perf_counter()
        model.member_logits([(images, members)])[0].cpu()
    return (time.perf_counter() - started) / TELLING


def _choose_sequences(model: ServedModel, jobs: Sequence[ClassifyJob], seed_pool: int) -> None:
    """Give requests that name neither a seed nor sequences those of one seed of the pool, all of a batch the same."""
    undecided = [job for job in jobs if job.sequences is None and model.takes_sequences]
    if undecided:  # only with a pool: else every request has its own seed from the start
        seed = chosen_seed(None, seed_pool)
        sequences = model.sample(max(job.members for job in undecided), seed)
        for job in undecided:
            job.seed, job.sequences = seed, sequences[: job.members]
