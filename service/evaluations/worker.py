"""The one thread that runs evaluation jobs, one at a time.

It prepares pictures and makes numbers of logits itself; forward passes wait for turns on the inference thread. A job is
called off when its client cancels it or the service stops; between two turns it finds out.
"""

import json
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from sqlalchemy.exc import SQLAlchemyError

from ccnet.assessment import AssessmentOptions, Passes
from ccnet.checkpoint import Checkpoint
from ccnet.data import LabelledPictures
from ccnet.errors import CcnetError, DataError
from ccnet.plan_cache import PlanCache
from service.background import CalledOff, Errand
from service.engine import Engine, give_way
from service.errors import ServiceError
from service.evaluations.archives import Limits, read_archive
from service.evaluations.jobs import Job, Progress, Status
from service.evaluations.passes import BackgroundPasses
from service.evaluations.schemas import EvaluationOptions
from service.evaluations.state import State
from service.logs import log
from service.metrics import Metrics
from service.probes import test_split
from service.settings import Settings

LET_FINISH_S = 2.0  # the turn that runs, when the service stops
TRY_AGAIN_S = 5.0  # after the state could not be read or written
# Of its own, or a job would push out what requests need again; members come one after the other, each of some 42 MB.
MOST_PLAN_BYTES = 128 * 2**20
BATCH_IMAGES = 256  # a call of passes: the weights of a sequence are generated once or twice for so many


class Assessor(Protocol):
    """What makes the numbers, and reports of them: `ccnet.assessment`."""

    def assess(
        self,
        model: Checkpoint,
        dataset: LabelledPictures,
        options: AssessmentOptions | None = None,
        *,
        passes: Passes | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, Any]:
        """See `ccnet.assessment.assess`."""

    def passes_needed(self, model: Checkpoint, images: int, options: AssessmentOptions | None = None) -> int:
        """See `ccnet.assessment.passes_needed`."""

    def LocalPasses(self, model: Checkpoint, plans: PlanCache) -> Passes:
        """See `ccnet.assessment.LocalPasses`."""

    def markdown(self, document: dict[str, Any]) -> str:
        """See `ccnet.assessment.markdown`."""

    def html(self, document: dict[str, Any]) -> str:
        """See `ccnet.assessment.html`."""


@dataclass(slots=True)
class _Present:
    """The job that runs, and its passes: done, and in all (0 while nobody knows)."""

    job: Job
    errand: Errand
    began: float = field(default_factory=time.monotonic)
    done: int = 0
    total: int = 0

    def progress(self) -> Progress:
        """How far it is."""
        return Progress(self.done, self.total or self.job.order.passes, time.monotonic() - self.began)


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What a job came to: a document as JSON, or why there is none."""

    document: str | None = None
    error: str | None = None


class Worker:
    """Runs the jobs that wait in a state folder.

    Args:
        settings: Limits.
        engine: Has the models, and the thread for their passes.
        metrics: Where passes and ends are counted.
        assessor: Makes the numbers.
        on_change: Called when a job changed its status.
    """

    def __init__(
        self,
        settings: Settings,
        engine: Engine,
        metrics: Metrics,
        assessor: Assessor,
        on_change: Callable[[], None],
    ) -> None:
        self._settings, self._engine, self._metrics, self._assessor = settings, engine, metrics, assessor
        self._on_change = on_change
        self._lock = threading.Lock()  # of what runs now, and of its status
        self._present: _Present | None = None
        self._wake, self._stopping = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, state: State) -> None:
        """Begin to run what waits."""
        self._thread = threading.Thread(target=self._work, args=(state,), name="evaluations")
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread is."""
        return self._thread is not None and self._thread.is_alive()

    def wake(self) -> None:
        """A job came."""
        self._wake.set()

    def stop(self, state: State) -> bool:
        """Leave the job that runs to the next process, and end the thread.

        Returns:
            Whether it has ended; else it will as soon as the job finds out, which is no later than its next turn.
        """
        self._stopping.set()
        with self._lock:
            present = self._present
            if present is not None:
                present.errand.call_off("the service is stopping")
        self._wake.set()
        if self._thread is None:
            return True
        self._thread.join(LET_FINISH_S)
        if self.is_alive and present is not None:
            try:
                state.store.interrupt(present.job.id)
            except SQLAlchemyError as error:
                log(logging.WARNING, f"evaluations cannot be written: {error}")
        return not self.is_alive

    def cancel(self, state: State, job_id: str) -> bool:
        """Cancel a job that is not finished; False when it is.

        Raises:
            SQLAlchemyError: The state cannot be written.
        """
        with self._lock:
            cancelled = state.store.cancel(job_id)
            if cancelled and self._present is not None and self._present.job.id == job_id:
                self._present.errand.call_off("the evaluation was cancelled")
        return cancelled

    def progress(self, job: Job) -> Progress | None:
        """How far a job is; None unless it runs."""
        present = self._present
        if present is None or present.job.id != job.id or job.status is not Status.RUNNING:
            return None
        return present.progress()

    def limits(self) -> Limits:
        """Of an uploaded data set."""
        settings = self._settings
        return Limits(settings.max_evaluation_images, settings.max_image_pixels, settings.max_evaluation_unpacked_bytes)

    def _work(self, state: State) -> None:
        """One job after the other, until the service stops or the inference thread is gone."""
        give_way()
        while True:
            self._wake.clear()
            if self._stopping.is_set():  # looked at after the clearing, which may have wiped out the call to stop
                return
            try:
                present = self._begin(state)
            except SQLAlchemyError as error:
                log(logging.ERROR, f"evaluations cannot be read: {error}")
                self._stopping.wait(TRY_AGAIN_S)
                continue
            if present is None:
                self._wake.wait()
                continue
            self._on_change()
            outcome = self._outcome(state, present)
            self._settle(state, present.job.id, outcome)
            with self._lock:
                self._present = None
            self._metrics.evaluation_progress.set(math.nan)
            self._on_change()
            if outcome is None and not present.errand.is_called_off:  # nothing is run any more
                return

    def _begin(self, state: State) -> _Present | None:
        """Let the job that waits longest run; None when none waits."""
        with self._lock:
            job = state.store.next_waiting()
            if job is None or self._stopping.is_set() or not state.store.begin(job.id):
                return None
            self._present = _Present(job, Errand(self._engine.background))
            return self._present

    def _outcome(self, state: State, present: _Present) -> _Outcome | None:
        """What a job comes to; None where it was called off."""
        job = present.job
        log(logging.INFO, "evaluation begins", evaluation=job.id, model=job.order.model, dataset=job.order.dataset)
        try:
            return _Outcome(document=json.dumps(self._assess(state, present), allow_nan=False))
        except CalledOff:
            return None
        except DataError as error:  # names files of this machine
            log(logging.WARNING, f"no data set: {error}", evaluation=job.id)
            return _Outcome(error="the data set cannot be read on the machine of the service; the log has the reason")
        except (CcnetError, ServiceError) as error:
            return _Outcome(error=str(error))
        except Exception as error:
            if present.errand.is_called_off:  # its data set is gone
                return None
            log(logging.ERROR, f"evaluation failed: {type(error).__name__}", exc_info=error, evaluation=job.id)
            return _Outcome(error="the service failed on this evaluation; the log has the reason under its id")

    def _assess(self, state: State, present: _Present) -> dict[str, Any]:
        def report(done: int, total: int) -> None:
            present.done, present.total = done, total
            present.errand.go_on()

        def count(passes: int) -> None:  # of every turn; reports come once for several of them
            present.done += passes
            self._metrics.background_passes.inc(passes)
            self._metrics.evaluation_progress.set(present.done / max(present.progress().total, present.done))

        order = present.job.order
        checkpoint = self._engine.model(order.model).checkpoint
        dataset: LabelledPictures
        if order.uploaded:
            dataset = read_archive(state.upload(present.job.id), order.dataset, self.limits())
        else:
            dataset = test_split(order.dataset, self._settings.data_dir)
        passes = BackgroundPasses(
            self._assessor.LocalPasses(checkpoint, PlanCache(min(MOST_PLAN_BYTES, self._settings.plan_cache_bytes))),
            present.errand,
            self._settings.evaluation_slice_passes,
            count,
        )
        options = assessment_options(EvaluationOptions.model_validate(order.options))
        return self._assessor.assess(checkpoint, dataset, options, passes=passes, on_progress=report)

    def _settle(self, state: State, job_id: str, outcome: _Outcome | None) -> None:
        """Write down what a job came to; where that is not possible now, until it is, or the service stops."""
        while True:
            try:
                self._write(state, job_id, outcome)
                return
            except (SQLAlchemyError, OSError) as error:
                log(logging.ERROR, f"what an evaluation came to cannot be written: {error}", evaluation=job_id)
            if self._stopping.wait(TRY_AGAIN_S):
                return

    def _write(self, state: State, job_id: str, outcome: _Outcome | None) -> None:
        if outcome is None:
            state.store.interrupt(job_id)  # changes nothing where it was cancelled
            log(logging.INFO, "evaluation called off", evaluation=job_id)
            return
        if outcome.document is not None:
            status, ended = Status.SUCCEEDED, state.store.succeed(job_id, outcome.document)
        else:
            status, ended = Status.FAILED, state.store.fail(job_id, outcome.error or "")
        if ended:  # and was not cancelled at the last moment
            self._metrics.evaluations_ended.labels(status).inc()
            log(logging.INFO, f"evaluation {status}", evaluation=job_id, error=outcome.error)
        state.drop(job_id)
        state.store.keep_newest(self._settings.kept_evaluations)


def assessment_options(options: EvaluationOptions) -> AssessmentOptions:
    """The options of a job as the library wants them.

    Raises:
        CcnetError: They do not go together.
    """
    shifts = options.equivariance
    return AssessmentOptions(
        sizes=tuple(options.ensemble_sizes),
        draws=options.draws,
        seed=options.seed,
        limit=options.limit,
        views=options.views,
        max_shifts=() if shifts is None else tuple(shifts.max_shift),
        shift_samples=AssessmentOptions.shift_samples if shifts is None else shifts.samples,
        batch_size=BATCH_IMAGES,
    )
