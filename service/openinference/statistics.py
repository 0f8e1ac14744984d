"""Counts and times of every model, as the statistics extension tells them; all are measured.

Requests of both interfaces are counted, since they share batches. An *execution* is the part of a model in one batch,
over the images of all requests in it; `inference_count / execution_count` is what batching gains. A large request takes
part in several executions, a slice of its members in each.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from service.batcher import Slice
from service.engine import Classified, ClassifyJob, Engine
from service.metrics import Metrics
from service.openinference.answers import VERSION
from service.settings import Settings


@dataclass(slots=True)
class Times:
    """How often something was done, and the nanoseconds that it took together."""

    count: int = 0
    ns: int = 0

    def add(self, seconds: float) -> None:
        """It was done once more."""
        self.count += 1
        self.ns += round(seconds * 1e9)

    @property
    def document(self) -> dict[str, int]:
        """As the protocol has it."""
        return {"count": self.count, "ns": self.ns}


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

    def document(self, name: str) -> dict[str, Any]:
        """As the protocol has it."""
        nothing = Times().document
        return {
            "name": name,
            "version": VERSION,
            "last_inference": self.last_ms,
            "inference_count": self.images,
            "execution_count": sum(times.count for times in self.executions.values()),
            "inference_stats": {kind: times.document for kind, times in self.times.items()},
            "response_stats": {},
            "batch_stats": [
                {
                    "batch_size": images,
                    "compute_input": nothing,
                    "compute_infer": self.executions[images].document,
                    "compute_output": nothing,
                }
                for images in sorted(self.executions)
            ],
            "memory_usage": [],
        }


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

    def lasted(self, model: str, seconds: float) -> None:
        """A request that was answered took so much longer, before it came to the engine and after."""
        with self._lock:
            self._of(model).times["success"].ns += round(seconds * 1e9)

    def answered(self, model: str, images: int, seconds: float) -> None:
        """A request was answered."""
        with self._lock:
            self._of(model).images += images
            self._of(model).times["success"].add(seconds)

    def executed(self, model: str, images: int, seconds: float) -> None:
        """A model was run."""
        with self._lock:
            self._of(model).executions.setdefault(images, Times()).add(seconds)

    def document(self, models: Sequence[str]) -> dict[str, Any]:
        """Of these models, as the protocol has it."""
        with self._lock:
            return {"model_stats": [self._of(name).document(name) for name in models]}

    def _of(self, model: str) -> ModelStatistics:
        return self._models.setdefault(model, ModelStatistics())


class MeasuredEngine(Engine):
    """The engine, with statistics of every request and run."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        super().__init__(settings, metrics)
        self.statistics = Statistics()

    async def classify(self, job: ClassifyJob, least: int | None = None, timeout_s: float = float("inf")) -> Classified:
        """See `Engine.classify`."""
        started = time.perf_counter()
        name = job.model.name
        self.statistics.asked(name)
        try:
            outcome = await super().classify(job, least, timeout_s)
        except BaseException:  # also of a client that hung up
            self.statistics.took(name, "fail", time.perf_counter() - started)
            raise
        self.statistics.answered(name, len(job.images), time.perf_counter() - started)
        self.statistics.took(name, "queue", outcome.queue_s)
        self.statistics.took(name, "compute_infer", outcome.run_s)
        return outcome

    def _run_model(self, slices: Sequence[Slice[ClassifyJob]]) -> list[list[Tensor]]:
        """See `Engine._run_model`; on the inference thread."""
        started = time.perf_counter()
        parts = super()._run_model(slices)
        images = sum(len(part.job.images) for part in slices)
        self.statistics.executed(slices[0].job.model.name, images, time.perf_counter() - started)
        return parts


def statistics_of(engine: Engine) -> Statistics:
    """Those of an engine that measures."""
    assert isinstance(engine, MeasuredEngine)
    return engine.statistics
