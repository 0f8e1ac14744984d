"""`ccnet paper`: the paper's tables and figures beside ours, see `ccnet.paper`."""

import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer

from ccnet.benchmarks.run import default_threads
from ccnet.cli_support import checkpoints_root, number_option, print_json, print_table
from ccnet.errors import CcnetError
from ccnet.paper.catalogue import ITEMS, Item, choose
from ccnet.paper.context import Options
from ccnet.paper.page import FOLDER, PAGE, docs_folder, kept, publish, require_publishable, write_page
from ccnet.paper.run import run_items
from ccnet.stopping import sigterm_interrupts
from ccnet.training_run import device_named


def paper(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which, see --list; default: all.", show_default=False)
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say which there are, and run nothing.")] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Few samples of small cases, to see that it works; kept apart.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Compute everything anew instead of going on with an interrupted run.")
    ] = False,
    published: Annotated[
        bool, typer.Option("--publish", help="Put the results into docs/paper and make docs/paper.md anew.")
    ] = False,
    page_only: Annotated[
        bool, typer.Option("--page", help="Make docs/paper.md of what is published, and run nothing.")
    ] = False,
    out: Annotated[Path, typer.Option(help="Folder of results: JSON, plots, steps.")] = Path("runs/paper"),
    data_dir: Annotated[Path | None, typer.Option(help="Folder of data sets (CCNET_DATA_DIR).")] = None,
    seed: Annotated[int, number_option(text="Of everything random.")] = 0,
    threads: Annotated[int | None, number_option(least=1, text="CPU threads; default: 2, or 1 on one core.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON document.")] = False,
) -> None:
    """The paper's tables and figures beside ours, and whether each claim holds (docs/paper.md)."""
    if listed:
        entries = [
            {"name": item.name, "shows": item.title, "source": item.source, "kept": places(item, out)} for item in ITEMS
        ]
        if as_json:
            print_json(entries)
        else:
            rows = [(*map(str, list(entry.values())[:-1]), ", ".join(entry["kept"]) or "-") for entry in entries]
            print_table("arXiv 2006.11120", ("name", "shows", "source", "kept results"), rows)
        return
    if page_only:
        write_page(docs_folder())
        return
    chosen = choose(names or [])
    if published:
        docs = docs_folder()
        require_publishable(quick=quick)
    options = Options(
        quick=quick,
        seed=seed,
        threads=threads or default_threads(),
        checkpoints=str(checkpoints_root()),
        data_dir=None if data_dir is None else str(data_dir),
        device=str(device_named(device)),
    )
    try:
        with sigterm_interrupts():
            documents = run_items(chosen, options, out, fresh=fresh, text=not as_json)
    except KeyboardInterrupt:
        sys.stderr.write(f"ccnet: stopped; the steps that were done are kept in {out}, the same command goes on\n")
        raise typer.Exit(130) from None
    if published:
        publish(documents, out, docs)
        sys.stderr.write(f"published in {docs / FOLDER} and {docs / PAGE}\n")
    if as_json:
        print_json(documents)


def places(item: Item, out: Path) -> list[str]:
    """Where results of an item are kept, with their days: "published 2026-11-23"."""
    folders = {"quick": out / "quick", "full": out}
    with suppress(CcnetError):  # installed without a source tree
        folders["published"] = docs_folder() / FOLDER
    found = {name: kept(folder, item) for name, folder in folders.items()}
    return [f"{name} {document['date'][:10]}" for name, document in found.items() if document is not None]
