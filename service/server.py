"""The server process: uvicorn around the application, stopping in the right order and leaving with the right status."""

import asyncio
import gc
import logging
import math
import os
import signal
import socket
import sys
import time
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI

from ccnet.allocator import keep_freed_memory
from service.app import create_app, create_metrics_app
from service.context import Phase, Service
from service.logs import configure_logging
from service.protocol import bounded_protocol
from service.settings import Settings
from service.tracing import start_otlp

GRACE_S = 2  # in which the refusals of what could not be answered in time are sent
SWITCH_S = 0.0005  # after which a thread that computes in Python gives way to one that waits; Python's own is 5 ms


class Server(uvicorn.Server):
    """uvicorn, with readiness turned off before anything else stops.

    The first signal makes `/health/ready` answer 503 while requests are still taken for `drain_delay_s`, the time that
    a load balancer needs to notice; then the listening socket closes and uvicorn waits for open requests. A second
    SIGINT leaves at once.

    Args:
        config: Of the service.
        service: What it serves.
        beside: A server of another port, which begins before this one and ends after it; it has no lifespan.
    """

    def __init__(self, config: uvicorn.Config, service: Service, beside: uvicorn.Server | None = None) -> None:
        super().__init__(config)
        self._service = service
        self._beside = beside
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; uvicorn would raise it again at the end and so spoil the exit status."""
        if self._stop_at is not None and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
            return
        self._service.phase = Phase.DRAINING
        self._stop_at = self._stop_at or time.monotonic() + self._service.settings.drain_delay_s

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, on the other port first: where it is taken, nothing else has begun."""
        if self._beside is not None:
            self._beside.config.load()
            self._beside.lifespan = self._beside.config.lifespan_class(self._beside.config)
            await self._beside.startup()
        await super().startup(sockets)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was admitted, then leave the other port, so that draining can be watched there."""
        giving_up = asyncio.create_task(self._give_up())
        calling_off = asyncio.create_task(asyncio.to_thread(self._service.evaluations.stop))
        try:
            await super().shutdown(sockets)
        finally:
            giving_up.cancel()
            await calling_off
        if self._beside is not None:
            await self._beside.shutdown()

    async def _give_up(self) -> None:
        """When time is up, refuse what is left, which uvicorn would cut off."""
        await asyncio.sleep(self._service.settings.drain_timeout_s)
        await self._service.engine.stop(0)

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: is it time to stop?"""
        if self._stop_at is not None and time.monotonic() >= self._stop_at:
            self._service.open = False
            self.should_exit = True
        return await super().on_tick(counter)


def serve(settings: Settings) -> int:
    """Serve until told to stop.

    Returns:
        0 after an orderly stop, 1 when the models could not be loaded, 3 (uvicorn's) when the port is taken.
    """
    configure_logging(settings.log_level)
    keep_freed_memory()  # maps and evicted plans are megabytes, whose pages would otherwise fault anew every time
    failures: list[str] = []

    def fail() -> None:
        failures.append("loading")
        server.should_exit = True

    app = create_app(settings, on_ready=_settle, on_failure=fail)
    config = _config(
        app,
        settings,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=math.ceil(settings.drain_timeout_s) + GRACE_S,
    )
    server = Server(config, app.state.service, _metrics_server(app.state.service))
    end_tracing = start_otlp() if settings.tracing == "otlp" else lambda: None
    try:
        server.run()
    finally:
        end_tracing()
    status = 1 if failures else 0
    if app.state.service.evaluations.lingers:
        _leave(status)
    return status


def _leave(status: int) -> None:
    """End the process without waiting for threads: everything is answered, and all that is kept is on the disk.

    An evaluation between two passes may make numbers for many seconds; the next process begins it anew.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def _settle() -> None:
    """Once everything is loaded: let neither garbage collection nor the other threads hold up the event loop."""
    gc.collect()
    gc.freeze()  # what is there now stays; a full collection would look at all of it while requests wait
    sys.setswitchinterval(SWITCH_S)


def _metrics_server(service: Service) -> uvicorn.Server | None:
    settings = service.settings
    if settings.metrics_port is None:
        return None
    app = create_metrics_app(service)
    address = {"host": settings.metrics_host, "port": settings.metrics_port}
    return uvicorn.Server(_config(app, settings, **address, lifespan="off", timeout_graceful_shutdown=1))


def _config(app: FastAPI, settings: Settings, **more: Any) -> uvicorn.Config:
    """What both ports have alike."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        proxy_headers=False,  # nothing here depends on who the client is
        server_header=False,
        http=bounded_protocol(settings),
        ws="none",
        timeout_keep_alive=settings.keep_alive_s,
        **more,
    )
