"""Puts the parts of the service together: `create_app(settings)`, and what happens when it starts and stops.

Loading runs beside the server, so that `/health/live` and `/metrics` answer while models are read; `/health/ready`
turns 200 when they are warm. Stopping goes the other way: readiness first, then admission, then what was admitted is
answered, then the threads end.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.routing import APIRoute
from fastapi.telemetry import TelemetryConfig

from ccnet import __version__, assessment
from ccnet.native import kernels, why_missing
from service import pages, problems
from service.auth import SHORTEST, describe_keys, require_key, short_keys
from service.context import Phase, Service
from service.engine import Engine, Loader
from service.errors import Unauthorized
from service.evaluations.manager import Evaluations
from service.evaluations.worker import Assessor
from service.holding import Holding
from service.logs import log
from service.metrics import Metrics
from service.middleware import RequestMiddleware
from service.reloading import Reloader
from service.routes import classify, equivariance, evaluations, health, metrics, models, openinference, sequences
from service.served import load_models
from service.settings import Settings, settings_summary
from service.workers import WorkerPool

KEYED = (classify.router, equivariance.router, evaluations.router, sequences.router, models.router)
OPEN_INFERENCE = openinference.router  # keyed too; its errors have another form
MAX_WAITING_DRAWINGS = 16  # pictures and reports; each takes half a second, and one thread of its own makes them all

OPEN = (health.router, openinference.health)

OWN_TELEMETRY: TelemetryConfig = {
    "tracing": False,
    "metrics": False,
    "logs": False,
}  # FastAPI's; the service has its own

DESCRIPTION = (
    "Classifies images with dynamic scale ensembles of a continuous-convolution network (arXiv 2006.11120) and "
    "measures its shift-equivariance. Errors are `application/problem+json`, under `/v2` "
    '`{"error": text}`; every answer carries its `X-Request-ID`.'
)


def create_app(
    settings: Settings | None = None,
    *,
    load: Loader = load_models,
    assessor: Assessor = assessment,
    on_ready: Callable[[], None] | None = None,
    on_failure: Callable[[], None] | None = None,
) -> FastAPI:
    """The application.

    Args:
        settings: Read from the environment when absent.
        load: Gives the models of the settings, which keep what they prepare in the cache that it is handed; runs once,
            on the inference thread.
        assessor: Makes the numbers and reports of evaluations.
        on_ready: Called when the models are loaded, before the first request is taken.
        on_failure: Called when loading fails, after it was logged; a server stops then.
    """
    settings = settings or Settings()
    counted = Metrics()
    engine = Engine(settings, counted)
    service = Service(
        settings=settings,
        metrics=counted,
        engine=engine,
        workers=WorkerPool(settings.worker_threads, settings.max_waiting_images),
        drawers=WorkerPool(1, MAX_WAITING_DRAWINGS, "drawn"),
        holding=Holding(settings.max_held_bytes),
        evaluations=Evaluations(settings, engine, counted, assessor),
    )

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        watching = asyncio.create_task(_start_and_watch(service, load, on_ready, on_failure))
        yield
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await _stop(service)

    app = FastAPI(
        title="CCNet service",
        version=__version__,
        description=DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=OWN_TELEMETRY,
    )
    app.state.service = service
    for router in KEYED:
        app.include_router(router, responses=problems.problem_responses(Unauthorized))
    app.include_router(OPEN_INFERENCE, responses=problems.error_responses(Unauthorized))
    for router in OPEN:
        app.include_router(router)
    if settings.metrics_port is None:
        _include_metrics(app, settings)
    pages.install(app)
    problems.install(app)
    if settings.api_keys:
        describe_keys(app, _paths(*KEYED, OPEN_INFERENCE, *([metrics.router] if settings.metrics_key else [])))
    app.add_middleware(RequestMiddleware, metrics=counted)
    counted.know_routes(_routes())
    return app


def create_metrics_app(service: Service) -> FastAPI:
    """`/metrics` of a service, for a port of its own."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False, telemetry=OWN_TELEMETRY)
    app.state.service = service
    _include_metrics(app, service.settings)
    problems.install(app)
    app.add_middleware(RequestMiddleware, metrics=service.metrics)
    return app


async def _require_key(request: Request) -> None:
    """As a dependency, which FastAPI would run in a thread if it were no coroutine."""
    require_key(request)


def _include_metrics(app: FastAPI, settings: Settings) -> None:
    keyed = settings.metrics_key
    app.include_router(
        metrics.router,
        dependencies=[Depends(_require_key)] if keyed else [],
        responses=problems.problem_responses(Unauthorized) if keyed else {},
    )


async def _start_and_watch(
    service: Service, load: Loader, on_ready: Callable[[], None] | None, on_failure: Callable[[], None] | None
) -> None:
    started = time.perf_counter()
    log(logging.INFO, "starting", settings=settings_summary(service.settings))
    if short := short_keys(service.settings):
        message = f"{short} of the keys in CCNET_API_KEYS can be guessed: use {SHORTEST} random characters or more"
        log(logging.WARNING, message)
    try:
        prepared = await service.engine.start(load)
    except Exception as error:
        service.phase = Phase.FAILED
        log(logging.CRITICAL, f"cannot start: {error}", exc_info=None if isinstance(error, ValueError) else error)
        if on_failure is not None:
            on_failure()
        return
    for model in service.engine.models:
        service.metrics.know_model(model)
    _log_how_it_computes(service)
    log(logging.INFO, "weights prepared for requests without a seed", **asdict(prepared))
    await asyncio.to_thread(service.evaluations.start)
    if on_ready is not None:
        on_ready()
    if service.phase is Phase.STARTING:  # it may have been told to stop meanwhile
        service.phase = Phase.READY
        service.open = True
    names = [model.name for model in service.engine.models]
    log(logging.INFO, "ready", models=names, seconds=round(time.perf_counter() - started, 2))
    if service.settings.reload_s:
        await Reloader(service.settings, service.engine, service.metrics).run()


def _log_how_it_computes(service: Service) -> None:
    """Without the native kernels all is right but slower, and an operator should learn why."""
    native = kernels()
    log(
        logging.INFO,
        "models loaded",
        backends={model.name: model.facts["backend"] for model in service.engine.models},
        native_kernels="missing" if native is None else native.instruction_set,
        why_missing=why_missing(),
    )


async def _stop(service: Service) -> None:
    service.phase = Phase.DRAINING
    service.open = False
    await asyncio.to_thread(service.evaluations.stop)
    answered = await service.engine.stop(service.settings.drain_timeout_s)
    service.workers.close()
    service.drawers.close()
    log(logging.INFO, "stopped", all_answered=answered)


def _paths(*routers: APIRouter) -> frozenset[str]:
    return frozenset(route.path for router in routers for route in router.routes if isinstance(route, APIRoute))


def _routes() -> list[tuple[str, str]]:
    """(template, method) of every route, the pages included."""
    known = [("/openapi.json", "GET")]
    for router in (*KEYED, OPEN_INFERENCE, *OPEN, metrics.router, pages.router):
        for route in router.routes:
            if isinstance(route, APIRoute):
                known += [(route.path, method) for method in sorted(route.methods or ())]
    return known
