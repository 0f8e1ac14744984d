"""An answer given while the client still sends: the rest is thrown away for a moment, so that the answer arrives.

To close a connection on which unread bytes wait is to reset it, and the client would lose the answer (RFC 9112, 9.6).
"""

import asyncio

from fastapi import Response
from starlette.types import Receive, Scope, Send

LINGER_S = 2.0  # as long as the rest of a body is read


class LingeringResponse(Response):
    """Sends another response, whole, and ends the connection when the body has come or time is up."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.body, response.status_code)
        self.raw_headers = response.raw_headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, then read on."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": self.body, "more_body": True})
        try:
            async with asyncio.timeout(LINGER_S):
                while (await receive()).get("more_body", False):
                    pass
        except TimeoutError:
            pass
        await send({"type": "http.response.body", "body": b""})
