"""Around every request: its id, its line in the log, its place in the histogram, and the last net under errors."""

import logging
import re
import secrets
import time
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
        started = time.perf_counter()
        method = scope["method"]
        if method == "HEAD":  # answered as GET is, without its body; the router knows GET alone
            scope = {**scope, "method": "GET"}
        headers_in = Headers(scope=scope)
        request_id = _request_id(headers_in.get(HEADER))
        scope.setdefault("state", {})["request_id"] = request_id
        facts: dict[str, Any] = {}
        tokens = REQUEST_ID.set(request_id), FACTS.set(facts)
        status = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                if status >= 400 or scope["path"].startswith(NEVER_STORED):
                    headers["Cache-Control"] = "no-store"
            elif method == "HEAD":
                message = {**message, "body": b""}
            await send(message)

        with tracing.request_span(method, headers_in) as span:
            try:
                await self._app(scope, receive, send_with_headers)
            except Exception as error:
                log(logging.ERROR, "unforeseen failure", exc_info=error)
                if not status:
                    await internal_error(request_id, scope["path"])(scope, receive, send_with_headers)
            finally:
                status = status or 499  # cancelled before any answer
                route = cast(str | None, getattr(scope.get("route"), "path", None))
                tracing.end_request(span, method, route, status, facts | {"request_id": request_id})
                self._finish(scope, route, method, status, time.perf_counter() - started, facts)
                REQUEST_ID.reset(tokens[0])
                FACTS.reset(tokens[1])

    def _finish(
        self, scope: Scope, route: str | None, method: str, status: int, seconds: float, facts: dict[str, Any]
    ) -> None:
        self._metrics.request_done(route, method, status, seconds)
        log(
            logging.INFO,
            "request",
            method=method,
            path=scope["path"][:MAX_LOGGED_PATH],
            route=route,
            status=status,
            ms=round(seconds * 1000, 2),
            **facts,
        )


def _request_id(given: str | None) -> str:
    """The client's id where it is safe to log and to send back, else a new one."""
    return given if given is not None and VALID_ID.fullmatch(given) else secrets.token_hex(16)
