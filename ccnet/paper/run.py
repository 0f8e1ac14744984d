"""Runs items and keeps what they found: FOLDER/NAME.json with NAME.png beside it, steps under FOLDER/steps/NAME."""

import io
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ccnet.benchmarks.report import where
from ccnet.errors import CcnetError
from ccnet.files import write_atomically
from ccnet.paper import drawing
from ccnet.paper.catalogue import Item
from ccnet.paper.context import Context, Options
from ccnet.paper.findings import for_people

PLOT_DPI = 110


def run_items(
    items: list[Item], options: Options, folder: Path, *, fresh: bool = False, text: bool = True
) -> list[dict[str, Any]]:
    """Run items one after the other; each is kept as soon as it is done.

    Args:
        items: of the catalogue.
        options: of all of them.
        folder: where results are kept; those of a quick run in `quick/` there, so that they replace no full ones.
        fresh: compute everything anew.
        text: print each result's table and claims on stdout, its steps' progress on stderr.

    Returns:
        the documents, as kept.

    Raises:
        CcnetError: an item cannot be drawn for want of matplotlib; then none is run.
    """
    if any(item.plot() is not None for item in items):
        drawing.require()
    folder = folder / "quick" if options.quick else folder
    documents = []
    for number, item in enumerate(items, 1):
        if text:
            sys.stderr.write(f"[{number} of {len(items)}] {item.name}: {item.title}\n")
        document = run_item(item, Context(options, folder / "steps" / item.name, fresh, shown=text))
        keep(document, item, folder)
        documents.append(document)
        if text:
            sys.stdout.write(for_people(document) + f"\nkept in {folder / item.name}.json\n\n")
            sys.stdout.flush()
    return documents


def run_item(item: Item, context: Context) -> dict[str, Any]:
    """Run one item: its findings as JSON values, with where, when, on what and how long."""
    started = time.monotonic()
    torch.set_num_threads(context.options.threads)
    torch.manual_seed(context.seed)
    findings = item.find()(context)
    if not findings.claims:
        raise CcnetError(f"{item.name} says of no claim whether it holds")
    return {
        "item": item.name,
        "title": item.title,
        "source": f"arXiv 2006.11120, {item.source}",
        **asdict(context.options),
        **findings.as_json(),
        "seconds": round(time.monotonic() - started, 1),
        "steps_taken_up": context.taken_up,
        **where(torch.device(context.options.device)),
        "git_commit": context.commit,  # of when it began: what has been committed meanwhile did not compute this
        "step_commits": context.commits,
    }


def keep(document: dict[str, Any], item: Item, folder: Path) -> None:
    """Write a result and then its picture, each aside and then renamed: what cannot be drawn is not lost."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{item.name}.json", (json.dumps(document, indent=1) + "\n").encode())
    draw = item.plot()
    if draw is not None:
        picture = io.BytesIO()
        draw(document).savefig(picture, format="png", dpi=PLOT_DPI, metadata={"Software": None})
        write_atomically(folder / f"{item.name}.png", picture.getvalue())
