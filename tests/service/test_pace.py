"""The arithmetic that admission goes by."""

import pytest

from service.pace import AT_WORST, MAX_RETRY_AFTER_S, TELLING, Pace, Running

FULL = 4 * TELLING  # the budget of a batch


def pace_of(seconds_per_pass: float) -> Pace:
    pace = Pace()
    pace.seconds_per_pass = seconds_per_pass
    return pace


def test_the_first_full_batch_tells_the_speed_and_later_ones_a_fifth_of_it_each():
    pace = Pace()
    pace.learn(FULL, 2.0 * FULL, FULL)
    assert pace.seconds_per_pass == pytest.approx(2.0)
    pace.learn(FULL, 12.0 * FULL, FULL)
    assert pace.seconds_per_pass == pytest.approx(0.8 * 2.0 + 0.2 * 12.0)


@pytest.mark.parametrize(
    ("passes", "budget", "tells"),
    [(TELLING - 1, FULL, False), (TELLING, FULL, True), (9, 10, False), (10, 10, True), (50, 10, True)],
)
def test_few_passes_do_not_tell_how_fast_full_batches_are(passes: int, budget: int, tells: bool):
    pace = pace_of(1.0)
    pace.learn(passes, 6.0 * passes, budget)
    assert pace.seconds_per_pass == pytest.approx(2.0 if tells else 1.0)
    slow = Running(passes, 6.0 * passes)  # six times as slow as expected, and it still runs
    as_late_again = 5.0 * passes * AT_WORST
    assert pace_of(1.0).expected_s(0, 1, slow, budget) == pytest.approx(as_late_again + 6.0 if tells else 1.0)


def test_waiting_is_reckoned_at_worst_and_the_own_passes_at_the_mean():
    assert pace_of(0.5).expected_s(20, 4, None, FULL) == pytest.approx((20 * AT_WORST + 4) * 0.5)


def test_what_is_left_of_the_batch_that_runs_is_reckoned_at_worst():
    running = Running(FULL, 0.25 * FULL)
    assert pace_of(1.0).expected_s(0, 4, running, FULL) == pytest.approx(0.75 * FULL * AT_WORST + 4)


def test_the_time_to_wait_does_not_drop_when_one_batch_ends_and_the_next_begins():
    pace = pace_of(1.0)
    at_its_end = pace.expected_s(2 * FULL, 4, Running(FULL, 1.0 * FULL), FULL)
    assert pace.expected_s(FULL, 4, Running(FULL, 0.0), FULL) == pytest.approx(at_its_end)


def test_a_batch_that_runs_for_longer_than_expected_does_not_make_the_next_job_faster():
    long = Running(2, 60.0)
    assert pace_of(1.0).expected_s(0, 4, long, FULL) == pytest.approx(4.0)


def test_a_slow_batch_tells_so_before_it_ends_for_itself_and_for_what_waits():
    slow = Running(FULL, 3.0 * FULL)
    expected_s = 2.0 * FULL * AT_WORST + (20 * AT_WORST + 4) * 3.0
    assert pace_of(1.0).expected_s(20, 4, slow, FULL) == pytest.approx(expected_s)


def test_a_batch_that_has_just_begun_is_not_taken_for_a_fast_one():
    begun = Running(FULL, 0.0)
    assert pace_of(1.0).expected_s(0, 4, begun, FULL) == pytest.approx(FULL * AT_WORST + 4)


def test_nothing_is_expected_to_take_time_until_a_batch_has_told():
    assert Pace().expected_s(1000, 4, Running(FULL, 60.0), FULL) == 0.0


@pytest.mark.parametrize(
    ("passes", "retry_after_s"), [(0, 1), (1, 1), (4, 1), (5, 2), (200, 50), (10**6, MAX_RETRY_AFTER_S)]
)
def test_retry_after_is_whole_seconds_between_one_and_a_minute(passes: int, retry_after_s: int):
    assert pace_of(0.25).retry_after_s(passes) == retry_after_s


def test_the_longest_retry_after_is_a_minute():
    assert MAX_RETRY_AFTER_S == 60
