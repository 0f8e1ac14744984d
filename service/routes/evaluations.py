"""`/v1/evaluations`: a model assessed on a whole data set, as a job that runs behind the live traffic."""

import asyncio
import re
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from python_multipart.multipart import parse_options_header

from service.checked import CheckedRoute
from service.context import Service, open_service, request_id_of
from service.errors import (
    Conflict,
    DeadlinePassed,
    Malformed,
    NotReady,
    OptionOutOfRange,
    QueueFull,
    TooLarge,
    UnknownEvaluation,
    UnknownModel,
    UnsupportedImage,
)
from service.evaluations.archives import FORMS
from service.evaluations.jobs import Job, Order, Status
from service.evaluations.ordering import order_of
from service.evaluations.receiving import DATASET, OPTIONS, Received, read_evaluation, receive_form, receive_json
from service.evaluations.schemas import (
    Evaluation,
    EvaluationOptions,
    EvaluationResponse,
    EvaluationsResponse,
    ListOptions,
    ReportOptions,
    described,
)
from service.options import described as described_options
from service.options import read_options, require_no_options
from service.problems import problem_responses
from service.uploads import require_plain
from service.waiting import TimeLeft

router = APIRouter(route_class=CheckedRoute, prefix="/v1/evaluations", tags=["evaluations"])

KEY_HEADER = "Idempotency-Key"
VALID_KEY = re.compile(r"[\x21-\x7e]{1,128}")
# A report is a page of its own: styles and pictures stand in it, nothing is loaded and nothing runs.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"

_QUESTION = EvaluationOptions.model_json_schema(ref_template="#/components/schemas/{model}")
_OPTIONS_SCHEMA = {key: value for key, value in _QUESTION.items() if key != "$defs"}
_OPTIONS_SCHEMA["properties"] = {
    **_QUESTION["properties"],
    "equivariance": {"anyOf": [*_QUESTION["$defs"].values(), {"type": "null"}]},
}
BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": KEY_HEADER,
            "in": "header",
            "required": False,
            "description": "The same key with the same body gives the same job, however often it is sent.",
            "schema": {"type": "string", "pattern": f"^{VALID_KEY.pattern}$"},
        }
    ],
    "requestBody": {
        "required": True,
        "description": f"Options as JSON, with a built-in data set; or a form of options and {FORMS}.",
        "content": {
            "application/json": {"schema": _OPTIONS_SCHEMA, "example": {"dataset": "fashion-mnist", "limit": 1000}},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [DATASET],
                    "properties": {OPTIONS: _OPTIONS_SCHEMA, DATASET: {"type": "string", "format": "binary"}},
                },
                "encoding": {OPTIONS: {"contentType": "application/json"}},
            },
        },
    },
}
IS_THERE: dict[int | str, dict[str, Any]] = {
    200: {"description": "A job that this key already made", "model": EvaluationResponse}
}
AS_TEXT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The report",
        "content": {kind: {"schema": {"type": "string"}} for kind in ("text/markdown", "text/html")}
        | {"application/json": {"schema": {"type": "object"}}},
    }
}
CANCELLED: dict[int | str, dict[str, Any]] = {
    200: {"description": "Cancelled", "model": EvaluationResponse},
    204: {"description": "Removed"},
}


@router.post(
    "",
    summary="Begin an evaluation",
    status_code=202,
    response_model=EvaluationResponse,
    responses=IS_THERE
    | problem_responses(
        Malformed,
        UnknownModel,
        Conflict,
        TooLarge,
        UnsupportedImage,
        OptionOutOfRange,
        QueueFull,
        NotReady,
        DeadlinePassed,
    ),
    openapi_extra=BODY,
)
async def submit(request: Request) -> Response:
    """Accuracy of ensembles beside views, calibration, steadiness under shifts and cost, with intervals, as a job.

    It runs behind the live traffic: only while no request waits. The answer's `Location` is where to ask how far it is.
    """
    service = open_service(request)
    await require_no_options(request)
    key = _key(request)
    if key is None:  # with one it may be there already
        await asyncio.to_thread(service.evaluations.require_room)
    time_left = TimeLeft(service.settings.request_timeout_ms)
    async with time_left.limit():
        require_plain(request.headers.get("content-encoding", ""))
        kind, _ = parse_options_header(request.headers.get("content-type", "").encode("latin-1", "replace"))
        if kind == b"application/json":
            job, is_new = await _submit_named(request, service, key)
        elif kind == b"multipart/form-data":
            job, is_new = await _submit_upload(request, service, key)
        else:
            raise UnsupportedImage(
                f"Content-Type {kind.decode('latin-1')[:100]!r} was given; send application/json, or "
                f"multipart/form-data with parts `{OPTIONS}` and `{DATASET}`"
            )
    return JSONResponse(
        _answer(request, service, job).model_dump(mode="json"),
        202 if is_new else 200,
        {"Location": f"{router.prefix}/{job.id}"},
    )


@router.get(
    "",
    summary="Evaluations",
    responses=problem_responses(UnknownEvaluation, OptionOutOfRange, NotReady),
    openapi_extra=described_options(ListOptions),
)
async def evaluations(request: Request) -> EvaluationsResponse:
    """The newest jobs first, without their results; `next` of an answer is `before` of the next page."""
    service = open_service(request)
    options = read_options(request, ListOptions)
    statuses = () if options.status is None else (options.status,)
    found = await asyncio.to_thread(service.evaluations.newest, options.limit + 1, options.before, statuses)
    page = found[: options.limit]
    return EvaluationsResponse(
        request_id=request_id_of(request),
        evaluations=[Evaluation(**described(job, progress)) for job, progress in page],
        next=page[-1][0].id if len(found) > len(page) else None,
    )


@router.get(
    "/{id}",
    summary="One evaluation",
    responses=problem_responses(UnknownEvaluation, OptionOutOfRange, NotReady),
)
async def evaluation(id: str, request: Request) -> EvaluationResponse:
    """Where a job stands, how far it is, and its result once it succeeded."""
    service = open_service(request)
    await require_no_options(request)
    job, progress = await asyncio.to_thread(service.evaluations.get, id)
    result = None
    if job.status is Status.SUCCEEDED:
        result = await asyncio.to_thread(service.evaluations.document, id)
    return EvaluationResponse.of(job, progress, request_id_of(request), result)


@router.get(
    "/{id}/report",
    summary="Report of an evaluation",
    response_model=None,
    responses=AS_TEXT | problem_responses(UnknownEvaluation, Conflict, OptionOutOfRange, QueueFull, NotReady),
    openapi_extra=described_options(ReportOptions),
)
async def report(id: str, request: Request) -> Response:
    """The result of a job that succeeded, as JSON, as Markdown, or as one HTML page with plots."""
    service = open_service(request)
    options = read_options(request, ReportOptions)
    job, _ = await asyncio.to_thread(service.evaluations.get, id)
    document = await asyncio.to_thread(service.evaluations.document, id)
    if document is None:
        raise Conflict(f"evaluation {id} is {job.status}; there is a report of one that succeeded alone")
    if options.format == "json":
        return JSONResponse(document)
    if options.format == "markdown":
        text = await asyncio.to_thread(service.evaluations.assessor.markdown, document)
        return Response(text, media_type="text/markdown")
    text = await service.drawers.run(service.evaluations.assessor.html, document)
    return Response(text, headers={"Content-Security-Policy": REPORT_POLICY}, media_type="text/html")


@router.delete(
    "/{id}",
    summary="Cancel or remove an evaluation",
    response_model=None,
    responses=CANCELLED | problem_responses(UnknownEvaluation, OptionOutOfRange, NotReady),
)
async def delete(id: str, request: Request) -> Response:
    """Cancel a job that is not finished; remove one that is, with its result.

    A job that runs stops at its next pass. Sent again, the request removes the cancelled job; after that it is 404.
    """
    service = open_service(request)
    await require_no_options(request)
    job = await asyncio.to_thread(service.evaluations.delete, id)
    if job is None:
        return Response(status_code=204)
    return JSONResponse(_answer(request, service, job).model_dump(mode="json"))


async def _submit_named(request: Request, service: Service, key: str | None) -> tuple[Job, bool]:
    """A job on a built-in data set."""
    options = read_evaluation(await receive_json(request.stream()), uploaded=False)
    order = await asyncio.to_thread(_order, service, options, key, None)
    return await asyncio.to_thread(service.evaluations.submit, order)


async def _submit_upload(request: Request, service: Service, key: str | None) -> tuple[Job, bool]:
    """A job on a data set that comes with it."""
    headers, most = request.headers, service.settings.max_evaluation_bytes
    with service.evaluations.receiving() as file:
        received = await receive_form(
            request.stream(), headers.get("content-length"), headers.get("content-type", ""), file, most
        )
        options = read_evaluation(received.options, uploaded=True)
        file.flush()
        order = await asyncio.to_thread(_order, service, options, key, (Path(file.name), received))
        return await asyncio.to_thread(service.evaluations.submit, order, file)


def _order(
    service: Service, options: EvaluationOptions, key: str | None, upload: tuple[Path, Received] | None
) -> Order:
    evaluations = service.evaluations
    return order_of(service.settings, service.engine, evaluations.assessor, options, key, upload, evaluations.limits())


def _key(request: Request) -> str | None:
    """The client's name for what it asks.

    Raises:
        OptionOutOfRange: It is none that is taken.
    """
    key = request.headers.get(KEY_HEADER)
    if key is not None and not VALID_KEY.fullmatch(key):
        raise OptionOutOfRange(f"{KEY_HEADER}: {key[:100]!r} was given; allowed are 1 to 128 visible ASCII signs")
    return key


def _answer(request: Request, service: Service, job: Job) -> EvaluationResponse:
    return EvaluationResponse.of(job, None, request_id_of(request))
