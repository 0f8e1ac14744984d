"""The queue alone: what a job costs, in which order jobs run, and in which slices."""

import threading
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.queueing import Cost, Entry, Queue, Slice

ONE = Cost(1, 1)
ALONE = Cost(1, 1, alone=True)


def add(queue: Queue[Entry[int]], job: int, cost: Cost) -> Entry[int]:
    """Admit a job, as the batcher does."""
    entry = Entry(job, cost, queue.rank(cost))
    queue.add(entry)
    return entry


def filled(*costs: Cost) -> tuple[Queue[Entry[int]], list[Entry[int]]]:
    """A queue of jobs 1, 2, ... that came in this order, and their entries."""
    queue: Queue[Entry[int]] = Queue()
    return queue, [add(queue, job, cost) for job, cost in enumerate(costs, start=1)]


def take(queue: Queue[Entry[int]], passes: int) -> list[tuple[int, int, int]]:
    """(job, first, last) of the slices that run next."""
    taken = queue.take(passes)
    assert all(part.job == entry.job and part.cost == entry.cost for entry, part in taken)
    return [(part.job, part.first, part.last) for _, part in taken]


def take_all(queue: Queue[Entry[int]], passes: int) -> list[list[tuple[int, int, int]]]:
    """What one batch after the other takes until nothing waits."""
    batches = []
    while queue.passes:
        batches.append(take(queue, passes))
        assert batches[-1], "passes wait, and none was taken"
    return batches


# What a job costs.


@pytest.mark.parametrize(
    "wrong", [{"units": 0}, {"units": -1}, {"passes": 0}, {"least": 0}, {"least": -1}], ids=lambda wrong: str(wrong)
)
def test_a_job_has_at_least_one_unit_of_one_pass_and_needs_at_least_one(wrong: dict[str, Any]):
    with pytest.raises(ValueError, match=r"units, passes and least are 1 or more; got Cost\("):
        Cost(**{"units": 1, "passes": 1, **wrong})


@pytest.mark.parametrize(("least", "needed"), [(None, 12), (1, 4), (2, 8), (3, 12), (9, 12)])
def test_an_answer_needs_the_least_units_and_never_more_than_there_are(least: int | None, needed: int):
    cost = Cost(3, 4, least=least)
    assert (cost.total, cost.needed) == (12, needed)


def test_a_slice_knows_its_units_and_their_passes():
    part = Slice("job", Cost(9, 4), 2, 5)
    assert (part.units, part.passes) == (3, 12)


# In which order.


def test_a_rank_is_what_was_admitted_before_and_twice_the_own_passes():
    queue, _ = filled(Cost(3, 2), Cost(4, 1))
    assert queue.rank(Cost(2, 5)) == 10 + 20
    queue.take(100)
    assert queue.rank(Cost(2, 5)) == 10 + 20  # what was admitted, whether it waits or not


def test_equal_jobs_are_served_in_order_of_arrival():
    queue, _ = filled(*[Cost(4, 1)] * 5)
    assert take_all(queue, 10) == [[(1, 0, 4), (2, 0, 4), (3, 0, 2)], [(3, 2, 4), (4, 0, 4), (5, 0, 4)]]


def test_a_small_job_goes_before_a_large_one_that_came_earlier():
    queue, _ = filled(Cost(100, 1), Cost(2, 1), Cost(2, 1))
    assert take(queue, 10) == [(2, 0, 2), (3, 0, 2), (1, 0, 6)]


def test_of_equal_ranks_the_first_to_come_is_served_first_and_counts_as_before():
    queue, (first, second) = filled(Cost(4, 1), Cost(2, 1))
    assert first.rank == second.rank == 8
    assert queue.passes_before(8) == 6
    assert queue.passes_before(7) == 0
    assert take_all(queue, 10) == [[(1, 0, 4), (2, 0, 2)]]


def test_what_is_taken_is_no_longer_before_anyone():
    queue, _ = filled(Cost(30, 1))
    queue.take(10)
    assert queue.passes_before(queue.rank(Cost(30, 1))) == 20


SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=12)


@settings(deadline=None)
@given(SIZES, st.integers(1, 30))
def test_passes_before_a_rank_are_those_that_run_before_a_job_that_gets_it(sizes: list[int], own: int):
    queue, _ = filled(*(Cost(size, 1) for size in sizes))
    before = queue.passes_before(queue.rank(Cost(own, 1)))
    add(queue, 0, Cost(own, 1))
    order = [job for batch in take_all(queue, 1) for job, _, _ in batch]
    assert order.index(0) == before


@settings(deadline=None)
@given(st.lists(st.one_of(st.integers(1, 30), st.none()), max_size=40), st.integers(1, 10))
def test_no_job_waits_for_more_passes_of_later_ones_than_it_has_itself(events: Sequence[int | None], budget: int):
    """Jobs of so many passes come, and at None a batch is taken."""
    queue: Queue[Entry[int]] = Queue()
    sizes: list[int] = []
    batches: list[list[tuple[int, int, int]]] = []
    for size in events:
        if size is None:
            batches.append(take(queue, budget))
        else:
            add(queue, len(sizes), Cost(size, 1))
            sizes.append(size)
    batches += take_all(queue, budget)
    order = [job for batch in batches for job, first, last in batch for _ in range(first, last)]
    for job, size in enumerate(sizes):
        last = len(order) - order[::-1].index(job)
        assert sum(other > job for other in order[:last]) <= size


# In which slices.


def test_when_nothing_waits_nothing_is_taken():
    assert take(Queue(), 10) == []


def test_slices_share_a_budget_and_the_last_one_is_cut_to_what_is_left():
    queue, _ = filled(Cost(1, 4), Cost(3, 2), Cost(9, 1))
    assert take(queue, 9) == [(1, 0, 1), (2, 0, 2), (3, 0, 1)]
    assert queue.passes == 2 + 8


def test_a_unit_that_does_not_fit_leaves_the_room_to_those_behind_it():
    queue, _ = filled(Cost(1, 6), Cost(1, 6), Cost(1, 4))
    assert take_all(queue, 10) == [[(1, 0, 1), (3, 0, 1)], [(2, 0, 1)]]


def test_a_unit_larger_than_the_budget_runs_by_itself():
    queue, _ = filled(Cost(2, 50), *[ONE] * 99)
    batches = take_all(queue, 10)
    assert [batch for batch in batches if batch[0][0] == 1] == [[(1, 0, 1)], [(1, 1, 2)]]
    assert all(len(batch) == 1 for batch in batches if 1 in [job for job, _, _ in batch])


@pytest.mark.parametrize(
    ("costs", "batches"),
    [
        ((ALONE, ONE, ONE), [[1], [2, 3]]),
        ((ONE, ALONE, ONE), [[1, 3], [2]]),
        ((ONE, ONE, ALONE), [[1, 2], [3]]),
        ((ALONE, ALONE), [[1], [2]]),
    ],
    ids=["first", "in between", "last", "two"],
)
def test_a_job_that_wants_to_be_alone_shares_no_batch_and_holds_up_no_other(costs, batches):
    queue, _ = filled(*costs)
    assert [[job for job, _, _ in batch] for batch in take_all(queue, 10)] == batches


def test_a_job_that_wants_to_be_alone_is_cut_to_the_budget_like_any_other():
    queue, _ = filled(Cost(5, 4, alone=True))
    assert take_all(queue, 10) == [[(1, 0, 2)], [(1, 2, 4)], [(1, 4, 5)]]


COSTS = st.lists(st.builds(Cost, units=st.integers(1, 9), passes=st.integers(1, 9), alone=st.booleans()), max_size=12)


@settings(deadline=None)
@given(COSTS, st.integers(1, 20))
def test_every_unit_is_taken_once_and_in_order_and_no_batch_exceeds_the_budget(costs: list[Cost], budget: int):
    queue, entries = filled(*costs)
    batches = take_all(queue, budget)
    for batch in batches:
        passes = [(last - first) * costs[job - 1].passes for job, first, last in batch]
        assert sum(passes) <= budget or [last - first for _, first, last in batch] == [1]
    for job, cost in enumerate(costs, start=1):
        bounds = [(first, last) for batch in batches for taker, first, last in batch if taker == job]
        assert (bounds[0][0], bounds[-1][1]) == (0, cost.units)
        assert all(last == first for (_, last), (first, _) in pairwise(bounds))
    assert queue.passes == 0
    assert [entry.left for entry in entries] == [0] * len(costs)


# Who leaves, and who is waited for.


def test_what_is_withdrawn_frees_its_room_and_is_never_taken():
    queue, (leaving, _) = filled(Cost(3, 2), ONE)
    queue.withdraw(leaving)
    assert (queue.passes, leaving.left) == (1, 0)
    assert take_all(queue, 10) == [[(2, 0, 1)]]


def test_the_rest_of_what_was_begun_can_be_withdrawn():
    queue, (leaving, _) = filled(Cost(30, 1), Cost(40, 1))
    assert take(queue, 10) == [(1, 0, 10)]
    queue.withdraw(leaving)
    assert queue.passes == 40
    assert {job for batch in take_all(queue, 10) for job, _, _ in batch} == {2}


def test_to_withdraw_twice_or_what_was_taken_changes_nothing():
    queue, (taken, leaving, _) = filled(Cost(4, 1), Cost(4, 1), Cost(4, 1))
    assert take(queue, 4) == [(1, 0, 4)]
    for entry in (taken, leaving, leaving):
        queue.withdraw(entry)
    assert queue.passes == 4


@pytest.mark.parametrize("timeout_s", [0.001, 0.0, -1.0])
def test_waiting_ends_when_time_is_up(timeout_s: float):
    queue, _ = filled(ONE)
    waiting = threading.Thread(target=queue.wait, args=(2, 10, timeout_s))
    waiting.start()
    waiting.join(10)
    assert not waiting.is_alive()


@pytest.mark.parametrize(("jobs", "passes"), [(3, 99), (99, 3)], ids=["jobs", "passes"])
def test_waiting_ends_when_as_many_jobs_or_passes_wait(jobs: int, passes: int):
    queue, _ = filled(ONE)
    waiting = threading.Thread(target=queue.wait, args=(jobs, passes, 20.0))
    waiting.start()
    waiting.join(0.02)
    add(queue, 2, ONE)
    waiting.join(0.02)
    assert waiting.is_alive()
    add(queue, 3, ONE)
    waiting.join(10)
    assert not waiting.is_alive()
