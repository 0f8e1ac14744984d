"""The queue between the event loop and the inference thread: what waits, in which order it runs, and in which slices.

Both sides call it; its lock, which is never held for long, keeps them apart.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

Job = TypeVar("Job")


@dataclass(frozen=True, slots=True)
class Cost:
    """What a job asks of the thread.

    Attributes:
        units: Its members, at least 1.
        passes: Of each unit, at least 1: its images.
        least: Units that are enough for an answer when the deadline comes; None for all of them.
        alone: Whether it is run in a batch of its own.
    """

    units: int
    passes: int
    least: int | None = None
    alone: bool = False

    def __post_init__(self) -> None:
        if min(self.units, self.passes, 1 if self.least is None else self.least) < 1:
            raise ValueError(f"units, passes and least are 1 or more; got {self}")

    @property
    def total(self) -> int:
        """Passes of all units."""
        return self.units * self.passes

    @property
    def needed(self) -> int:
        """Passes without which there is no answer."""
        return self.passes * (self.units if self.least is None else min(self.least, self.units))


@dataclass(frozen=True, slots=True)
class Slice(Generic[Job]):
    """Units [first, last) of a job of some cost."""

    job: Job
    cost: Cost
    first: int
    last: int

    @property
    def units(self) -> int:
        """How many."""
        return self.last - self.first

    @property
    def passes(self) -> int:
        """Of all of them."""
        return self.units * self.cost.passes


@dataclass(eq=False, slots=True)
class Entry(Generic[Job]):
    """A job that was admitted.

    Attributes:
        job, cost: What it is.
        rank: Who is served first: the lowest.
        taken: Units that were run, are running, or are no longer wanted.
    """

    job: Job
    cost: Cost
    rank: int
    taken: int = 0

    @property
    def left(self) -> int:
        """Passes that are not taken yet."""
        return (self.cost.units - self.taken) * self.cost.passes


Waiting = TypeVar("Waiting", bound=Entry[Any])


class Queue(Generic[Waiting]):
    """Entries that wait, in order of rank.

    The rank of a job is the passes that were admitted before it plus twice its own. Equal jobs are served in order of
    arrival; a small one goes before a large one that came earlier, but no job waits for more passes of later ones than
    it has itself.

    Attributes:
        lock: Held by every method; a caller that wants several of them to see one state may hold it too.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._changed = threading.Condition(self.lock)
        self._entries: dict[Waiting, None] = {}
        self._passes = 0
        self._admitted = 0

    @property
    def passes(self) -> int:
        """Passes that wait."""
        return self._passes

    def rank(self, cost: Cost) -> int:
        """Of a job that comes now."""
        return self._admitted + 2 * cost.total

    def passes_before(self, rank: int) -> int:
        """Passes that are served before a job of this rank."""
        with self.lock:
            return sum(entry.left for entry in self._entries if entry.rank <= rank)

    def add(self, entry: Waiting) -> None:
        """Let it wait."""
        with self.lock:
            self._entries[entry] = None
            self._passes += entry.cost.total
            self._admitted += entry.cost.total
            self._changed.notify()

    def withdraw(self, entry: Waiting) -> None:
        """Take what is left of it out: nobody waits for it any more."""
        with self.lock:
            self._passes -= entry.left
            entry.taken = entry.cost.units
            self._entries.pop(entry, None)

    def wait(self, jobs: int, passes: int, timeout_s: float, until: Callable[[], bool] = lambda: False) -> None:
        """Return as soon as so many jobs or passes wait, time is up, or `until`, asked again by `look_again`."""
        with self.lock:
            self._changed.wait_for(lambda: len(self._entries) >= jobs or self._passes >= passes or until(), timeout_s)

    def look_again(self) -> None:
        """Let `wait` ask its `until`."""
        with self.lock:
            self._changed.notify()

    def take(self, passes: int) -> list[tuple[Waiting, Slice[Any]]]:
        """A slice each of those that run next, `passes` together, or one unit that is more; nothing when none waits.

        A job that wants to be alone gets that when its turn comes.
        """
        taken: list[tuple[Waiting, Slice[Any]]] = []
        room = passes
        with self.lock:
            for entry in sorted(self._entries, key=lambda entry: entry.rank):
                cost = entry.cost
                if cost.alone and taken:
                    continue
                units = min(cost.units - entry.taken, max(room // cost.passes, 0 if taken else 1))
                if units:
                    taken.append((entry, Slice(entry.job, cost, entry.taken, entry.taken + units)))
                    entry.taken += units
                    room -= units * cost.passes
                    if not entry.left:
                        del self._entries[entry]
                if cost.alone or room <= 0:
                    break
            self._passes -= passes - room
        return taken
