"""Routes that check what every request must meet wherever a key may be demanded, before anything else is looked at."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from service.auth import require_key
from service.options import require_single_options


class CheckedRoute(APIRoute):
    """For `APIRouter(route_class=...)`. FastAPI's dependencies would do the same in six times the time."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route, behind the checks."""
        answer = super().get_route_handler()

        async def check_and_answer(request: Request) -> Response:
            require_key(request)
            require_single_options(request)
            return await answer(request)

        return check_and_answer
