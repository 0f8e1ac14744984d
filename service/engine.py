"""The models and the way to the one thread that computes: everything that needs a forward pass goes through here.

    classify -> batcher (admission, slices, deadlines) -> inference thread (service.running): the members that a batch's
    requests want, each once over the images of all that want it -> logits of each request's own members -> its answer

Knows no HTTP framework. Each answer equals the one that the request would get alone, up to the rounding of sums whose
order depends on the batch (1e-4 in the logits).
"""

import asyncio
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import numpy as np
import torch

from ccnet.ensemble import aggregate_logits
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence
from service import tracing
from service.answers import Answer, answer_of
from service.background import Background
from service.batcher import Batcher, BatchReport
from service.errors import OptionOutOfRange, TooLarge, UnknownModel
from service.logs import log, note
from service.metrics import Metrics
from service.queueing import Cost
from service.running import ClassifyJob, Logits, ProbeJob, Progress, Runner, first_pass, seconds_per_pass
from service.served import ServedModel
from service.settings import Settings
from service.statistics import Statistics
from service.warming import Prepared, Step, at_once, prepare_pool

Result = TypeVar("Result")
Loader = Callable[[Settings, PlanCache], Mapping[str, ServedModel]]

NICE = 10  # of the threads that compute: the event loop goes first, so that overload and health are answered at once
ANSWERED_AT_ONCE = 100_000  # logits of all members up to which an answer is made on the event loop


@dataclass(frozen=True, slots=True)
class Classified:
    """What a request came to.

    Attributes:
        answer: Over the members that were run.
        seed: Of the sequences; None where the request gave them.
        sequences: The members that were run; none for a model without.
        members: How many.
        queue_s, run_s: As `Outcome`.
    """

    answer: Answer
    seed: int | None
    sequences: tuple[ScaleSequence, ...]
    members: int
    queue_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class Probed(Generic[Result]):
    """What a probe came to; times as in `Outcome`."""

    value: Result
    queue_s: float
    run_s: float


class Engine:
    """Answers classifications and probes; one instance a process.

    Args:
        settings: Limits and the default model.
        metrics: Where stages and batches are counted.

    Attributes:
        statistics: Of every model.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._models: Mapping[str, ServedModel] = {}  # replaced as a whole, so that every reader sees one state
        self._default = ""
        self._all_answered = True
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="inference", initializer=self._claim_threads)
        self.statistics = Statistics()
        self._batcher: Batcher[ClassifyJob | ProbeJob, Any] = Batcher(
            Runner(metrics, self.statistics, settings.seed_pool).run,
            self._executor,
            max_queue_passes=settings.max_queue_passes,
            max_batch_passes=settings.max_batch_passes,
            max_wait_s=settings.batch_wait_ms / 1000,
            rest_s=settings.evaluation_rest_ms / 1000,
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
        """Take nothing new, answer what was admitted, end the thread; False when time ran out first, then or before."""
        answered = await self._batcher.drain(timeout_s)
        self._all_answered = self._all_answered and answered
        self._executor.shutdown(wait=False, cancel_futures=True)
        return self._all_answered

    @property
    def ailment(self) -> str | None:
        """Why nothing will be answered any more, so that the process had better be replaced; None while all is well."""
        if self._batcher.crash is not None:
            return f"the inference thread ended: {type(self._batcher.crash).__name__}"
        if self._batcher.running_s > self._settings.stall_timeout_s:
            return f"a batch has been running for {self._batcher.running_s:.0f} s"
        return None

    @property
    def models(self) -> tuple[ServedModel, ...]:
        """The loaded models, by name."""
        return tuple(self._models[name] for name in sorted(self._models))

    @property
    def default_model(self) -> ServedModel:
        """The model for requests that name none: as set, else the first that takes sequences, else the first.

        Chosen at the start; another one that comes later does not take its place.
        """
        return self._models[self._default]

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

    @property
    def background(self) -> Background:
        """Where passes wait that are made while no request waits."""
        return self._batcher.background

    @property
    def plans(self) -> PlanCache:
        """Where all models keep what is prepared."""
        return self._plans

    async def warm_up(self, model: ServedModel) -> None:
        """Let a model that is not served yet make its first pass, on the inference thread between two batches.

        Raises:
            CheckpointError: Its logits are not finite.
            Exception: Whatever the pass raises.
        """
        await asyncio.get_running_loop().run_in_executor(self._executor, first_pass, model)

    def adopt(self, model: ServedModel) -> None:
        """Serve a model, in place of the one of its name if there is one; what was admitted keeps the model it has."""
        self._models = {**self._models, model.name: model}

    def release(self, name: str) -> None:
        """Serve a model no longer; what was admitted keeps it. The last one cannot go."""
        self._models = {other: model for other, model in self._models.items() if other != name}
        if name == self._default:
            self._default = self._first_choice()

    def renew_plans(self) -> Prepared:
        """Prepare what is served, after forgetting what was prepared for models that are no more.

        Takes seconds and is not for the event loop; each sequence is prepared on the inference thread, between two
        batches. Elsewhere it would take as much memory once more: what another thread frees does not serve this one.
        """
        self._plans.forget_gone()
        return self._prepare(self._run_between_batches)

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

    def check_classification(
        self, images: int, members: int, least: int | None = None, timeout_s: float = math.inf
    ) -> None:
        """Refuse what costs too much, or more than the queue has room or time for, before any image is decoded.

        Raises:
            TooLarge: More passes than one request may cost.
            QueueFull, NotReady: As `Batcher.check_room`.
        """
        _check_cost(images * members, self._settings.max_request_passes, f"{images} images x {members} members")
        self._batcher.check_room(Cost(members, images, least), timeout_s)

    async def classify(self, job: ClassifyJob, least: int | None = None, timeout_s: float = math.inf) -> Classified:
        """Classify prepared images in batches with whatever else waits.

        Args:
            job: The request.
            least: Members that are enough for an answer when time runs out; None for all.
            timeout_s: Seconds until then.

        Raises:
            QueueFull, NotReady, DeadlinePassed: As `Batcher.submit`.
            ArithmeticError: The model's logits are not finite.
        """
        started = time.perf_counter()
        self.statistics.asked(job.model.name)
        try:
            classified = await self._classify(job, least, timeout_s)
        except BaseException:  # also of a client that hung up
            self.statistics.failed(job.model.name, time.perf_counter() - started)
            raise
        self.statistics.answered(
            job.model.name, len(job.images), time.perf_counter() - started, classified.queue_s, classified.run_s
        )
        return classified

    async def _classify(self, job: ClassifyJob, least: int | None, timeout_s: float) -> Classified:
        images = len(job.images)
        note(model=job.model.name, images=images, ensemble_size=job.members, passes=images * job.members)
        admitted = time.perf_counter()
        outcome = await self._batcher.submit(job, Cost(job.members, images, least), timeout_s)
        ran = len(outcome.parts)
        tracing.waited_and_ran(outcome.queue_s, time.perf_counter() - admitted)
        note(ensemble_size=ran, passes=images * ran, queue_ms=_ms(outcome.queue_s), inference_ms=_ms(outcome.run_s))
        self._metrics.stage("queue", outcome.queue_s)
        started = time.perf_counter()
        parts = cast(tuple[Logits, ...], outcome.parts)
        if sum(part.size for part in parts) <= ANSWERED_AT_ONCE:
            answer = _answer(job, parts)
        else:
            answer = await asyncio.to_thread(_answer, job, parts)
        self._metrics.stage("aggregate", time.perf_counter() - started)
        sequences = () if job.sequences is None else job.sequences[: len(parts)]
        return Classified(answer, job.seed, sequences, len(parts), outcome.queue_s, outcome.run_s)

    def check_probe(self, passes: int, what: str, timeout_s: float = math.inf) -> None:
        """Refuse a probe that costs too much, or more than the queue has room or time for; `what` is its cost in words.

        Raises:
            TooLarge: More passes than one probe may cost.
            QueueFull, NotReady: As `Batcher.check_room`.
        """
        _check_cost(passes, self._settings.max_probe_passes, what)
        self._batcher.check_room(Cost(1, passes, alone=True), timeout_s)

    async def probe(self, work: Callable[[Progress], Result], passes: int) -> Probed[Result]:
        """Run a probe alone on the inference thread; cancelling the call stops it at its next report.

        Args:
            work: Takes a function to report progress to.
            passes: Its cost, for admission.

        Raises:
            QueueFull, NotReady: As `Batcher.submit`.
        """
        job = ProbeJob(work)
        note(passes=passes)
        admitted = time.perf_counter()
        try:
            outcome = await self._batcher.submit(job, Cost(1, passes, alone=True))
        finally:
            job.abandoned.set()
        tracing.waited_and_ran(outcome.queue_s, time.perf_counter() - admitted)
        note(queue_ms=_ms(outcome.queue_s), inference_ms=_ms(outcome.run_s))
        self._metrics.stage("queue", outcome.queue_s)
        return Probed(cast(Result, outcome.parts[0]), outcome.queue_s, outcome.run_s)

    def _claim_threads(self) -> None:
        give_way()
        if self._settings.inference_threads:
            torch.set_num_threads(self._settings.inference_threads)

    def _load(self, load: Loader) -> Prepared:
        self._models = dict(load(self._settings, self._plans))
        self._default = self._first_choice() if self._settings.model is None else self._settings.model
        prepared = self._prepare(at_once)
        for model in self.models:  # the first pass of a model is the slowest; let it not be a user's
            first_pass(model)
        self._batcher.expect(seconds_per_pass(self.default_model))
        return prepared

    def _first_choice(self) -> str:
        return next((model.name for model in self.models if model.takes_sequences), self.models[0].name)

    def _prepare(self, run: Callable[[Step], None]) -> Prepared:
        """For requests that name no seed, those of the default model first."""
        asked_most = sorted(self.models, key=lambda model: model is not self.default_model)
        members = max(self._settings.prepared_members, self._settings.ensemble_size)
        return prepare_pool(asked_most, self._plans, seeds=self._settings.seed_pool, members=members, run=run)

    def _run_between_batches(self, step: Step) -> None:
        self._executor.submit(step).result()

    def _count_batch(self, report: BatchReport) -> None:
        self._metrics.batch_passes.observe(report.passes)


def give_way() -> None:
    """Lower the priority of this thread and of those that it will start, where threads have one of their own."""
    if sys.platform != "linux":
        return
    try:
        os.setpriority(os.PRIO_PROCESS, 0, max(NICE, os.getpriority(os.PRIO_PROCESS, 0)))
    except OSError as error:  # a sandbox may forbid it
        log(logging.WARNING, f"threads that compute keep their priority: {error}")


def _answer(job: ClassifyJob, parts: Sequence[Logits]) -> Answer:
    """From the logits of the members that were run."""
    members = np.stack(parts)
    if not job.model.takes_sequences:
        return answer_of(members[0], None)
    return answer_of(aggregate_logits(torch.from_numpy(members), job.aggregate).numpy(), members)


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 2)


def _check_cost(passes: int, most: int, what: str) -> None:
    if passes > most:
        raise TooLarge(f"{what} cost {passes} passes; one request may cost {most}: ask for less, or split it up")
