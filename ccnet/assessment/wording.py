"""Numbers as a reader wants them: shares in percent, differences in points, intervals in brackets; "-" for nothing."""

from collections.abc import Sequence
from typing import Any

NONE = "-"


def percent(share: float | None, digits: int = 1) -> str:
    """0.9123 -> "91.2%"."""
    return NONE if share is None else f"{100 * share:.{digits}f}%"


def percent_interval(interval: Sequence[float] | None, digits: int = 1) -> str:
    """(0.9, 0.95) -> "90.0% to 95.0%"."""
    return NONE if interval is None else f"{percent(interval[0], digits)} to {percent(interval[1], digits)}"


def points(difference: float) -> str:
    """0.0062 -> "+0.62"; a minus sign, not a hyphen."""
    text = f"{100 * difference:+.2f}"
    return text.replace("-", "−") if float(text) else "0.00"


def points_interval(interval: Sequence[float]) -> str:
    """(-0.001, 0.004) -> "−0.10 to +0.40"."""
    return f"{points(interval[0])} to {points(interval[1])}"


def number(value: float | None, digits: int = 3) -> str:
    """0.91234 -> "0.912"."""
    return NONE if value is None else f"{value:.{digits}f}"


def duration(seconds: float) -> str:
    """0.0123 -> "12.3 ms"; 312 -> "5 min 12 s"."""
    if seconds < 0.9995:  # what is rounded to 1000 ms or to 60 s is said in the next unit
        return f"{1000 * seconds:.3g} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{seconds / 60:.0f} min" if whole >= 600 else f"{whole // 60} min {whole % 60} s"


def of_kind(kind: str, size: int) -> str:
    """What a row is called: "8 sequences", "1 view" is "the plain picture"."""
    if kind == "sequences":
        return "1 sequence" if size == 1 else f"{size} sequences"
    if kind == "views":
        return "the plain picture" if size == 1 else f"{size} views"
    return "1 pass"


def score(row: dict[str, Any], name: str) -> dict[str, Any]:
    """A score of a row, its logits averaged."""
    found: dict[str, Any] = row["mean_of_logits"][name]
    return found
