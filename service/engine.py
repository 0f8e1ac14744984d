"""The models and the one thread that computes: everything that needs a forward pass goes through here.

    submit -> batcher (admission, grouping) -> inference thread: groups that share model, sequences and aggregation are
    one ensemble over their images -> one answer for each request

Knows no HTTP framework. Each answer equals the one that the request would get alone, up to the rounding of sums whose
order depends on the batch (1e-4 in the logits).
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from ccnet.ensemble import Aggregate
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence
from service.answers import Answer, answer_of
from service.batcher import Batcher, BatchReport, Outcome
from service.errors import OptionOutOfRange, TooLarge, UnknownModel
from service.metrics import Metrics
from service.served import ServedModel
from service.settings import Settings
from service.warming import Prepared, prepare_pool

Result = TypeVar("Result")
Loader = Callable[[Settings, PlanCache], Mapping[str, ServedModel]]
Progress = Callable[[int, int], None]  # told (done, total); raises to stop the work


@dataclass(frozen=True, eq=False, slots=True)
class ClassifyJob:
    """Images of one request, each prepared for the model as float32 [1, C, H, W]; no sequences where it takes none."""

    model: ServedModel
    images: tuple[Tensor, ...]
    sequences: tuple[ScaleSequence, ...]
    aggregate: Aggregate


@dataclass(frozen=True, eq=False, slots=True)
class ProbeJob:
    """Work that runs alone on the inference thread and reports how far it is, so that it can be stopped."""

    work: Callable[[Progress], Any]
    abandoned: threading.Event = field(default_factory=threading.Event)

    def run(self) -> Any:
        """Do the work; stops at the next report when nobody waits for it any more."""
        return self.work(self._go_on)

    def _go_on(self, done: int, total: int) -> None:
        if self.abandoned.is_set():
            raise InterruptedError(f"given up after {done} of {total} measurements: nobody waits for them")


class Engine:
    """Answers classifications and probes; one instance a process.

    Args:
        settings: Limits and the default model.
        metrics: Where stages and batches are counted.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: dict[str, ServedModel] = {}
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="inference", initializer=self._claim_threads)
        self._batcher: Batcher[ClassifyJob | ProbeJob, Any] = Batcher(
            self._run,
            self._executor,
            max_queue_passes=settings.max_queue_passes,
            max_batch_passes=settings.max_batch_passes,
            on_batch=self._count_batch,
        )
        self._plans = PlanCache(settings.plan_cache_bytes, on_event=metrics.plan_cache_event)
        metrics.queue_passes.set_function(lambda: self._batcher.queue_passes)
        metrics.plan_cache_bytes.set_function(lambda: self._plans.stats.nbytes)
        metrics.plan_cache_plans.set_function(lambda: self._plans.stats.plans)

    async def start(self, load: Loader) -> Prepared:
        """Load and warm up the models on the inference thread, then begin to answer.

        Returns:
            What was prepared for requests that name no seed.

        Raises:
            CheckpointError: What `load` raises.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._executor, self._load, load)
        self._batcher.start()
        return prepared

    async def stop(self, timeout_s: float) -> bool:
        """Take nothing new, answer what was admitted, end the thread; False when time ran out first."""
        answered = await self._batcher.drain(timeout_s)
        self._executor.shutdown(wait=False, cancel_futures=True)
        return answered

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The loaded models, by name."""
        return tuple(self._models[name] for name in sorted(self._models))

    @property
    def default_model(self) -> ServedModel:
        """The model for requests that name none: as set, else the first that takes sequences, else the first."""
        if self._settings.model is not None:
            return self._models[self._settings.model]
        return next((model for model in self.models if model.takes_sequences), self.models[0])

    def model(self, name: str | None) -> ServedModel:
        """The model of a name, or the default one.

        Raises:
            UnknownModel: No model of that name is loaded.
        """
        if name is None:
            return self.default_model
        if name not in self._models:
            raise UnknownModel(f"model {name[:100]!r} was asked for; loaded are {', '.join(sorted(self._models))}")
        return self._models[name]

    def members(self, model: ServedModel, ensemble_size: int | None) -> int:
        """How many members a request gets: as asked, else the default; 1 for a model without sequences.

        Raises:
            OptionOutOfRange: More than 1 asked of a model that takes no scale sequences.
        """
        if model.takes_sequences:
            return self._settings.ensemble_size if ensemble_size is None else ensemble_size
        if ensemble_size not in (None, 1):
            raise OptionOutOfRange(
                f"ensemble_size: {ensemble_size} was given; model {model.name} takes no scale sequences, "
                "so that only 1, or leaving it out, is allowed"
            )
        return 1

    def check_classification(self, images: int, members: int) -> None:
        """Refuse what costs too much, or more than the queue has room for, before any image is decoded.

        Raises:
            TooLarge: More passes than one request may cost.
            QueueFull, NotReady: As `Batcher.check_room`.
        """
        _check_cost(images * members, self._settings.max_request_passes, f"{images} images x {members} members")
        self._batcher.check_room(images * members)

    async def classify(self, job: ClassifyJob) -> Outcome[Answer]:
        """Classify prepared images in a batch with whatever else waits.

        Raises:
            QueueFull, NotReady: As `Batcher.submit`.
        """
        outcome = await self._batcher.submit(job, len(job.images) * max(1, len(job.sequences)))
        self._metrics.stage("queue", outcome.queue_s)
        return cast(Outcome[Answer], outcome)

    def check_probe(self, passes: int, what: str) -> None:
        """Refuse a probe that costs too much, or more than the queue has room for; `what` is its cost in words.

        Raises:
            TooLarge: More passes than one probe may cost.
            QueueFull, NotReady: As `Batcher.check_room`.
        """
        _check_cost(passes, self._settings.max_probe_passes, what)
        self._batcher.check_room(passes)

    async def probe(self, work: Callable[[Progress], Result], passes: int) -> Outcome[Result]:
        """Run a probe alone on the inference thread; cancelling the call stops it at its next report.

        Args:
            work: Takes a function to report progress to.
            passes: Its cost, for admission.

        Raises:
            QueueFull, NotReady: As `Batcher.submit`.
        """
        job = ProbeJob(work)
        try:
            outcome = await self._batcher.submit(job, passes, alone=True)
        finally:
            job.abandoned.set()
        self._metrics.stage("queue", outcome.queue_s)
        return cast(Outcome[Result], outcome)

    def _claim_threads(self) -> None:
        if self._settings.inference_threads:
            torch.set_num_threads(self._settings.inference_threads)

    def _load(self, load: Loader) -> Prepared:
        self._models = dict(load(self._settings, self._plans))
        asked_most = sorted(self.models, key=lambda model: model is not self.default_model)
        prepared = prepare_pool(
            asked_most, self._plans, seeds=self._settings.seed_pool, members=self._settings.ensemble_size
        )
        for model in self.models:  # the first pass of a model is the slowest; let it not be a user's
            image = torch.zeros(1, model.channels, *model.in_size)
            self._run([ClassifyJob(model, (image,), model.sample(1, seed=0), "mean")])
        return prepared

    def _run(self, jobs: Sequence[ClassifyJob | ProbeJob]) -> list[Any]:
        """One batch, on the inference thread: results in the order of the jobs."""
        results: dict[int, Any] = {}
        groups: dict[tuple[str, tuple[ScaleSequence, ...], Aggregate], list[int]] = {}
        with torch.inference_mode():
            for index, job in enumerate(jobs):
                if isinstance(job, ProbeJob):
                    results[index] = job.run()
                else:
                    groups.setdefault((job.model.name, job.sequences, job.aggregate), []).append(index)
            for indices in groups.values():
                members = cast(list[ClassifyJob], [jobs[index] for index in indices])
                results |= zip(indices, self._run_group(members), strict=True)
        return [results[index] for index in range(len(jobs))]

    def _run_group(self, jobs: Sequence[ClassifyJob]) -> list[Answer]:
        """Jobs of one model, sequences and aggregation: one ensemble over all their images, cut apart again."""
        first = jobs[0]
        started = time.perf_counter()
        images = torch.cat([image for job in jobs for image in job.images])
        prepared = time.perf_counter()
        logits = first.model.forward(images, first.sequences, first.aggregate)
        aggregated = logits.aggregated.cpu()  # waits for a GPU
        members = None if logits.members is None else logits.members.cpu()
        computed = time.perf_counter()
        sizes = [len(job.images) for job in jobs]
        parts = torch.split(aggregated, sizes)
        member_parts = [None] * len(jobs) if members is None else torch.split(members, sizes, dim=1)
        answers = [
            answer_of(part.numpy(), None if member_part is None else member_part.numpy())
            for part, member_part in zip(parts, member_parts, strict=True)
        ]
        self._metrics.batch_images.observe(len(images))
        self._metrics.stage("prepare", prepared - started)
        self._metrics.stage("forward", computed - prepared)
        self._metrics.stage("aggregate", time.perf_counter() - computed)
        return answers

    def _count_batch(self, report: BatchReport) -> None:
        self._metrics.batch_passes.observe(report.passes)


def _check_cost(passes: int, most: int, what: str) -> None:
    if passes > most:
        raise TooLarge(f"{what} cost {passes} passes; one request may cost {most}: ask for less, or split it up")
