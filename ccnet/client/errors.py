"""What a client raises beside `CcnetError`: the service refused, or could not be reached.

CcnetError
├── ServiceError       it answered, but not with what was asked for
├── ConnectionFailed   no answer came
└── NotFinished        an evaluation goes on, longer than was to be waited
"""

from typing import Any

from ccnet.errors import CcnetError

# What to do about a status, where the service itself cannot know it.
_HINTS = {
    401: "a client takes one as api_key=, the command line by --api-key-env",
    413: "the service bounds what one request may hold",
}


class ServiceError(CcnetError):
    """The service answered with an error (RFC 9457), or with something that is no answer of this service.

    Args:
        status: HTTP status, such as 429.
        title: Kind of the error in a few words.
        detail: What was given, what is allowed and how to mend it, in the service's words.
        request_id: Finds the request in the service's log; None when the answer names none.
        retry_after_s: Seconds after which the service wants to be asked again; None when it says nothing of that.
    """

    def __init__(
        self,
        status: int,
        title: str,
        detail: str,
        request_id: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.status = status
        self.title = title
        self.detail = detail
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        hint = f"; {_HINTS[status]}" if status in _HINTS else ""
        super().__init__(f"{status} {title}: {detail}{hint}" + (f" (request {request_id})" if request_id else ""))

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions are made again from their message alone otherwise, which fails between processes."""
        return type(self), (self.status, self.title, self.detail, self.request_id, self.retry_after_s)


class NotFinished(CcnetError):
    """An evaluation had not ended when the time to wait for it was over; it goes on."""


class ConnectionFailed(CcnetError):
    """No whole answer came: nothing listens there, the connection broke, or time ran out."""
