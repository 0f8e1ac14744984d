"""Keeping prepared plans within a budget of bytes, and never using one that no longer fits its parameters.

A plan that is kept is used only while the parameters behind it are the same tensors, unchanged: an optimiser's step
(of any optimiser: fused ones change parameters without counting it), `load_state_dict`, `.to()`, changes in place and a
replaced parameter all make it stale, and it is then made anew. The one change that torch gives no sign of is one
through `.data` (`p.data.mul_(2)`): call `PlanCache.clear` after it.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

DEFAULT_BYTES = 512 * 2**20
_REMEMBERED = 1_000  # bundles, and plans used once, that a cache remembers


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


@dataclass(eq=False)
class _Bundle:
    value: Any
    stamp: "Stamp"
    parts: tuple[Hashable, ...]


class PlanCache:
    """Plans within a budget of bytes, the least recently used leaving first. Safe for threads.

    A plan is made outside the lock and by one thread: others that want the same one wait for it, those that want
    another do not. A plan that alone exceeds the budget is made and used, but not kept.

    A bundle is something made of several kept plans, such as a whole pass: it takes no bytes of its own, saves looking
    its plans up one by one, and leaves with the first of them.

    Args:
        max_bytes: budget; 0 keeps nothing.
        on_event: told "hit", "miss" or "evict" as it happens, for metrics.

    Example:
        >>> cache = PlanCache(100 * 2**20)
        >>> cache.stats.plans
        0
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES, *, on_event: Callable[[str], None] | None = None) -> None:
        self.max_bytes = max_bytes
        self._on_event = on_event
        self._entries: OrderedDict[Hashable, _Entry[Any]] = OrderedDict()
        self._bundles: OrderedDict[Hashable, _Bundle] = OrderedDict()
        self._bundles_of: dict[Hashable, set[Hashable]] = {}  # of each part
        self._used_once: OrderedDict[Hashable, Stamp] = OrderedDict()
        self._making: dict[Hashable, threading.Event] = {}
        self._lock = threading.Lock()
        self._nbytes = 0
        self._counts = {"hit": 0, "miss": 0, "evict": 0}

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
            self._used_once.clear()

    def get(
        self, key: Hashable, stamp: "Stamp", make: Callable[[], Plan], make_once: Callable[[], Plan] | None = None
    ) -> Plan:
        """The plan of a key, made if there is none or if it was made for another stamp.

        Args:
            key: what the plan is of.
            stamp: of the parameters it depends on, taken before `make` reads them.
            make: makes a plan to be kept.
            make_once: makes one that is not worth keeping, for the first use; None keeps at once.
        """
        if make_once is not None and self._is_first_use(key, stamp):
            return make_once()
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None and entry.stamp == stamp:
                    self._entries.move_to_end(key)
                    self._count("hit")
                    found: Plan = entry.plan
                    return found
                others = self._making.get((key, stamp))
                if others is None:
                    mine = self._making[key, stamp] = threading.Event()
                    self._count("miss")
                    break
            others.wait()
        try:
            plan = make()
            self._keep(key, _Entry(plan, stamp))
            return plan
        finally:
            with self._lock:
                del self._making[key, stamp]
            mine.set()

    def get_bundle(self, key: Hashable) -> Any | None:
        """What was kept by `keep_bundle` under this key, if all its parts are still there and unchanged, else None."""
        with self._lock:
            bundle = self._bundles.get(key)
            if bundle is None or not bundle.stamp.holds():
                return None
            self._bundles.move_to_end(key)
            for part in bundle.parts:
                self._entries.move_to_end(part)
                self._count("hit")
            return bundle.value

    def keep_bundle(self, key: Hashable, stamp: "Stamp", value: Any, parts: Sequence[Hashable]) -> None:
        """Keep what is made of the plans under these keys for as long as all of them are kept.

        Args:
            key: what it is of.
            stamp: of all parameters that its parts depend on, taken before they were looked up.
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

    def _is_first_use(self, key: Hashable, stamp: "Stamp") -> bool:
        with self._lock:
            entry = self._entries.get(key)
            if (entry is not None and entry.stamp == stamp) or self._used_once.get(key) == stamp:
                return False
            self._used_once[key] = stamp
            self._used_once.move_to_end(key)
            if len(self._used_once) > _REMEMBERED:
                self._used_once.popitem(last=False)
            self._count("miss")
            return True

    def _keep(self, key: Hashable, entry: _Entry[Any]) -> None:
        with self._lock:
            if key in self._entries:
                self._drop(key)
            if entry.plan.nbytes > self.max_bytes:
                return
            self._entries[key] = entry
            self._nbytes += entry.plan.nbytes
            while self._nbytes > self.max_bytes:
                self._drop(next(iter(self._entries)))
                self._count("evict")

    def _drop(self, key: Hashable) -> None:
        """Forget a plan and the bundles that it is part of."""
        self._nbytes -= self._entries.pop(key).plan.nbytes
        for name in list(self._bundles_of.get(key, ())):
            self._drop_bundle(name)

    def _drop_bundle(self, name: Hashable) -> None:
        for part in self._bundles.pop(name).parts:
            of_part = self._bundles_of[part]
            of_part.discard(name)
            if not of_part:
                del self._bundles_of[part]

    def _count(self, event: str) -> None:
        self._counts[event] += 1
        if self._on_event is not None:
            self._on_event(event)


class Stamp:
    """The state of a module's parameters: equal stamps mean the same tensors with the same values.

    Holds on to the parameters, so that no other tensor can take their place in memory while the stamp is compared.
    Parameters made under `torch.inference_mode` keep no count of their changes; a stamp of one equals no other and
    never holds. Modules that count in `moves` how often `_apply` was called (for `.to()` and its like, which may put
    other values into the same place) are asked for that too.
    """

    __slots__ = ("_hash", "_members", "_moves", "_state", "_values")

    def __init__(self, module: nn.Module) -> None:
        self._members: list[tuple[dict[str, Any], str, object]] = []  # (a module's dictionary, name, what stands there)
        self._moves: list[tuple[dict[str, Any], int]] = []
        self._collect(module)
        parameters = [member for _, _, member in self._members if isinstance(member, nn.Parameter)]
        counted = not any(parameter.is_inference() for parameter in parameters)
        self._values = tuple((p, p._version, p.data_ptr()) for p in parameters) if counted else None
        moves = tuple(count for _, count in self._moves)
        self._state = (_optimizer_steps, moves, tuple(map(id, parameters)), tuple(v[1:] for v in self._values or ()))
        self._hash = hash(self._state)

    def holds(self) -> bool:
        """Whether the module is still in the state that the stamp was taken of; faster than taking another."""
        return (
            self._values is not None
            and self._state[0] == _optimizer_steps
            and all(names.get(name) is member for names, name, member in self._members)
            and all(attributes["moves"] == count for attributes, count in self._moves)
            and all(p._version == version and p.data_ptr() == place for p, version, place in self._values)
        )

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (
            isinstance(other, Stamp)
            and self._values is not None
            and other._values is not None
            and self._state == other._state
        )

    def _collect(self, module: nn.Module) -> None:
        attributes = module.__dict__
        if "moves" in attributes:
            self._moves.append((attributes, attributes["moves"]))
        parameters = attributes["_parameters"]
        self._members.extend((parameters, name, parameter) for name, parameter in parameters.items())
        children = attributes["_modules"]
        for name, child in children.items():
            self._members.append((children, name, child))
            if child is not None:
                self._collect(child)


_optimizer_steps = 0


def _count_optimizer_step(*_: object) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


register_optimizer_step_post_hook(_count_optimizer_step)
