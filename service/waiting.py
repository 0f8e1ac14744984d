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
    """The time that a request has.

    Args:
        milliseconds: From its arrival.
        arrived: When that was, by `time.monotonic`; now when left out.
    """

    def __init__(self, milliseconds: int, arrived: float | None = None) -> None:
        self._milliseconds = milliseconds
        self._end = (time.monotonic() if arrived is None else arrived) + milliseconds / 1000

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
    working = asyncio.current_task()
    assert working is not None
    gone = False

    async def watch() -> None:
        nonlocal gone
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone = True
        working.cancel()

    watching = asyncio.create_task(watch())
    try:
        return await work
    except asyncio.CancelledError:
        if not gone or working.uncancel():  # somebody else wants it to end too
            raise
        raise ClientGone("the connection was closed before the answer was ready") from None
    finally:
        watching.cancel()
