"""What Prometheus reads under `/metrics`: every series of the contract, present from the start.

Labels come from closed sets (route templates, known methods, names of loaded models): nothing a user sends can make a
new series. One registry an application, so that several can live in one process.
"""

from collections.abc import Iterable
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from service.errors import REFUSALS
from service.evaluations.jobs import FINISHED, Status
from service.served import ServedModel

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every first one, which nobody reads

CONTENT_TYPE = CONTENT_TYPE_LATEST
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
OTHER = "other"  # label of a method or route that is not known

Stage = Literal["decode", "queue", "prepare", "forward", "aggregate"]
ReloadResult = Literal["done", "refused"]
# 1 ms to 60 s, roughly three a decade.
SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
POWERS_OF_TWO = tuple(float(2**exponent) for exponent in range(13))  # 1 to 4096
PLAN_CACHE_EVENTS = ("hit", "miss", "evict")
PAPER_SHIFTS = (2, 4, 6)


class Metrics:
    """The series of one application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._routes: frozenset[str] = frozenset()
        self.requests = Histogram(
            "ccnet_request_duration_seconds",
            "From the first byte of a request to the last of its answer.",
            ["route", "method", "status"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stages = Histogram(
            "ccnet_stage_duration_seconds",
            "Time in one stage of a request (decode, queue, aggregate) or of a shared run (prepare, forward).",
            ["stage"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.batch_images = self._sizes(
            "ccnet_batch_images", "Images in a run, whose requests share their forward passes."
        )
        self.batch_passes = self._sizes("ccnet_batch_passes", "Passes (images x members) in a batch.")
        self.ensemble_size = self._sizes("ccnet_ensemble_size", "Members of a classification.")
        self.in_flight = Gauge(
            "ccnet_requests_in_flight",
            "Requests to the API that are being answered; health and metrics do not count.",
            registry=self.registry,
        )
        self.queue_passes = Gauge("ccnet_queue_passes", "Passes that wait for inference.", registry=self.registry)
        self.rejected = Counter(
            "ccnet_requests_rejected", "Requests that were refused.", ["reason"], registry=self.registry
        )
        self.plan_cache = Counter(
            "ccnet_plan_cache_events", "Events of the cache of prepared plans.", ["event"], registry=self.registry
        )
        self.plan_cache_bytes = Gauge(
            "ccnet_plan_cache_bytes", "Bytes of prepared weights that are kept.", registry=self.registry
        )
        self.plan_cache_plans = Gauge(
            "ccnet_plan_cache_plans",
            "Prepared layers, and what they are made of, that are kept.",
            registry=self.registry,
        )
        self.equivariance = Gauge(
            "ccnet_equivariance_cosine",
            "Mean cosine of the last probe (Table 1); NaN until there was one.",
            ["model", "input", "max_shift"],
            registry=self.registry,
        )
        self.evaluations = Gauge(
            "ccnet_evaluations", "Evaluation jobs that are kept.", ["status"], registry=self.registry
        )
        self.evaluations_ended = Counter(
            "ccnet_evaluations_ended", "Evaluation jobs that ended.", ["status"], registry=self.registry
        )
        self.evaluation_progress = Gauge(
            "ccnet_evaluation_progress",
            "Share of the running evaluation's passes that are done; NaN when none runs.",
            registry=self.registry,
        )
        self.background_passes = Counter(
            "ccnet_background_passes", "Passes made for evaluations, behind requests.", registry=self.registry
        )
        self.reloads = Counter(
            "ccnet_reloads",
            "Checkpoints that came or changed while serving: taken over, or refused so that the old one stays.",
            ["result"],
            registry=self.registry,
        )
        self.model_info = Gauge(
            "ccnet_model_info",
            "1 for every loaded model.",
            ["model", "architecture", "device", "backend"],
            registry=self.registry,
        )
        self._make_all_present()

    def know_routes(self, routes: Iterable[tuple[str, str]]) -> None:
        """Take (route template, method) pairs as the only values of those labels, and make their series present."""
        known = list(routes)
        self._routes = frozenset(route for route, _ in known)
        for route, method in known:
            self.requests.labels(route, method, "200")

    def know_model(self, model: ServedModel) -> None:
        """A model was loaded."""
        name, facts = model.name, model.facts
        self.model_info.labels(name, facts["architecture"], facts["device"], facts["backend"] or "none").set(1)
        for source in ("noise", "dataset"):
            for max_shift in PAPER_SHIFTS:
                self.equivariance.labels(name, source, str(max_shift)).set(float("nan"))

    def forget_model(self, name: str) -> None:
        """A model is no longer loaded: its series disappear."""
        for gauge in (self.model_info, self.equivariance):
            gauge.remove_by_labels({"model": name})

    def request_done(self, route: str | None, method: str, status: int, seconds: float) -> None:
        """A request was answered."""
        route_label = route if route in self._routes else OTHER
        self.requests.labels(route_label, method if method in METHODS else OTHER, str(status)).observe(seconds)

    def stage(self, stage: Stage, seconds: float) -> None:
        """A stage took this long."""
        self.stages.labels(stage).observe(seconds)

    def plan_cache_event(self, event: str, count: int) -> None:
        """One of `PLAN_CACHE_EVENTS` happened `count` times; may be called from any thread."""
        self.plan_cache.labels(event).inc(count)

    def render(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)

    def _sizes(self, name: str, description: str) -> Histogram:
        return Histogram(name, description, buckets=POWERS_OF_TWO, registry=self.registry)

    def _make_all_present(self) -> None:
        for stage in get_args(Stage):
            self.stages.labels(stage)
        for refusal in REFUSALS:
            self.rejected.labels(refusal.reason)
        for event in PLAN_CACHE_EVENTS:
            self.plan_cache.labels(event)
        for result in get_args(ReloadResult):
            self.reloads.labels(result)
        for status in Status:
            self.evaluations.labels(status)
        for status in FINISHED:
            self.evaluations_ended.labels(status)
        self.evaluation_progress.set(float("nan"))
