"""`/v1/equivariance`: does the last map of a model move along when its input is shifted? (arXiv 2006.11120, Table 1)"""

import time
from collections.abc import Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from torch import Tensor

from ccnet.equivariance import ShiftSimilarity, SimilarityMap
from service import drawing, schemas
from service.checked import CheckedRoute
from service.context import Service, open_service, request_id_of
from service.engine import Probed
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
from service.intake import IMAGES_BODY, decode_and_prepare, receive_images
from service.options import described, read_options
from service.probes import ProbePlan, dataset_images, noise
from service.problems import problem_responses
from service.running import Progress
from service.served import ServedModel
from service.waiting import TimeLeft, while_connected

router = APIRouter(route_class=CheckedRoute, prefix="/v1/equivariance", tags=["equivariance"])

AS_PICTURE: dict[int | str, dict[str, Any]] = {
    200: {"content": {drawing.MEDIA_TYPE: {"schema": {"type": "string", "format": "binary"}}}}
}
OPTION_REFUSALS = (UnknownModel, TooLarge, OptionOutOfRange, QueueFull, NotReady, DeadlinePassed)


@router.get(
    "",
    summary="Table 1 of a model",
    response_model=schemas.TableResponse,
    responses=AS_PICTURE | problem_responses(*OPTION_REFUSALS),
    openapi_extra=described(schemas.TableOptions),
)
async def table(request: Request) -> schemas.TableResponse | Response:
    """Cosine similarity of the last map before and after shifts of the input, for noise or for test images.

    Scale sequences are dealt out among the images, so that several cost no more passes than one.
    """
    started = time.perf_counter()
    service = open_service(request)
    options = read_options(request, schemas.TableOptions)
    model = service.engine.model(options.model)
    service.engine.members(model, options.ensemble_size)  # refuses several members of a model that has none
    plan = _table_plan(model, options)
    samples = options.samples or service.settings.probe_samples
    time_left = TimeLeft(options.timeout_ms or service.settings.request_timeout_ms)
    async with time_left.limit():
        decode_s, outcome = await while_connected(request, _table(service, plan, options, samples, time_left))
    rows: list[ShiftSimilarity] = outcome.value
    is_served = any(model is served for served in service.engine.models)  # it may have been replaced meanwhile
    for row in rows if is_served else ():
        service.metrics.equivariance.labels(model.name, options.input, str(row.max_shift)).set(row.cosine_mean)
    answer = schemas.TableResponse(
        request_id=request_id_of(request),
        model=model.name,
        input=options.input,
        samples=samples,
        rows=[_row(row) for row in rows],
        protocol=_protocol(rows, plan, options.input),
        timing_ms=_timing(started, decode_s, [outcome]),
    )
    if options.format == "json":
        return answer
    return await _picture(request, service.drawers.run(drawing.draw_table, answer), time_left)


@router.post(
    "",
    summary="Probe images",
    response_model=schemas.ProbeResponse,
    responses=AS_PICTURE | problem_responses(Malformed, UnsupportedImage, *OPTION_REFUSALS),
    openapi_extra=IMAGES_BODY | described(schemas.UploadProbeOptions),
)
async def probe(request: Request) -> schemas.ProbeResponse | Response:
    """Models side by side on the images of the request: Table 1's rows, and the cosine at every shift.

    Every image is measured under every scale sequence, so that few images give a steady answer.
    """
    started = time.perf_counter()
    service = open_service(request)
    options = read_options(request, schemas.UploadProbeOptions)
    models = _chosen_models(service, options.models)
    if not any(model.takes_sequences for model in models):
        service.engine.members(models[0], options.ensemble_size)
    plans = [_upload_plan(model, options) for model in models]
    time_left = TimeLeft(options.timeout_ms or service.settings.request_timeout_ms)
    with service.holding.share() as held:
        async with time_left.limit():
            encoded = await receive_images(request, service, held)
            passes = sum(_passes(plan, len(encoded)) for plan in plans)
            service.engine.check_probe(passes, _cost(len(encoded), plans), time_left.seconds)
            decode_s, outcomes = await while_connected(request, _probe(service, plans, encoded))
    answer = schemas.ProbeResponse(
        request_id=request_id_of(request),
        samples=len(encoded),
        seed=options.seed,
        models=[outcome.value for outcome in outcomes],
        timing_ms=_timing(started, decode_s, outcomes),
    )
    if options.format == "json":
        return answer
    return await _picture(request, service.drawers.run(drawing.draw_maps, answer), time_left)


_BLACK = "black, the ground on which a picture is centred when it is prepared"
# What is measured, and what the value is that enters when it is shifted under border "zero".
_INPUTS = {
    "noise": ("Gaussian, mean 0 and variance 1, as large as the network's input", "0, the mean of the noise"),
    "dataset": ("the first images of the test split, prepared as for classification", _BLACK),
    "upload": ("as uploaded, prepared as for classification", _BLACK),
}


async def _picture(request: Request, drawn: Coroutine[Any, Any, bytes], time_left: TimeLeft) -> Response:
    async with time_left.limit():
        return Response(await while_connected(request, drawn), media_type=drawing.MEDIA_TYPE)


async def _table(
    service: Service, plan: ProbePlan, options: schemas.TableOptions, samples: int, time_left: TimeLeft
) -> tuple[float, Probed[list[ShiftSimilarity]]]:
    started = time.perf_counter()
    passes = plan.table_passes(samples)
    what = f"{samples} samples x {len(plan.max_shifts)} shifts"
    service.engine.check_probe(passes, what, time_left.seconds)
    if options.input == "noise":
        images = await service.workers.run(noise, plan.model, samples, plan.seed)
    else:
        images = await service.workers.run(dataset_images, plan.model, samples, service.settings.data_dir)
    decode_s = time.perf_counter() - started
    return decode_s, await service.engine.probe(lambda progress: plan.table(images, progress), passes)


async def _probe(
    service: Service, plans: list[ProbePlan], encoded: list[bytes]
) -> tuple[float, list[Probed[schemas.ModelProbe]]]:
    started = time.perf_counter()
    prepared = await decode_and_prepare(service, [plan.model for plan in plans], encoded)
    decode_s = time.perf_counter() - started
    service.metrics.stage("decode", decode_s)
    # One model after the other, so that classifications get their turn in between.
    outcomes = [await _probe_one(service, plan, images) for plan, images in zip(plans, prepared, strict=True)]
    return decode_s, outcomes


async def _probe_one(service: Service, plan: ProbePlan, images: Tensor) -> Probed[schemas.ModelProbe]:
    def measure(progress: Progress) -> tuple[list[ShiftSimilarity], SimilarityMap]:
        return plan.table(images, progress), plan.map(images, progress)

    outcome = await service.engine.probe(measure, _passes(plan, len(images)))
    rows, similarity = outcome.value
    answer = schemas.ModelProbe(
        model=plan.model.name,
        rows=[_row(row) for row in rows],
        map=schemas.ShiftMap(
            max_shift=similarity.max_shift,
            cosine=[list(line) for line in similarity.cosine],
            samples=similarity.samples,
            skipped=similarity.skipped,
        ),
        protocol=_protocol(rows, plan, "upload"),
    )
    return Probed(answer, outcome.queue_s, outcome.run_s)


def _table_plan(model: ServedModel, options: schemas.TableOptions) -> ProbePlan:
    fill = 0.0 if options.input == "noise" else model.black
    shifts, members = _shifts(model, options), options.ensemble_size or schemas.TABLE_MEMBERS
    return ProbePlan(model, shifts, options.border, fill, members, "split", options.seed)


def _upload_plan(model: ServedModel, options: schemas.UploadProbeOptions) -> ProbePlan:
    shifts, members = _shifts(model, options), options.ensemble_size or schemas.UPLOAD_MEMBERS
    return ProbePlan(model, shifts, options.border, model.black, members, "each", options.seed)


def _shifts(model: ServedModel, options: schemas.ProbeOptions) -> list[int]:
    shifts = options.max_shifts()
    if max(shifts) >= min(model.in_size):
        raise OptionOutOfRange(
            f"max_shift: {max(shifts)} was given; the input of {model.name} is {model.in_size[0]} x {model.in_size[1]} "
            f"pixels, so at most {min(model.in_size) - 1} is allowed"
        )
    return shifts


def _chosen_models(service: Service, names: str | None) -> list[ServedModel]:
    if names is None:
        return list(service.engine.models)
    return [service.engine.model(name) for name in dict.fromkeys(name.strip() for name in names.split(","))]


def _passes(plan: ProbePlan, images: int) -> int:
    return plan.table_passes(images) + plan.map_passes(images)


def _cost(images: int, plans: list[ProbePlan]) -> str:
    members = max(plan.ensemble_size if plan.model.takes_sequences else 1 for plan in plans)
    shifts = f"every shift up to {max(plans[0].max_shifts)} px"
    return f"{images} images under {shifts} in {len(plans)} models with up to {members} members"


def _row(row: ShiftSimilarity) -> schemas.TableRow:
    return schemas.TableRow.model_validate(row.row())


def _protocol(rows: list[ShiftSimilarity], plan: ProbePlan, source: str) -> dict[str, Any]:
    """What all rows share, and what was measured, in words."""
    images, entering = _INPUTS[source]
    if plan.border != "zero":
        entering = f"nothing: no value enters under border {plan.border}"
    return dict(rows[0].protocol) | {"input_images": images, "fill_means": entering}


def _timing(started: float, decode_s: float, outcomes: list[Probed[Any]]) -> schemas.Timing:
    return schemas.Timing(
        decode=round(decode_s * 1000, 3),
        queue=round(max(outcome.queue_s for outcome in outcomes) * 1000, 3),
        inference=round(sum(outcome.run_s for outcome in outcomes) * 1000, 3),
        total=round((time.perf_counter() - started) * 1000, 3),
    )
