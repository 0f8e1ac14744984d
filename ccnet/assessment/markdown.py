"""The document as Markdown, for pull requests."""

from typing import Any


def markdown(document: dict[str, Any]) -> str:
    """The document of `assess` in Markdown."""
    raise NotImplementedError
