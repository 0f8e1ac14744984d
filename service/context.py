"""What the routes share: the parts of one running service, and where it stands in its life.

Routes take the request alone and find what they need in it with plain functions, of this file and of `service.options`.
FastAPI's dependencies would do the same for a tenth of a millisecond each, on the one thread that all requests share.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import cast

from fastapi import Request

from service.engine import Engine
from service.errors import NotReady
from service.evaluations.manager import Evaluations
from service.holding import Holding
from service.metrics import Metrics
from service.settings import Settings
from service.workers import WorkerPool


class Phase(StrEnum):
    """Where a service stands; only READY ones should be sent requests."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(slots=True)
class Service:
    """The parts of one running service."""

    settings: Settings
    metrics: Metrics
    engine: Engine
    workers: WorkerPool
    drawers: WorkerPool
    holding: Holding
    evaluations: Evaluations
    phase: Phase = Phase.STARTING
    open: bool = False  # whether requests are taken; stays true for `drain_delay_s` after readiness went false


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return cast(Service, request.app.state.service)


def open_service(request: Request) -> Service:
    """The service, for what needs the models.

    Raises:
        NotReady: The models are still being loaded, or the service is stopping.
    """
    service = service_of(request)
    if not service.open:
        raise NotReady(f"the service is {service.phase}; ask again when GET /health/ready says 200", retry_after_s=1)
    return service


def request_id_of(request: Request) -> str:
    """The id that the middleware gave this request."""
    return cast(str, request.state.request_id)
