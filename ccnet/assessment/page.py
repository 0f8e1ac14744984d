"""The document as one HTML page that needs no other file and runs no script."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from ccnet.assessment import tables
from ccnet.assessment.plots import plots

_TEMPLATE = Path(__file__).with_name("page.html.jinja")
# Whatever comes from a data set or a model is escaped; only our own drawings are taken as they are.
_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def html(document: dict[str, Any]) -> str:
    """The document of `assess` as one self-contained HTML page with plots.

    Raises:
        CcnetError: matplotlib is missing.
    """
    main = (
        tables.accuracy_table(document),
        tables.comparison_table(document),
        tables.probability_table(document),
        tables.shift_table(document),
        tables.cost_table(document),
    )
    close = (tables.class_table(document), tables.confusion_table(document), tables.error_table(document))
    template = _ENVIRONMENT.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    return template.render(
        title=f"{document['model']['name']} on {document['dataset']['name']}",
        verdict=document["verdict"],
        notes=document["notes"],
        plots=plots(document),
        tables=[table for table in main if table is not None and table.rows],
        close=[table for table in close if table.rows],
        facts=tables.facts_table(document),
    )
