"""`ccnet bench`: measures this machine, see `ccnet.benchmarks`."""

from pathlib import Path
from typing import Annotated

import typer

from ccnet.benchmarks.catalogue import BENCHMARKS
from ccnet.benchmarks.compare import default_folder
from ccnet.benchmarks.report import Settings
from ccnet.benchmarks.run import Options, default_threads, run_all
from ccnet.cli_support import number_option, print_json, print_table


def bench(
    names: Annotated[
        list[str] | None, typer.Argument(help="Which, see --list; default: all.", show_default=False)
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="Say which there are, and measure nothing.")] = False,
    quick: Annotated[bool, typer.Option("--quick", help="Few repeats of small cases, to see that it works.")] = False,
    save: Annotated[bool, typer.Option("--save", help="Keep the results, by hardware.")] = False,
    compare: Annotated[bool, typer.Option("--compare", help="Show what changed since the kept results.")] = False,
    results: Annotated[
        Path | None, typer.Option(help="Folder of kept results; default: benchmarks/results of the source tree.")
    ] = None,
    seed: Annotated[int, number_option(text="Of weights, images and sequences.")] = 0,
    threads: Annotated[int | None, number_option(least=1, text="CPU threads; default: 2, or 1 on one core.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the JSON lines alone, one a benchmark.")] = False,
) -> None:
    """Measure speed and memory beside plain convolutions; fails when a result is wrong (docs/performance.md)."""
    if listed:
        entries = [{"name": benchmark.name, "about": benchmark.about} for benchmark in BENCHMARKS]
        if as_json:
            print_json(entries)
        else:
            print_table("benchmarks", ("name", "measures"), [tuple(entry.values()) for entry in entries])
        return
    settings = Settings(quick, seed, threads or default_threads())
    folder = results or default_folder()
    if run_all(names or [], Options(settings, save, compare, str(folder.resolve()), as_json)):
        raise typer.Exit(1)
