"""The batcher alone, without HTTP and without tensors: sharing, waiting for more, failures, deadlines, times."""

import asyncio
import threading
from collections.abc import Sequence
from itertools import pairwise

import pytest

from service.batcher import BatchReport
from service.errors import DeadlinePassed
from service.queueing import Cost, Slice
from tests.service.bench import ONE, Bench, Clock, skip

# Sharing the thread.


async def test_every_waiter_gets_the_results_of_its_own_units_in_order(bench):
    outcomes = await asyncio.gather(*(bench.batcher.submit(job, Cost(1 + job % 7, 2)) for job in range(50)))
    for job, outcome in enumerate(outcomes):
        assert outcome.parts == tuple(10 * job + unit for unit in range(1 + job % 7))
    assert all(report.passes <= 10 for report in bench.reports)


async def test_what_comes_at_once_shares_the_first_batch(bench):
    await asyncio.gather(*(bench.batcher.submit(job, ONE) for job in (1, 2, 3)))
    assert bench.runner.batches == [[(1, 1), (2, 1), (3, 1)]]


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


async def test_a_large_job_is_done_before_most_of_the_many_small_ones_that_came_later(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, Cost(3, 8)), *((job, ONE) for job in range(2, 100)))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    order = [job for batch in bench.runner.batches[1:] for job, _ in batch]
    last = len(order) - order[::-1].index(1)
    assert last <= 3 + 3 * 8 + 10  # its slices, its own number of passes of others, and what fills the last batch


async def test_a_job_that_wants_to_be_alone_shares_no_batch(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (2, ONE), (3, Cost(1, 1, alone=True)), (4, ONE), (5, ONE))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert bench.runner.batches[1:] == [[(1, 1), (2, 1), (4, 1), (5, 1)], [(3, 1)]]


async def test_what_else_the_thread_is_given_has_its_turn_after_the_present_batch(bench):
    held = await bench.hold()
    (large,) = await bench.queue((1, Cost(30, 1)))
    other = bench.executor.submit(lambda: len(bench.runner.batches))
    bench.runner.gate.set()
    await asyncio.gather(held, large)
    assert other.result(10) == 1


async def test_the_event_loop_has_its_turn_between_two_answers_of_a_batch(bench):
    held = await bench.hold()
    tasks = await bench.queue(*((job, ONE) for job in range(1, 11)))
    answered = [0]
    bench.runner.gate.set()
    while answered[-1] < len(tasks):
        await asyncio.sleep(0)
        answered.append(sum(task.done() for task in tasks))
    assert max(after - before for before, after in pairwise(answered)) == 1
    assert bench.runner.batches == [[(0, 1)], [(job, 1) for job in range(1, 11)]]
    await held


# Waiting for those who were just answered.


async def after_a_batch_of_three(bench: Bench) -> None:
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (2, ONE), (3, ONE))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks)
    assert [report.jobs for report in bench.reports][-1] == 3


async def test_it_waits_until_the_clients_of_the_last_batch_have_asked_again(make_bench):
    bench = make_bench(max_batch_passes=100, max_wait_s=20.0)
    async with asyncio.timeout(10):
        await after_a_batch_of_three(bench)
        again = [bench.ask(4)]
        await asyncio.sleep(0.02)
        again += [bench.ask(5), bench.ask(6)]
        await asyncio.gather(*again)
    assert bench.runner.batches[-1] == [(4, 1), (5, 1), (6, 1)]


async def test_it_does_not_wait_when_there_is_enough_for_a_full_batch(make_bench):
    bench = make_bench(max_batch_passes=100, max_wait_s=20.0)
    async with asyncio.timeout(10):
        await after_a_batch_of_three(bench)
        assert len((await bench.batcher.submit(4, Cost(100, 1))).parts) == 100


async def test_clients_that_do_not_ask_again_are_not_waited_for_any_longer_than_allowed(make_bench):
    bench = make_bench(max_batch_passes=100, max_wait_s=0.02)
    async with asyncio.timeout(10):
        await after_a_batch_of_three(bench)
        assert (await bench.batcher.submit(4, ONE)).parts == (40,)


async def test_a_lone_client_is_not_kept_waiting_for_others(make_bench):
    bench = make_bench(max_wait_s=20.0)
    async with asyncio.timeout(10):
        await bench.batcher.submit(1, ONE)
        await bench.batcher.submit(2, Cost(30, 1))
        await bench.batcher.submit(3, ONE)
    assert [[job for job, _ in batch] for batch in bench.runner.batches] == [[1], [2], [2], [2], [3]]


async def test_after_a_pause_nobody_is_waited_for(make_bench):
    clock = Clock()
    bench = make_bench(max_wait_s=20.0, clock=clock)
    async with asyncio.timeout(10):
        await after_a_batch_of_three(bench)
        clock.now += 21.0
        assert (await bench.batcher.submit(4, ONE)).parts == (40,)


# Failures.


async def test_a_bad_job_fails_alone_and_is_reported(bench):
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (-2, ONE), (3, ONE), (4, ONE))
    bench.runner.gate.set()
    await held
    with pytest.raises(ValueError, match=r"negative: \[-2\]"):
        await tasks[1]
    assert [(await tasks[index]).parts for index in (0, 2, 3)] == [(10,), (30,), (40,)]
    assert [(report.jobs, report.failed) for report in bench.reports] == [(1, 0), (4, 1)]


async def test_what_is_left_of_a_job_that_fails_frees_its_room_at_once_and_is_not_run(make_bench):
    waiting: list[int] = []
    reported = threading.Event()

    def report(_: BatchReport) -> None:
        waiting.append(failing.batcher.queue_passes)
        reported.set()

    failing: Bench = make_bench(on_batch=report)
    bad = await failing.hold(Cost(30, 1), job=-1)
    assert failing.batcher.queue_passes == 20
    failing.executor.submit(reported.wait, 30)  # or the thread might take its next batch before it is told
    failing.runner.gate.set()
    with pytest.raises(ValueError, match="negative"):
        await bad
    assert waiting == [0]
    assert (await failing.batcher.submit(2, ONE)).parts == (20,)
    assert failing.runner.batches == [[(-1, 10)], [(2, 1)]]


async def test_batches_are_smaller_after_one_that_was_too_large_for_memory_and_grow_again(bench):
    bench.runner.room = 3
    assert len((await bench.batcher.submit(1, Cost(10, 1))).parts) == 10
    tried = len(bench.runner.batches)
    assert len((await bench.batcher.submit(2, Cost(10, 1))).parts) == 10
    assert all(units <= 4 for batch in bench.runner.batches[tried:] for _, units in batch)
    bench.runner.room = 10
    for _ in range(20):
        await bench.batcher.submit(3, Cost(20, 1))
    assert bench.runner.batches[-1] == [(3, 10)]


async def test_a_unit_that_has_no_room_at_all_fails(bench):
    bench.runner.room = 0
    with pytest.raises(MemoryError):
        await bench.batcher.submit(1, Cost(3, 1))


async def test_a_runner_that_loses_results_is_an_error_and_not_a_hang(make_bench):
    bench = make_bench(lambda slices: [[]])
    with pytest.raises(RuntimeError, match="results of other lengths"):
        await asyncio.wait_for(bench.batcher.submit(1, ONE), 10)


# Deadlines, and who leaves.


async def test_a_deadline_that_passes_fails_and_frees_the_room_at_once(bench):
    held = await bench.hold()
    late = bench.ask(1, Cost(4, 1), timeout_s=60.0)
    await asyncio.sleep(0)
    waiting: list[int] = []
    asyncio.get_running_loop().call_later(60.5, lambda: waiting.append(bench.batcher.queue_passes))
    skip(61.0)
    with pytest.raises(DeadlinePassed, match="0 of 4 members were done"):
        await late
    assert waiting == [0]
    bench.runner.gate.set()
    await held
    assert bench.runner.batches == [[(0, 1)]]


async def test_at_the_deadline_as_many_members_as_are_done_answer_if_they_are_enough(bench):
    bench.runner.stops_after = 1
    task = bench.ask(1, Cost(15, 2, least=5), timeout_s=60.0)
    await bench.reach(batches=2)
    skip(60.0)
    assert (await task).parts == (10, 11, 12, 13, 14)
    assert bench.batcher.queue_passes == 0


async def test_at_the_deadline_members_that_are_done_and_not_enough_are_no_answer(bench):
    bench.runner.stops_after = 1
    task = bench.ask(1, Cost(15, 2, least=6), timeout_s=60.0)
    await bench.reach(batches=2)
    skip(60.0)
    with pytest.raises(DeadlinePassed, match="5 of 15 members were done"):
        await task
    assert bench.batcher.queue_passes == 0


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
    await bench.reach(batches=3)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    bench.runner.gate.set()
    assert len((await staying).parts) == 10
    assert (await bench.batcher.submit(3, ONE)).parts == (30,)
    assert bench.runner.batches == [[(0, 1)], [(2, 10)], [(1, 10)], [(3, 1)]]


# Times.


async def test_the_times_of_an_outcome_add_up_by_the_clock_over_all_its_batches(make_bench):
    clock = Clock()

    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        clock.now += 2.0
        return [list(range(each.first, each.last)) for each in slices]

    bench = make_bench(run, max_batch_passes=1, clock=clock)
    tasks = await bench.queue((1, ONE), (2, ONE), (3, Cost(3, 1)))
    first, second, third = await asyncio.gather(*tasks)
    assert (first.queue_s, first.run_s) == (0.0, 2.0)
    assert (second.queue_s, second.run_s) == (2.0, 2.0)
    assert (third.queue_s, third.run_s) == (4.0, 6.0)
    assert [report.run_s for report in bench.reports] == [2.0] * 5


async def test_it_is_known_for_how_long_the_present_batch_has_been_running(make_bench):
    clock = Clock()
    bench = make_bench(clock=clock)
    assert bench.batcher.running_s == 0.0
    held = await bench.hold()
    clock.now += 5.0
    assert bench.batcher.running_s == 5.0
    bench.runner.gate.set()
    await held
    assert bench.batcher.running_s == 0.0
