"""`GET /metrics`: what Prometheus scrapes."""

from fastapi import APIRouter, Response

from service.context import AnyService
from service.metrics import CONTENT_TYPE

router = APIRouter(tags=["health"])


@router.get("/metrics", summary="Metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(service: AnyService) -> Response:
    """Every series in Prometheus' text format; all are present from the start."""
    return Response(service.metrics.render(), headers={"Content-Type": CONTENT_TYPE})
