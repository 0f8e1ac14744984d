"""What every query string must be: no option twice, and none where none are taken. The rest is `schemas`' matter."""

from collections import Counter

from fastapi import Request

from service.errors import OptionOutOfRange

MAX_SHOWN = 100  # characters of a name that are repeated to whoever sent it


async def require_single_options(request: Request) -> None:
    """Let every option be given once, since nobody can know which of two values was meant.

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
