"""Evaluation jobs: where one stands, how to wait for its end, and the data set that is sent with its question."""

import contextlib
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from ccnet.client.errors import NotFinished
from ccnet.client.retries import Patience
from ccnet.errors import CcnetError

FINISHED = frozenset({"succeeded", "failed", "cancelled"})
ARCHIVES = (".zip", ".npz")
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
GROWTH = 1.5  # of the pauses
LAST_QUESTION_S = 5.0  # that it may take, though time is up


@dataclass(frozen=True)
class EvaluationData:
    """What a job measures on: the name of the data set, the images that are measured, and whether it was uploaded."""

    name: str
    images: int
    uploaded: bool


@dataclass(frozen=True)
class EvaluationProgress:
    """How far a job is, in forward passes of single images.

    Attributes:
        done: passes that were made since it was last begun.
        total: passes in all.
        passes: what it costs, as it was reckoned when it was taken.
    """

    done: int
    total: int
    passes: int


@dataclass(frozen=True)
class Evaluation:
    """A job, as it stood when it was asked for.

    Attributes:
        id: by which the service knows it.
        status: "queued", "running", "interrupted" (the service stopped; it is begun anew), "succeeded", "failed" or
            "cancelled".
        model: name of the model.
        dataset: what it measures on.
        options: what was asked, with everything that was left out filled in.
        progress: how far it is.
        created: when it was taken.
        started: when it was last begun; None before.
        finished: when it ended; None before.
        eta_s: seconds that a running job may still take; None when nobody knows.
        error: why it failed; None otherwise.
        result: the document of one that succeeded (docs/evaluation.md); None otherwise, and in lists.
    """

    id: str
    status: str
    model: str
    dataset: EvaluationData
    options: dict[str, Any]
    progress: EvaluationProgress
    created: datetime
    started: datetime | None = None
    finished: datetime | None = None
    eta_s: float | None = None
    error: str | None = None
    result: dict[str, Any] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether it will not change any more."""
        return self.status in FINISHED


@dataclass(frozen=True)
class EvaluationPage:
    """Jobs, the newest first.

    Attributes:
        evaluations: without their results.
        next: `before` of the next page; None on the last one.
    """

    evaluations: tuple[Evaluation, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True)
class Upload:
    """A data set that is sent from a file, in pieces, so that it is never in memory as a whole.

    Attributes:
        name: of the file, after which the service calls the data set.
        file: opened; its bytes go from the beginning at every attempt.
        size: bytes.
    """

    name: str
    file: IO[bytes]
    size: int


@contextlib.contextmanager
def opened(dataset: str | os.PathLike[str]) -> Iterator[str | Upload]:
    """The name of a built-in data set as it is; a path, or a text that ends in .zip or .npz, as an open file.

    Raises:
        CcnetError: the file cannot be read, or is of another kind.
    """
    if isinstance(dataset, str) and not dataset.lower().endswith(ARCHIVES):
        yield dataset
        return
    path = Path(dataset)
    if path.suffix.lower() not in ARCHIVES:
        raise CcnetError(
            f"{path} was given; a data set is sent as a .zip with one folder of pictures for each class, or as an .npz "
            "with images and labels"
        )
    try:
        file = path.open("rb")
    except OSError as error:
        raise CcnetError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield Upload(path.name, file, os.fstat(file.fileno()).st_size)


class Watch:
    """Somebody waits for the end of a job: pauses grow, so that a long one is not asked about all the time.

    Args:
        timeout_s: longest wait in all, in seconds, but for the last question's.
        attempt_s: longest time of one question, in seconds.
        on_progress: told about the job whenever it was asked for.
        clock: seconds that only ever grow.
        chance: a number from 0 to 1, drawn anew at every call; clients that began together do not ask together.

    Raises:
        CcnetError: no such time.
    """

    def __init__(
        self,
        timeout_s: float,
        attempt_s: float,
        on_progress: Callable[[Evaluation], None] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        Patience(timeout_s, None)  # says what is allowed
        self._timeout_s, self._attempt_s, self._on_progress = timeout_s, attempt_s, on_progress
        self._clock, self._chance = clock, chance
        self._deadline = clock() + timeout_s
        self._pause_s = FIRST_PAUSE_S

    @property
    def patience(self) -> Patience:
        """With the next question. The job outlives its service, so one that does not answer is asked again."""
        left_s = max(self._deadline - self._clock(), min(self._attempt_s, LAST_QUESTION_S))
        return Patience(left_s, None, self._attempt_s, frozenset({429, 502, 503, 504}))

    def pause_after(self, found: Evaluation) -> float | None:
        """Seconds until the next question; None when the job has ended.

        Raises:
            NotFinished: time is up.
        """
        if self._on_progress is not None:
            self._on_progress(found)
        if found.is_finished:
            return None
        left_s = self._deadline - self._clock()
        if left_s <= 0:
            done, total = found.progress.done, found.progress.total
            raise NotFinished(
                f"evaluation {found.id} is {found.status} after {self._timeout_s:g} s, {done:,} of {total:,} passes "
                "done; it goes on: wait for it again, or longer with timeout_s"
            )
        pause_s = self._pause_s * (1 + self._chance()) / 2
        self._pause_s = min(LONGEST_PAUSE_S, GROWTH * self._pause_s)
        return min(pause_s, left_s)
