"""Keeping prepared plans within a budget of bytes, and never using one that no longer fits its parameters.

A plan that is kept is used only while the parameters behind it are the same tensors, unchanged: an optimiser's step
(of any optimiser in the process: fused ones change parameters without counting it), `load_state_dict`, `.to()`,
changes in place and a replaced parameter all make it stale, and it is then made anew. Changes that go around torch give
no sign: through `.data` (`p.data.mul_(2)`), a shared NumPy array, or optimiser steps replayed from a CUDA graph. Call
`PlanCache.clear` after those.
"""

import operator
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import starmap
from typing import Any, Generic, Protocol, TypeVar

from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

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
    stamp: "Stamp"
    used: int  # when it was last used, by the cache's count of uses


@dataclass(eq=False)
class _Bundle:
    value: Any
    stamp: "Stamp"
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
        stamp: "Stamp",
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

    def stamp(self, module: nn.Module) -> "Stamp":
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

    def find(self, key: Hashable, stamp: "Stamp") -> Any | None:
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

    def get_bundle(self, key: Hashable, module: nn.Module) -> Any | None:
        """What was kept by `keep_bundle` under this key, if all its parts are still there and unchanged, else None.

        Args:
            key: what it is of.
            module: the one whose stamp it was kept with; another module under the same key does not get it.
        """
        with self._lock:
            bundle = self._bundles.get(key)
            if bundle is None or not bundle.stamp.holds_for(module):
                return None
            self._uses += 1
            bundle.used = self._uses
            self._used_bundles[key] = bundle
            self._bundles.move_to_end(key)
            self._counts["hit"] += len(bundle.parts)
        self._tell("hit", len(bundle.parts))
        return bundle.value

    def keep_bundle(self, key: Hashable, stamp: "Stamp", value: Any, parts: Sequence[Hashable]) -> None:
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

    def _make(self, key: Hashable, stamp: "Stamp", make: Callable[[], Plan], mine: "Future[Any]") -> Plan:
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

    def _is_worth_keeping(self, key: Hashable, stamp: "Stamp", nbytes: int) -> bool:
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

    def _keep(self, key: Hashable, plan: Sized, stamp: "Stamp") -> int:
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


class Stamp:
    """The state of a module's parameters and buffers: equal stamps mean the same tensors with the same values.

    Holds on to the tensors, so that no other can take their place in memory while the stamp is compared. Tensors made
    under `torch.inference_mode` keep no count of their changes; a stamp of one equals no other and never holds. Modules
    that count in `moves` how often `_apply` was called (for `.to()` and its like, which may put other values into the
    same place) are asked for that too.
    """

    __slots__ = ("_dictionaries", "_hash", "_members", "_module", "_moves", "_owners", "_sizes", "_state", "_tensors")

    def __init__(self, module: nn.Module) -> None:
        self._module = weakref.ref(module)
        self._owners: list[tuple[dict[str, Any], str]] = []  # a module's dictionary, and a name in it
        self._members: list[object] = []  # what stands there
        self._dictionaries: list[dict[str, Any]] = []  # all of them, the empty ones too
        self._moves: list[tuple[dict[str, Any], int]] = []
        self._collect(module)
        self._sizes = tuple(map(len, self._dictionaries))
        self._tensors = [member for member in self._members if isinstance(member, Tensor)]
        counted = not any(tensor.is_inference() for tensor in self._tensors)
        moves = tuple(count for _, count in self._moves)
        identities = tuple(map(id, self._tensors))
        self._state = (_optimizer_steps, moves, identities, _contents(self._tensors)) if counted else None
        self._hash = hash(self._state)

    @property
    def module(self) -> nn.Module | None:
        """The module, while it lives."""
        return self._module()

    def holds(self) -> bool:
        """Whether the module is still in the state that the stamp was taken of; faster than taking another."""
        return (
            self._state is not None
            and self._state[0] == _optimizer_steps
            and tuple(map(len, self._dictionaries)) == self._sizes
            and all(map(operator.is_, starmap(dict.get, self._owners), self._members))
            and all(attributes.get("moves", 0) == count for attributes, count in self._moves)
            and self._state[3] == _contents(self._tensors)
        )

    def holds_for(self, module: nn.Module) -> bool:
        """Whether it is this module's stamp, and holds. (Another module may have come to lie where a dead one was.)"""
        return self._module() is module and self.holds()

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Stamp) and self._state is not None and self._state == other._state)

    def _collect(self, module: nn.Module) -> None:
        attributes = module.__dict__
        if hasattr(type(module), "moves"):
            self._moves.append((attributes, attributes.get("moves", 0)))
        for kind in ("_parameters", "_buffers"):
            tensors = attributes[kind]
            self._dictionaries.append(tensors)
            self._owners.extend((tensors, name) for name in tensors)
            self._members.extend(tensors.values())
        children = attributes["_modules"]
        self._dictionaries.append(children)
        for name, child in children.items():
            self._owners.append((children, name))
            self._members.append(child)
            if child is not None:
                self._collect(child)


_version = operator.attrgetter("_version")


def _contents(tensors: Sequence[Tensor]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """How often each tensor was changed in place, and where its values lie."""
    return tuple(map(_version, tensors)), tuple(map(Tensor.data_ptr, tensors))


_optimizer_steps = 0


def _count_optimizer_step(*_: object) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


register_optimizer_step_post_hook(_count_optimizer_step)
