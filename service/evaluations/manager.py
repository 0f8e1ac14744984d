"""The door to evaluation jobs: what the routes ask for, on top of the state folder and the worker.

What is kept is in the state folder, so that a job outlives the process: one that was running when it stopped, in
whatever way, is begun anew by the next one, and since all that is drawn follows from its seed it comes to the same.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO, Any

from sqlalchemy.exc import SQLAlchemyError

from service.engine import Engine
from service.errors import NoState, QueueFull, UnknownEvaluation
from service.evaluations.archives import Limits
from service.evaluations.jobs import WAITING, Job, Order, Progress, Status
from service.evaluations.state import State, StateError, default_folder
from service.evaluations.store import new_id, require_room
from service.evaluations.worker import Assessor, Worker
from service.logs import log
from service.metrics import Metrics
from service.settings import Settings

RECEIVED_TOGETHER = 4  # uploads


class Evaluations:
    """Evaluation jobs of one service. Methods block, for milliseconds, and may be called from any thread.

    Args:
        settings: Limits, and where jobs are kept.
        engine: Has the models, and the thread for their passes.
        metrics: Where jobs are counted.
        assessor: Makes the numbers and the reports.
    """

    def __init__(self, settings: Settings, engine: Engine, metrics: Metrics, assessor: Assessor) -> None:
        self.assessor = assessor
        self._settings, self._metrics = settings, metrics
        self._state: State | None = None
        self._why_not: str | None = "the service is starting"
        self._worker = Worker(settings, engine, metrics, assessor, self._count)
        self._lock = threading.Lock()
        self._receiving = 0

    def start(self) -> None:
        """Take over the state folder and go on with what waits there; where it cannot be used, do without."""
        try:
            state = State(self._settings.state_dir or default_folder())
        except StateError as error:
            self._why_not = str(error)
            log(logging.WARNING, f"evaluations cannot be kept: {error}")
            return
        try:
            waiting = state.store.recover()
            state.drop_all_but({job.id for job in waiting})
        except (SQLAlchemyError, OSError) as error:
            state.close()
            self._why_not = _in_words(error)
            log(logging.WARNING, f"evaluations cannot be kept: {error}")
            return
        self._state, self._why_not = state, None
        log(logging.INFO, "evaluations are kept", folder=str(state.folder), waiting=len(waiting))
        self._count()
        self._worker.start(state)

    def stop(self) -> None:
        """Leave the job that runs to the next process. May be called twice."""
        self._why_not = "the service is stopping"
        state = self._state
        if state is not None and self._worker.stop(state):
            self._state = None
            state.close()

    @property
    def lingers(self) -> bool:
        """Whether a job still computes after `stop`, which told it to end; it is said to be interrupted already."""
        return self._worker.is_alive

    @property
    def _kept(self) -> State:
        """The state.

        Raises:
            NoState: There is none.
        """
        state = self._state
        if state is None or self._why_not is not None:
            raise NoState(f"evaluations cannot be kept: {self._why_not}; all else is served")
        return state

    @contextmanager
    def receiving(self) -> Iterator[IO[bytes]]:
        """A file for an upload, which is removed at the end unless a job took it.

        Raises:
            QueueFull: As many uploads are being received as may be at one time.
            NoState: There is no room for it.
        """
        with self._lock:
            if self._receiving >= RECEIVED_TOGETHER:
                raise QueueFull(f"{self._receiving} data sets are being received; try again later", retry_after_s=5)
            self._receiving += 1
        try:
            with _kept_errors(), self._kept.incoming() as file:
                yield file
        finally:
            with self._lock:
                self._receiving -= 1

    def require_room(self) -> None:
        """Refuse, before a body is read, an order that would find no room.

        Raises:
            QueueFull, NoState: As `submit`.
        """
        with _kept_errors():
            counts = self._kept.store.counts()
        require_room(sum(counts[status] for status in WAITING), self._settings.max_waiting_evaluations)

    def limits(self) -> Limits:
        """Of an uploaded data set."""
        return self._worker.limits()

    def submit(self, order: Order, upload: IO[bytes] | None = None) -> tuple[Job, bool]:
        """Take an order, or find the job that its key already names.

        Args:
            order: What is asked.
            upload: Its data set.

        Returns:
            The job, and whether it is new.

        Raises:
            Conflict, QueueFull: As `Store.add`.
            NoState: It cannot be kept.
        """
        with _kept_errors():
            state = self._kept
            known = state.store.known(order)
            if known is not None:
                return known, False
            job_id = new_id()
            if upload is not None:
                state.keep(upload, job_id)
            try:
                job, is_new = state.store.add(job_id, order, self._settings.max_waiting_evaluations)
            except BaseException:
                state.drop(job_id)
                raise
            if not is_new:
                state.drop(job_id)
        self._count()
        self._worker.wake()
        return job, is_new

    def get(self, job_id: str) -> tuple[Job, Progress | None]:
        """A job, and how far it is if it runs.

        Raises:
            UnknownEvaluation: There is none of this id.
            NoState: Jobs cannot be read.
        """
        with _kept_errors():
            job = self._kept.store.get(job_id)
        if job is None:
            raise UnknownEvaluation(
                f"there is no evaluation {job_id[:100]!r}; it was deleted, is older than those that are kept, or never "
                "was"
            )
        return job, self._worker.progress(job)

    def newest(self, limit: int, before: str | None, statuses: Sequence[Status]) -> list[tuple[Job, Progress | None]]:
        """See `Store.newest`; and how far they are.

        Raises:
            UnknownEvaluation, NoState: As `get`; of `before`.
        """
        if before is not None:
            self.get(before)
        with _kept_errors():
            jobs = self._kept.store.newest(limit, before, statuses)
        return [(job, self._worker.progress(job)) for job in jobs]

    def document(self, job_id: str) -> dict[str, Any] | None:
        """The result of a job; None for one that has none.

        Raises:
            NoState: It cannot be read.
        """
        with _kept_errors():
            return self._kept.store.document(job_id)

    def delete(self, job_id: str) -> Job | None:
        """Cancel a job that is not finished, remove one that is.

        Returns:
            The cancelled job; None for one that was removed.

        Raises:
            UnknownEvaluation: There is none of this id.
            NoState: It cannot be written.
        """
        with _kept_errors(), self._lock:  # of two at once the second finds what the first left
            self.get(job_id)
            state = self._kept
            cancelled = self._worker.cancel(state, job_id)
            if cancelled:
                state.drop(job_id)  # what reads it goes on reading
                self._metrics.evaluations_ended.labels(Status.CANCELLED).inc()
                state.store.keep_newest(self._settings.kept_evaluations)
            else:
                state.store.remove(job_id)
            job = state.store.get(job_id)
        self._count()
        return job if cancelled else None

    def _count(self) -> None:
        state = self._state
        if state is None:
            return
        try:
            counts = state.store.counts()
        except SQLAlchemyError as error:
            log(logging.WARNING, f"evaluations cannot be counted: {error}")
            return
        for status, count in counts.items():
            self._metrics.evaluations.labels(status).set(count)


@contextmanager
def _kept_errors() -> Iterator[None]:
    """Turn failures of disk and database into an answer.

    Raises:
        NoState: One of them.
    """
    try:
        yield
    except TimeoutError:  # of the request; Python counts it among those of the system
        raise
    except (SQLAlchemyError, OSError) as error:
        log(logging.ERROR, f"evaluations cannot be kept: {error}")
        raise NoState(f"evaluations cannot be kept now ({_in_words(error)}); try again later") from error


def _in_words(error: SQLAlchemyError | OSError) -> str:
    """Without paths and statements."""
    said = error.strerror if isinstance(error, OSError) else getattr(error, "orig", None)
    return str(said or type(error).__name__)
