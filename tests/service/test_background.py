"""Turns behind the live traffic: when they run, what they cost a request, how they end."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from service.background import Background, CalledOff, Errand, Turn
from service.errors import QueueFull
from service.queueing import Cost
from tests.service.bench import ONE, Bench, Clock


class Held:
    """Work that takes as long as a test wants, and writes into the bench's batches when it begins."""

    def __init__(self, bench: Bench, name: int = 99) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()
        self._bench, self._name = bench, name

    def __call__(self) -> str:
        self._bench.runner.batches.append([(self._name, 0)])
        self.entered.set()
        assert self.gate.wait(30), "the test never opened the gate"
        return "done"


def noted(bench: Bench, name: int) -> Callable[[], int]:
    """Work that takes no time."""

    def work() -> int:
        bench.runner.batches.append([(name, 0)])
        return name

    return work


async def add(bench: Bench, work: Callable[[], object], passes: int = 1) -> "asyncio.Future[object]":
    turn: Turn[object] = Turn(passes, work)
    bench.batcher.background.add(turn)
    return asyncio.wrap_future(turn.future)


async def test_turns_run_in_order_while_nothing_else_does(bench):
    turns = [await add(bench, noted(bench, name)) for name in range(100, 120)]
    assert await asyncio.gather(*turns) == list(range(100, 120))
    assert [name for ((name, _),) in bench.runner.batches] == list(range(100, 120))


async def test_no_turn_runs_while_a_request_waits(bench):
    held = await bench.hold()
    turn = await add(bench, noted(bench, 99))
    tasks = await bench.queue((1, Cost(35, 1)), (2, Cost(1, 1)))
    bench.runner.gate.set()
    await asyncio.gather(held, *tasks, turn)
    assert [batch[0] for batch in bench.runner.batches][-1] == (99, 0)
    assert len(bench.runner.batches) == 1 + 4 + 1


async def test_a_request_that_comes_during_a_turn_goes_before_the_next_one(bench):
    work = Held(bench)
    first, second = await add(bench, work), await add(bench, noted(bench, 100))
    assert await asyncio.to_thread(work.entered.wait, 30)
    (task,) = await bench.queue((1, Cost(25, 1)))
    work.gate.set()
    assert len((await task).parts) == 25
    assert await asyncio.gather(first, second) == ["done", 100]
    assert bench.runner.batches == [[(99, 0)], [(1, 10)], [(1, 10)], [(1, 5)], [(100, 0)]]


async def test_after_a_batch_its_clients_may_ask_again_before_a_turn_begins(make_bench):
    bench = make_bench(rest_s=20.0)
    async with asyncio.timeout(10):
        await bench.batcher.submit(1, ONE)
        turn = await add(bench, noted(bench, 99))
        await asyncio.sleep(0.02)
        await bench.batcher.submit(2, ONE)
    assert bench.runner.batches == [[(1, 1)], [(2, 1)]]
    bench.batcher.background.end("the end of the test")
    bench.ask(3)  # wakes the thread
    with pytest.raises(CalledOff):
        await turn


async def test_a_turn_begins_when_the_rest_after_a_batch_is_over(make_bench):
    clock = Clock()
    bench = make_bench(rest_s=20.0, clock=clock)
    await bench.batcher.submit(1, ONE)
    clock.now = 21.0
    assert await asyncio.wait_for(await add(bench, noted(bench, 99)), 10) == 99


async def test_an_error_in_a_turn_is_its_callers_alone(bench):
    def fail() -> None:
        raise ZeroDivisionError("of the background")

    held = await bench.hold()
    turn = await add(bench, fail)
    (task,) = await bench.queue((1, ONE))
    bench.runner.gate.set()
    with pytest.raises(ZeroDivisionError):
        await turn
    assert [outcome.parts for outcome in await asyncio.gather(held, task)] == [(0,), (10,)]
    assert (await bench.batcher.submit(2, ONE)).parts == (20,)
    assert bench.batcher.crash is None


async def test_a_turn_that_ends_the_thread_is_known_and_leaves_nobody_waiting(bench):
    def end() -> None:
        raise SystemExit("as if the interpreter had ended the thread")

    turn, after = await add(bench, end), await add(bench, noted(bench, 100))
    results = await asyncio.gather(turn, after, return_exceptions=True)
    assert [type(result) for result in results] == [CalledOff, CalledOff]
    assert isinstance(bench.batcher.crash, SystemExit)
    with pytest.raises(CalledOff, match="gone"):
        await add(bench, noted(bench, 101))


async def test_admission_counts_what_is_left_of_the_turn_and_none_that_wait(make_bench):
    clock = Clock()
    bench = make_bench(clock=clock, max_queue_passes=1)
    bench.batcher.expect(1.0)
    work = Held(bench)
    turns = [await add(bench, work, passes=10)] + [await add(bench, noted(bench, name), 1000) for name in (1, 2)]
    assert await asyncio.to_thread(work.entered.wait, 30)
    assert bench.batcher.queue_passes == 0
    clock.now = 4.0  # six seconds of the turn are left, which may take two and a half times as long
    with pytest.raises(QueueFull, match=r"may take 17\.0 s with what runs and waits; 16\.0 s are left"):
        bench.batcher.check_room(Cost(2, 1), 16.0)
    bench.batcher.check_room(Cost(2, 1), 17.0)
    work.gate.set()
    await asyncio.gather(*turns)


async def test_who_would_be_late_without_the_turn_too_is_admitted_as_if_nothing_ran(bench):
    bench.batcher.expect(10.0)
    work = Held(bench)
    turn = await add(bench, work)
    assert await asyncio.to_thread(work.entered.wait, 30)
    bench.batcher.check_room(ONE, 9.0)
    with pytest.raises(QueueFull):
        bench.batcher.check_room(ONE, 11.0)
    work.gate.set()
    await turn


async def test_turns_do_not_teach_the_pace_and_are_no_batches_in_the_reports(make_bench):
    clock = Clock()
    bench = make_bench(clock=clock)
    bench.batcher.expect(1.0)
    work = Held(bench)
    turn = await add(bench, work, passes=10)
    assert await asyncio.to_thread(work.entered.wait, 30)
    clock.now = 1000.0
    assert bench.batcher.running_s == 1000.0  # a turn that does not end is noticed as a batch is
    work.gate.set()
    await turn
    held = await bench.hold(Cost(10, 1))
    with pytest.raises(QueueFull, match=r"may take 26\.0 s"):
        bench.batcher.check_room(ONE, 20.0)
    bench.runner.gate.set()
    await held
    assert [(report.jobs, report.passes) for report in bench.reports] == [(1, 10)]


async def test_draining_finishes_the_turn_that_runs_and_drops_those_that_wait(bench):
    work = Held(bench)
    running, waiting = await add(bench, work), await add(bench, noted(bench, 100))
    assert await asyncio.to_thread(work.entered.wait, 30)
    request = bench.ask(1)
    await asyncio.sleep(0)
    draining = asyncio.create_task(bench.batcher.drain(10))
    await asyncio.sleep(0)
    with pytest.raises(CalledOff, match="stopping"):
        await waiting
    with pytest.raises(CalledOff, match="stopping"):
        await add(bench, noted(bench, 101))
    work.gate.set()
    assert await draining
    assert (await running, (await request).parts) == ("done", (10,))
    assert bench.runner.batches == [[(99, 0)], [(1, 1)]]


async def test_draining_does_not_wait_for_a_rest_after_which_nothing_would_run(make_bench):
    bench = make_bench(rest_s=3600.0)
    await bench.batcher.submit(1, ONE)
    turn = await add(bench, noted(bench, 99))
    await asyncio.sleep(0.01)  # the thread may be in its rest, or not yet
    assert await bench.batcher.drain(30)
    with pytest.raises(CalledOff, match="stopping"):
        await turn
    assert bench.runner.batches == [[(1, 1)]]


async def test_an_errand_called_off_while_it_waits_is_never_run(bench):
    held = await bench.hold()
    errand = Errand(bench.batcher.background)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(errand.run, 1, noted(bench, 99))
        while not bench.batcher.background.waits:
            await asyncio.sleep(0.001)
        errand.call_off("nobody wants it")
        errand.call_off("said twice")
        with pytest.raises(CalledOff, match="nobody wants it"):
            await asyncio.wrap_future(running)
    bench.runner.gate.set()
    await held
    with pytest.raises(CalledOff, match="nobody wants it"):
        errand.run(1, noted(bench, 100))
    assert (await bench.batcher.submit(1, ONE)).parts == (10,)
    assert bench.runner.batches == [[(0, 1)], [(1, 1)]]


async def test_an_errand_called_off_while_it_runs_ends_after_that_turn(bench):
    work, errand = Held(bench), Errand(bench.batcher.background)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(errand.run, 1, work)
        assert await asyncio.to_thread(work.entered.wait, 30)
        errand.call_off("nobody wants it")
        work.gate.set()
        assert await asyncio.wrap_future(running) == "done"
    with pytest.raises(CalledOff):
        errand.go_on()


def test_what_waits_when_the_background_ends_is_told_from_whatever_thread():
    background = Background(lambda: None)
    turns = [Turn(1, lambda: None) for _ in range(3)]
    for turn in turns:
        background.add(turn)
    turns[1].future.cancel()
    background.end("the end")
    background.end("twice")
    assert [str(turn.future.exception()) for turn in (turns[0], turns[2])] == ["the end", "the end"]
    assert background.take() is None
