"""Which members run over whose images: every request gets all of its own, and none is run twice over one image."""

from hypothesis import given
from hypothesis import strategies as st

from service.sharing import Run, shared_runs


def test_equal_requests_are_one_run():
    assert shared_runs(["ab", "ab", "ab"]) == [Run(("a", "b"), (0, 1, 2))]


def test_a_smaller_request_of_the_same_seed_shares_the_first_members():
    assert shared_runs(["abcd", "ab"]) == [Run(("a", "b"), (0, 1)), Run(("c", "d"), (0,))]


def test_requests_without_anything_alike_run_apart():
    assert shared_runs(["a", "b"]) == [Run(("a",), (0,)), Run(("b",), (1,))]


def test_a_member_that_a_request_names_twice_runs_once():
    assert shared_runs(["aab"]) == [Run(("a", "b"), (0,))]


@given(st.lists(st.text("abcdef", min_size=1), min_size=1, max_size=8))
def test_every_request_gets_each_of_its_members_exactly_once(wanted):
    got = [(request, member) for run in shared_runs(wanted) for request in run.requests for member in run.members]
    assert sorted(got) == sorted({(request, member) for request, members in enumerate(wanted) for member in members})
