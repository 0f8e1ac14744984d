"""Every error as `application/problem+json` (RFC 9457), those of the framework too; under `/v2` as `{"error": ...}`.

The type of a problem is `urn:ccnet:problem:<reason>`; `request_id` finds its line in the log. Exceptions that nobody
foresaw say nothing of themselves to the client.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from ccnet.errors import CcnetError, DataError
from service.context import request_id_of, service_of
from service.errors import ClientGone, OptionOutOfRange, ServiceError
from service.lingering import LingeringResponse
from service.logs import log, note
from service.schemas import ALLOWED, UNKNOWN_OPTION, Problem

MEDIA_TYPE = "application/problem+json"
MAX_GIVEN = 100  # characters of a wrong value that are repeated to whoever sent it


def problem(
    status: int,
    title: str,
    detail: str,
    *,
    reason: str,
    request_id: str,
    headers: Mapping[str, str] | None = None,
    path: str = "",
) -> Response:
    """A problem as a response; `path`, of the request, decides its form."""
    if is_open_inference(path):
        detail = detail.replace("timeout_ms", "timeout (microseconds)")  # as the option is called there
        return Response(orjson.dumps({"error": detail}), status, dict(headers or {}), "application/json")
    document = {
        "type": f"urn:ccnet:problem:{reason}",
        "title": title,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }
    return Response(orjson.dumps(document), status, dict(headers or {}), MEDIA_TYPE)


def is_open_inference(path: str) -> bool:
    """Whether a path belongs to the Open Inference Protocol, whose clients read errors of its form alone."""
    return path == "/v2" or path.startswith("/v2/")


def internal_error(request_id: str, path: str = "") -> Response:
    """What a client learns of a failure of ours: where to look for it, and no more."""
    detail = "the service failed on this request; the log has the reason under this request_id"
    if is_open_inference(path):
        detail += f": {request_id}"
    return problem(500, "Internal error", detail, reason="internal", request_id=request_id, path=path)


def install(app: FastAPI) -> None:
    """Make the application answer every error in this way."""
    app.add_exception_handler(ServiceError, _on_service_error)
    app.add_exception_handler(CcnetError, _on_library_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_options)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ClientDisconnect, _on_disconnect)


async def _on_service_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ServiceError)
    service_of(request).metrics.rejected.labels(error.reason).inc()
    note(reason=error.reason)
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    has_body = not {"content-length", "transfer-encoding"}.isdisjoint(request.headers.keys())
    still_sent = error.status == 413 and has_body and not request.state.body_read
    if still_sent:
        headers["Connection"] = "close"  # the rest of the body is not wanted
    response = problem(
        error.status,
        error.title,
        error.detail,
        reason=error.reason,
        request_id=request_id_of(request),
        headers=headers,
        path=request.scope["path"],
    )
    return LingeringResponse(response) if still_sent else response


async def _on_library_error(request: Request, error: Exception) -> Response:
    """What the library refuses was asked for by an option; its messages say what is allowed."""
    detail = str(error)
    if isinstance(error, DataError):  # names files of this machine
        log(logging.WARNING, f"no data set: {error}")
        detail = (
            "the data set cannot be read on the machine of the service: the log has the reason, CCNET_DATA_DIR names "
            "the folder; input=noise needs none"
        )
    return await _on_service_error(request, OptionOutOfRange(detail))


async def _on_disconnect(request: Request, error: Exception) -> Response:
    return await _on_service_error(request, ClientGone("the connection was closed before the body was complete"))


async def _on_invalid_options(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    details = "; ".join(_explained(entry) for entry in error.errors())
    return await _on_service_error(request, OptionOutOfRange(details))


def _explained(entry: Mapping[str, Any]) -> str:
    """One entry of pydantic's list: which option, what was given, what is allowed."""
    location: Sequence[Any] = entry["loc"]
    if entry["type"] == UNKNOWN_OPTION:
        return f"{entry['ctx']['name'][:MAX_GIVEN]}: {entry['msg']}"
    name = str(location[-1])[:MAX_GIVEN]
    given = str(entry.get("input"))[:MAX_GIVEN]
    allowed = ALLOWED.get(name)
    return f"{name}: {given!r} was given; " + (f"allowed is {allowed}" if allowed else str(entry["msg"]))


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """404 and 405 of the framework."""
    assert isinstance(error, HTTPException)
    details = {
        404: "there is nothing at this path; see /docs for what there is",
        405: f"{request.method} is not allowed at this path",
    }
    headers = dict(error.headers or {})
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_methods(request))
    return problem(
        error.status_code,
        error.detail,
        details.get(error.status_code, error.detail),
        reason=error.detail.lower().replace(" ", "-"),
        request_id=request_id_of(request),
        headers=headers,
        path=request.scope["path"],
    )


def _methods(request: Request) -> list[str]:
    """All that the path takes; the framework names those of its first route alone."""
    found = {
        method
        for method in ("GET", "POST", "DELETE")
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in request.app.routes)
    }
    return sorted(found | {"HEAD"} if "GET" in found else found)  # answered as GET is, by the middleware


def problem_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that may refuse in these ways, for the OpenAPI page."""
    content = {MEDIA_TYPE: {"schema": Problem.model_json_schema()}}
    return {error.status: {"description": error.title, "content": content} for error in errors}


def error_responses(*errors: type[ServiceError]) -> dict[int | str, dict[str, Any]]:
    """The same for routes of the Open Inference Protocol."""
    schema = {"type": "object", "required": ["error"], "properties": {"error": {"type": "string"}}}
    content = {"application/json": {"schema": schema}}
    return {error.status: {"description": error.title, "content": content} for error in errors}
