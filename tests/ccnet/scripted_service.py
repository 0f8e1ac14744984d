"""A server that answers what a test tells it to, and remembers what it was asked; and both clients under one roof."""

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from ccnet import AsyncClient, Client

KINDS = ("sync", "async")
CLASSIFICATION: dict[str, Any] = {
    "request_id": "r-1",
    "model": "fake",
    "ensemble_size": 2,
    "seed": 5,
    "results": [
        {
            "index": 0,
            "label": "boot",
            "class_index": 2,
            "probability": 0.75,
            "top": [{"label": "boot", "class_index": 2, "probability": 0.75}],
            "agreement": 1.0,
            "entropy": 0.5,
        }
    ],
    "timing_ms": {"decode": 1.0, "queue": 0.5, "inference": 2.0, "total": 4},
}


@dataclass(frozen=True)
class Scripted:
    """One answer; `hangs_up` closes the connection after that many bytes of it, None sends it all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: int | None = None
    pieces: float = 0.0  # seconds between single bytes of the body


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    at: float


def answer(document: object, status: int = 200, **headers: str) -> Scripted:
    """A JSON answer; an underscore in a header's name is a hyphen."""
    media_type = "application/json" if status < 400 else "application/problem+json"
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Scripted(status, json.dumps(document).encode(), {"Content-Type": media_type, **named})


def refusal(status: int, title: str = "Queue full", detail: str = "too much waits", **headers: str) -> Scripted:
    """A problem, as the service sends it."""
    return answer({"title": title, "status": status, "detail": detail, "request_id": "r-9"}, status, **headers)


class ScriptedService:
    """Answers in the order of the script; the last answer is repeated.

    Attributes:
        url: Where it listens.
        asked: Every request so far.
    """

    def __init__(self, script: tuple[Scripted, ...]) -> None:
        self.asked: list[Asked] = []
        self._script = script
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next(self, asked: Asked) -> Scripted:
        self.asked.append(asked)
        return self._script[min(len(self.asked), len(self._script)) - 1]

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                scripted = service._next(Asked(self.command, self.path, headers, body, time.monotonic()))
                self._send(scripted)

            do_POST = do_DELETE = do_GET

            def _send(self, scripted: Scripted) -> None:
                self.close_connection = True
                if scripted.hangs_up == 0:
                    return
                self.send_response_only(scripted.status)  # without a Date of its own
                for name, value in {"Content-Length": str(len(scripted.body)), **scripted.headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):  # a client that gave up
                    if not scripted.pieces:
                        self.wfile.write(scripted.body[: scripted.hangs_up])
                        return
                    for byte in scripted.body:
                        self.wfile.write(bytes([byte]))
                        time.sleep(scripted.pieces)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        return Handler


@contextlib.contextmanager
def serving(*script: Scripted) -> Iterator[ScriptedService]:
    """A service with a script, while it is needed."""
    service = ScriptedService(script)
    try:
        yield service
    finally:
        service.close()


def call(kind: str, url: str, use: Callable[[Any], Any], **settings: Any) -> Any:
    """What `use(client)` gives, with a fresh client of a kind; an awaitable is awaited."""
    if kind == "sync":
        with Client(url, **settings) as client:
            return use(client)

    async def run() -> Any:
        async with AsyncClient(url, **settings) as client:
            return await use(client)

    return asyncio.run(run())
