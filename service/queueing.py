"""The queue between the event loop and the inference thread: what waits, in which order it runs, and in which slices.

Both sides call it; a lock that is never held for long keeps them apart.
"""

import threading
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
    """Units [first, last) of a job."""

    job: Job
    first: int
    last: int

    @property
    def units(self) -> int:
        """How many."""
        return self.last - self.first


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
    """

    def __init__(self) -> None:
        self._entries: dict[int, Waiting] = {}  # by identity
        self._changed = threading.Condition()
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
        with self._changed:
            return sum(entry.left for entry in self._entries.values() if entry.rank <= rank)

    def add(self, entry: Waiting) -> None:
        """Let it wait."""
        with self._changed:
            self._entries[id(entry)] = entry
            self._passes += entry.cost.total
            self._admitted += entry.cost.total
            self._changed.notify()

    def withdraw(self, entry: Waiting) -> None:
        """Take what is left of it out: nobody waits for it any more."""
        with self._changed:
            self._passes -= entry.left
            entry.taken = entry.cost.units
            self._entries.pop(id(entry), None)

    def wait(self, jobs: int, passes: int, timeout_s: float) -> None:
        """Return as soon as so many jobs or passes wait, or time is up."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._entries) >= jobs or self._passes >= passes, timeout_s)

    def take(self, passes: int) -> list[tuple[Waiting, Slice[Any]]]:
        """A slice each of those that run next, `passes` together, or one unit that is more; nothing when none waits.

        A job that wants to be alone gets that when its turn comes.
        """
        taken: list[tuple[Waiting, Slice[Any]]] = []
        room = passes
        with self._changed:
            for entry in sorted(self._entries.values(), key=lambda entry: entry.rank):
                cost = entry.cost
                if cost.alone and taken:
                    continue
                units = min(cost.units - entry.taken, max(room // cost.passes, 0 if taken else 1))
                if units:
                    taken.append((entry, Slice(entry.job, entry.taken, entry.taken + units)))
                    entry.taken += units
                    room -= units * cost.passes
                if cost.alone or room <= 0:
                    break
            for entry, _ in taken:
                if not entry.left:
                    del self._entries[id(entry)]
            self._passes -= passes - room
        return taken
