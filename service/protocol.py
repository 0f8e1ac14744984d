"""uvicorn's HTTP parser with the bounds that it lacks: on the size of a request's head and the time to receive it.

The head of a request (its first line and its headers) may have so many bytes and headers and take so many seconds, on
a new connection as on a reused one. The body has a limit and a deadline elsewhere (`uploads`, `waiting`); what of it is
still sent after the answer has gone may go on for as many seconds as a head, then the connection is closed.
"""

import asyncio
import logging
import secrets
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.errors import Malformed
from service.logs import log
from service.middleware import HEADER, SECURITY_HEADERS
from service.problems import problem
from service.settings import Settings

HEAD_TOO_LARGE = "Request header fields too large"


class BoundedProtocol(HttpToolsProtocol):
    """One connection; see `bounded_protocol`."""

    max_head_bytes: ClassVar[int]
    max_headers: ClassVar[int]
    head_timeout_s: ClassVar[float]

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._heads = 0  # complete ones on this connection
        self._head_bytes = 0  # of the incomplete one
        self._in_head = self._in_message = False
        self._watchdog: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a first request."""
        super().connection_made(transport)
        self.url = b""
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse, then count what belongs to a head that is not complete yet."""
        heads = self._heads
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        # After other requests in the same data nobody knows how much is the head's; the next data counts.
        self._head_bytes = self._head_bytes + len(data) if self._heads == heads else 0
        if self._head_bytes > self.max_head_bytes:
            self._refuse(
                431,
                HEAD_TOO_LARGE,
                f"the first line and the headers have more than {self.max_head_bytes:,} bytes; send options that fit "
                "and images in the body",
                reason="head_too_large",
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; more than may be end the parsing."""
        super().on_header(name, value)
        if len(self.headers) > self.max_headers:
            raise OverflowError("more headers than may be")

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP, and what has too many headers, gets a problem like every other one."""
        if len(self.headers) > self.max_headers:
            detail = f"there are more than {self.max_headers} headers; send fewer"
            self._refuse(431, HEAD_TOO_LARGE, detail, reason="head_too_large")
        else:
            self._refuse(400, Malformed.title, "this is no valid HTTP request", reason=Malformed.reason)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        super().on_message_begin()
        self._in_head = self._in_message = True
        self._head_bytes = 0
        if self._watchdog is None:
            self._watch()

    def on_headers_complete(self) -> None:
        """The application takes over; it has a deadline of its own."""
        self._in_head = False
        self._heads += 1
        self._unwatch()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The last byte of a request."""
        self._in_message = False
        self._unwatch()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """Answered; a body that nobody reads any more may not hold the connection for ever."""
        super().on_response_complete()
        unread = self._in_message and not self._in_head and self.cycle.response_complete
        if unread and not self.transport.is_closing():
            self._watch()

    def _watch(self) -> None:
        self._unwatch()
        self._watchdog = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _unwatch(self) -> None:
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None

    def _too_slow(self) -> None:
        log(logging.DEBUG, "closed a connection that was too slow", head_bytes=self._head_bytes)
        self.transport.close()

    def _refuse(self, status: int, title: str, detail: str, *, reason: str) -> None:
        """Answer unless another answer is on its way, and close."""
        log(logging.INFO, "refused a connection", status=status)
        if self.cycle is None or self.cycle.response_complete:
            request_id = secrets.token_hex(16)
            headers = {"Connection": "close", HEADER: request_id, "Cache-Control": "no-store"} | SECURITY_HEADERS
            path = self.url.partition(b"?")[0].decode("latin-1")  # as far as it came
            response = problem(status, title, detail, reason=reason, request_id=request_id, headers=headers, path=path)
            lines = b"".join(name + b": " + value + b"\r\n" for name, value in response.raw_headers)
            self.transport.write(STATUS_LINE[status] + lines + b"\r\n" + bytes(response.body))
        self.transport.close()


def bounded_protocol(settings: Settings) -> type[BoundedProtocol]:
    """The class of connections for these settings, as `uvicorn.Config(http=...)` takes it."""
    bounds = {
        "max_head_bytes": settings.max_head_bytes,
        "max_headers": settings.max_headers,
        "head_timeout_s": settings.head_timeout_s,
    }
    return type("Protocol", (BoundedProtocol,), bounds)
