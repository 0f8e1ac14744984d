"""A service whose evaluations never end: `python -m tests.service.endless`, with the settings of the service.

What a job is between two turns that computes for very long: its thread neither makes passes nor finds out that it was
called off.
"""

import threading
from collections.abc import Callable
from typing import Any

from ccnet import assessment
from service.__main__ import main

_assess = assessment.assess


def endless(*given: Any, on_progress: Callable[[int, int], None], **more: Any) -> dict[str, Any]:
    """`assess`, until the first passes are made."""

    def report(done: int, total: int) -> None:
        on_progress(done, total)
        threading.Event().wait()

    return _assess(*given, on_progress=report, **more)


if __name__ == "__main__":
    assessment.assess = endless  # type: ignore[assignment]
    main()
