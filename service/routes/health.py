"""`/health/live` and `/health/ready`: is the process alive, and should it be sent requests?

Neither waits for anything, so load cannot delay them; neither asks for a key.
"""

from fastapi import APIRouter, Request, Response

from service.context import Phase, request_id_of, service_of
from service.errors import NotReady
from service.problems import problem, problem_responses
from service.schemas import Health

router = APIRouter(prefix="/health", tags=["health"])


@router.get("/live", summary="Alive", response_model=Health, responses=problem_responses(NotReady))
async def live(request: Request) -> Health | Response:
    """200 while the process can still answer, also while it starts or drains; 503 when it had better be replaced."""
    ailment = service_of(request).engine.ailment
    if ailment is None:
        return Health(status="alive")
    return problem(NotReady.status, NotReady.title, ailment, reason=NotReady.reason, request_id=request_id_of(request))


@router.get("/ready", summary="Ready", response_model=Health, responses=problem_responses(NotReady))
async def ready(request: Request) -> Health | Response:
    """200 once the models are loaded and warm; 503 before, and from the moment the service is told to stop."""
    service = service_of(request)
    ailment = service.engine.ailment
    if service.phase is Phase.READY and ailment is None:
        return Health(status=service.phase)
    detail = ailment or f"the service is {service.phase}"  # an answer and no refusal, so it is not counted as one
    return problem(NotReady.status, NotReady.title, detail, reason=NotReady.reason, request_id=request_id_of(request))
