"""Keeping prepared plans within a budget of bytes, and never using one that no longer fits its parameters.

A plan that is kept is used only while the `Stamp` of the parameters behind it holds, and is made anew after that.
`ccnet.stamps` says what ends a stamp, and after which changes it takes a `PlanCache.clear`.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import nn

from ccnet.stamps import Stamp

DEFAULT_BYTES = 512 * 2**20
_REMEMBERED_STAMPS = 1000
_REMEMBERED = 10_000  # uses of plans that were not kept, and bundles, that a cache remembers


class Sized(Protocol):
    """What a cache keeps."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds on to."""


Plan = TypeVar("Plan", bound=Sized)


@dataclass(frozen=True)
class CacheStats:
    """What a cache has done and holds.

    Attributes:
        hits, misses: lookups that found a usable plan, and those after which it was made.
        evictions: plans that left because of the budget.
        plans, nbytes: what it holds now.
        max_bytes: its budget.
    """

    hits: int
    misses: int
    evictions: int
    plans: int
    nbytes: int
    max_bytes: int


@dataclass(eq=False)
class _Entry(Generic[Plan]):
    plan: Plan
    stamp: Stamp
    used: int  # when it was last used, by the cache's count of uses


@dataclass(eq=False)
class _Bundle:
    value: Any
    stamp: Stamp
    parts: tuple[Hashable, ...]
    used: int = 0


class PlanCache:
    """Plans within a budget of bytes, the least recently used leaving first. Safe for threads.

    A plan is made outside the lock and by one thread: others that want the same one wait for it, those that want
    another do not. A plan that alone exceeds the budget is made and used, but not kept.

    A plan that can also be had without keeping it (`make_once`) is kept from its second use on, and only if what it
    would push out has not been used since its own last use. So plans that are used in turn and do not all fit do not
    push out each other for ever: the first ones stay, the others are made once each time.

    A bundle is something made of several kept plans, such as a whole pass: it takes no bytes of its own, saves looking
    its plans up one by one, and leaves with the first of them.

    A copy of a cache, or one sent to another process, is empty: plans hold addresses.

    Args:
        max_bytes: budget; 0 keeps nothing.
        on_event: told "hit", "miss" or "evict" and how often after it happened, from the thread in which it did, for
            metrics.

    Example:
        >>> cache = PlanCache(100 * 2**20)
        >>> cache.stats.plans
        0
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES, *, on_event: Callable[[str, int], None] | None = None) -> None:
        self.max_bytes = max_bytes
        self._on_event = on_event
        self._entries: OrderedDict[Hashable, _Entry[Any]] = OrderedDict()
        self._bundles: OrderedDict[Hashable, _Bundle] = OrderedDict()
        self._bundles_of: dict[Hashable, set[Hashable]] = {}  # of each part
        self._used_bundles: dict[Hashable, _Bundle] = {}  # whose parts are still to be marked as used
        self._not_kept: OrderedDict[Hashable, tuple[int, int]] = OrderedDict()  # hash of the stamp, and when used
        self._making: dict[Hashable, Future[Any]] = {}
        self._stamps: dict[int, Stamp] = {}  # the last one of a module, by its id
        self._lock = threading.Lock()
        self._uses = 0
        self._nbytes = 0
        self._counts = {"hit": 0, "miss": 0, "evict": 0}

    def __reduce__(self) -> tuple[type["PlanCache"], tuple[int]]:
        return PlanCache, (self.max_bytes,)

    @property
    def stats(self) -> CacheStats:
        """Counters since the cache was made, and what it holds."""
        with self._lock:
            counts = self._counts
            return CacheStats(
                counts["hit"], counts["miss"], counts["evict"], len(self._entries), self._nbytes, self.max_bytes
            )

    def clear(self) -> None:
        """Forget all plans; the counters stay."""
        with self._lock:
            for key in list(self._entries):
                self._drop(key)
            self._not_kept.clear()
            self._stamps.clear()

    def get(
        self,
        key: Hashable,
        stamp: Stamp,
        make: Callable[[], Plan],
        make_once: Callable[[], Plan] | None = None,
        nbytes: int = 0,
        use: Hashable = None,
    ) -> Plan:
        """The plan of a key, made if there is none or if it was made for another stamp.

        Args:
            key: what the plan is of.
            stamp: of the parameters it depends on, taken before `make` reads them.
            make: makes a plan to be kept.
            make_once: makes one that takes no memory worth keeping, for uses that are not worth it; None keeps at once.
            nbytes: about how many bytes the plan of `make` has.
            use: what the plan is wanted for; only a second use for the same keeps it. None means any use.
        """
        mine: Future[Any] | None = None
        others: Future[Any] | None = None
        with self._lock:
            self._mark_parts()
            self._uses += 1
            entry = self._entries.get(key)
            if entry is not None and entry.stamp != stamp:
                entry = None
            if entry is not None:
                self._touch(key, self._uses)
            elif make_once is None or self._is_worth_keeping((key, use), stamp, nbytes):
                others = self._making.get((key, stamp))
                if others is None:
                    mine = self._making[key, stamp] = Future()
            event = "miss" if entry is None and others is None else "hit"
            self._counts[event] += 1
        plan: Plan
        if entry is not None:
            plan = entry.plan
        elif others is not None:
            plan = others.result()
        elif mine is not None:
            plan = self._make(key, stamp, make, mine)
        else:
            assert make_once is not None
            plan = make_once()
        self._tell(event)
        return plan

    def stamp(self, module: nn.Module) -> Stamp:
        """A module's stamp: the last one taken here where it still holds, several times faster than another."""
        stamp = self._stamps.get(id(module))
        if stamp is None or not stamp.holds_for(module):
            stamp = Stamp(module)
            with self._lock:
                self._stamps[id(module)] = stamp
                if len(self._stamps) > _REMEMBERED_STAMPS:
                    del self._stamps[next(iter(self._stamps))]
        return stamp

    def forget_gone(self) -> None:
        """Drop what was made for modules that are no more."""
        with self._lock:
            # Stamps of a whole network keep its parts: they go first.
            for name in [name for name, bundle in self._bundles.items() if bundle.stamp.module is None]:
                self._drop_bundle(name)
            for number in [number for number, stamp in self._stamps.items() if stamp.module is None]:
                del self._stamps[number]
            for key in [key for key, entry in self._entries.items() if entry.stamp.module is None]:
                self._drop(key)

    def find(self, key: Hashable, stamp: Stamp) -> Any | None:
        """The plan that is kept under a key for a stamp, which counts as a hit; None, which counts as nothing."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None or entry.stamp != stamp:
                return None
            self._mark_parts()
            self._uses += 1
            self._touch(key, self._uses)
            self._counts["hit"] += 1
        self._tell("hit")
        return entry.plan

    def get_bundle(self, key: Hashable, module: nn.Module, stamp: Stamp | None = None) -> Any | None:
        """What was kept by `keep_bundle` under this key, if all its parts are still there and unchanged, else None.

        Args:
            key: what it is of.
            module: the one whose stamp it was kept with; another module under the same key does not get it.
            stamp: the module's present one, if it is known: what was kept with it needs no other comparison.
        """
        with self._lock:
            bundle = self._bundles.get(key)
            if bundle is None or not (bundle.stamp is stamp or bundle.stamp.holds_for(module)):
                return None
            self._uses += 1
            bundle.used = self._uses
            self._used_bundles[key] = bundle
            self._bundles.move_to_end(key)
            self._counts["hit"] += len(bundle.parts)
        self._tell("hit", len(bundle.parts))
        return bundle.value

    def keep_bundle(self, key: Hashable, stamp: Stamp, value: Any, parts: Sequence[Hashable]) -> None:
        """Keep what is made of the plans under these keys for as long as all of them are kept.

        Args:
            key: what it is of.
            stamp: of the module that all its parts depend on, taken before they were looked up.
            value: the bundle.
            parts: keys of plans; where one is not kept, neither is the bundle.
        """
        with self._lock:
            if key in self._bundles:
                self._drop_bundle(key)
            if not all(part in self._entries for part in parts):
                return
            self._bundles[key] = _Bundle(value, stamp, tuple(dict.fromkeys(parts)))
            for part in parts:
                self._bundles_of.setdefault(part, set()).add(key)
            if len(self._bundles) > _REMEMBERED:
                self._drop_bundle(next(iter(self._bundles)))

    def _make(self, key: Hashable, stamp: Stamp, make: Callable[[], Plan], mine: Future[Any]) -> Plan:
        """Make a plan for this thread and those that wait for it."""
        evicted = 0
        try:
            plan = make()
        except BaseException as error:
            with self._lock:
                del self._making[key, stamp]
            mine.set_exception(error)
            raise
        with self._lock:
            evicted = self._keep(key, plan, stamp)
            del self._making[key, stamp]
        mine.set_result(plan)
        if evicted:
            self._tell("evict", evicted)
        return plan

    def _is_worth_keeping(self, key: Hashable, stamp: Stamp, nbytes: int) -> bool:
        """Whether a plan was used before, and since then nothing of what it would push out; else note this use."""
        state, last = self._not_kept.get(key, (None, 0))
        if state == hash(stamp) and self._room_since(last) >= nbytes:
            del self._not_kept[key]
            return True
        self._not_kept[key] = hash(stamp), self._uses
        self._not_kept.move_to_end(key)
        if len(self._not_kept) > _REMEMBERED:
            self._not_kept.popitem(last=False)
        return False

    def _room_since(self, use: int) -> int:
        """Bytes that are free, or held by plans that were last used before a use."""
        room = self.max_bytes - self._nbytes
        for entry in self._entries.values():  # the least recently used first
            if entry.used >= use:
                break
            room += entry.plan.nbytes
        return room

    def _touch(self, key: Hashable, use: int) -> None:
        self._entries.move_to_end(key)
        self._entries[key].used = use

    def _mark_parts(self) -> None:
        """Mark the parts of bundles as used, which a warm pass leaves to the next one that is not."""
        for bundle in sorted(self._used_bundles.values(), key=lambda bundle: bundle.used):
            for part in bundle.parts:
                self._touch(part, bundle.used)
        self._used_bundles.clear()

    def _keep(self, key: Hashable, plan: Sized, stamp: Stamp) -> int:
        """Keep a plan; how many others had to leave."""
        self._mark_parts()
        if key in self._entries:
            self._drop(key)
        if plan.nbytes > self.max_bytes:
            return 0
        self._entries[key] = _Entry(plan, stamp, self._uses)
        self._nbytes += plan.nbytes
        evicted = 0
        while self._nbytes > self.max_bytes:
            self._drop(next(iter(self._entries)))
            evicted += 1
        self._counts["evict"] += evicted
        return evicted

    def _drop(self, key: Hashable) -> None:
        """Forget a plan and the bundles that it is part of."""
        self._nbytes -= self._entries.pop(key).plan.nbytes
        for name in list(self._bundles_of.get(key, ())):
            self._drop_bundle(name)

    def _drop_bundle(self, name: Hashable) -> None:
        self._used_bundles.pop(name, None)
        for part in self._bundles.pop(name).parts:
            of_part = self._bundles_of[part]
            of_part.discard(name)
            if not of_part:
                del self._bundles_of[part]

    def _tell(self, event: str, count: int = 1) -> None:
        """Tell of events; never under the lock, so that the listener may look at the cache."""
        if self._on_event is not None:
            self._on_event(event, count)
