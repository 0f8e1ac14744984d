"""`GET /v1/sequences`: the scale sequences that a classification with these options uses."""

from fastapi import APIRouter, Request

from service import schemas
from service.checked import CheckedRoute
from service.context import open_service, request_id_of
from service.errors import NotReady, OptionOutOfRange, UnknownModel
from service.options import described, read_options
from service.problems import problem_responses
from service.routes.classify import sequence_schema
from service.warming import chosen_seed

router = APIRouter(route_class=CheckedRoute, tags=["models"])


@router.get(
    "/v1/sequences",
    summary="Scale sequences of a seed",
    responses=problem_responses(UnknownModel, OptionOutOfRange, NotReady),
    openapi_extra=described(schemas.SequenceOptions),
)
async def sequences(request: Request) -> schemas.SequencesResponse:
    """The sequences that `POST /v1/classify` with the same ensemble size, seed and model uses, with all shapes."""
    service = open_service(request)
    options = read_options(request, schemas.SequenceOptions)
    model = service.engine.model(options.model)
    if not model.takes_sequences:
        raise OptionOutOfRange(
            f"model: {model.name} was given, which takes no scale sequences; allowed are "
            + ", ".join(other.name for other in service.engine.models if other.takes_sequences)
        )
    members = service.engine.members(model, options.ensemble_size)
    seed = chosen_seed(options.seed, service.settings.seed_pool)
    drawn = await service.workers.run(model.sample, members, seed)
    return schemas.SequencesResponse(
        request_id=request_id_of(request),
        model=model.name,
        ensemble_size=members,
        seed=seed,
        input_size=model.in_size,
        sequences=[sequence_schema(sequence, model.in_size) for sequence in drawn],
    )
