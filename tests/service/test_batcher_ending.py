"""How a batcher ends: drained, with its thread, or by an error of its own; nobody is left waiting."""

import asyncio
from collections.abc import Sequence

import pytest

from service.batcher import BatchReport, Outcome, _Waiting
from service.errors import NotReady
from service.queueing import Cost, Slice
from tests.service.bench import ONE


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
    assert not await bench.batcher.drain(0.01)
    assert bench.batcher.queue_passes == 0
    results = await asyncio.gather(held, task, return_exceptions=True)
    assert [type(result) for result in results] == [NotReady, NotReady]


async def test_what_is_done_when_draining_runs_out_of_time_is_an_answer_if_it_is_enough(bench):
    bench.runner.stops_after = 1
    enough, too_few = await bench.queue((1, Cost(30, 1, least=4)), (2, Cost(30, 1, least=4)))
    await bench.reach(batches=2)
    assert not await bench.batcher.drain(0.01)
    assert (await enough).parts == tuple(range(10, 20))
    with pytest.raises(NotReady, match="stopped before this request was answered"):
        await too_few


async def test_draining_waits_for_the_batch_whose_waiter_left(bench):
    held = await bench.hold()
    held.cancel()
    await asyncio.gather(held, return_exceptions=True)
    assert not await bench.batcher.drain(0.01)
    bench.runner.gate.set()
    assert await bench.batcher.drain(10)
    assert len(bench.reports) == 1


async def test_a_thread_that_ends_leaves_nobody_waiting_and_is_known(make_bench):
    def crash(_: Sequence[Slice[int]]) -> list[list[int]]:
        raise SystemExit("the thread is gone")

    batcher = make_bench(crash, max_batch_passes=1).batcher
    outcomes = await asyncio.gather(batcher.submit(1, ONE), batcher.submit(2, ONE), return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [NotReady, NotReady]
    assert isinstance(batcher.crash, SystemExit)
    with pytest.raises(NotReady, match="gone"):
        batcher.check_room(ONE)
    assert await batcher.drain(1)


async def test_an_error_at_the_second_answer_of_a_batch_leaves_nobody_waiting(bench, monkeypatch):
    healthy = _Waiting.answer
    said: list[object] = []

    def answer(waiting: _Waiting) -> None:
        if waiting.job == 2 and not said:
            said.append("once")
            raise ZeroDivisionError("an answer that cannot be given")
        healthy(waiting)

    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(type(context["exception"])))
    held = await bench.hold()
    tasks = await bench.queue((1, ONE), (2, ONE), (3, ONE))
    monkeypatch.setattr(_Waiting, "answer", answer)
    bench.runner.gate.set()
    await held
    outcomes = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
    assert [type(outcome) for outcome in outcomes] == [Outcome] * 3  # what is done is an answer
    assert said == ["once", ZeroDivisionError]
    assert isinstance(bench.batcher.crash, ZeroDivisionError)


async def test_an_error_while_results_are_handed_out_leaves_nobody_waiting_and_is_known(make_bench):
    def broken(_: BatchReport) -> None:
        raise ZeroDivisionError("a report nobody can read")

    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["exception"]))
    bench = make_bench(max_batch_passes=1, on_batch=broken)
    bench.runner.stops_after = 1
    done, running, waiting = await bench.queue((1, ONE), (2, ONE), (3, ONE))
    assert (await done).parts == (10,)
    for task in (running, waiting):
        with pytest.raises(NotReady, match="gone"):
            await task
    assert isinstance(bench.batcher.crash, ZeroDivisionError)
    assert [type(error) for error in said] == [ZeroDivisionError]
    with pytest.raises(NotReady, match="gone"):
        bench.batcher.check_room(ONE)
