"""What every benchmark hands back: rows, targets and checks; a table for people and one JSON line for programs."""

import json
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch

from ccnet import provenance
from ccnet.benchmarks.checks import Checks
from ccnet.benchmarks.measure import Times

Unit = Literal["s", "x", "MiB", "MB", "GFLOP/s", "GB/s", "M", ""]
_SHOWN: dict[Unit, tuple[float, str]] = {"s": (1e3, " ms")}  # factor and unit for people, where they differ


@dataclass(frozen=True)
class Settings:
    """What whoever runs a benchmark may choose.

    Attributes:
        quick: few repeats and small cases, to see that it works.
        seed: of weights, images and sequences.
        threads: of torch and of the native kernels.
    """

    quick: bool = False
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True)
class Row:
    """One measured number.

    Attributes:
        case: what was measured: a size, a batch, a layer.
        what: the alternative or the quantity: a column of the table.
        value: its median, in `unit`s.
        spread: half its interquartile range; 0 for what is counted.
    """

    case: str
    what: str
    value: float
    unit: Unit
    spread: float = 0.0

    def shown(self) -> str:
        """For people."""
        factor, unit = _SHOWN.get(self.unit, (1.0, "" if self.unit in ("x", "") else f" {self.unit}"))
        value, spread = self.value * factor, self.spread * factor
        digits = 0 if abs(value) >= 1000 else 1 if abs(value) >= 100 else 2 if abs(value) >= 1 else 3
        text = f"{value:,.{digits}f}"
        return (f"{text} ± {spread:,.{digits}f}" if self.spread else text) + unit


@dataclass(frozen=True)
class Target:
    """What a figure should be.

    Attributes:
        name: of the figure, the same for all cases.
        limit: the figure's bound.
        sense: on which side of it the figure should lie.
        paper: the paper's figure for it, or "-".
    """

    name: str
    limit: float
    sense: Literal["at most", "at least"] = "at most"
    paper: str = "-"

    def judge(self, row: Row) -> dict[str, Any]:
        """Whether a measured figure meets it, as JSON values."""
        met = row.value <= self.limit if self.sense == "at most" else row.value >= self.limit
        measured = {"case": row.case, "measured": row.value, "spread": row.spread, "met": met}
        return asdict(self) | measured


def _nothing(row: Row) -> None:
    """Tell nobody."""


@dataclass
class Result:
    """What one benchmark measured.

    Attributes:
        rows: every figure.
        targets: verdicts, as JSON values.
        checks: of the outputs.
        notes: lines that say what the figures cannot.
        tell: is told every row as it comes.
    """

    rows: list[Row] = field(default_factory=list)
    targets: list[dict[str, Any]] = field(default_factory=list)
    checks: Checks = field(default_factory=Checks)
    notes: list[str] = field(default_factory=list)
    tell: Callable[[Row], None] = _nothing

    def add_times(self, case: str, times: dict[str, Times]) -> None:
        """Rows of alternatives timed in turns."""
        for name, time in times.items():
            self.add(Row(case, name, time.median, "s", time.spread))

    def add_ratio(self, case: str, what: str, times: Times, reference: Times, target: Target | None = None) -> None:
        """A row of a ratio of two times of the same rounds, and the verdict of a target."""
        value, spread = times.ratio(reference)
        self.add(Row(case, what, value, "x", spread), target)

    def add(self, row: Row, target: Target | None = None) -> None:
        """A row, and the verdict of a target."""
        self.rows.append(row)
        self.tell(row)
        if target is not None:
            self.targets.append(target.judge(row))


def document(benchmark: str, result: Result, settings: Settings) -> dict[str, Any]:
    """A result as JSON values, with where and on what it was measured."""
    return {
        "benchmark": benchmark,
        "seed": settings.seed,
        "threads": settings.threads,
        "quick": settings.quick,
        "rows": [asdict(row) for row in result.rows],
        "targets": result.targets,
        "checks": {
            "compared": len(result.checks.errors),
            "largest_relative_error": result.checks.largest,
            "tolerance": result.checks.tolerance,
        },
        "notes": result.notes,
        "load_average": os.getloadavg()[0],
        **where(),
    }


def where(device: torch.device | None = None) -> dict[str, Any]:
    """The machine (the CPU unless told otherwise), the versions and the commit behind a result."""
    return {
        "hardware": provenance.hardware(device or torch.device("cpu")),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit() or "unknown",
        "date": provenance.now(),
    }


def hardware_slug(hardware: str) -> str:
    """The name of a folder for results of one kind of machine: "AMD EPYC, 2 thread(s)" is "amd-epyc-2-threads"."""
    return re.sub(r"[^a-z0-9]+", "-", hardware.lower().replace("thread(s)", "threads")).strip("-")


def for_people(result: Result) -> str:
    """Tables of what was measured, of the targets and of the checks."""
    columns = list(dict.fromkeys(row.what for row in result.rows))
    cells: dict[str, dict[str, str]] = {}
    for row in result.rows:
        cells.setdefault(row.case, {})[row.what] = row.shown()
    parts = [table(["", *columns], [[case, *(row.get(name, "") for name in columns)] for case, row in cells.items()])]
    if result.targets:
        parts.append(
            table(["target", "", "paper", "wanted", "measured", ""], [_verdict(t) for t in result.targets], left=2)
        )
    if result.checks.errors:
        count, tolerance = len(result.checks.errors), result.checks.tolerance
        parts.append(
            f"{count} outputs and gradients compared with `standard` in float64: largest relative error "
            f"{result.checks.largest:.1e}, allowed {tolerance:.0e}"
        )
    return "\n\n".join([*parts, *(["\n".join(result.notes)] if result.notes else [])]) + "\n"


def _verdict(target: dict[str, Any]) -> list[str]:
    measured = f"{target['measured']:.2f} ± {target['spread']:.2f}"
    wanted = f"{target['sense']} {target['limit']:g}"
    return [target["name"], target["case"], target["paper"], wanted, measured, "met" if target["met"] else "NOT MET"]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> str:
    """Text in columns, the first `left` of them flush left, the others flush right."""
    lines = [columns, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(columns))]
    padded = ([*(map(str.ljust, line[:left], widths)), *(map(str.rjust, line[left:], widths[left:]))] for line in lines)
    return "\n".join("  ".join(cells).rstrip() for cells in padded)


def json_line(values: dict[str, Any]) -> str:
    """One line."""
    return json.dumps(values) + "\n"
