"""An HTTP client that costs little: on two cores a load generator takes from the service what it takes for itself.

Requests are bytes that are made beforehand; answers are parsed by httptools, and only their status is kept. About a
fifth of aiohttp's time for a request.
"""

import asyncio
from typing import cast
from urllib.parse import urlsplit

import httptools

from benchmarks.serving.pictures import Body


class _Connection(asyncio.Protocol):
    """One connection: one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._status: asyncio.Future[int] | None = None
        self.reusable = True
        self.used = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._end(0)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        self.reusable = self._parser.should_keep_alive()
        self._parser = httptools.HttpResponseParser(self)
        self._end(status)

    def ask(self, request: bytes) -> "asyncio.Future[int]":
        """The status of the answer; 0 when the connection breaks."""
        self._status = asyncio.get_running_loop().create_future()
        self.used = True
        assert self._transport is not None
        if self._transport.is_closing():
            self._end(0)
        else:
            self._transport.write(request)
        return self._status

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()

    @property
    def closed(self) -> bool:
        return self._transport is None or self._transport.is_closing()

    def _end(self, status: int) -> None:
        if self._status is not None and not self._status.done():
            self._status.set_result(status)


class Wire:
    """As many connections to one server as there are requests at a time; an async context manager."""

    def __init__(self) -> None:
        self._idle: list[_Connection] = []
        self._all: list[_Connection] = []

    async def __aenter__(self) -> "Wire":
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self._all:
            connection.close()

    async def post(self, url: str, body: Body) -> int:
        """The status of one request; 0 without an answer."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        while self._idle and self._idle[-1].closed:
            self._idle.pop()
        if self._idle:
            connection = self._idle.pop()
        else:
            try:
                loop = asyncio.get_running_loop()
                _, connection = await loop.create_connection(_Connection, parts.hostname, parts.port)
            except OSError:
                return 0
            self._all.append(connection)
        head = (
            f"POST {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Content-Type: {body.content_type}\r\nContent-Length: {len(body.content)}\r\n\r\n"
        )
        request = head.encode() + body.content
        used = connection.used
        status = await connection.ask(request)
        if status == 0 and used:  # it was closed while nobody asked, as servers may
            return await self.post(url, body)
        if connection.reusable and not connection.closed:
            self._idle.append(connection)
        return status
