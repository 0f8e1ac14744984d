"""What happens to a request on its way to the inference thread: admission, sharing, containment, deadlines.

The unit of cost is the *pass*: one image through one member. A job is a number of equal *units*, its members, that cost
as many passes each as it has images. It is

1. **admitted** while the passes that wait stay under a bound and the time that it needs fits its deadline, or refused;
2. **run in slices.** While one batch runs the next one gathers, up to a budget of passes, in order of *rank*: the
   passes admitted before a job, plus twice its own. Equal jobs are served in order of arrival; a small one goes before
   a large one that came earlier, but no job waits for more passes of later ones than it has itself. So a request of a
   thousand passes holds up one of four for a batch at most, and does not starve behind many of them;
3. **answered** when its last unit is done; at its deadline with the units that are done, if those are enough for it,
   else refused. What nobody waits for any more is not run, from one slice to the next.

An exception in a batch is contained: the batch is halved until the job that fails is alone; the others get their
answers. Out of memory halves the budget too, which then grows again.

Knows neither HTTP nor tensors; the function that runs a batch, the thread it runs on and the clock are handed in.
"""

import asyncio
import itertools
import math
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from service.errors import DeadlinePassed, NotReady, QueueFull

Job = TypeVar("Job")
Part = TypeVar("Part")

MAX_RETRY_AFTER_S = 60
AT_WORST = 2.0  # how much longer than by the mean speed one may wait; else half of those just in time would be late
AT_A_TIME = 4  # answers of a batch between which the event loop looks at what has come in
TELLING = 64  # passes from which a batch tells how fast full ones are; one of a few costs more


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job asks of the thread.

    Attributes:
        units: Its members, at least 1.
        passes: Of each unit, at least 1: its images.
        least: Units that are enough for an answer when the deadline comes; None for all of them.
        alone: Whether it is run in a batch of its own.
    """

    units: int
    passes: int
    least: int | None = None
    alone: bool = False

    @property
    def total(self) -> int:
        """Passes of all units."""
        return self.units * self.passes

    @property
    def needed(self) -> int:
        """Passes without which there is no answer."""
        return self.passes * (self.units if self.least is None else min(self.least, self.units))


@dataclass(frozen=True, slots=True)
class Slice(Generic[Job]):
    """Units [first, last) of a job."""

    job: Job
    first: int
    last: int


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
class _Waiting(Generic[Job, Part]):
    """A job that was admitted and is not answered.

    Attributes:
        rank: Who is served first: the lowest.
        taken: Units that were run, are running, or are no longer wanted.
        begun: When its first unit was taken; None before.
    """

    job: Job
    cost: Cost
    rank: int
    future: "asyncio.Future[Outcome[Part]]"
    since: float
    taken: int = 0
    parts: list[Part] = field(default_factory=list)
    begun: float | None = None
    run_s: float = 0.0

    @property
    def left(self) -> int:
        """Passes that are not taken yet."""
        return (self.cost.units - self.taken) * self.cost.passes

    def take(self, units: int) -> Slice[Job]:
        self.taken += units
        return Slice(self.job, self.taken - units, self.taken)

    def answer(self) -> None:
        """With the parts there are, at least one."""
        if not self.future.done():
            assert self.begun is not None
            self.future.set_result(Outcome(tuple(self.parts), self.begun - self.since, self.run_s))

    def fail(self, error: Exception) -> None:
        if len(self.parts) == self.cost.units:
            self.answer()  # it was about to be
        elif not self.future.done():
            self.future.set_exception(error)


class Batcher(Generic[Job, Part]):
    """Runs slices of jobs in batches on an executor and hands every waiter the results of its units.

    Args:
        run: Takes the slices of a batch, one a job, and returns for each a result a unit, in order. Runs on `executor`.
            `MemoryError` says that the batch was too large.
        executor: Where batches run; one worker thread makes them run one after the other.
        max_queue_passes: Passes that may wait. A job that alone exceeds it is still admitted when nothing waits.
        max_batch_passes: The budget of a batch; a unit that alone exceeds it is a batch.
        max_wait_s: How long a batch waits for more, if the one before held several jobs; nothing waits when idle.
        on_batch: Told about every batch after it ran, on the event loop.
        clock: Seconds, monotonic.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Slice[Job]]], Sequence[Sequence[Part]]],
        executor: Executor,
        *,
        max_queue_passes: int,
        max_batch_passes: int,
        max_wait_s: float = 0.0,
        on_batch: Callable[[BatchReport], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._run = run
        self._executor = executor
        self._max_queue_passes = max_queue_passes
        self._max_batch_passes = max_batch_passes
        self._budget = max_batch_passes
        self._max_wait_s = max_wait_s
        self._on_batch = on_batch
        self._clock = clock
        self._waiting: dict[int, _Waiting[Job, Part]] = {}  # in order of arrival, those that run included
        self._numbers = itertools.count()
        self._queue_passes = 0
        self._admitted_passes = 0
        self._running_passes = 0
        self._running_since: float | None = None
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._crash: BaseException | None = None
        self._seconds_per_pass = 0.0  # moving average; 0 until a batch told
        self._task: asyncio.Task[None] | None = None

    @property
    def queue_passes(self) -> int:
        """Passes that wait now."""
        return self._queue_passes

    @property
    def crash(self) -> BaseException | None:
        """What ended the thread or the batcher itself; None while all is well."""
        return self._crash

    @property
    def running_s(self) -> float:
        """How long the present batch has been running; 0 when none is."""
        return 0.0 if self._running_since is None else self._clock() - self._running_since

    def expect(self, seconds_per_pass: float) -> None:
        """Go by this speed until batches have told theirs."""
        self._seconds_per_pass = seconds_per_pass

    def start(self) -> None:
        """Begin to run what is submitted; needs a running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._serve(), name="batcher")

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
        waiting = self.queue_passes
        if waiting and waiting + cost.total > self._max_queue_passes:
            raise QueueFull(
                f"{cost.total} passes were asked for while {waiting} wait; "
                f"at most {self._max_queue_passes} may wait: try again later or ask for fewer images or members",
                retry_after_s=self._retry_after_s(waiting),
            )
        if self._expected_s(waiting, cost) <= timeout_s:
            return  # in time even behind all that waits
        rank = self._rank(cost)
        before = sum(each.left for each in self._waiting.values() if each.rank <= rank)
        expected_s = self._expected_s(before, cost)
        if waiting and expected_s > timeout_s:
            raise QueueFull(
                f"an answer may take {expected_s:.1f} s with what waits; {timeout_s:.1f} s are left: try again later, "
                "allow more with timeout_ms, ask for fewer images or members, or allow fewer with min_size",
                retry_after_s=self._retry_after_s(waiting),
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
        loop, now, number = asyncio.get_running_loop(), self._clock(), next(self._numbers)
        rank = self._rank(cost)
        waiting: _Waiting[Job, Part] = _Waiting(job, cost, rank, loop.create_future(), now)
        self._waiting[number] = waiting
        self._queue_passes += cost.total
        self._admitted_passes += cost.total
        self._idle.clear()
        self._arrived.set()
        timer: asyncio.TimerHandle | None = None
        try:
            if timeout_s != math.inf:
                timer = loop.call_later(timeout_s, self._expire, waiting)
            return await waiting.future
        finally:
            if timer is not None:
                timer.cancel()
            self._waiting.pop(number, None)
            self._withdraw(waiting)
            self._mark_idle()

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
        self._fail_all(NotReady("the service stopped before this request was answered"))
        return answered

    def _withdraw(self, waiting: _Waiting[Job, Part]) -> None:
        """Take what is left of it out of the queue: nobody waits for it any more."""
        self._queue_passes -= waiting.left
        waiting.taken = waiting.cost.units

    def _expire(self, waiting: _Waiting[Job, Part]) -> None:
        """Its deadline has come."""
        self._withdraw(waiting)
        least = waiting.cost.least
        if least is not None and len(waiting.parts) >= least:
            waiting.answer()
            return
        waiting.fail(
            DeadlinePassed(
                f"{len(waiting.parts)} of {waiting.cost.units} members were done when the deadline came; allow more "
                "with timeout_ms, ask for fewer images or members, or allow fewer with min_size"
            )
        )

    def _fail_all(self, error: Exception) -> None:
        for waiting in self._waiting.values():
            self._withdraw(waiting)
            waiting.fail(error)
        self._waiting.clear()
        self._running_passes, self._running_since = 0, None
        self._mark_idle()

    def _mark_idle(self) -> None:
        if not self._waiting and self._running_since is None:
            self._idle.set()

    def _rank(self, cost: Cost) -> int:
        """Of a job that comes now: the lowest is served first."""
        return self._admitted_passes + 2 * cost.total

    def _expected_s(self, before: int, cost: Cost) -> float:
        """Until a job is done that has so many passes before it, if waiting takes as long as it does at worst."""
        pace, running_s = self._seconds_per_pass, self.running_s
        if pace and self._tells(self._running_passes):  # a batch that is slower tells so before it ends
            pace = max(pace, running_s / self._running_passes)
        remaining_s = max(0.0, self._running_passes * pace * AT_WORST - running_s)
        return remaining_s + (before * AT_WORST + cost.needed) * pace

    def _retry_after_s(self, waiting: int) -> int:
        expected_s = (waiting + self._running_passes) * self._seconds_per_pass
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(expected_s)))

    async def _serve(self) -> None:
        jobs = 0
        try:
            while True:
                await self._arrived.wait()
                if jobs > 1:
                    await self._gather(jobs)
                batch = self._take()
                jobs = len(batch)
                if not batch:
                    self._arrived.clear()
                    continue
                await self._run_batch(batch)
                del batch  # or the jobs, and the model that they hold, would stay until the next batch
                self._mark_idle()
                if not self.queue_passes:
                    self._arrived.clear()
        except Exception as error:
            self._break(error)
            raise
        except (SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            self._break(error)

    def _break(self, error: BaseException) -> None:
        """Nothing runs any more; nobody is left waiting."""
        self._crash = error
        self._fail_all(NotReady("the inference thread of this replica is gone; ask another one", retry_after_s=1))

    async def _gather(self, jobs: int) -> None:
        """Wait a little for as many jobs as the last batch held, whose clients may be about to ask again."""
        until = self._clock() + self._max_wait_s
        while self._queue_passes < self._budget and self._clock() < until:
            if sum(waiting.left > 0 for waiting in self._waiting.values()) >= jobs:
                break
            await asyncio.sleep(self._max_wait_s / 8)

    def _take(self) -> list[tuple[_Waiting[Job, Part], Slice[Job]]]:
        """A slice each of the jobs that run next, by rank; a job that wants to be alone when its turn comes."""
        ready = [waiting for waiting in self._waiting.values() if waiting.left]
        ready.sort(key=lambda waiting: waiting.rank)
        batch: list[tuple[_Waiting[Job, Part], Slice[Job]]] = []
        room = self._budget
        for waiting in ready:
            cost = waiting.cost
            if cost.alone and batch:
                continue
            units = min(cost.units - waiting.taken, max(room // cost.passes, 0 if batch else 1))
            if units:
                batch.append((waiting, waiting.take(units)))
                room -= units * cost.passes
                self._queue_passes -= units * cost.passes
            if cost.alone or room <= 0:
                break
        return batch

    async def _run_batch(self, batch: list[tuple[_Waiting[Job, Part], Slice[Job]]]) -> None:
        started = self._clock()
        slices = [each for _, each in batch]
        passes = sum(waiting.cost.passes * (each.last - each.first) for waiting, each in batch)
        for waiting, _ in batch:
            if waiting.begun is None:
                waiting.begun = started
        self._running_passes, self._running_since = passes, started
        results = await asyncio.get_running_loop().run_in_executor(self._executor, self._run_contained, slices)
        now = self._clock()
        self._running_passes, self._running_since = 0, None
        done = []
        for (waiting, _), result in zip(batch, results, strict=True):
            waiting.run_s += now - started
            if isinstance(result, Exception):
                self._withdraw(waiting)
                waiting.fail(result)
                continue
            waiting.parts.extend(result)
            if len(waiting.parts) == waiting.cost.units:
                done.append(waiting)
        self._answer(done)
        failed = sum(isinstance(result, Exception) for result in results)
        if not failed and not batch[0][0].cost.alone:
            self._learn(passes, now - started)
        if self._on_batch is not None:
            self._on_batch(BatchReport(len(batch), passes, now - started, failed))

    def _answer(self, done: Sequence[_Waiting[Job, Part]]) -> None:
        """A few at a time: who comes now is not to wait until a whole batch has been written out."""
        for waiting in done[:AT_A_TIME]:
            waiting.answer()
        if rest := done[AT_A_TIME:]:
            asyncio.get_running_loop().call_soon(self._answer, rest)

    def _tells(self, passes: int) -> bool:
        """Whether a batch of so many passes says how fast full ones are."""
        return passes >= min(TELLING, self._budget)

    def _learn(self, passes: int, run_s: float) -> None:
        per_pass = run_s / passes
        if self._tells(passes):
            known = self._seconds_per_pass
            self._seconds_per_pass = 0.8 * known + 0.2 * per_pass if known else per_pass
        if self._budget < self._max_batch_passes and passes >= self._budget:
            self._budget = min(self._max_batch_passes, self._budget + max(1, self._budget // 8))

    def _run_contained(self, slices: Sequence[Slice[Job]]) -> list[Sequence[Part] | Exception]:
        """Run a batch; when it fails, run its halves, so that a bad job takes no other with it."""
        try:
            results = list(self._run(slices))
            if [len(result) for result in results] != [each.last - each.first for each in slices]:
                raise RuntimeError(f"a batch of {len(slices)} slices gave results of other lengths")
            return [*results]
        except MemoryError as error:
            self._budget = max(1, self._budget // 2)
            if len(slices) == 1:
                return [self._run_halved(slices[0], error)]
        except Exception as error:
            if len(slices) == 1:
                return [error]
        half = len(slices) // 2
        return [*self._run_contained(slices[:half]), *self._run_contained(slices[half:])]

    def _run_halved(self, whole: Slice[Job], error: Exception) -> Sequence[Part] | Exception:
        """The units of a slice that is too large, in two parts."""
        middle = (whole.first + whole.last) // 2
        if middle == whole.first:
            return error
        halves = [Slice(whole.job, whole.first, middle), Slice(whole.job, middle, whole.last)]
        parts: list[Part] = []
        for half in halves:
            (result,) = self._run_contained([half])
            if isinstance(result, Exception):
                return result
            parts.extend(result)
        return parts
