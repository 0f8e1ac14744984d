"""`GET /v1/models`: what is loaded, where it runs, and what its card says."""

from fastapi import APIRouter, Depends, Request

from service import schemas
from service.checked import CheckedRoute
from service.context import Service, open_service
from service.errors import NotReady, OptionOutOfRange, UnknownModel
from service.options import require_no_options
from service.problems import problem_responses
from service.served import ServedModel

router = APIRouter(route_class=CheckedRoute, tags=["models"], dependencies=[Depends(require_no_options)])


@router.get(
    "/v1/models",
    summary="Loaded models",
    response_model=schemas.ModelsResponse,
    response_model_exclude_unset=True,
    responses=problem_responses(OptionOutOfRange, NotReady),
)
async def models(request: Request) -> schemas.ModelsResponse:
    """Every loaded model, by name."""
    service = open_service(request)
    return schemas.ModelsResponse(models=[_info(service, model) for model in service.engine.models])


# The framework documents a 422 for every path with a parameter; in ours it is a problem like all others.
@router.get(
    "/v1/models/{name}",
    summary="One model",
    responses=problem_responses(UnknownModel, OptionOutOfRange, NotReady),
)
async def model(name: str, request: Request) -> schemas.ModelInfo:
    """One loaded model with all of its config."""
    service = open_service(request)
    found = service.engine.model(name)
    return _info(service, found).model_copy(update={"config": found.facts["config"]})


def _info(service: Service, model: ServedModel) -> schemas.ModelInfo:
    facts = {key: value for key, value in model.facts.items() if key != "config"}
    return schemas.ModelInfo(
        name=model.name,
        default=model is service.engine.default_model,
        takes_sequences=model.takes_sequences,
        labels=list(model.labels),
        input_size=model.in_size,
        **facts,
    )
