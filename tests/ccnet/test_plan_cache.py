"""The cache by itself: its budget, its turns, its threads; `test_plans.py` has it with real layers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from torch import nn

from ccnet.plan_cache import PlanCache, Stamp

STAMP = Stamp(nn.Linear(1, 1))


@dataclass
class Thing:
    nbytes: int


def test_the_least_recently_used_plan_leaves_when_the_budget_is_passed():
    events: list[str] = []
    cache = PlanCache(100, on_event=lambda event, count: events.extend([event] * count))
    for key in ("a", "b", "a", "c"):  # "b" is older than "a"
        cache.get(key, STAMP, lambda: Thing(40))
    assert (cache.stats.plans, cache.stats.nbytes, cache.stats.evictions) == (2, 80, 1)
    cache.get("a", STAMP, lambda: pytest.fail("a was evicted"))
    assert events == ["miss", "miss", "hit", "evict", "miss", "hit"]
    assert (cache.stats.hits, cache.stats.misses) == (2, 3)
    cache.clear()
    assert (cache.stats.plans, cache.stats.nbytes) == (0, 0)


def test_a_plan_larger_than_the_budget_is_used_but_not_kept():
    cache = PlanCache(100)
    cache.get("small", STAMP, lambda: Thing(60))
    assert cache.get("large", STAMP, lambda: Thing(101)).nbytes == 101
    assert (cache.stats.plans, cache.stats.nbytes, cache.stats.evictions) == (1, 60, 0)


def test_a_plan_wanted_by_many_threads_is_made_by_one_while_another_key_does_not_wait():
    cache = PlanCache()
    started, finish = threading.Event(), threading.Event()
    made: list[Thing] = []

    def slow():
        started.set()
        assert finish.wait(30)
        made.append(Thing(1))
        return made[-1]

    with ThreadPoolExecutor(8) as pool:
        first = pool.submit(cache.get, "slow", STAMP, slow)
        assert started.wait(30)
        others = [pool.submit(cache.get, "slow", STAMP, slow) for _ in range(6)]
        assert cache.get("quick", STAMP, lambda: Thing(2)).nbytes == 2
        finish.set()
        found = {id(future.result(30)) for future in (first, *others)}
    assert (len(found), len(made)) == (1, 1)


def test_threads_that_wait_for_a_plan_too_large_to_keep_get_the_one_that_is_made():
    cache = PlanCache(10)
    started, finish = threading.Event(), threading.Event()
    made: list[Thing] = []

    def slow():
        started.set()
        assert finish.wait(30)
        made.append(Thing(11))
        return made[-1]

    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(cache.get, "large", STAMP, slow)]
        assert started.wait(30)
        futures += [pool.submit(cache.get, "large", STAMP, slow) for _ in range(3)]
        while cache.stats.hits < 3:
            threading.Event().wait(0.001)
        finish.set()
        assert len({id(future.result(30)) for future in futures}) == len(made) == 1


def test_plans_used_in_turn_that_do_not_all_fit_do_not_push_out_each_other():
    cache = PlanCache(100)
    kept = dict.fromkeys("abcd", 0)
    for _ in range(5):
        for key in kept:
            plan = cache.get(key, STAMP, lambda: Thing(40), lambda: Thing(0), 40)
            kept[key] += plan.nbytes > 0
    assert kept == {"a": 4, "b": 4, "c": 0, "d": 0}
    assert cache.stats.evictions == 0
    for _ in range(2):  # who is used again while the others are not takes their place
        cache.get("d", STAMP, lambda: Thing(40), lambda: Thing(0), 40)
    assert cache.get("d", STAMP, lambda: pytest.fail("kept before")).nbytes == 40


def test_a_listener_may_look_at_the_cache_and_its_failure_leaves_the_way_free():
    seen: list[int] = []
    cache = PlanCache(100, on_event=lambda event, count: seen.append(cache.stats.plans))
    cache.get("a", STAMP, lambda: Thing(1))
    assert seen == [1]

    def fail(_event, _count):
        raise ZeroDivisionError

    cache = PlanCache(100, on_event=fail)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            cache.get("a", STAMP, lambda: Thing(1))
    assert cache.stats.hits == 1


def test_a_plan_that_cannot_be_made_fails_its_caller_and_leaves_the_way_free():
    cache = PlanCache()

    def fail():
        raise RuntimeError("no memory")

    for _ in range(2):
        with pytest.raises(RuntimeError, match="no memory"):
            cache.get("a", STAMP, fail)
    assert cache.get("a", STAMP, lambda: Thing(1)).nbytes == 1
