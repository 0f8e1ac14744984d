"""`POST /v1/classify`: what is in these images, according to an ensemble of scale sequences?"""

import time
from collections.abc import Sequence

from fastapi import APIRouter, Request, Response

from ccnet.sequences import ScaleSequence
from service import schemas
from service.answers import Answer
from service.checked import CheckedRoute
from service.context import Service, open_service, request_id_of
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
from service.intake import IMAGES_BODY, decode_and_prepare, receive_images
from service.options import described, read_options
from service.problems import problem_responses
from service.running import ClassifyJob
from service.served import ServedModel
from service.waiting import TimeLeft, while_connected
from service.warming import chosen_seed

router = APIRouter(route_class=CheckedRoute, tags=["classify"])

REFUSALS = problem_responses(
    Malformed,
    UnknownModel,
    TooLarge,
    UnsupportedImage,
    OptionOutOfRange,
    QueueFull,
    NotReady,
    DeadlinePassed,
)


@router.post(
    "/v1/classify",
    summary="Classify images",
    responses=REFUSALS | {200: {"model": schemas.ClassifyResponse}},
    openapi_extra=IMAGES_BODY | described(schemas.ClassifyOptions),
)
async def classify(request: Request) -> Response:
    """Classify images with `ensemble_size` sampled scale sequences of a CCNet, or with one pass of a ConvNet.

    The same images, ensemble size, seed and model give the same answer (logits to 1e-4), alone or in a batch.
    """
    started = time.perf_counter()
    service = open_service(request)
    options = read_options(request, schemas.ClassifyOptions)
    model = service.engine.model(options.model)
    members = service.engine.members(model, options.ensemble_size)
    least = _least(options, members)
    time_left = TimeLeft(options.timeout_ms or service.settings.request_timeout_ms)
    service.engine.check_classification(1, members, least, time_left.seconds)  # before a byte of the body is read
    with service.holding.share() as held:
        async with time_left.limit():
            encoded = await receive_images(request, service, held)
        service.engine.check_classification(len(encoded), members, least, time_left.seconds)
        decode_s, outcome = await while_connected(
            request, _run(service, model, encoded, members, least, options, time_left)
        )
    assert outcome.seed is not None
    service.metrics.ensemble_size.observe(outcome.members)
    response = schemas.ClassifyResponse(
        request_id=request_id_of(request),
        model=model.name,
        ensemble_size=outcome.members,
        seed=outcome.seed,
        results=_results(model, outcome.answer, options, options.top_k or service.settings.top_k),
        timing_ms=schemas.Timing(
            decode=_ms(decode_s),
            queue=_ms(outcome.queue_s),
            inference=_ms(outcome.run_s),
            total=_ms(time.perf_counter() - started),
        ),
    )
    if outcome.members < members:
        response.asked_ensemble_size = members
    if options.includes("members") and model.takes_sequences:
        response.members = _members(model, outcome.sequences, outcome.answer)
    return Response(response.model_dump_json(exclude_unset=True), media_type="application/json")


def _least(options: schemas.ClassifyOptions, members: int) -> int | None:
    """Members that are enough when time runs out.

    Raises:
        OptionOutOfRange: More than are asked for.
    """
    if options.min_size is not None and options.min_size > members:
        raise OptionOutOfRange(
            f"min_size: {options.min_size} was given; it may be at most the ensemble size, which is {members}"
        )
    return options.min_size


async def _run(
    service: Service,
    model: ServedModel,
    encoded: Sequence[bytes],
    members: int,
    least: int | None,
    options: schemas.ClassifyOptions,
    time_left: TimeLeft,
) -> tuple[float, Classified]:
    started = time.perf_counter()
    seed = _seed(service, model, options.seed)
    async with time_left.limit():
        (images,) = await decode_and_prepare(service, [model], encoded)
        sequences = await _sequences(service, model, members, seed)
    decode_s = time.perf_counter() - started
    service.metrics.stage("decode", decode_s)
    job = ClassifyJob(model, images, members, options.aggregate, seed, sequences)
    return decode_s, await service.engine.classify(job, least, time_left.seconds)


def _seed(service: Service, model: ServedModel, seed: int | None) -> int | None:
    """As asked; None where the batch decides, so that requests that leave it open share their members."""
    pool = service.settings.seed_pool
    return None if seed is None and pool and model.takes_sequences else chosen_seed(seed, pool)


async def _sequences(
    service: Service, model: ServedModel, members: int, seed: int | None
) -> tuple[ScaleSequence, ...] | None:
    """Those of a seed; None where the batch decides, and for a model without sequences."""
    if seed is None or not model.takes_sequences:
        return None
    return await service.workers.run(model.sample, members, seed)


def _results(
    model: ServedModel, answer: Answer, options: schemas.ClassifyOptions, top_k: int
) -> list[schemas.ImageResult]:
    results = []
    for index, ranking in enumerate(answer.ranking.tolist()):
        probabilities = answer.probabilities[index].tolist()
        top = [
            schemas.TopClass(label=model.labels[c], class_index=c, probability=probabilities[c])
            for c in ranking[: min(top_k, len(ranking))]
        ]
        result = schemas.ImageResult(
            index=index,
            label=top[0].label,
            class_index=top[0].class_index,
            probability=top[0].probability,
            top=top,
            agreement=float(answer.agreement[index]),
            entropy=float(answer.entropy[index]),
        )
        if options.includes("logits"):
            result.logits = answer.logits[index].tolist()
        results.append(result)
    return results


def _members(model: ServedModel, sequences: Sequence[ScaleSequence], answer: Answer) -> list[schemas.Member]:
    probabilities = answer.member_probabilities.tolist()
    return [
        schemas.Member(
            sequence=sequence_schema(sequence, model.in_size),
            labels=[model.labels[c] for c in answer.member_classes[index].tolist()],
            probabilities=probabilities[index],
        )
        for index, sequence in enumerate(sequences)
    ]


def sequence_schema(sequence: ScaleSequence, in_size: tuple[int, int]) -> schemas.Sequence:
    """A sequence as answers show it."""
    return schemas.Sequence(
        vertical=[str(scale) for scale in sequence.vertical],
        horizontal=[str(scale) for scale in sequence.horizontal],
        shapes=list(sequence.shapes(in_size)),
    )


def _ms(seconds: float) -> float:
    return round(seconds * 1000, 3)
