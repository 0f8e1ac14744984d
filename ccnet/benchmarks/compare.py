"""Stored results by hardware, and what changed since.

A result lies in FOLDER/HARDWARE/BENCHMARK.json. Figures are compared by case and name; one counts as changed when it
moved by more than both spreads together and by more than `LEAST_CHANGE`.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ccnet.benchmarks.report import Row, hardware_slug, table
from ccnet.errors import CcnetError
from ccnet.files import write_atomically

LEAST_CHANGE = 0.05  # of the stored value: two runs of one machine differ by as much


def default_folder() -> Path:
    """`benchmarks/results` of a source tree, found from the package or from the working directory."""
    tree = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
    return tree if tree.is_dir() else Path("benchmarks") / "results"


def path_of(folder: Path, hardware: str, benchmark: str) -> Path:
    """Where a result is kept."""
    return folder / hardware_slug(hardware) / f"{benchmark}.json"


def save(folder: Path, document: Mapping[str, Any]) -> Path:
    """Keep a result.

    Raises:
        CcnetError: a quick one, whose figures mean little.
    """
    if document["quick"]:
        raise CcnetError("a quick run is not kept: its figures mean little; run without --quick")
    path = path_of(folder, document["hardware"], document["benchmark"])
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, (json.dumps(document, indent=1) + "\n").encode())
    return path


def load(folder: Path, hardware: str, benchmark: str) -> dict[str, Any] | None:
    """The stored result of a benchmark on such a machine, None without one."""
    path = path_of(folder, hardware, benchmark)
    if not path.is_file():
        return None
    document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return document


@dataclass(frozen=True)
class Change:
    """One figure before and now.

    Attributes:
        case, what, unit: of the figure.
        before, now: values.
        ratio: now over before.
        beyond_spread: whether it moved by more than measuring it again would.
    """

    case: str
    what: str
    unit: str
    before: float
    now: float
    ratio: float
    beyond_spread: bool


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Change]:
    """The figures that both results hold, in the order of the new one."""
    old = {(row["case"], row["what"]): row for row in before["rows"]}
    changes = []
    for row in now["rows"]:
        stored = old.get((row["case"], row["what"]))
        if stored is None or not stored["value"]:
            continue
        moved = abs(row["value"] - stored["value"])
        beyond = moved > row["spread"] + stored["spread"] and moved > LEAST_CHANGE * abs(stored["value"])
        ratio = row["value"] / stored["value"]
        changes.append(Change(row["case"], row["what"], row["unit"], stored["value"], row["value"], ratio, beyond))
    return changes


def for_people(before: Mapping[str, Any], changes: list[Change]) -> str:
    """A table; changes beyond the spread carry a mark."""
    lines = []
    for change in changes:
        old, new = (Row("", "", value, change.unit).shown() for value in (change.before, change.now))  # type: ignore[arg-type]
        mark = "CHANGED" if change.beyond_spread else ""
        lines.append([f"{change.case}: {change.what}", old, new, f"{change.ratio:.2f}", mark])
    title = f"before: commit {before['git_commit'][:10]}, {before['date'][:10]}, {before['hardware']}"
    return f"{title}\n{table(['', 'before', 'now', 'now / before', ''], lines)}\n"


def as_json(changes: list[Change]) -> list[dict[str, Any]]:
    """JSON values."""
    return [asdict(change) for change in changes]
