"""What an item hands back: ours beside the paper's, and whether each claim holds, in one line with its numbers."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from ccnet.benchmarks.report import table

# "holds" and "fails" are said only of what was measured well enough to tell; else it is "undecided".
Verdict = Literal["holds", "fails", "undecided"]
_WIDEST = {"holds": "HOLDS    ", "fails": "FAILS    ", "undecided": "UNDECIDED"}


@dataclass(frozen=True)
class Row:
    """One figure of a table.

    Attributes:
        case: what was measured: a size, a shift, an ensemble.
        what: the alternative or the quantity: a column of the table.
        ours: as measured, in words and digits, with its spread or interval.
        paper: the paper's figure for the same, as printed there; "" where it gives none.
        value: ours as a number, for programs; None where it is none.
        part: which of the item's tables it belongs to, its heading; "" is the first, which needs none.
    """

    case: str
    what: str
    ours: str
    paper: str = ""
    value: float | None = None
    part: str = ""


@dataclass(frozen=True)
class Claim:
    """One claim of the paper, or one that an item's aim makes, and what became of it.

    Attributes:
        text: the claim, in one sentence.
        verdict: what the numbers say.
        evidence: the numbers.
    """

    text: str
    verdict: Verdict
    evidence: str

    def line(self) -> str:
        """For people."""
        return f"{_WIDEST[self.verdict]}  {self.text}: {self.evidence}"


def judged(text: str, holds: bool | None, evidence: str) -> Claim:
    """A claim that holds, fails, or (None) cannot be decided by these numbers."""
    verdict: Verdict = "undecided" if holds is None else "holds" if holds else "fails"
    return Claim(text, verdict, evidence)


@dataclass
class Findings:
    """What one item found.

    Attributes:
        rows: of its table.
        claims: and their verdicts, at least one.
        notes: how it was done, and what the figures cannot say.
        series: raw numbers, as JSON values: what the plot is drawn from.
    """

    rows: list[Row] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    series: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def for_people(document: dict[str, Any]) -> str:
    """A kept item as text: its table with the paper's figures, its claims, its notes."""
    parts = [f"{document['title']} ({document['source']})"]
    for heading, rows in tables(document["rows"]):
        parts.append((f"{heading}\n" if heading else "") + table(*grid(rows)))
    parts.append("\n".join(Claim(**claim).line() for claim in document["claims"]))
    if document["notes"]:
        parts.append("\n".join(document["notes"]))
    return "\n\n".join(parts) + "\n"


def tables(rows: Sequence[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    """(heading, rows) of each of an item's tables, in the order in which they begin."""
    parts: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        parts.setdefault(row.get("part", ""), []).append(row)
    return list(parts.items())


def grid(rows: Sequence[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """(columns, lines) of a table: a line a case, and for each quantity ours and, where it gives one, the paper's."""
    quantities = list(dict.fromkeys(row["what"] for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        line = cells.setdefault(row["case"], {})
        line[row["what"]] = row["ours"]
        if row["paper"]:
            line[f"paper: {row['what']}"] = row["paper"]
    columns = [name for what in quantities for name in (what, f"paper: {what}")]
    columns = [name for name in columns if any(name in line for line in cells.values())]
    return ["", *columns], [[case, *(line.get(name, "") for name in columns)] for case, line in cells.items()]
