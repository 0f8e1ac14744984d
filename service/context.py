"""What the routes share: the parts of one running service, and where it stands in its life."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, cast

from fastapi import Depends, Request

from service.engine import Engine
from service.errors import NotReady
from service.holding import Holding, Share
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
    holding: Holding
    phase: Phase = Phase.STARTING
    open: bool = False  # whether requests are taken; stays true for `drain_delay_s` after readiness went false


def service_of(request: Request) -> Service:
    """The service that answers this request."""
    return cast(Service, request.app.state.service)


def request_id_of(request: Request) -> str:
    """The id that the middleware gave this request."""
    return cast(str, request.state.request_id)


# Dependencies are coroutines: plain functions would be run in threads, and health probes would wait for a free one.


async def _any_service(request: Request) -> Service:
    return service_of(request)


async def _open_service(request: Request) -> Service:
    """The service, for routes that need the models.

    Raises:
        NotReady: The models are still being loaded, or the service is stopping.
    """
    service = service_of(request)
    if not service.open:
        raise NotReady(f"the service is {service.phase}; ask again when GET /health/ready says 200", retry_after_s=1)
    return service


async def _held_bytes(request: Request) -> AsyncIterator[Share]:
    """What the body of this request holds, given back when it is answered."""
    with service_of(request).holding.share() as share:
        yield share


async def _request_id(request: Request) -> str:
    return request_id_of(request)


AnyService = Annotated[Service, Depends(_any_service)]
OpenService = Annotated[Service, Depends(_open_service)]
HeldBytes = Annotated[Share, Depends(_held_bytes)]
RequestId = Annotated[str, Depends(_request_id)]
