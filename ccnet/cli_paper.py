"""`ccnet paper`: the paper's tables and figures beside ours, see `ccnet.paper`."""

from pathlib import Path
from typing import Annotated

import typer

from ccnet.benchmarks.run import default_threads
from ccnet.cli_support import checkpoints_root, number_option, print_json, print_table
from ccnet.paper.catalogue import ITEMS, choose
from ccnet.paper.context import Options
from ccnet.paper.run import run_items
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
    out: Annotated[Path, typer.Option(help="Folder of results: JSON, plots, steps.")] = Path("runs/paper"),
    data_dir: Annotated[Path | None, typer.Option(help="Folder of data sets (CCNET_DATA_DIR).")] = None,
    seed: Annotated[int, number_option(text="Of everything random.")] = 0,
    threads: Annotated[int | None, number_option(least=1, text="CPU threads; default: 2, or 1 on one core.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON document.")] = False,
) -> None:
    """The paper's tables and figures beside ours, and whether each claim holds (docs/paper.md)."""
    if listed:
        entries = [{"name": item.name, "shows": item.title, "source": item.source} for item in ITEMS]
        if as_json:
            print_json(entries)
        else:
            print_table("arXiv 2006.11120", ("name", "shows", "source"), [tuple(entry.values()) for entry in entries])
        return
    options = Options(
        quick=quick,
        seed=seed,
        threads=threads or default_threads(),
        checkpoints=str(checkpoints_root()),
        data_dir=None if data_dir is None else str(data_dir),
        device=str(device_named(device)),
    )
    documents = run_items(choose(names or []), options, out, fresh=fresh, text=not as_json)
    if as_json:
        print_json(documents)
