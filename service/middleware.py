"""Around every request: its id, its line in the log, its place in the histogram, and the last net under errors."""

import logging
import re
import secrets
import time
from contextlib import nullcontext
from typing import Any, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service import tracing
from service.logs import FACTS, REQUEST_ID, log
from service.metrics import Metrics
from service.problems import internal_error

HEADER = "X-Request-ID"
SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",  # pages bring one that lets them load
}
NEVER_STORED = ("/v1", "/v2", "/health", "/metrics")
COUNTED = ("/v1/", "/v2/models/")  # in flight
VALID_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
MAX_LOGGED_PATH = 200


class RequestMiddleware:
    """Wraps the application; pure ASGI, so nothing is buffered.

    Args:
        app: The application inside.
        metrics: Where durations are counted.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        method = scope["method"]
        if method == "HEAD":  # answered as GET is, without its body; the router knows GET alone
            scope = {**scope, "method": "GET"}
        headers = Headers(scope=scope)
        exchange = _Exchange(scope, receive, send, _request_id(headers.get(HEADER)), method)
        facts: dict[str, Any] = {}
        tokens = REQUEST_ID.set(exchange.request_id), FACTS.set(facts)
        in_flight = self._metrics.in_flight.track_inprogress() if scope["path"].startswith(COUNTED) else nullcontext()
        with in_flight, tracing.request_span(method, headers) as span:
            try:
                await self._app(scope, exchange.receive, exchange.send)
            except Exception as error:
                log(logging.ERROR, "unforeseen failure", exc_info=error)
                if not exchange.status:
                    await internal_error(exchange.request_id, scope["path"])(scope, receive, exchange.send)
            finally:
                exchange.status = exchange.status or 499  # cancelled before any answer
                tracing.end_request(
                    span, method, exchange.route, exchange.status, facts | {"request_id": exchange.request_id}
                )
                self._finish(exchange, facts)
                REQUEST_ID.reset(tokens[0])
                FACTS.reset(tokens[1])

    def _finish(self, exchange: "_Exchange", facts: dict[str, Any]) -> None:
        seconds = time.perf_counter() - exchange.started
        self._metrics.request_done(exchange.route, exchange.method, exchange.status, seconds)
        log(
            logging.INFO,
            "request",
            method=exchange.method,
            path=exchange.scope["path"][:MAX_LOGGED_PATH],
            route=exchange.route,
            status=exchange.status,
            ms=round(seconds * 1000, 2),
            **facts,
        )


class _Exchange:
    """One request and its answer, looked at as they pass.

    Attributes:
        started: When it came, by `time.perf_counter`.
        status: Of the answer; 0 before it.
    """

    def __init__(self, scope: Scope, receive: Receive, send: Send, request_id: str, method: str) -> None:
        self.started = time.perf_counter()
        self.status = 0
        self.scope, self.request_id, self.method = scope, request_id, method
        self._receive, self._send = receive, send
        self._state = scope.setdefault("state", {})
        self._state["request_id"] = request_id
        self._state["body_read"] = False

    @property
    def route(self) -> str | None:
        """The template of the route that took it."""
        return cast(str | None, getattr(self.scope.get("route"), "path", None))

    async def receive(self) -> Message:
        """Note whether all of the body was read."""
        message = await self._receive()
        self._state["body_read"] = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        """Add headers; leave out the body that HEAD does not have."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            headers[HEADER] = self.request_id
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            if self.status >= 400 or self.scope["path"].startswith(NEVER_STORED):
                headers["Cache-Control"] = "no-store"
        elif self.method == "HEAD":
            message = {**message, "body": b""}
        await self._send(message)


def _request_id(given: str | None) -> str:
    """The client's id where it is safe to log and to send back, else a new one."""
    return given if given is not None and VALID_ID.fullmatch(given) else secrets.token_hex(16)
