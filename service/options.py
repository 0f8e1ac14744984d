"""Query strings: read as `schemas` describes them, and described for the OpenAPI document.

No option may be given twice, since nobody can know which of two values was meant, and none where none are taken.
"""

from collections import Counter
from typing import Any, TypeVar

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from service.errors import OptionOutOfRange
from service.schemas import Options

Read = TypeVar("Read", bound=Options)

MAX_SHOWN = 100  # characters of a name that are repeated to whoever sent it


def read_options(request: Request, form: type[Read]) -> Read:
    """The options of a request.

    Raises:
        RequestValidationError: One is unknown or out of its range.
    """
    try:
        return form.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise RequestValidationError(error.errors()) from error


def described(form: type[Options]) -> dict[str, Any]:
    """The options of a route, for its `openapi_extra`."""
    properties = form.model_json_schema()["properties"]
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "description": schema["description"], "schema": schema}
            for name, schema in properties.items()
        ]
    }


def require_single_options(request: Request) -> None:
    """Let every option be given once.

    Raises:
        OptionOutOfRange: One is given more often.
    """
    for name, times in Counter(name for name, _ in request.query_params.multi_items()).items():
        if times > 1:
            raise OptionOutOfRange(
                f"{name[:MAX_SHOWN]}: was given {times} times; give an option once, with commas between several values "
                "where it takes several"
            )


async def require_no_options(request: Request) -> None:
    """For routes without options.

    Raises:
        OptionOutOfRange: There is one.
    """
    for name in request.query_params:
        raise OptionOutOfRange(f"{name[:MAX_SHOWN]}: there is no such option; this path takes none")
