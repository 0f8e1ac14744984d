"""A batcher that a test can look into: what it runs is recorded, and held or failed as the test says."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from service.batcher import Batcher, BatchReport, Outcome
from service.queueing import Cost, Slice

ONE = Cost(1, 1)
NEVER = 10_000


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Runner:
    """A unit of job j gives 10 j + its number; negative jobs fail, and batches above `room` units lack memory.

    Attributes:
        batches: (job, units) of every slice of every batch that was tried.
        gate: Closed, it holds the thread.
        entered: Set whenever a batch begins.
        stops_after: Batches after which the gate closes by itself.
        room: Units that fit.
    """

    def __init__(self) -> None:
        self.batches: list[list[tuple[int, int]]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.stops_after = NEVER
        self.room = 10_000

    def __call__(self, slices: Sequence[Slice[int]]) -> list[list[int]]:
        if len(self.batches) >= self.stops_after:  # before the batch can be seen, or the test might open it too early
            self.gate.clear()
            self.stops_after = NEVER
        self.batches.append([(each.job, each.units) for each in slices])
        self.entered.set()
        assert self.gate.wait(30), "the test never opened the gate"
        if sum(each.units for each in slices) > self.room:
            raise MemoryError("too large")
        if any(each.job < 0 for each in slices):
            raise ValueError(f"negative: {[each.job for each in slices]}")
        return [[10 * each.job + unit for unit in range(each.first, each.last)] for each in slices]


class Bench:
    """A batcher, its runner and what it reports.

    Args:
        run: What the batcher runs; None for the runner.
        on_batch: Who gets the reports; None for `reports`.
        more: Options of the batcher.
    """

    def __init__(
        self,
        run: Callable[[Sequence[Slice[int]]], Sequence[Sequence[int]]] | None = None,
        *,
        max_queue_passes: int = 1000,
        max_batch_passes: int = 10,
        on_batch: Callable[[BatchReport], None] | None = None,
        **more: Any,
    ) -> None:
        self.runner = Runner()
        self.reports: list[BatchReport] = []
        self.executor = ThreadPoolExecutor(1)
        self.batcher: Batcher[int, int] = Batcher(
            run or self.runner,
            self.executor,
            max_queue_passes=max_queue_passes,
            max_batch_passes=max_batch_passes,
            on_batch=on_batch or self.reports.append,
            **more,
        )
        self.batcher.start()

    def ask(self, job: int, cost: Cost = ONE, **more: float) -> "asyncio.Task[Outcome[int]]":
        """Submit without waiting."""
        return asyncio.create_task(self.batcher.submit(job, cost, **more))

    async def queue(self, *jobs: tuple[int, Cost]) -> "list[asyncio.Task[Outcome[int]]]":
        """Submit several, in order."""
        tasks = [self.ask(job, cost) for job, cost in jobs]
        await asyncio.sleep(0)
        return tasks

    async def hold(self, cost: Cost = ONE, job: int = 0) -> "asyncio.Task[Outcome[int]]":
        """Occupy the thread with a job until the gate opens."""
        self.runner.gate.clear()
        self.runner.entered.clear()
        task = self.ask(job, cost)
        assert await asyncio.to_thread(self.runner.entered.wait, 30)
        return task

    async def reach(self, batches: int) -> None:
        """Wait until so many batches have begun."""
        async with asyncio.timeout(30):
            while len(self.runner.batches) < batches:
                await asyncio.sleep(0.001)

    async def end(self) -> None:
        """Let the thread finish what it has, and end it."""
        self.runner.stops_after = NEVER
        self.runner.gate.set()
        await self.batcher.drain(10)
        self.executor.shutdown()


@contextlib.asynccontextmanager
async def benches() -> AsyncIterator[Callable[..., Bench]]:
    """What makes benches, and ends all that it made, however the test went."""
    async with contextlib.AsyncExitStack() as made:

        def make(*arguments: Any, **options: Any) -> Bench:
            bench = Bench(*arguments, **options)
            made.push_async_callback(bench.end)
            return bench

        yield make


def skip(seconds: float) -> None:
    """Let so many seconds pass for the timers of the running event loop, so that a deadline comes without a wait."""
    loop = asyncio.get_running_loop()
    time = loop.time
    loop.time = lambda: time() + seconds  # type: ignore[method-assign]
