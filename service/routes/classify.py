"""`POST /v1/classify`: what is in these images, according to an ensemble of scale sequences?"""

import asyncio
import time
from collections.abc import Sequence
from typing import Annotated

from fastapi import APIRouter, Query, Request

from ccnet.ensemble import Aggregate
from ccnet.sequences import ScaleSequence
from service import schemas
from service.answers import Answer
from service.batcher import Outcome
from service.context import HeldBytes, OpenService, RequestId, Service
from service.engine import ClassifyJob
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
from service.intake import IMAGES_BODY, chosen_seed, decode_and_prepare, receive_images
from service.problems import problem_responses
from service.served import ServedModel
from service.waiting import deadline, while_connected

router = APIRouter(tags=["classify"])

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
    response_model=schemas.ClassifyResponse,
    response_model_exclude_unset=True,
    responses=REFUSALS,
    openapi_extra=IMAGES_BODY,
)
async def classify(
    request: Request,
    options: Annotated[schemas.ClassifyOptions, Query()],
    service: OpenService,
    held: HeldBytes,
    request_id: RequestId,
) -> schemas.ClassifyResponse:
    """Classify images with `ensemble_size` sampled scale sequences of a CCNet, or with one pass of a ConvNet.

    The same images, ensemble size, seed and model give the same answer (logits to 1e-4), alone or in a batch.
    """
    started = time.perf_counter()
    model = service.engine.model(options.model)
    members = service.engine.members(model, options.ensemble_size)
    seed = chosen_seed(options.seed, service.settings.seed_pool)
    async with deadline(options.timeout_ms or service.settings.request_timeout_ms):
        encoded = await receive_images(request, service, held)
        service.engine.check_classification(len(encoded), members)
        job, decode_s, outcome = await while_connected(
            request, _run(service, model, encoded, members, seed, options.aggregate)
        )
    service.metrics.ensemble_size.observe(members)
    response = schemas.ClassifyResponse(
        request_id=request_id,
        model=model.name,
        ensemble_size=members,
        seed=seed,
        results=_results(model, outcome.value, options, options.top_k or service.settings.top_k),
        timing_ms=schemas.Timing(
            decode=_ms(decode_s),
            queue=_ms(outcome.queue_s),
            inference=_ms(outcome.run_s),
            total=_ms(time.perf_counter() - started),
        ),
    )
    if options.includes("members") and model.takes_sequences:
        response.members = _members(model, job.sequences, outcome.value)
    return response


async def _run(
    service: Service, model: ServedModel, encoded: Sequence[bytes], members: int, seed: int, aggregate: Aggregate
) -> tuple[ClassifyJob, float, Outcome[Answer]]:
    started = time.perf_counter()
    (images,), sequences = await asyncio.gather(
        decode_and_prepare(service, [model], encoded), service.workers.run(model.sample, members, seed)
    )
    decode_s = time.perf_counter() - started
    service.metrics.stage("decode", decode_s)
    job = ClassifyJob(model, images, sequences, aggregate)
    return job, decode_s, await service.engine.classify(job)


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
    return [
        schemas.Member(
            sequence=sequence_schema(sequence, model.in_size),
            labels=[model.labels[c] for c in answer.member_classes[index].tolist()],
            probabilities=answer.member_probabilities[index].tolist(),
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
