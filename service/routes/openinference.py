"""`/v2`: the Open Inference Protocol, as `tritonclient.http` speaks it."""

import asyncio
import time
from typing import Any, cast

import numpy as np
import torch
from fastapi import APIRouter, Depends, Request, Response
from numpy.typing import NDArray
from torch import Tensor

from service.checked import CheckedRoute
from service.context import Phase, Service, open_service, service_of
from service.engine import Classified
from service.errors import (
    DeadlinePassed,
    Malformed,
    NotReady,
    OptionOutOfRange,
    QueueFull,
    TooLarge,
    UnknownModel,
    UnsupportedImage,
)
from service.holding import Share
from service.intake import decode_and_prepare
from service.openinference import metadata
from service.openinference.answers import VERSION, Body, answer_body
from service.openinference.compression import Coding, Inflater, coding_of, compressed, wanted_coding
from service.openinference.messages import HEADER, Question, parse_question
from service.openinference.options import Layout
from service.openinference.pictures import check_form, groups, prepared
from service.openinference.strict_json import load_object
from service.options import require_no_options
from service.problems import error_responses
from service.running import ClassifyJob
from service.served import ServedModel
from service.uploads import read_body
from service.waiting import TimeLeft, while_connected
from service.warming import chosen_seed

MADE_AT_ONCE = 20_000  # numbers of an answer up to which it is made on the event loop

health = APIRouter(prefix="/v2/health", tags=["open inference protocol"])
router = APIRouter(
    route_class=CheckedRoute, tags=["open inference protocol"], dependencies=[Depends(require_no_options)]
)

_BRIEF = error_responses(OptionOutOfRange, NotReady)
_NAMED = error_responses(UnknownModel, OptionOutOfRange, NotReady)
_REFUSALS = error_responses(
    Malformed, UnknownModel, TooLarge, UnsupportedImage, OptionOutOfRange, QueueFull, NotReady, DeadlinePassed
)


@health.get("/live", summary="Alive", responses=error_responses(NotReady))
async def live(request: Request) -> dict[str, bool]:
    """As `GET /health/live`."""
    service = service_of(request)
    if service.engine.ailment is not None:
        raise NotReady(service.engine.ailment)
    return {"live": True}


@health.get("/ready", summary="Ready", responses=error_responses(NotReady))
async def ready(request: Request) -> dict[str, bool]:
    """As `GET /health/ready`."""
    _require_ready(service_of(request))
    return {"ready": True}


def _require_ready(service: Service) -> None:
    if service.phase is not Phase.READY or service.engine.ailment is not None:
        raise NotReady(service.engine.ailment or f"the service is {service.phase}", retry_after_s=1)


@router.get("/v2", summary="The server", responses=_BRIEF)
@router.get("/v2/", include_in_schema=False)
async def server() -> dict[str, Any]:
    """Name, version and the extensions that it speaks."""
    return metadata.server_metadata()


@router.get("/v2/models/stats", summary="Statistics of all models", responses=_BRIEF)
async def all_statistics(request: Request) -> dict[str, Any]:
    """Counts and times of every model since the start."""
    service = open_service(request)
    return metadata.statistics(service.engine.statistics, service.engine.models)


@router.post("/v2/repository/index", summary="The models that there are", responses=_REFUSALS)
async def index(request: Request) -> list[dict[str, Any]]:
    """All models, or with `{"ready": true}` those that take requests, which are all."""
    service = open_service(request)
    with service.holding.share() as held:
        body = await _receive(request, service, held)
        document = await service.workers.run(load_object, body) if body else {}
        if set(document) - {"ready"} or not isinstance(document.get("ready", True), bool):
            raise Malformed('the body must be empty or {"ready": true}')
    return metadata.repository_index(service.engine.models)


def _asked_model(request: Request) -> ServedModel:
    """The model of the path.

    Raises:
        NotReady: As `open_service`.
        UnknownModel: It is not loaded, or has no such version.
    """
    model = open_service(request).engine.model(request.path_params["name"])
    version = request.path_params.get("version", VERSION)
    if version != VERSION:
        raise UnknownModel(f"version {version[:100]!r} of model {model.name} was asked for; there is {VERSION!r}")
    return model


async def model_metadata(request: Request) -> dict[str, Any]:
    """Datatypes and shapes of a model's input and outputs; `images` may also be UINT8 pixels, or BYTES of files."""
    return metadata.model_metadata(_asked_model(request))


async def model_ready(request: Request) -> dict[str, Any]:
    """Whether a model takes requests."""
    model = _asked_model(request)
    _require_ready(service_of(request))
    return {"name": model.name, "ready": True}


async def model_config(request: Request) -> dict[str, Any]:
    """A model as Triton's ModelConfig."""
    return metadata.model_config(_asked_model(request), service_of(request).settings)


async def model_statistics(request: Request) -> dict[str, Any]:
    """Counts and times of a model since the start."""
    return metadata.statistics(service_of(request).engine.statistics, [_asked_model(request)])


async def load_or_unload(request: Request) -> Response:
    """Refused: what is loaded is decided by whoever runs the service."""
    model = _asked_model(request)
    raise Malformed(
        f"model {model.name}: loading and unloading over HTTP is not enabled; models are those in the folder "
        "CCNET_CHECKPOINTS of the service"
    )


async def infer(request: Request) -> Response:
    """Classify the images of a tensor; see docs/open_inference.md for its forms, the parameters and the outputs."""
    service = open_service(request)
    with service.holding.share() as held:
        return await _infer(request, service, _asked_model(request), held)


async def _infer(request: Request, service: Service, model: ServedModel, held: Share) -> Response:
    arrived = time.monotonic()
    header_length = request.headers.get(HEADER)
    accepted = wanted_coding(",".join(request.headers.getlist("accept-encoding")))
    service.engine.check_classification(1, 1)  # before a byte of the body is read
    async with TimeLeft(service.settings.request_timeout_ms).limit():
        body = await _receive(request, service, held)
        received = time.perf_counter()
        most = service.settings.max_images_per_request
        question = await service.workers.run(parse_question, body, header_length, model, most)
    options = question.options
    layout = check_form(question.tensor, options.layout, model, service.settings.max_image_pixels)
    asked = None if options.sequences is None else len(options.sequences)
    members = service.engine.members(model, options.ensemble_size if asked is None else asked)
    if options.min_size is not None and options.min_size > members:
        raise OptionOutOfRange(f"min_size: {options.min_size} was given; it may be at most the {members} members")
    time_left = TimeLeft(options.timeout_ms or service.settings.request_timeout_ms, arrived)
    images = question.tensor.shape[0]
    service.engine.check_classification(images, members, options.min_size, time_left.seconds)
    outcome = await while_connected(request, _run(service, model, question, layout, members, time_left, received))
    service.metrics.ensemble_size.observe(outcome.members)
    return await _answer(service, model, question, outcome, members, accepted)


async def _receive(request: Request, service: Service, held: Share) -> bytes:
    """The body, inflated; all that is held of it is counted, and bounded in both forms."""
    most = service.settings.max_body_bytes
    coding = coding_of(",".join(request.headers.getlist("content-encoding")))
    body = await read_body(request.stream(), request.headers.get("content-length"), most, held.take, may_be_empty=True)
    if coding is None or not body:
        return body
    inflater = Inflater(body, coding)
    inflated = bytearray()
    while piece := await service.workers.run(inflater.piece):
        inflated += piece
        if len(inflated) > most:
            raise TooLarge(f"the body has more than {most:,} bytes when inflated; send fewer or smaller images")
        held.take(len(piece))
    return bytes(inflated)


async def _run(
    service: Service,
    model: ServedModel,
    question: Question,
    layout: Layout,
    members: int,
    time_left: TimeLeft,
    received: float,
) -> Classified:
    options, name = question.options, model.name
    statistics = service.engine.statistics
    sequences = options.sequences
    seed = None if sequences is not None else _seed(service, model, options.seed)
    try:
        async with time_left.limit():
            if sequences is None and seed is not None and model.takes_sequences:
                sequences = await service.workers.run(model.sample, members, seed)
            images = await _prepared(service, model, question, layout)
    except BaseException:  # also of a client that hung up
        statistics.asked(name)
        statistics.failed(name, time.perf_counter() - received)
        raise
    seconds = time.perf_counter() - received
    service.metrics.stage("decode", seconds)
    job = ClassifyJob(model, images, members, options.aggregate, seed, sequences)
    try:
        outcome = await service.engine.classify(job, options.min_size, time_left.seconds)
    except ArithmeticError as error:
        if question.tensor.datatype != "FP32":
            raise
        raise Malformed(
            "the network gives no finite numbers for these images; prepared ones hold numbers of about -3 to 3"
        ) from error
    statistics.took(name, "compute_input", seconds)
    statistics.lasted(name, seconds)
    return outcome


def _seed(service: Service, model: ServedModel, seed: int | None) -> int | None:
    """As asked; None where the batch decides, so that requests that leave it open share their members."""
    pool = service.settings.seed_pool
    return None if seed is None and pool and model.takes_sequences else chosen_seed(seed, pool)


async def _prepared(service: Service, model: ServedModel, question: Question, layout: Layout) -> Tensor:
    """What the network takes, float32 [N, C, h, w]."""
    data = question.data
    if isinstance(data, list):
        (images,) = await decode_and_prepare(service, [model], data)
        return images
    if question.tensor.datatype == "FP32":
        return await service.workers.run(prepared, data, layout)
    pixels = groups(cast(NDArray[np.uint8], data), layout)
    return torch.cat(await service.workers.map(lambda group: model.prepare(list(group)), pixels))


async def _answer(
    service: Service,
    model: ServedModel,
    question: Question,
    outcome: Classified,
    members: int,
    accepted: Coding | None,
) -> Response:
    started = time.perf_counter()

    def make() -> tuple[Body, bytes, Coding | None]:
        body = answer_body(question, model, outcome, members)
        return body, *compressed(body.data, accepted)

    small = outcome.answer.logits.size * len(question.outputs) <= MADE_AT_ONCE
    body, data, coding = make() if small else await asyncio.to_thread(make)
    headers = {"Vary": "Accept-Encoding"}
    if coding is not None:
        headers["Content-Encoding"] = coding
    if body.header_length is not None:
        headers[HEADER] = str(body.header_length)
    seconds = time.perf_counter() - started
    service.engine.statistics.took(model.name, "compute_output", seconds)
    service.engine.statistics.lasted(model.name, seconds)
    return Response(
        data, 200, headers, "application/json" if body.header_length is None else "application/octet-stream"
    )


def _parameter(name: str, text: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"} | more}


_NAME = _parameter("name", "A loaded model.")
_VERSION = _parameter("version", f"Its version, which is always {VERSION}.", enum=[VERSION])
_BINARY = {"type": "string", "format": "binary"}
_EXAMPLE = {
    "parameters": {"seed": 7},
    "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 2, 2, 1], "data": [0, 85, 170, 255]}],
    "outputs": [{"name": "labels"}],
}
_INFER_BODY: dict[str, Any] = {
    "required": True,
    "description": f"JSON, or with the header {HEADER} JSON of that length and raw tensors behind it.",
    "content": {
        "application/json": {"schema": {"type": "object", "required": ["inputs"]}, "example": _EXAMPLE},
        "application/octet-stream": {"schema": _BINARY},
    },
}


def _add_model_routes() -> None:
    """Every path of a model, with and without its version."""
    for path, parameters in (("", [_NAME]), ("/versions/{version}", [_NAME, _VERSION])):
        base, named = f"/v2/models/{{name}}{path}", {"parameters": parameters}
        for suffix, endpoint, summary in (
            ("", model_metadata, "A model's input and outputs"),
            ("/ready", model_ready, "Whether a model takes requests"),
            ("/config", model_config, "A model's configuration"),
            ("/stats", model_statistics, "Statistics of a model"),
        ):
            router.add_api_route(base + suffix, endpoint, summary=summary, responses=_NAMED, openapi_extra=named)
        router.add_api_route(
            f"{base}/infer",
            infer,
            methods=["POST"],
            summary="Classify images",
            responses=_REFUSALS
            | {200: {"content": {"application/json": {}, "application/octet-stream": {"schema": _BINARY}}}},
            openapi_extra={"parameters": parameters, "requestBody": _INFER_BODY},
        )
    for verb in ("load", "unload"):
        router.add_api_route(
            f"/v2/repository/models/{{name}}/{verb}",
            load_or_unload,
            methods=["POST"],
            summary=f"{verb.capitalize()} a model: refused",
            responses=error_responses(Malformed, UnknownModel, OptionOutOfRange, NotReady),
            openapi_extra={"parameters": [_NAME]},
        )


_add_model_routes()
