"""The batcher alone, without HTTP and without tensors: admission, grouping, containment, withdrawal, draining."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.batcher import Batcher, BatchReport, Outcome
from service.errors import NotReady, QueueFull


class Runner:
    """Doubles numbers; notes every batch; fails on negative ones; waits while `gate` is closed."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()

    def __call__(self, jobs: Sequence[int]) -> list[int]:
        self.entered.set()
        assert self.gate.wait(30)
        self.batches.append(list(jobs))
        if any(job < 0 for job in jobs):
            raise ValueError(f"negative: {list(jobs)}")
        return [2 * job for job in jobs]


class Bench:
    """A batcher, its runner and what it reports."""

    def __init__(self, max_queue_passes: int = 100, max_batch_passes: int = 10) -> None:
        self.runner = Runner()
        self.reports: list[BatchReport] = []
        self.executor = ThreadPoolExecutor(1)
        self.batcher: Batcher[int, int] = Batcher(
            self.runner,
            self.executor,
            max_queue_passes=max_queue_passes,
            max_batch_passes=max_batch_passes,
            on_batch=self.reports.append,
        )
        self.batcher.start()

    async def hold(self) -> "asyncio.Task[Outcome[int]]":
        """Occupy the thread with job 0 until the gate opens."""
        self.runner.gate.clear()
        task = asyncio.create_task(self.batcher.submit(0, 1))
        await asyncio.to_thread(self.runner.entered.wait, 10)
        return task

    async def queue(self, *jobs: tuple[int, int]) -> "list[asyncio.Task[Outcome[int]]]":
        """Submit (job, passes) pairs, in order."""
        tasks = [asyncio.create_task(self.batcher.submit(job, passes)) for job, passes in jobs]
        await asyncio.sleep(0)
        return tasks


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    bench.runner.gate.set()
    await bench.batcher.drain(10)
    bench.executor.shutdown()


async def test_every_waiter_gets_its_own_result(bench):
    outcomes = await asyncio.gather(*(bench.batcher.submit(job, 1) for job in range(50)))
    assert [outcome.value for outcome in outcomes] == [2 * job for job in range(50)]


async def test_what_waits_is_batched_up_to_the_budget_in_order_of_arrival(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, 4), (2, 4), (3, 4), (4, 2), (5, 50), (6, 1))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.runner.batches == [[0], [1, 2], [3, 4], [5], [6]]
    assert [(report.jobs, report.passes) for report in bench.reports] == [(1, 1), (2, 8), (2, 6), (1, 50), (1, 1)]


async def test_a_job_that_wants_to_be_alone_shares_no_batch(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, 1), (2, 1))
    tasks.append(asyncio.create_task(bench.batcher.submit(3, 1, alone=True)))
    tasks += await bench.queue((4, 1), (5, 1))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.runner.batches == [[0], [1, 2], [3], [4, 5]]


async def test_a_full_queue_refuses_and_says_when_to_come_back():
    bench = Bench(max_queue_passes=10)
    held = await bench.hold()
    tasks = await bench.queue((1, 6))
    with pytest.raises(QueueFull, match=r"5 passes were asked for while 6 wait; at most 10") as refusal:
        await bench.batcher.submit(2, 5)
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s >= 1
    tasks += await bench.queue((3, 4))
    assert bench.batcher.queue_passes == 10
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.batcher.queue_passes == 0
    await bench.batcher.drain(10)


async def test_a_job_larger_than_the_queue_is_admitted_when_nothing_waits(bench):
    assert (await bench.batcher.submit(7, 1000)).value == 14


async def test_a_bad_job_fails_alone(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, 1), (-2, 1), (3, 1))
    bench.runner.gate.set()
    await held
    with pytest.raises(ValueError, match=r"negative: \[-2\]"):
        await tasks[1]
    assert [(await tasks[index]).value for index in (0, 2)] == [2, 6]
    assert bench.reports[-1].failed == 1
    assert (await bench.batcher.submit(5, 1)).value == 10


async def test_a_runner_that_loses_results_is_an_error_and_not_a_hang():
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(lambda jobs: [], executor, max_queue_passes=9, max_batch_passes=9)
        batcher.start()
        with pytest.raises(RuntimeError, match="1 jobs gave 0 results"):
            await batcher.submit(1, 1)
        await batcher.drain(10)


async def test_a_waiter_that_leaves_frees_its_room_and_is_never_run(bench):
    held = await bench.hold()
    leaving, staying = await bench.queue((1, 60), (2, 3))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert bench.batcher.queue_passes == 3
    bench.runner.gate.set()
    await asyncio.gather(held, staying)
    assert bench.runner.batches == [[0], [2]]


async def test_a_waiter_that_leaves_while_it_runs_does_not_hurt_its_mates(bench):
    held = await bench.hold()
    first, second = await bench.queue((1, 1), (2, 1))
    bench.runner.entered.clear()
    bench.runner.gate.set()
    await held
    first.cancel()
    assert (await second).value == 4
    assert (await bench.batcher.submit(3, 1)).value == 6


async def test_draining_answers_what_was_admitted_and_admits_no_more(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, 1), (2, 1))
    draining = asyncio.create_task(bench.batcher.drain(10))
    await asyncio.sleep(0)
    with pytest.raises(NotReady, match="stopping"):
        await bench.batcher.submit(9, 1)
    bench.runner.gate.set()
    assert await draining
    assert [outcome.value for outcome in await asyncio.gather(held, *tasks)] == [0, 2, 4]


async def test_draining_is_bounded_and_tells_those_left_over(bench):
    held = await bench.hold()
    (task,) = await bench.queue((1, 1))
    assert not await bench.batcher.drain(0.05)
    results = await asyncio.gather(held, task, return_exceptions=True)
    assert [type(result) for result in results] == [NotReady, NotReady]
    bench.runner.gate.set()


async def test_the_times_of_an_outcome_add_up_by_the_clock():
    ticks = iter(range(100))
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(
            lambda jobs: list(jobs), executor, max_queue_passes=9, max_batch_passes=9, clock=lambda: float(next(ticks))
        )
        batcher.start()
        outcome = await batcher.submit(1, 1)  # the clock is read on arrival, at the start and at the end
        assert (outcome.queue_s, outcome.run_s) == (1.0, 1.0)
        await batcher.drain(10)
