"""The batcher alone, without HTTP and without tensors: admission, fairness, containment, deadlines, draining."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from service.batcher import Batcher, BatchReport, Outcome
from service.errors import DeadlinePassed, NotReady, QueueFull
from service.queueing import Cost, Slice

ONE = Cost(1, 1)


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
        self.stops_after = 10_000
        self.room = 10_000

    def __call__(self, slices: Sequence[Slice[int]]) -> list[list[int]]:
        self.batches.append([(each.job, each.last - each.first) for each in slices])
        self.entered.set()
        if len(self.batches) > self.stops_after:
            self.gate.clear()
            self.stops_after = 10_000
        assert self.gate.wait(30)
        if sum(each.last - each.first for each in slices) > self.room:
            raise MemoryError("too large")
        if any(each.job < 0 for each in slices):
            raise ValueError(f"negative: {[each.job for each in slices]}")
        return [[10 * each.job + unit for unit in range(each.first, each.last)] for each in slices]


class Bench:
    """A batcher, its runner and what it reports."""

    def __init__(self, max_queue_passes: int = 1000, max_batch_passes: int = 10, **more: Any) -> None:
        self.runner = Runner()
        self.reports: list[BatchReport] = []
        self.executor = ThreadPoolExecutor(1)
        self.batcher: Batcher[int, int] = Batcher(
            self.runner,
            self.executor,
            max_queue_passes=max_queue_passes,
            max_batch_passes=max_batch_passes,
            on_batch=self.reports.append,
            **more,
        )
        self.batcher.start()

    def ask(self, job: int, cost: Cost = ONE, **more: float) -> "asyncio.Task[Outcome[int]]":
        """Submit without waiting."""
        return asyncio.create_task(self.batcher.submit(job, cost, **more))

    async def hold(self, cost: Cost = ONE) -> "asyncio.Task[Outcome[int]]":
        """Occupy the thread with job 0 until the gate opens."""
        self.runner.gate.clear()
        self.runner.entered.clear()
        task = self.ask(0, cost)
        await asyncio.to_thread(self.runner.entered.wait, 10)
        return task

    async def queue(self, *jobs: tuple[int, Cost]) -> "list[asyncio.Task[Outcome[int]]]":
        """Submit several, in order."""
        tasks = [self.ask(job, cost) for job, cost in jobs]
        await asyncio.sleep(0)
        return tasks

    async def end(self) -> None:
        self.runner.gate.set()
        await self.batcher.drain(10)
        self.executor.shutdown()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.end()


async def test_every_waiter_gets_the_results_of_its_own_units_in_order(bench):
    outcomes = await asyncio.gather(*(bench.batcher.submit(job, Cost(1 + job % 7, 2)) for job in range(50)))
    for job, outcome in enumerate(outcomes):
        assert outcome.parts == tuple(10 * job + unit for unit in range(1 + job % 7))
    assert all(report.passes <= 14 for report in bench.reports)


async def test_what_waits_shares_batches_up_to_the_budget(bench):
    held = await bench.hold()
    tasks = await bench.queue(*((job, Cost(1, 4)) for job in (1, 2, 3)))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.runner.batches == [[(0, 1)], [(1, 1), (2, 1)], [(3, 1)]]
    assert [(report.jobs, report.passes) for report in bench.reports] == [(1, 1), (2, 8), (1, 4)]


async def test_a_lone_job_has_the_whole_budget(bench):
    await bench.batcher.submit(1, Cost(25, 1))
    assert bench.runner.batches == [[(1, 10)], [(1, 10)], [(1, 5)]]


async def test_small_jobs_are_not_held_up_by_a_large_one_and_it_goes_on(bench):
    held = await bench.hold()
    large, *small = await bench.queue((1, Cost(100, 1)), (2, Cost(2, 1)), (3, Cost(2, 1)))
    bench.runner.gate.set()
    await asyncio.gather(held, *small)
    assert bench.runner.batches[1] == [(2, 2), (3, 2), (1, 6)]
    assert len((await large).parts) == 100


async def test_equal_jobs_are_served_in_order_of_arrival(bench):
    held = await bench.hold()
    tasks = await bench.queue(*((job, Cost(4, 1)) for job in range(1, 6)))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.runner.batches[1:] == [[(1, 4), (2, 4), (3, 2)], [(3, 2), (4, 4), (5, 4)]]


async def test_a_job_waits_for_no_more_passes_of_later_ones_than_it_has_itself(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, Cost(3, 8)), *((job, ONE) for job in range(2, 100)))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    order = [job for batch in bench.runner.batches[1:] for job, _ in batch]
    last = len(order) - order[::-1].index(1)
    assert last <= 3 + 3 * 8 + 10  # its slices, its own number of passes of others, and what fills the last batch


async def test_a_unit_larger_than_a_batch_runs_by_itself(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, Cost(2, 50)), (2, ONE))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert [(1, 1)] in bench.runner.batches


async def test_a_job_that_wants_to_be_alone_shares_no_batch(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (2, ONE), (3, Cost(1, 1, alone=True)), (4, ONE), (5, ONE))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert [batch for batch in bench.runner.batches if (3, 1) in batch] == [[(3, 1)]]


async def test_a_full_queue_refuses_and_says_when_to_come_back():
    bench = Bench(max_queue_passes=10)
    held = await bench.hold()
    tasks = await bench.queue((1, Cost(6, 1)))
    with pytest.raises(QueueFull, match=r"5 passes were asked for while 6 wait; at most 10") as refusal:
        await bench.batcher.submit(2, Cost(5, 1))
    assert refusal.value.retry_after_s is not None
    assert refusal.value.retry_after_s >= 1
    tasks += await bench.queue((3, Cost(4, 1)))
    assert bench.batcher.queue_passes == 10
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.batcher.queue_passes == 0
    await bench.end()


async def test_a_job_larger_than_the_queue_is_admitted_when_nothing_waits(bench):
    assert len((await bench.batcher.submit(7, Cost(2000, 1))).parts) == 2000


async def test_who_may_be_late_is_refused_at_once_and_fewer_members_may_be_in_time():
    now = [0.0]
    bench = Bench(max_queue_passes=1000, clock=lambda: now[0])
    held = await bench.hold(Cost(10, 1))
    now[0] = 10.0  # a pass takes a second
    bench.runner.gate.set()
    await held
    held = await bench.hold(Cost(10, 1))
    await bench.queue(*[(1, Cost(4, 1))] * 5)
    now[0] = 15.0
    # Ten run, for 5 s so far, and twenty wait, which may take twice as long as the mean says, before its own four.
    with pytest.raises(QueueFull, match=r"may take 59\.0 s with what runs and waits; 58\.0 s are left") as refusal:
        await bench.batcher.submit(2, Cost(4, 1), 58.0)
    assert refusal.value.retry_after_s == 30
    bench.batcher.check_room(Cost(4, 1), 60.0)
    bench.batcher.check_room(Cost(4, 1, least=3), 58.0)
    large = bench.ask(3, Cost(100, 1))
    await asyncio.sleep(0)
    bench.batcher.check_room(Cost(4, 1), 60.0)  # it passes the large one
    now[0] = 30.0  # what runs has taken two seconds a pass by now, and may take as long again
    with pytest.raises(QueueFull, match=r"may take 108\.0 s"):
        bench.batcher.check_room(Cost(4, 1), 60.0)
    large.cancel()
    await bench.end()


async def test_a_few_slow_passes_are_no_reason_to_refuse_many():
    now = [0.0]
    bench = Bench(max_batch_passes=100, clock=lambda: now[0])
    bench.batcher.expect(0.001)
    held = await bench.hold(Cost(2, 1))
    now[0] = 60.0  # two passes took a minute: the first ones do
    bench.batcher.check_room(Cost(4, 1), 1.0)
    bench.runner.gate.set()
    await held
    held = await bench.hold()
    tasks = await bench.queue(*[(1, Cost(4, 1))] * 50)
    bench.batcher.check_room(Cost(4, 1), 1.0)
    with pytest.raises(QueueFull, match="may take"):
        bench.batcher.check_room(Cost(4, 1), 0.3)
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    await bench.end()


@pytest.mark.parametrize("job", [(-1, Cost(10, 1)), (1, Cost(1, 10, alone=True))], ids=["failed", "alone"])
async def test_failures_and_work_of_another_kind_say_nothing_about_the_speed(job):
    now = [0.0]
    bench = Bench(clock=lambda: now[0])
    bench.batcher.expect(0.001)
    bench.runner.gate.clear()
    (odd,) = await bench.queue(job)
    await asyncio.to_thread(bench.runner.entered.wait, 10)
    now[0] = 100.0
    bench.runner.gate.set()
    await asyncio.gather(odd, return_exceptions=True)
    held = await bench.hold()
    tasks = await bench.queue(*[(1, Cost(4, 1))] * 5)
    bench.batcher.check_room(Cost(4, 1), 1.0)
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    await bench.end()


async def test_a_deadline_that_passes_fails_and_frees_the_room(bench):
    held = await bench.hold()
    late = bench.ask(1, Cost(4, 1), timeout_s=0.01)
    with pytest.raises(DeadlinePassed, match="0 of 4 members were done"):
        await late
    assert bench.batcher.queue_passes == 0
    bench.runner.gate.set()
    await held
    assert bench.runner.batches == [[(0, 1)]]


async def test_at_the_deadline_as_many_members_as_are_done_answer_if_they_are_enough(bench):
    bench.runner.stops_after = 1
    enough = bench.ask(1, Cost(30, 1, least=4), timeout_s=0.3)
    too_few = bench.ask(2, Cost(30, 1, least=4), timeout_s=0.3)
    assert len((await enough).parts) == 10
    with pytest.raises(DeadlinePassed, match="0 of 30 members"):
        await too_few
    assert bench.batcher.queue_passes == 0


async def test_a_bad_job_fails_alone(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (-2, ONE), (3, ONE), (4, ONE))
    bench.runner.gate.set()
    await held
    with pytest.raises(ValueError, match=r"negative: \[-2\]"):
        await tasks[1]
    assert [(await tasks[index]).parts for index in (0, 2, 3)] == [(10,), (30,), (40,)]
    assert bench.reports[-1].failed == 1
    assert bench.runner.batches[1:] == [
        [(1, 1), (-2, 1), (3, 1), (4, 1)],
        [(1, 1), (-2, 1)],
        [(1, 1)],
        [(-2, 1)],
        [(3, 1), (4, 1)],
    ]


async def test_a_batch_too_large_for_memory_is_halved_and_later_ones_are_smaller(bench):
    bench.runner.room = 3
    assert len((await bench.batcher.submit(1, Cost(10, 1))).parts) == 10
    tried = len(bench.runner.batches)
    assert len((await bench.batcher.submit(2, Cost(10, 1))).parts) == 10
    assert all(units <= 4 for batch in bench.runner.batches[tried:] for _, units in batch)
    bench.runner.room = 10
    for _ in range(20):
        await bench.batcher.submit(3, Cost(20, 1))
    assert bench.runner.batches[-1] == [(3, 10)]  # it dares more again


async def test_a_unit_that_has_no_room_at_all_fails(bench):
    bench.runner.room = 0
    with pytest.raises(MemoryError):
        await bench.batcher.submit(1, Cost(3, 1))


async def test_a_runner_that_loses_results_is_an_error_and_not_a_hang():
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(lambda slices: [[]], executor, max_queue_passes=9, max_batch_passes=9)
        batcher.start()
        with pytest.raises(RuntimeError, match="results of other lengths"):
            await batcher.submit(1, ONE)
        await batcher.drain(10)


async def test_a_thread_that_ends_leaves_nobody_waiting_and_is_known():
    def crash(_: object) -> list[list[int]]:
        raise SystemExit("the thread is gone")

    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(crash, executor, max_queue_passes=9, max_batch_passes=1)
        batcher.start()
        outcomes = await asyncio.gather(batcher.submit(1, ONE), batcher.submit(2, ONE), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [NotReady, NotReady]
        assert isinstance(batcher.crash, SystemExit)
        with pytest.raises(NotReady, match="gone"):
            batcher.check_room(ONE)
        assert await batcher.drain(1)


async def test_an_error_while_results_are_handed_out_leaves_nobody_waiting_and_is_known():
    def broken(_: BatchReport) -> None:
        raise ZeroDivisionError("a report nobody can read")

    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["exception"]))
    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(
            lambda slices: [[each.job] for each in slices],
            executor,
            max_queue_passes=9,
            max_batch_passes=1,
            on_batch=broken,
        )
        batcher.start()
        outcomes = await asyncio.gather(batcher.submit(1, ONE), batcher.submit(2, ONE), return_exceptions=True)
        assert isinstance(outcomes[0], Outcome)
        assert isinstance(outcomes[1], NotReady | Outcome)
        assert isinstance(batcher.crash, ZeroDivisionError)
        assert isinstance(said[0], ZeroDivisionError)
        with pytest.raises(NotReady, match="gone"):
            batcher.check_room(ONE)


async def test_a_waiter_that_leaves_frees_its_room_and_is_never_run(bench):
    held = await bench.hold()
    leaving, staying = await bench.queue((1, Cost(60, 1)), (2, Cost(3, 1)))
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    assert bench.batcher.queue_passes == 3
    bench.runner.gate.set()
    await asyncio.gather(held, staying)
    assert bench.runner.batches == [[(0, 1)], [(2, 3)]]


async def test_a_waiter_that_leaves_between_members_has_no_more_of_them_run(bench):
    held = await bench.hold()
    leaving, staying = await bench.queue((1, Cost(60, 1)), (2, Cost(10, 1)))
    bench.runner.stops_after = 2
    bench.runner.gate.set()
    await held
    while len(bench.runner.batches) < 3:
        await asyncio.sleep(0.001)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    bench.runner.gate.set()
    assert len((await staying).parts) == 10
    assert sum(units for batch in bench.runner.batches for job, units in batch if job == 1) < 60
    assert (await bench.batcher.submit(3, ONE)).parts == (30,)


async def test_it_waits_for_the_clients_of_the_last_batch_to_ask_again_and_not_when_idle():
    bench = Bench(max_batch_passes=100, max_wait_s=0.2)
    loop = asyncio.get_running_loop()
    started = loop.time()
    await bench.batcher.submit(1, ONE)
    await bench.batcher.submit(1, ONE)
    assert loop.time() - started < 0.2
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (2, ONE), (3, ONE))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    again = [bench.ask(4)]
    await asyncio.sleep(0.02)
    again += [bench.ask(5), bench.ask(6)]
    await asyncio.gather(*again)
    assert bench.runner.batches[-1] == [(4, 1), (5, 1), (6, 1)]
    await bench.end()


async def test_draining_answers_what_was_admitted_and_admits_no_more(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (2, ONE))
    draining = asyncio.create_task(bench.batcher.drain(10))
    await asyncio.sleep(0)
    with pytest.raises(NotReady, match="stopping"):
        await bench.batcher.submit(9, ONE)
    bench.runner.gate.set()
    assert await draining
    assert [outcome.parts for outcome in await asyncio.gather(held, *tasks)] == [(0,), (10,), (20,)]


async def test_draining_is_bounded_and_tells_those_left_over(bench):
    held = await bench.hold()
    (task,) = await bench.queue((1, ONE))
    assert not await bench.batcher.drain(0.05)
    results = await asyncio.gather(held, task, return_exceptions=True)
    assert [type(result) for result in results] == [NotReady, NotReady]
    bench.runner.gate.set()


async def test_the_times_of_an_outcome_add_up_by_the_clock():
    now = [0.0]

    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        now[0] += 2.0
        return [[each.job] for each in slices]

    with ThreadPoolExecutor(1) as executor:
        batcher: Batcher[int, int] = Batcher(
            run, executor, max_queue_passes=9, max_batch_passes=1, clock=lambda: now[0]
        )
        batcher.start()
        first, second = await asyncio.gather(batcher.submit(1, ONE), batcher.submit(2, ONE))
        assert (first.queue_s, first.run_s) == (0.0, 2.0)
        assert (second.queue_s, second.run_s) == (2.0, 2.0)
        assert batcher.running_s == 0
        await batcher.drain(10)
