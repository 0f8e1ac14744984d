"""Admission, grouping and containment: many waiting jobs become few runs on one thread.

The unit of cost is the *pass*: one image through one member. A job is admitted while the passes that wait stay under a
bound, waits in order of arrival, and is run together with those behind it up to a budget of passes. There is no
waiting for more work: while one batch runs the next one gathers.

An exception in a batch is contained: its jobs run again one by one, so that only those that fail alone fail.
A job whose waiter is gone is dropped before it runs. The class knows neither HTTP nor tensors; the function that runs a
batch, the thread it runs on and the clock are handed in.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, TypeVar

from service.errors import NotReady, QueueFull

Job = TypeVar("Job")
Result = TypeVar("Result")

MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Result]):
    """What a job came to, and the time it took: waiting, and in the batch that answered it, in seconds."""

    value: Result
    queue_s: float
    run_s: float


@dataclass(frozen=True, slots=True)
class BatchReport:
    """One run on the inference thread: its jobs, its cost in passes, its time in seconds, and how many jobs failed."""

    jobs: int
    passes: int
    run_s: float
    failed: int


@dataclass(eq=False, slots=True)
class _Waiting(Generic[Job, Result]):
    job: Job
    passes: int
    alone: bool
    future: "asyncio.Future[Outcome[Result]]"
    since: float


class Batcher(Generic[Job, Result]):
    """Runs jobs in batches on an executor and hands every waiter its own result.

    Args:
        run: Takes the jobs of a batch and returns one result for each, in order. Runs on `executor`.
        executor: Where batches run; one worker thread makes them run one after the other.
        max_queue_passes: Passes that may wait. A job that alone exceeds it is still admitted when nothing waits.
        max_batch_passes: Passes up to which waiting jobs are put into one batch; a larger job runs alone.
        on_batch: Told about every batch after it ran, on the event loop.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Job]], Sequence[Result]],
        executor: Executor,
        *,
        max_queue_passes: int,
        max_batch_passes: int,
        on_batch: Callable[[BatchReport], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_queue_passes = max_queue_passes
        self._max_batch_passes = max_batch_passes
        self._on_batch = on_batch
        self._clock = clock
        self._waiting: dict[int, _Waiting[Job, Result]] = {}  # in order of arrival
        self._numbers = itertools.count()
        self._queue_passes = 0
        self._running: list[_Waiting[Job, Result]] = []
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._seconds_per_pass = 0.0  # moving average; 0 until a batch ran
        self._task: asyncio.Task[None] | None = None

    @property
    def queue_passes(self) -> int:
        """Passes that wait now."""
        return self._queue_passes

    def start(self) -> None:
        """Begin to run what is submitted; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="batcher")

    def check_room(self, passes: int) -> None:
        """Raise what `submit` would raise now for a job of this cost; lets a caller refuse before doing work.

        Raises:
            NotReady: The batcher is draining.
            QueueFull: The passes that wait leave no room.
        """
        if self._closed:
            raise NotReady("the service is stopping and takes no new work; ask another replica", retry_after_s=1)
        if self._queue_passes and self._queue_passes + passes > self._max_queue_passes:
            raise QueueFull(
                f"{passes} passes were asked for while {self._queue_passes} wait; "
                f"at most {self._max_queue_passes} may wait: try again later or ask for fewer images or members",
                retry_after_s=self._retry_after_s(),
            )

    async def submit(self, job: Job, passes: int, *, alone: bool = False) -> Outcome[Result]:
        """Wait in the queue, run in a batch, return the result. Cancelling the call withdraws a job that still waits.

        Args:
            job: What `run` takes.
            passes: Its cost, at least 1.
            alone: Whether it is run in a batch of its own.

        Raises:
            NotReady: The batcher is draining.
            QueueFull: The passes that wait leave no room.
            Exception: Whatever `run` raises for this job when it runs alone.
        """
        self.check_room(passes)
        future: asyncio.Future[Outcome[Result]] = asyncio.get_running_loop().create_future()
        number = next(self._numbers)
        self._waiting[number] = _Waiting(job, passes, alone, future, self._clock())
        self._queue_passes += passes
        self._idle.clear()
        self._arrived.set()
        try:
            return await future
        finally:
            self._withdraw(number)

    async def drain(self, timeout_s: float) -> bool:
        """Admit nothing more and wait until all that was admitted is answered.

        Returns:
            True when everything was answered in time; else what is left fails with `NotReady`.
        """
        self._closed = True
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
            answered = True
        except TimeoutError:
            answered = False
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for waiting in [*self._running, *self._waiting.values()]:
            if not waiting.future.done():
                waiting.future.set_exception(NotReady("the service stopped before this request was answered"))
        self._waiting.clear()
        self._queue_passes, self._running = 0, []
        self._mark_idle()
        return answered

    def _withdraw(self, number: int) -> None:
        waiting = self._waiting.pop(number, None)
        if waiting is not None:
            self._queue_passes -= waiting.passes
            self._mark_idle()

    def _mark_idle(self) -> None:
        if not self._waiting and not self._running:
            self._idle.set()

    def _retry_after_s(self) -> int:
        running = sum(waiting.passes for waiting in self._running)
        expected_s = (self._queue_passes + running) * self._seconds_per_pass
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(expected_s)))

    async def _serve(self) -> None:
        while True:
            await self._arrived.wait()
            self._running = self._take()
            if self._running:
                await self._run_batch(self._running)
            self._running = []
            self._mark_idle()
            if not self._waiting:
                self._arrived.clear()

    def _take(self) -> list[_Waiting[Job, Result]]:
        """The oldest waiting jobs whose passes fit one batch; at least one when any waits."""
        batch: list[_Waiting[Job, Result]] = []
        passes = 0
        for number, waiting in list(self._waiting.items()):
            if batch and (waiting.alone or passes + waiting.passes > self._max_batch_passes):
                break
            del self._waiting[number]
            self._queue_passes -= waiting.passes
            if waiting.future.done():  # cancelled: nobody waits
                continue
            batch.append(waiting)
            passes += waiting.passes
            if waiting.alone:
                break
        return batch

    async def _run_batch(self, batch: list[_Waiting[Job, Result]]) -> None:
        started = self._clock()
        jobs = [waiting.job for waiting in batch]
        results = await asyncio.get_running_loop().run_in_executor(self._executor, self._run_contained, jobs)
        run_s = self._clock() - started
        for waiting, result in zip(batch, results, strict=True):
            if waiting.future.done():
                continue
            if isinstance(result, Exception):
                waiting.future.set_exception(result)
            else:
                waiting.future.set_result(Outcome(result, started - waiting.since, run_s))
        passes = sum(waiting.passes for waiting in batch)
        per_pass = run_s / passes
        self._seconds_per_pass = 0.8 * self._seconds_per_pass + 0.2 * per_pass if self._seconds_per_pass else per_pass
        if self._on_batch is not None:
            failed = sum(isinstance(result, Exception) for result in results)
            self._on_batch(BatchReport(len(batch), passes, run_s, failed))

    def _run_contained(self, jobs: Sequence[Job]) -> list[Result | Exception]:
        """Run a batch; when it fails, run its jobs one by one so that a bad one takes no other with it."""
        try:
            results = list(self._run(jobs))
            if len(results) != len(jobs):
                raise RuntimeError(f"{len(jobs)} jobs gave {len(results)} results")
            return [*results]
        except Exception as error:
            if len(jobs) == 1:
                return [error]
        return [self._run_contained([job])[0] for job in jobs]
