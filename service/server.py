"""The server process: uvicorn around the application, stopping in the right order and leaving with the right status."""

import signal
import time
from types import FrameType

import uvicorn

from ccnet.allocator import keep_freed_memory
from service.app import create_app
from service.context import Phase, Service
from service.logs import configure_logging
from service.protocol import bounded_protocol
from service.settings import Settings


class Server(uvicorn.Server):
    """uvicorn, with readiness turned off before anything else stops.

    The first signal makes `/health/ready` answer 503 while requests are still taken for `drain_delay_s`, the time that
    a load balancer needs to notice; then the listening socket closes and uvicorn waits for open requests. A second
    SIGINT leaves at once.
    """

    def __init__(self, config: uvicorn.Config, service: Service) -> None:
        super().__init__(config)
        self._service = service
        self._stop_at: float | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; uvicorn would raise it again at the end and so spoil the exit status."""
        if self._stop_at is not None and sig == signal.SIGINT:
            self.force_exit = self.should_exit = True
            return
        self._service.phase = Phase.DRAINING
        self._stop_at = self._stop_at or time.monotonic() + self._service.settings.drain_delay_s

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

    app = create_app(settings, on_failure=fail)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_config=None,
        access_log=False,
        server_header=False,
        http=bounded_protocol(settings),
        ws="none",
        timeout_keep_alive=settings.keep_alive_s,
        timeout_graceful_shutdown=max(1, round(settings.drain_timeout_s)),
    )
    server = Server(config, app.state.service)
    server.run()
    return 1 if failures else 0
