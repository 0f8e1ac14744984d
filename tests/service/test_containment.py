"""Batches that fail: who fails with them, and how large the next ones may be."""

from collections.abc import Callable, Sequence

import pytest

from service.containment import Containment
from service.queueing import Cost, Slice

Run = Callable[[Sequence[Slice[int]]], list[list[int]]]


def batch(*units: int, passes: int = 1, alone: bool = False) -> list[Slice[int]]:
    """Jobs 1, 2, ... of so many units."""
    return [Slice(job, Cost(each, passes, alone=alone), 0, each) for job, each in enumerate(units, start=1)]


def whole(slices: Sequence[Slice[int]]) -> list[list[int]]:
    """A unit of job j gives 100 j + its number."""
    return [[100 * each.job + unit for unit in range(each.first, each.last)] for each in slices]


def with_room_for(passes: int, tried: list[int] | None = None) -> Run:
    """Batches of more passes lack memory; those of all that are tried are appended."""

    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        asked = sum(each.passes for each in slices)
        if tried is not None:
            tried.append(asked)
        if asked > passes:
            raise MemoryError("too large")
        return whole(slices)

    return run


def failing(*bad: int, tried: list[list[int]] | None = None) -> Run:
    """Batches with one of these jobs fail."""

    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        jobs = [each.job for each in slices]
        if tried is not None:
            tried.append(jobs)
        if found := sorted({*jobs} & {*bad}):
            raise ValueError(f"bad: {found}")
        return whole(slices)

    return run


# Who fails.


def test_a_batch_that_succeeds_is_run_once():
    tried: list[list[int]] = []
    assert Containment(failing(tried=tried), 10).run(batch(2, 1, 3)) == [[100, 101], [200], [300, 301, 302]]
    assert tried == [[1, 2, 3]]


def test_a_bad_job_fails_alone():
    tried: list[list[int]] = []
    first, second, third, fourth = Containment(failing(2, tried=tried), 10).run(batch(1, 1, 1, 1))
    assert (first, third, fourth) == ([100], [300], [400])
    assert isinstance(second, ValueError)
    assert str(second) == "bad: [2]"  # the error of itself alone
    assert tried == [[1, 2, 3, 4], [1, 2], [1], [2], [3, 4]]


@pytest.mark.parametrize("bad", [{1}, {5}, {1, 5}, {2, 3}, {1, 2, 3, 4, 5}])
def test_however_many_are_bad_the_others_are_answered(bad: set[int]):
    results = Containment(failing(*bad), 10).run(batch(1, 1, 1, 1, 1))
    assert {job for job, result in enumerate(results, start=1) if isinstance(result, ValueError)} == bad
    assert [result for result in results if not isinstance(result, Exception)] == [
        [100 * job] for job in range(1, 6) if job not in bad
    ]


def test_a_job_that_fails_is_not_tried_unit_by_unit():
    tried: list[list[int]] = []
    (result,) = Containment(failing(1, tried=tried), 10).run(batch(8))
    assert isinstance(result, ValueError)
    assert tried == [[1]]


def test_what_ends_the_thread_is_not_contained():
    def run(_: Sequence[Slice[int]]) -> list[list[int]]:
        raise SystemExit("the thread is gone")

    with pytest.raises(SystemExit):
        Containment(run, 10).run(batch(1, 1))


@pytest.mark.parametrize(
    "lost",
    [
        lambda results: results[:-1],
        lambda results: [*results, [0]],
        lambda results: [*results[:-1], results[-1][:-1]],
        lambda results: [*results[:-1], [*results[-1], 0]],
    ],
    ids=["a job less", "a job more", "a unit less", "a unit more"],
)
def test_a_run_that_gives_another_number_of_results_is_an_error(lost: Callable[[list[list[int]]], list[list[int]]]):
    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        return lost(whole(slices))

    results = Containment(run, 10).run(batch(2, 2))
    assert [str(result) for result in results] == ["a batch of 1 slices gave results of other lengths"] * 2


def test_a_job_whose_results_are_lost_fails_alone():
    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        return [result for result in whole(slices) if result != [200]]

    first, second, third = Containment(run, 10).run(batch(1, 1, 1))
    assert (first, third) == ([100], [300])
    assert isinstance(second, RuntimeError)


# What has no room.


def test_jobs_that_have_no_room_together_are_run_in_halves():
    tried: list[int] = []
    assert Containment(with_room_for(3, tried), 10).run(batch(2, 2, 1)) == whole(batch(2, 2, 1))
    assert tried == [5, 2, 3]


def test_a_job_that_has_no_room_is_run_in_halves_of_its_units():
    tried: list[int] = []
    contained = Containment(with_room_for(6, tried), 100)
    slices = [Slice(1, Cost(20, 2), 4, 11)]
    assert contained.run(slices) == whole(slices)
    assert tried == [14, 6, 8, 4, 4]


def test_a_unit_that_has_no_room_by_itself_fails_with_its_job_alone():
    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        if any(each.job == 2 and each.last > 2 for each in slices):
            raise MemoryError("too large")
        return whole(slices)

    first, second, third = Containment(run, 10).run(batch(2, 4, 1))
    assert (first, third) == ([100, 101], [300])
    assert isinstance(second, MemoryError)


def test_a_job_fails_when_half_of_it_does():
    def run(slices: Sequence[Slice[int]]) -> list[list[int]]:
        if slices[0].units > 2:
            raise MemoryError("too large")
        if slices[0].last == 8:
            raise ValueError("the last unit")
        return whole(slices)

    (result,) = Containment(run, 10).run(batch(8))
    assert isinstance(result, ValueError)


# How large the next batches may be.


@pytest.mark.parametrize("units", [[256], [1] * 256, [64] * 4], ids=["one job", "many jobs", "four jobs"])
def test_the_budget_is_half_of_the_smallest_batch_that_had_no_room(units: list[int]):
    contained = Containment(with_room_for(60), 256)
    assert contained.run(batch(*units)) == whole(batch(*units))
    assert contained.budget == 32  # 64 had no room; once for all the batches of 64 passes, not once for each


def test_the_budget_does_not_grow_because_something_larger_had_no_room():
    contained = Containment(with_room_for(20), 10)
    (result,) = contained.run(batch(1, passes=50))
    assert isinstance(result, MemoryError)
    assert contained.budget == 10


def test_the_budget_is_never_less_than_one_pass():
    contained = Containment(with_room_for(0), 4)
    results = contained.run(batch(1, 1, 1, 1))
    assert [type(result) for result in results] == [MemoryError] * 4
    assert contained.budget == 1


def test_other_failures_leave_the_budget_as_it_is():
    contained = Containment(failing(2), 10)
    contained.run(batch(5, 5))
    assert contained.budget == 10


def test_the_budget_grows_by_an_eighth_with_every_full_batch_and_never_above_its_maximum():
    contained = Containment(whole, 100)
    contained.budget = 64
    budgets = []
    for _ in range(6):
        contained.run(batch(contained.budget))
        budgets.append(contained.budget)
    assert budgets == [72, 81, 91, 100, 100, 100]


def test_a_small_budget_grows_by_a_pass():
    contained = Containment(whole, 10)
    contained.budget = 1
    contained.run(batch(1))
    assert contained.budget == 2


def test_a_unit_larger_than_the_budget_makes_a_full_batch():
    contained = Containment(whole, 100)
    contained.budget = 16
    contained.run(batch(1, passes=50))
    assert contained.budget == 18


@pytest.mark.parametrize(
    ("run", "slices"),
    [
        (whole, batch(15)),
        (whole, batch(5, 5, 5)),
        (whole, batch(16, alone=True)),
        (failing(2), batch(8, 8)),
    ],
    ids=["small", "small together", "alone", "failed"],
)
def test_the_budget_grows_with_nothing_but_full_batches_of_the_common_kind_that_succeed(
    run: Run, slices: list[Slice[int]]
):
    contained = Containment(run, 100)
    contained.budget = 16
    contained.run(slices)
    assert contained.budget == 16
