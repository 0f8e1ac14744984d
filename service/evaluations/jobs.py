"""What an evaluation job is, and where it can stand.

queued ──> running ──> succeeded, failed
  │          │  └────> interrupted ──> running ...   (the process stopped; the next one begins it anew)
  └──────────┴───────> cancelled
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class Status(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    INTERRUPTED = "interrupted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


WAITING = (Status.QUEUED, Status.INTERRUPTED)
ACTIVE = (*WAITING, Status.RUNNING)
FINISHED = (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Order:
    """What somebody asks for.

    Attributes:
        model: Name of a loaded model.
        dataset: Name of the data set, for people where it was uploaded.
        images: How many are measured.
        options: As `schemas.EvaluationOptions` gives them, JSON-able.
        passes: What it costs.
        fingerprint: Hash of all that was asked, the uploaded file included.
        key: By which the client tells a repetition from a new order; None without.
        uploaded: Whether the data set came with the order.
    """

    model: str
    dataset: str
    images: int
    options: dict[str, Any]
    passes: int
    fingerprint: str
    key: str | None
    uploaded: bool


@dataclass(frozen=True, slots=True)
class Job:
    """An order that was taken.

    Attributes:
        id: By which clients call it.
        order: What was asked.
        status: Where it stands.
        created, started, finished: When, in seconds since 1970; None for what has not happened (yet). `started` is that
            of the last beginning.
        crashes: How often the process died while it ran.
        error: Why it failed, in words; None otherwise.
    """

    id: str
    order: Order
    status: Status
    created: float
    started: float | None
    finished: float | None
    crashes: int
    error: str | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a running job is: passes done and in all, and for how long it has been running, in seconds."""

    done: int
    total: int
    seconds: float

    @property
    def eta_s(self) -> float | None:
        """Seconds that are left if it goes on as so far; None when nothing is done yet."""
        return self.seconds * (self.total - self.done) / self.done if self.done else None
