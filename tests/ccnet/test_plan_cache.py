"""The cache by itself: its budget, turns, bundles and threads; `test_plans.py` has it with real layers."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from ccnet.plan_cache import PlanCache
from ccnet.stamps import Stamp

STAMP = Stamp(nn.Linear(1, 1))


@dataclass
class Thing:
    nbytes: int


@pytest.fixture
def layer():
    return nn.Linear(1, 1)


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


def test_the_parts_of_a_bundle_that_is_used_stay_and_others_leave(layer):
    cache = PlanCache(100)
    stamp = Stamp(layer)
    for key in ("part", "other"):
        cache.get(key, stamp, lambda: Thing(40))
    cache.keep_bundle("bundle", stamp, "value", ["part"])
    assert cache.get_bundle("bundle", layer) == "value"
    cache.get("new", stamp, lambda: Thing(40))  # "other" is now the least recently used
    assert cache.find("part", stamp) is not None
    assert cache.find("other", stamp) is None


def test_a_plan_that_is_found_is_used(layer):
    cache = PlanCache(100)
    stamp = Stamp(layer)
    for key in ("a", "b"):
        cache.get(key, stamp, lambda: Thing(40))
    assert cache.find("a", stamp) is not None
    cache.get("c", stamp, lambda: Thing(40))
    assert [cache.find(key, stamp) is None for key in ("a", "b", "c")] == [False, True, False]


def test_a_bundle_is_found_while_its_parts_are_kept_and_unchanged(layer):
    cache = PlanCache(100)
    stamp = Stamp(layer)
    for key in ("a", "b"):
        cache.get(key, stamp, lambda: Thing(40))
    cache.keep_bundle("both", stamp, "value", ["a", "b", "a"])
    before = cache.stats.hits
    assert cache.get_bundle("both", layer) == "value"
    assert cache.stats.hits == before + 2
    with torch.no_grad():
        layer.bias.add_(1)
    assert cache.get_bundle("both", layer) is None
    stamp = Stamp(layer)
    cache.keep_bundle("both", stamp, "newer", ["a", "b"])
    assert cache.get_bundle("both", layer) == "newer"
    cache.get("c", stamp, lambda: Thing(40))  # evicts "a"
    assert cache.get_bundle("both", layer) is None
    cache.keep_bundle("both", stamp, "value", ["a", "b"])
    assert cache.get_bundle("both", layer) is None
    cache.keep_bundle("one", stamp, "value", ["b"])
    cache.clear()
    assert cache.get_bundle("one", layer) is None


def test_a_stamp_is_taken_anew_when_the_module_has_changed(layer):
    cache, module = PlanCache(), nn.Sequential(layer)
    first = cache.stamp(module)
    assert cache.stamp(module) is first
    module.append(nn.ReLU())
    assert not first.holds()
    second = cache.stamp(module)
    layer.register_buffer("extra", torch.zeros(1))
    assert not second.holds()
