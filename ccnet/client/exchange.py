"""An outcome -> the answer that was asked for, or the error that it means; knows no HTTP library."""

import http
import json
from typing import Any, cast

from ccnet.client.errors import ConnectionFailed, ServiceError
from ccnet.client.reading import read
from ccnet.client.requests import Answer, Call
from ccnet.client.retries import Failure, Outcome, Reply, retry_after_s

MAX_QUOTED = 200  # characters of a foreign answer that a message repeats


def answer_of(call: Call[Answer], outcome: Outcome, url: str, attempts: int) -> Answer:
    """What was asked for.

    Args:
        call: the question.
        outcome: of its last attempt.
        url: the address of the service, for messages.
        attempts: how many there were, for messages.

    Raises:
        ServiceError: the service refused, or what answered is no such service.
        ConnectionFailed: no answer came.
    """
    if isinstance(outcome, Failure):
        tried = f" (attempt {attempts})" if attempts > 1 else ""
        raise ConnectionFailed(f"{url}{call.path}: {outcome.reason}{tried}")
    if not 200 <= outcome.status < 300:
        raise _refusal(outcome)
    try:
        if call.answer is str:
            return cast(Answer, outcome.body.decode("utf-8"))
        return read(call.answer, None if outcome.status == http.HTTPStatus.NO_CONTENT else json.loads(outcome.body))
    except (ValueError, RecursionError) as error:
        raise ServiceError(
            outcome.status,
            "Unreadable answer",
            f"{url}{call.path} did not answer as a ccnet service does ({error}); is the address right?",
            outcome.headers.get("x-request-id"),
        ) from error


def says_yes(outcome: Outcome) -> bool:
    """Whether a health probe succeeded; False where nothing answers, and where a server error does.

    Raises:
        ServiceError: another error, such as a path that does not exist: then this is no such service.
    """
    if isinstance(outcome, Reply) and outcome.status < 500:
        if 200 <= outcome.status < 300:
            return True
        raise _refusal(outcome)
    return False


def _refusal(reply: Reply) -> ServiceError:
    """The error of an answer; one that no ccnet service gave, but for example a proxy, is named as such."""
    problem = _problem(reply)
    request_id = problem.get("request_id") or reply.headers.get("x-request-id")
    return ServiceError(
        reply.status,
        str(problem.get("title") or _phrase(reply.status)),
        str(problem.get("detail") or _foreign(reply)),
        None if request_id is None else str(request_id),
        retry_after_s(reply.headers),
    )


def _problem(reply: Reply) -> dict[str, Any]:
    """The problem of RFC 9457 in an answer; empty when there is none."""
    if not reply.headers.get("content-type", "").startswith("application/problem+json"):
        return {}
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _foreign(reply: Reply) -> str:
    if 300 <= reply.status < 400:
        target = reply.headers.get("location", "elsewhere")
        return f"it redirects to {target[:MAX_QUOTED]!r}, which is not followed; give the address of the service itself"
    body = " ".join(reply.body[: 4 * MAX_QUOTED].decode("utf-8", "replace").split())
    return f"this is no answer of a ccnet service, but of something before it: {body[:MAX_QUOTED]!r}"


def _phrase(status: int) -> str:
    try:
        return http.HTTPStatus(status).phrase
    except ValueError:
        return "Error"
