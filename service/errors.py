"""What the service refuses, and with which status; knows no HTTP framework, so every room may raise it.

    ServiceError
    ├── Malformed         400  the request cannot be read
    ├── Unauthorized      401  no valid key
    ├── UnknownModel      404  no such model
    ├── UnknownEvaluation 404  no such evaluation
    ├── Conflict          409  at odds with what is there
    ├── TooLarge          413  body, pixels, images or passes over a limit
    ├── UnsupportedImage  415  not an image type that is taken
    ├── OptionOutOfRange  422  an option outside what is allowed
    ├── ClientGone        499  the client hung up; nobody reads the answer
    ├── QueueFull         429  too much is waiting; carries `retry_after_s`
    ├── NotReady          503  starting or draining; carries `retry_after_s`
    ├── NoState           503  evaluations cannot be kept on this machine
    └── DeadlinePassed    504  the answer was not ready in time

The message is for the client: what was given, what is allowed, how to mend it. Nothing secret belongs in it.
"""

from typing import ClassVar


class ServiceError(Exception):
    """A refusal that the client may read.

    Args:
        detail: What was given, what is allowed and how to mend it.
        retry_after_s: Seconds after which trying again makes sense; None where it never does.
    """

    status: ClassVar[int] = 500
    title: ClassVar[str] = "Internal error"
    reason: ClassVar[str] = "internal"  # the `reason` label of ccnet_requests_rejected_total

    def __init__(self, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after_s = retry_after_s


class Malformed(ServiceError):
    """The request, or an image in it, cannot be read."""

    status = 400
    title = "Malformed request"
    reason = "malformed"


class Unauthorized(ServiceError):
    """No valid API key came with the request."""

    status = 401
    title = "No valid API key"
    reason = "unauthorized"


class UnknownModel(ServiceError):
    """The model that was asked for is not loaded."""

    status = 404
    title = "Unknown model"
    reason = "unknown_model"


class UnknownEvaluation(ServiceError):
    """The evaluation that was asked for is not there, or no longer."""

    status = 404
    title = "Unknown evaluation"
    reason = "unknown_evaluation"


class Conflict(ServiceError):
    """What was asked for does not go with what is there."""

    status = 409
    title = "Conflict"
    reason = "conflict"


class TooLarge(ServiceError):
    """The request is over a limit on bytes, pixels, images or passes."""

    status = 413
    title = "Too large"
    reason = "too_large"


class UnsupportedImage(ServiceError):
    """What was sent is not an image of a type that the service takes."""

    status = 415
    title = "Unsupported image type"
    reason = "unsupported_image"


class OptionOutOfRange(ServiceError):
    """An option has a value outside what is allowed."""

    status = 422
    title = "Option out of range"
    reason = "option"


class ClientGone(ServiceError):
    """The client hung up before its answer was ready."""

    status = 499
    title = "Client closed the connection"
    reason = "client_gone"


class QueueFull(ServiceError):
    """As much is waiting as the service may hold."""

    status = 429
    title = "Queue full"
    reason = "queue_full"


class NotReady(ServiceError):
    """The service is still loading, or already stopping."""

    status = 503
    title = "Not ready"
    reason = "not_ready"


class NoState(ServiceError):
    """The state folder cannot be used, so that evaluations cannot be kept; all else is served."""

    status = 503
    title = "Evaluations cannot be kept"
    reason = "no_state"


class DeadlinePassed(ServiceError):
    """The deadline of the request passed before its answer was ready."""

    status = 504
    title = "Deadline passed"
    reason = "deadline"


REFUSALS: tuple[type[ServiceError], ...] = (
    Malformed,
    Unauthorized,
    UnknownModel,
    UnknownEvaluation,
    Conflict,
    TooLarge,
    UnsupportedImage,
    OptionOutOfRange,
    ClientGone,
    QueueFull,
    NotReady,
    NoState,
    DeadlinePassed,
)
