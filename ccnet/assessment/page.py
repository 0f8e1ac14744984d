"""The document as one HTML page that needs no other file."""

from typing import Any


def html(document: dict[str, Any]) -> str:
    """The document of `assess` as one self-contained HTML page with plots.

    Raises:
        CcnetError: matplotlib is missing.
    """
    raise NotImplementedError
