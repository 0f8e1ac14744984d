"""The document as Markdown, for pull requests."""

import re
from typing import Any

from ccnet.assessment import tables
from ccnet.assessment.tables import Table


def markdown(document: dict[str, Any]) -> str:
    """The document of `assess` in Markdown (GitHub's tables); every name is escaped."""
    model, dataset = document["model"]["name"], document["dataset"]["name"]
    lines = [f"# {_escaped(model)} on {_escaped(dataset)}", ""]
    lines += [f"- {_escaped(sentence)}" for sentence in document["verdict"]]
    if document["notes"]:
        lines += ["", "Before you believe it:", "", *(f"- {_escaped(sentence)}" for sentence in document["notes"])]
    for table in (
        tables.accuracy_table(document),
        tables.comparison_table(document),
        tables.probability_table(document),
        tables.shift_table(document),
        tables.cost_table(document),
        tables.class_table(document),
        tables.confusion_table(document),
        tables.error_table(document),
    ):
        if table is not None and table.rows:
            lines += ["", f"## {_escaped(table.caption)}", "", *_rows(table)]
    facts = tables.facts_table(document)
    lines += ["", f"## {facts.caption}", "", *(f"- {name}: {_escaped(value)}" for name, value in facts.rows)]
    return "\n".join(lines) + "\n"


def _rows(table: Table) -> list[str]:
    lines = [table.columns, ("---",) * len(table.columns), *(map(_escaped, row) for row in table.rows)]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def _escaped(text: str) -> str:
    """Text that shows as it is: no markup, no link, no cell of its own, no line of its own."""
    text = re.sub(r"([\\`*_\[\]<>|#~&!@$]|:(?=//))", r"\\\1", " ".join(text.split()))
    return re.sub(r"\b(www)\.", r"\1\\.", text, flags=re.IGNORECASE)  # GitHub makes links of these too
