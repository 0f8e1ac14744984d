"""How long a client pauses between attempts, with a clock and a chance that the tests hold in their hands."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ccnet.client.retries import Attempts, Failure, Patience, Reply, retry_after_s, until_ready

DATE = "Sun, 22 Nov 2026 10:00:00 GMT"
BROKEN = Failure("the connection broke")


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def refused(status=429, **headers):
    return Reply(status, b"", {name.lower().replace("_", "-"): value for name, value in headers.items()})


def attempts_of(clock, chance=1.0, timeout_s=30.0, retries=3, **more):
    return Attempts(Patience(timeout_s, retries, **more), clock=clock, chance=lambda: chance)


def test_pauses_double_up_to_the_longest(clock):
    attempts = attempts_of(clock, retries=9)
    pauses = [attempts.pause_after(BROKEN) for _ in range(10)]
    assert pauses == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0, 5.0, None]


@pytest.mark.parametrize(("chance", "pause_s"), [(0.0, 0.05), (0.5, 0.075), (1.0, 0.1)])
def test_chance_decides_over_the_second_half_of_a_pause(clock, chance, pause_s):
    assert attempts_of(clock, chance).pause_after(BROKEN) == pytest.approx(pause_s)


def test_chance_comes_on_top_of_what_retry_after_asks(clock):
    assert attempts_of(clock, 0.0).pause_after(refused(Retry_After="7")) == pytest.approx(7.05)
    assert attempts_of(clock, 1.0).pause_after(refused(Retry_After="7")) == pytest.approx(7.1)


def test_attempts_after_the_first_are_counted(clock):
    attempts = attempts_of(clock, retries=2)
    assert [attempts.pause_after(refused()) is None for _ in range(3)] == [False, False, True]
    assert attempts.made == 3
    assert attempts_of(clock, retries=0).pause_after(refused()) is None


def test_no_pause_passes_the_deadline(clock):
    attempts = attempts_of(clock, timeout_s=10)
    assert attempts.pause_after(refused(Retry_After="9")) == pytest.approx(9.1)
    clock.now += 9.1
    assert attempts.pause_after(refused(Retry_After="1")) is None


def test_an_attempt_has_the_time_that_is_left_and_never_none(clock):
    attempts = attempts_of(clock, timeout_s=10, attempt_s=4)
    assert (attempts.left_s, attempts.attempt_s) == (10, 4)
    clock.now += 7
    assert attempts.attempt_s == 3
    clock.now += 7
    assert attempts.left_s == -4
    assert 0 < attempts.attempt_s < 0.01


@pytest.mark.parametrize(
    ("outcome", "again"),
    [
        *((refused(status), False) for status in (200, 301, 400, 401, 404, 408, 413, 415, 422, 500, 502, 504)),
        (refused(429), True),
        (refused(503), True),
        (BROKEN, True),
        (Failure("a request that cannot be sent", passing=False), False),
    ],
)
def test_only_what_may_pass_is_tried_again(clock, outcome, again):
    assert (attempts_of(clock).pause_after(outcome) is not None) is again


def test_waiting_for_a_start_tries_on_through_every_server_error_until_time_runs_out(clock):
    attempts = Attempts(until_ready(60), clock=clock, chance=lambda: 1.0)
    for outcome in [BROKEN, refused(502), refused(503), refused(504), refused(429)] * 20:
        pause_s = attempts.pause_after(outcome)
        assert pause_s is not None
        assert pause_s <= 1
    assert attempts.pause_after(refused(404)) is None
    clock.now += 60
    assert attempts.pause_after(BROKEN) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 3 ", 3),
        ("Sun, 22 Nov 2026 10:01:30 GMT", 90),
        ("Sunday, 22-Nov-26 10:01:30 GMT", 90),  # RFC 850, obsolete and still to be read
        ("Sun Nov 22 10:01:30 2026", 90),  # asctime
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0),  # in the past
        ("", None),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("9" * 5000, None),
        ("Sun, 99 Nov 2026 10:00:00 GMT", None),
    ],
)
def test_retry_after_is_read_in_both_forms(text, seconds):
    assert retry_after_s({"retry-after": text, "date": DATE}) == seconds


def test_without_a_date_of_the_answer_the_clock_of_this_machine_is_asked():
    then = datetime.now(UTC) + timedelta(seconds=1000)
    seconds = retry_after_s({"retry-after": format_datetime(then, usegmt=True)})
    assert seconds is not None
    assert 800 < seconds <= 1000
    assert retry_after_s({}) is None


@given(st.text())
def test_any_text_in_the_headers_gives_seconds_or_nothing(text):
    for headers in ({"retry-after": text}, {"retry-after": DATE, "date": text}):
        seconds = retry_after_s(headers)
        assert seconds is None or seconds >= 0
