"""`GET /metrics`: what Prometheus scrapes."""

from fastapi import APIRouter, Request, Response

from service.context import service_of
from service.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(request: Request) -> Response:
    """Every series in Prometheus' text format; all are present from the start."""
    return Response(service_of(request).metrics.render(), headers={"Content-Type": CONTENT_TYPE})
