"""Counts and times of every model, all measured; the Open Inference Protocol asks for them (service/openinference).

Requests of both interfaces are counted, since they share batches. An *execution* is the part of a model in one batch,
over the images of all requests in it; images over executions is what batching gains. A large request takes part in
several executions, a slice of its members in each.
"""

import threading
import time
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, field


@dataclass(slots=True)
class Times:
    """How often something was done, and the nanoseconds that it took together."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """It was done once more."""
        self.count += 1
        self.ns += round(seconds * 1e9)


# What a request, or a part of it, can come to; each is counted with its time. No answers are cached.
KINDS = ("success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss")


@dataclass(slots=True)
class ModelStatistics:
    """Of one model.

    Attributes:
        last_ms: When it was last asked, Unix time; 0 for never.
        images: Of requests that were answered.
        times: By `KINDS`.
        executions: By the number of images in them.
    """

    last_ms: int = 0
    images: int = 0
    times: dict[str, Times] = field(default_factory=lambda: {kind: Times() for kind in KINDS})
    executions: dict[int, Times] = field(default_factory=dict)


class Statistics:
    """Of all models; may be told of things from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._models: dict[str, ModelStatistics] = {}

    def asked(self, model: str) -> None:
        """A request for a model is here."""
        with self._lock:
            self._of(model).last_ms = round(time.time() * 1000)

    def took(self, model: str, kind: str, seconds: float) -> None:
        """One of `KINDS` took so long."""
        with self._lock:
            self._of(model).times[kind].add(seconds)

    def failed(self, model: str, seconds: float) -> None:
        """A request came to nothing after so long."""
        self.took(model, "fail", seconds)

    def answered(self, model: str, images: int, seconds: float, queue_s: float, run_s: float) -> None:
        """A request was answered: the time it took, what of it was waiting, and what of it was in batches."""
        with self._lock:
            of_model = self._of(model)
            of_model.images += images
            for kind, of_kind in (("success", seconds), ("queue", queue_s), ("compute_infer", run_s)):
                of_model.times[kind].add(of_kind)

    def lasted(self, model: str, seconds: float) -> None:
        """A request that was answered took so much longer, before it came to the engine and after."""
        with self._lock:
            self._of(model).times["success"].ns += round(seconds * 1e9)

    def executed(self, model: str, images: int, seconds: float) -> None:
        """A model was run."""
        with self._lock:
            self._of(model).executions.setdefault(images, Times()).add(seconds)

    def snapshot(self, models: Iterable[str]) -> dict[str, ModelStatistics]:
        """Of these models as they are now, by name."""
        with self._lock:
            return {name: deepcopy(self._of(name)) for name in models}

    def _of(self, model: str) -> ModelStatistics:
        return self._models.setdefault(model, ModelStatistics())
