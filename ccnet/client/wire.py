"""All that touches httpx: what its clients are made with, one request of a call, and what its exceptions mean.

httpx is imported when a client is made. It follows no redirect; a key goes into one header and into no message.
"""

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ccnet.client.images import media_type
from ccnet.client.requests import Call
from ccnet.client.retries import Attempts, Failure, Patience, Reply
from ccnet.errors import CcnetError

if TYPE_CHECKING:
    import httpx

CONNECT_S = 5.0  # a host that is there answers within this; one that is not is tried again
PART_NAME = "images"
KEY_HEADER = "Idempotency-Key"
LARGE_BYTES = 2**20  # of images, from which on their size may be why a connection broke


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the service is, and how patient its clients are.

    Args:
        url: such as "http://127.0.0.1:8000"; a path in it is put before those of the service.
        api_key: one of the service's keys, where it demands one; never shown.
        timeout_s: for one call, all its attempts and pauses included, in seconds.
        retries: attempts after the first.

    Raises:
        CcnetError: no such URL, key, time or number, or httpx is not installed.
    """

    url: str
    api_key: str | None = field(repr=False)
    timeout_s: float
    retries: int

    def __post_init__(self) -> None:
        require_httpx()
        object.__setattr__(self, "url", _checked_url(self.url))
        _check_key(self.api_key)
        self.patience()

    def patience(self) -> Patience:
        """With a call."""
        return Patience(self.timeout_s, self.retries)

    def probing(self) -> Patience:
        """With a health probe, whose failure is an answer too."""
        return Patience(min(self.timeout_s, CONNECT_S), 0)

    def client_arguments(self) -> dict[str, Any]:
        """Of `httpx.Client` and `httpx.AsyncClient`."""
        from ccnet import __version__

        headers = {"User-Agent": f"ccnet/{__version__}", "Accept": "application/json, application/problem+json"}
        if self.api_key is not None:
            headers["Authorization"] = f"Bearer {self.api_key}"
        return {"headers": headers, "follow_redirects": False}

    def request_arguments(self, call: Call[Any], attempts: Attempts) -> dict[str, Any]:
        """Of `stream`, for the next attempt of a call."""
        import httpx

        left_s = attempts.attempt_s
        return {
            "method": call.method,
            "url": self.url + call.path,
            "params": list(call.options) or None,
            "headers": None if call.key is None else {KEY_HEADER: call.key},
            "json": call.question if call.upload is None else None,
            "files": _parts(call) or None,
            "timeout": httpx.Timeout(left_s, connect=min(left_s, CONNECT_S)),
        }


def _parts(call: Call[Any]) -> list[tuple[str, Any]]:
    """Of a form; empty where none is sent. Names of pictures stay here, that of a data set is sent."""
    if call.upload is None:
        return [(PART_NAME, (f"{index}", data, media_type(data))) for index, data in enumerate(call.images)]
    call.upload.file.seek(0)
    return [
        ("options", (None, json.dumps(call.question), "application/json")),
        ("dataset", (call.upload.name, call.upload.file, "application/octet-stream")),
    ]


class Collected:
    """The answer as it arrives, as long as there is time.

    Args:
        response: whose body is about to be read.
        attempts: of the call.
    """

    def __init__(self, response: "httpx.Response", attempts: Attempts) -> None:
        self._response = response
        self._attempts = attempts
        self._body = bytearray()

    def take(self, chunk: bytes) -> None:
        """More of the body. httpx bounds the wait for each piece, and would wait forever for many small ones.

        Raises:
            httpx.ReadTimeout: the call has taken its time.
        """
        import httpx

        self._body += chunk
        if self._attempts.left_s <= 0:
            raise httpx.ReadTimeout("the answer began, but did not end")

    @property
    def reply(self) -> Reply:
        """All of it."""
        headers = {name.lower(): value for name, value in self._response.headers.items()}
        return Reply(self._response.status_code, bytes(self._body), headers)


def failure_of(error: "httpx.RequestError", call: Call[Any], timeout_s: float) -> Failure:
    """What an exception of httpx means.

    Args:
        error: what httpx raised.
        call: in which.
        timeout_s: what it may take, in seconds.
    """
    import httpx

    if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
        return Failure(f"cannot connect ({str(error) or 'no answer'}); does the service run there?")
    if isinstance(error, httpx.TimeoutException):
        return Failure(f"no whole answer within {timeout_s:g} s; raise timeout_s, or ask for fewer images or members")
    text = f"the connection broke before the answer was complete ({str(error) or type(error).__name__})"
    if call.sent_bytes > LARGE_BYTES:  # asyncio drops a refusal that comes while it still sends
        text += f"; a service cuts off what is over its limit, and {call.sent_bytes:,} bytes were sent: send less"
    passing = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError) and not call.removes
    return Failure(text, passing=passing)


def require_httpx() -> None:
    """Import httpx, or say how to get it.

    Raises:
        CcnetError: it is not installed.
    """
    try:
        import httpx  # noqa: F401
    except ModuleNotFoundError as error:
        raise CcnetError(f"the client needs the package {error.name!r}: pip install 'ccnet[client]'") from error


def _checked_url(url: str) -> str:
    """Without a slash at the end."""
    import httpx

    allowed = 'give the address of a service such as "http://127.0.0.1:8000"'
    if "@" in str(url):  # before any message that shows the address
        raise CcnetError("url: it holds a user or a password, which would get into logs; give a key with api_key=")
    try:
        parts = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise CcnetError(f"url: {url!r} was given; {allowed}") from error
    if parts.scheme not in ("http", "https") or not parts.host or parts.query or parts.fragment:
        raise CcnetError(f"url: {url!r} was given; {allowed}")
    return url.rstrip("/")


def _check_key(key: str | None) -> None:
    """A header cannot hold everything, and httpx's message would show the key."""
    if key is None:
        return
    if not isinstance(key, str) or not key or not all("!" <= character <= "~" for character in key):
        raise CcnetError("api_key: a key is one or more printable ASCII characters without spaces; mend or omit it")
