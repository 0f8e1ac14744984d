"""What happens to a request on its way to the inference thread: admission, sharing, containment, deadlines.

The unit of cost is the *pass*: one image through one member. A job is a number of equal *units*, its members, that cost
as many passes each as it has images. It is

1. **admitted** while the passes that wait stay under a bound and the time that it needs fits its deadline, or refused;
2. **run in slices.** While one batch runs the next one gathers, up to a budget of passes, in order of rank
   (`service.queueing`). So a request of a thousand passes holds up one of four for a batch at most, and does not starve
   behind many of them. The thread takes its next batch itself: it does not wait until the event loop has time;
3. **answered** when its last unit is done; at its deadline with the units that are done, if those are enough for it,
   else refused. What nobody waits for any more is not run, from one slice to the next.

A job that fails does so alone (`service.containment`). While no job waits the thread takes turns of what runs behind
them (`service.background`).

Knows neither HTTP nor tensors; the function that runs a batch, the thread it runs on and the clock are handed in.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from service.background import Background, Turn
from service.containment import Containment
from service.errors import DeadlinePassed, NotReady, QueueFull
from service.pace import Pace, Running
from service.queueing import Cost, Entry, Queue, Slice

Job = TypeVar("Job")
Part = TypeVar("Part")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Part]):
    """What a job came to, and the time it took: waiting, and in the batches that it had a part in, in seconds.

    Attributes:
        parts: A result for each unit that was run, in order; fewer than asked for where `Cost.least` allowed it.
    """

    parts: tuple[Part, ...]
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
class _Waiting(Entry[Job], Generic[Job, Part]):
    """A job that was admitted and is not answered.

    Attributes:
        since: When it came.
        begun: When its first unit was taken; None before.
    """

    future: "asyncio.Future[Outcome[Part]]" = field(kw_only=True)
    since: float = field(kw_only=True)
    parts: list[Part] = field(default_factory=list)
    begun: float | None = None
    run_s: float = 0.0

    def answer(self) -> None:
        """With the parts there are, at least one."""
        if not self.future.done():
            assert self.begun is not None
            self.future.set_result(Outcome(tuple(self.parts), self.begun - self.since, self.run_s))

    def fail(self, error: Exception) -> None:
        """Its work failed."""
        if not self.future.done():
            self.future.set_exception(error)

    def end(self, error: Exception) -> None:
        """No more of it will run: answer if enough was done, else fail."""
        if len(self.parts) * self.cost.passes >= self.cost.needed:
            self.answer()
        else:
            self.fail(error)


@dataclass(frozen=True, slots=True)
class _Batch(Generic[Job, Part]):
    """What runs together, and since when: slices of jobs, or a turn of the background."""

    slices: Sequence[tuple[_Waiting[Job, Part], Slice[Job]]]
    turn: Turn[Any] | None
    started: float

    @property
    def passes(self) -> int:
        return sum(each.passes for _, each in self.slices) if self.turn is None else self.turn.passes


class Batcher(Generic[Job, Part]):
    """Runs slices of jobs in batches on an executor and hands every waiter the results of its units.

    Args:
        run: As `Containment` takes it. Runs on `executor`.
        executor: Where batches run, of one thread; what else it is given runs between two batches.
        max_queue_passes: Passes that may wait. A job that alone exceeds it is still admitted when nothing waits.
        max_batch_passes: The budget of a batch; a unit that alone exceeds it is a batch.
        max_wait_s: For how long after a batch of several jobs the next one waits for as many; nothing waits when idle.
        rest_s: For how long after a batch no turn of the background begins; its clients may be about to ask again.
        on_batch: Told about every batch after it ran, on the event loop.
        clock: Seconds, monotonic.

    Attributes:
        background: What runs while no job waits; dropped by `drain`.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Slice[Job]]], Sequence[Sequence[Part]]],
        executor: Executor,
        *,
        max_queue_passes: int,
        max_batch_passes: int,
        max_wait_s: float = 0.0,
        rest_s: float = 0.0,
        on_batch: Callable[[BatchReport], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._contained = Containment(run, max_batch_passes)
        self._executor = executor
        self._max_queue_passes = max_queue_passes
        self._max_wait_s = max_wait_s
        self._rest_s = rest_s
        self._on_batch = on_batch
        self._clock = clock
        self.background = Background(self._wake)
        self._queue: Queue[_Waiting[Job, Part]] = Queue()
        self._unanswered: set[_Waiting[Job, Part]] = set()
        self._pace = Pace()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._running: _Batch[Job, Part] | None = None
        self._thread_works = False
        self._last: tuple[int, float] = (0, 0.0)  # jobs of the last batch, and when it was done
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._crash: BaseException | None = None

    @property
    def queue_passes(self) -> int:
        """Passes that wait now."""
        return self._queue.passes

    @property
    def crash(self) -> BaseException | None:
        """What ended the thread, or the batcher; None while all is well."""
        return self._crash

    @property
    def running_s(self) -> float:
        """How long the present batch has been running; 0 when none is."""
        running = self._running
        return 0.0 if running is None else self._clock() - running.started

    def expect(self, seconds_per_pass: float) -> None:
        """Go by this speed until batches have told theirs."""
        self._pace.seconds_per_pass = seconds_per_pass

    def start(self) -> None:
        """Begin to run what is submitted; needs a running event loop."""
        self._loop = asyncio.get_running_loop()
        self._wake()

    def check_room(self, cost: Cost, timeout_s: float = math.inf) -> None:
        """Raise what `submit` would raise now for a job of this cost; lets a caller refuse before doing work.

        Raises:
            NotReady: The batcher is draining, or its thread is gone.
            QueueFull: The passes that wait leave no room, or no time.
        """
        if self._crash is not None:
            raise NotReady("the inference thread of this replica is gone; ask another one", retry_after_s=1)
        if self._closed:
            raise NotReady("the service is stopping and takes no new work; ask another replica", retry_after_s=1)
        with self._queue.lock:  # the thread takes nothing meanwhile
            waiting, running = self._queue.passes, self._running
            expected_s = self._expected_s(cost, timeout_s)
        if waiting and waiting + cost.total > self._max_queue_passes:
            raise QueueFull(
                f"{cost.total} passes were asked for while {waiting} wait; "
                f"at most {self._max_queue_passes} may wait: try again later or ask for fewer images or members",
                retry_after_s=self._retry_after_s(),
            )
        held_up = running is not None and (running.turn is None or self._alone_s(cost) <= timeout_s)
        if expected_s > timeout_s and (waiting or held_up):
            raise QueueFull(
                f"an answer may take {expected_s:.1f} s with what runs and waits; {timeout_s:.1f} s are left: try "
                "again later, allow more with timeout_ms, ask for fewer images or members, or allow fewer with "
                "min_size",
                retry_after_s=self._retry_after_s(),
            )

    async def submit(self, job: Job, cost: Cost, timeout_s: float = math.inf) -> Outcome[Part]:
        """Wait, run in slices, return the results. Cancelling the call withdraws what is not taken yet.

        Args:
            job: What `run` gets slices of.
            cost: Its units.
            timeout_s: Seconds until its deadline.

        Raises:
            NotReady, QueueFull: As `check_room`.
            DeadlinePassed: Fewer units than needed were done at the deadline.
            Exception: Whatever `run` raises for this job when it runs alone.
        """
        self.check_room(cost, timeout_s)
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Job, Part] = _Waiting(
            job, cost, self._queue.rank(cost), future=loop.create_future(), since=self._clock()
        )
        self._unanswered.add(waiting)
        self._queue.add(waiting)
        self._idle.clear()
        loop.call_soon(self._wake)  # behind what has come in with it, so that they share the first batch
        timer: asyncio.TimerHandle | None = None
        try:
            if timeout_s != math.inf:
                timer = loop.call_later(timeout_s, self._expire, waiting)
            return await waiting.future
        finally:
            if timer is not None:
                timer.cancel()
            self._unanswered.discard(waiting)
            self._queue.withdraw(waiting)
            self._mark_idle()

    async def drain(self, timeout_s: float) -> bool:
        """Admit nothing more, drop the background, and wait until all that was admitted is answered.

        Returns:
            True when everything was answered in time; else what is left fails with `NotReady`.
        """
        self._closed = True
        self.background.end("the service is stopping")
        self._queue.look_again()
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
            answered = True
        except TimeoutError:
            answered = False
        self._fail_all(NotReady("the service stopped before this request was answered"))
        return answered

    def _expire(self, waiting: _Waiting[Job, Part]) -> None:
        """Its deadline has come."""
        self._queue.withdraw(waiting)
        waiting.end(
            DeadlinePassed(
                f"{len(waiting.parts)} of {waiting.cost.units} members were done when the deadline came; allow more "
                "with timeout_ms, ask for fewer images or members, or allow fewer with min_size"
            )
        )

    def _fail_all(self, error: Exception) -> None:
        for waiting in self._unanswered:
            self._queue.withdraw(waiting)
            waiting.end(error)
        self._unanswered.clear()
        self._mark_idle()

    def _mark_idle(self) -> None:
        if not self._unanswered and not self._thread_works:
            self._idle.set()

    def _expected_s(self, cost: Cost, timeout_s: float) -> float:
        """Until a job that comes now is done; behind all that waits, if it is in time even so."""
        budget, batch = self._contained.budget, self._running
        running = None if batch is None else Running(batch.passes, self._clock() - batch.started)
        expected_s = self._pace.expected_s(self._queue.passes, cost.needed, running, budget)
        if expected_s <= timeout_s:
            return expected_s
        before = self._queue.passes_before(self._queue.rank(cost))
        return self._pace.expected_s(before, cost.needed, running, budget)

    def _alone_s(self, cost: Cost) -> float:
        """Until a job is done that has nothing before it: who needs more than it has gets its chance all the same."""
        return self._pace.expected_s(0, cost.needed, None, self._contained.budget)

    def _retry_after_s(self) -> int:
        running = self._running
        return self._pace.retry_after_s(self._queue.passes + (0 if running is None else running.passes))

    @property
    def _has_work(self) -> bool:
        return self._queue.passes > 0 or self.background.waits

    def _wake(self) -> None:
        """Let the thread look for work, unless it does so anyway."""
        with self._queue.lock:
            if self._loop is None or self._thread_works or not self._has_work:
                return
            self._thread_works = True
        self._executor.submit(self._work)

    def _work(self) -> None:
        """Run a batch, on the thread, and see to the next one, behind what else the thread was given meanwhile."""
        try:
            self._run_batch()
            with self._queue.lock:
                self._thread_works = more = self._has_work
            if more:
                self._executor.submit(self._work)
            else:
                self._tell(self._mark_idle)
        except BaseException as error:
            self._tell(self._break, error)

    def _run_batch(self) -> None:
        jobs, done = self._last
        if jobs > 1:  # their clients may be about to ask again
            self._queue.wait(jobs, self._contained.budget, done + self._max_wait_s - self._clock())
        if self.background.waits:
            self._queue.wait(1, 1, done + self._rest_s - self._clock(), lambda: not self.background.waits)
        with self._queue.lock:  # admission sees a job among those that wait or in the batch that runs
            slices = self._queue.take(self._contained.budget)
            turn = None if slices else self.background.take()
            batch: _Batch[Job, Part] = _Batch(slices, turn, self._clock())
            self._running = batch if batch.passes else None
        if turn is not None:
            turn.run()
            self._running = None
        elif slices:
            self._run_slices(batch)

    def _run_slices(self, batch: _Batch[Job, Part]) -> None:
        for waiting, _ in batch.slices:
            if waiting.begun is None:
                waiting.begun = batch.started
        results = self._contained.run([each for _, each in batch.slices])
        run_s = self._clock() - batch.started
        failed = sum(isinstance(result, Exception) for result in results)
        if not failed and not batch.slices[0][0].cost.alone:
            self._pace.learn(batch.passes, run_s, self._contained.budget)
        self._last = (len(batch.slices), batch.started + run_s)
        self._running = None
        self._tell(self._finish, batch, results, BatchReport(len(batch.slices), batch.passes, run_s, failed))

    def _tell(self, what: Callable[..., None], *arguments: object) -> None:
        """Call on the event loop, from the thread; an error there ends the batcher, so that nobody is left waiting."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._guarded, what, *arguments)

    def _guarded(self, what: Callable[..., None], *arguments: object) -> None:
        try:
            what(*arguments)
        except Exception as error:
            self._break(error)
            raise

    def _finish(
        self, batch: _Batch[Job, Part], results: Sequence[Sequence[Part] | Exception], report: BatchReport
    ) -> None:
        done = []
        for (waiting, _), result in zip(batch.slices, results, strict=True):
            waiting.run_s += report.run_s
            if isinstance(result, Exception):
                self._queue.withdraw(waiting)  # at once, or the thread might take more of it
                waiting.fail(result)
                continue
            waiting.parts.extend(result)
            if len(waiting.parts) == waiting.cost.units:
                done.append(waiting)
        self._answer(iter(done))
        if self._on_batch is not None:
            self._on_batch(report)

    def _answer(self, done: Iterator[_Waiting[Job, Part]]) -> None:
        """One at a time: who comes now is not to wait until a whole batch has been written out."""
        waiting = next(done, None)
        if waiting is not None:
            waiting.answer()
            asyncio.get_running_loop().call_soon(self._guarded, self._answer, done)

    def _break(self, error: BaseException) -> None:
        """Nothing runs any more; nobody is left waiting."""
        self._crash = error
        self._thread_works, self._running = False, None
        self.background.end("the inference thread is gone")
        self._fail_all(NotReady("the inference thread of this replica is gone; ask another one", retry_after_s=1))
