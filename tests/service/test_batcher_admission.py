"""Who a batcher admits, and who it refuses at once: by the room of the queue, by the deadline, by the pace."""

import asyncio

import pytest

from service.errors import QueueFull
from service.queueing import Cost
from tests.service.bench import ONE, Bench, Clock


async def test_a_full_queue_refuses_and_says_when_to_come_back(make_bench):
    bench = make_bench(max_queue_passes=10)
    held = await bench.hold()
    tasks = await bench.queue((1, Cost(6, 1)))
    with pytest.raises(QueueFull, match=r"5 passes were asked for while 6 wait; at most 10") as refusal:
        await bench.batcher.submit(2, Cost(5, 1))
    assert refusal.value.retry_after_s == 1
    tasks += await bench.queue((3, Cost(4, 1)))
    assert bench.batcher.queue_passes == 10
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.batcher.queue_passes == 0


async def test_a_job_larger_than_the_queue_is_admitted_when_nothing_waits(bench):
    assert len((await bench.batcher.submit(7, Cost(2000, 1))).parts) == 2000


async def test_an_idle_batcher_admits_whatever_the_pace_says(bench):
    bench.batcher.expect(1000.0)
    bench.batcher.check_room(Cost(4, 1), 1.0)
    assert (await bench.batcher.submit(1, ONE, 10.0)).parts == (10,)


async def test_who_is_late_because_of_what_runs_is_refused(make_bench):
    bench = make_bench(clock=Clock())
    bench.batcher.expect(1.0)
    held = await bench.hold(Cost(10, 1))
    assert bench.batcher.queue_passes == 0
    with pytest.raises(QueueFull, match=r"may take 29\.0 s with what runs and waits; 28\.0 s are left"):
        bench.batcher.check_room(Cost(4, 1), 28.0)
    bench.runner.gate.set()
    await held


async def test_who_is_late_because_of_what_waits_is_refused_before_any_of_it_runs(bench):
    bench.batcher.expect(1.0)
    (task,) = await bench.queue((1, Cost(4, 1)))
    assert bench.runner.batches == []
    with pytest.raises(QueueFull, match=r"may take 14\.0 s with what runs and waits; 13\.0 s are left"):
        bench.batcher.check_room(Cost(4, 1), 13.0)
    bench.batcher.check_room(Cost(4, 1), 14.0)
    await task


async def test_who_may_be_late_is_refused_at_once_and_fewer_members_may_be_in_time(make_bench):
    clock = Clock()
    bench = make_bench(clock=clock)
    held = await bench.hold(Cost(10, 1))
    clock.now = 10.0  # a pass takes a second
    bench.runner.gate.set()
    await held
    held = await bench.hold(Cost(10, 1))
    await bench.queue(*[(1, Cost(4, 1))] * 5)
    clock.now = 15.0
    # Five s of what runs are left and twenty wait, which may take 2.5 times as long as expected, before its own four.
    with pytest.raises(QueueFull, match=r"may take 66\.5 s with what runs and waits; 66\.0 s are left") as refusal:
        bench.batcher.check_room(Cost(4, 1), 66.0)
    assert refusal.value.retry_after_s == 30
    bench.batcher.check_room(Cost(4, 1), 67.0)
    bench.batcher.check_room(Cost(4, 1, least=3), 66.0)
    large = bench.ask(3, Cost(100, 1))
    await asyncio.sleep(0)
    bench.batcher.check_room(Cost(4, 1), 67.0)  # it passes the large one
    clock.now = 30.0  # what runs has taken two seconds a pass by now, ten too many, and may take as many again
    with pytest.raises(QueueFull, match=r"may take 133\.0 s"):
        bench.batcher.check_room(Cost(4, 1), 67.0)
    large.cancel()


async def run_for(bench: Bench, clock: Clock, seconds: float, job: int, cost: Cost) -> None:
    """Run a job that takes so long."""
    odd = await bench.hold(cost, job)
    clock.now += seconds
    bench.runner.gate.set()
    await asyncio.gather(odd, return_exceptions=True)


@pytest.mark.parametrize(
    ("job", "cost"),
    [(1, Cost(2, 1)), (-1, Cost(100, 1)), (1, Cost(1, 100, alone=True))],
    ids=["few passes", "failed", "alone"],
)
async def test_a_slow_batch_that_tells_nothing_about_the_others_is_no_reason_to_refuse(make_bench, job, cost):
    clock = Clock()
    bench = make_bench(max_batch_passes=100, clock=clock)
    bench.batcher.expect(0.001)
    await run_for(bench, clock, 100.0, job, cost)
    held = await bench.hold()
    tasks = await bench.queue(*[(1, Cost(4, 1))] * 50)
    bench.batcher.check_room(Cost(4, 1), 0.6)
    with pytest.raises(QueueFull, match=r"may take 0\.5 s"):
        bench.batcher.check_room(Cost(4, 1), 0.4)
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)


async def test_a_few_passes_that_are_slow_while_they_run_are_no_reason_to_refuse(make_bench):
    clock = Clock()
    bench = make_bench(max_batch_passes=100, clock=clock)
    bench.batcher.expect(0.001)
    held = await bench.hold(Cost(2, 1))
    clock.now = 60.0  # the first ones may take a minute
    bench.batcher.check_room(Cost(4, 1), 0.1)
    bench.runner.gate.set()
    await held


async def test_a_full_batch_that_was_slow_is_a_reason_to_refuse(make_bench):
    clock = Clock()
    bench = make_bench(max_batch_passes=100, clock=clock)
    bench.batcher.expect(0.001)
    await run_for(bench, clock, 100.0, 1, Cost(100, 1))
    held = await bench.hold()
    with pytest.raises(QueueFull, match="may take"):
        bench.batcher.check_room(Cost(4, 1), 0.5)
    bench.runner.gate.set()
    await held
