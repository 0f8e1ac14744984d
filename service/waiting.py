"""Waiting for work with an eye on the clock and on the client: work that nobody wants any more is given up."""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request

from service.errors import ClientGone, DeadlinePassed

Result = TypeVar("Result")


class TimeLeft:
    """The time that a request has, from now on."""

    def __init__(self, milliseconds: int) -> None:
        self._milliseconds = milliseconds
        self._end = time.monotonic() + milliseconds / 1000

    @property
    def seconds(self) -> float:
        """What is left of it, at least 0."""
        return max(0.0, self._end - time.monotonic())

    @asynccontextmanager
    async def limit(self) -> AsyncIterator[None]:
        """Give the block what is left.

        Raises:
            DeadlinePassed: It took longer; what it was waiting for is cancelled.
        """
        timeout = asyncio.timeout(self.seconds)
        try:
            async with timeout:
                yield
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise DeadlinePassed(
                f"no answer within {self._milliseconds} ms; allow more with timeout_ms, or ask for fewer images or "
                "members"
            ) from error


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of `work`, which is cancelled when the client hangs up. The body must have been read.

    Raises:
        ClientGone: The client hung up.
        Exception: Whatever `work` raises.
    """
    working = asyncio.ensure_future(work)
    hanging_up = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait({working, hanging_up}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone("the connection was closed before the answer was ready")
        return working.result()
    finally:
        working.cancel()
        hanging_up.cancel()
        await asyncio.gather(working, hanging_up, return_exceptions=True)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
