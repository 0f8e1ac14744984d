"""`ccnet evaluate`: accuracy on a test set; with --report all that docs/evaluation.md tells of a classifier."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ccnet.assessment import AssessmentOptions, assess, html, markdown, metrics, passes_needed
from ccnet.assessment.classes import in_classes_of
from ccnet.assessment.plots import require_plots
from ccnet.checkpoint import Checkpoint
from ccnet.cli_options import DataDirOption, DeviceOption, JsonOption
from ccnet.cli_support import (
    checkpoint_folder,
    number_option,
    open_checkpoint,
    print_json,
    print_table,
    progress,
    whole_numbers,
)
from ccnet.data import LabelledPictures, load_dataset
from ccnet.errors import CcnetError
from ccnet.evaluation import evaluate as evaluate_checkpoint
from ccnet.evaluation import takes_sequence, write_metrics
from ccnet.files import write_atomically
from ccnet.folders import load_class_folders, load_npz

EVALUATED_SIZES = "1,2,3,4,8"
REPORT_FILES = ("report.json", "report.md", "report.html")


def evaluate(
    checkpoint: Annotated[str | None, typer.Argument(help="Checkpoint folder or name.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(
            help="Data set, path of an npz file, or path (with a /) of a folder with one folder of pictures a class; "
            "default: the checkpoint's own."
        ),
    ] = None,
    data_dir: DataDirOption = None,
    sizes: Annotated[
        str | None, typer.Option(help=f"Ensemble sizes, comma separated; default: {EVALUATED_SIZES}.")
    ] = None,
    draws: Annotated[int, number_option(least=1, text="Sequences, and ensembles of each size.")] = 10,
    pool: Annotated[
        int | None,
        number_option(
            least=1,
            text="Sequences drawn in all, of which ensembles are subsets. Default: the larger of --draws and twice the "
            "largest size.",
        ),
    ] = None,
    views: Annotated[
        bool | None,
        typer.Option(
            "--views/--no-views",
            help="Also averages over mirrored and moved views, at as many passes; default: with --report.",
            show_default=False,
        ),
    ] = None,
    limit: Annotated[int | None, number_option(least=1, text="Only the first images of the test set.")] = None,
    seed: Annotated[int, number_option(text="Of the drawn sequences.")] = 0,
    device: DeviceOption = "auto",
    report: Annotated[
        Path | None,
        typer.Option(
            help=f"Folder for {', '.join(REPORT_FILES)}: also calibration, churn, comparisons, shifts and cost.",
            file_okay=False,
        ),
    ] = None,
    write: Annotated[
        bool, typer.Option("--write", help="Write the result into the checkpoint's config and card.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Accuracy with one sequence and with ensembles, on a test set; with --report all else too."""
    wanted = whole_numbers(sizes or EVALUATED_SIZES, "ensemble sizes")
    views = report is not None if views is None else views
    loaded, folder = open_checkpoint(checkpoint, device), checkpoint_folder(checkpoint)
    if not takes_sequence(loaded.model) and (pool is not None or (sizes is not None and not views)):
        raise CcnetError(f"{loaded.name} takes no scale sequences: leave --sizes and --pool out, or give --views")
    name = dataset or (loaded.config.get("data") or {}).get("dataset")
    if name is None:
        raise CcnetError(f"the card of {loaded.name} names no data set; give one with --dataset")
    pictures = open_dataset(name, data_dir)
    if report is not None:
        options = AssessmentOptions(wanted, draws=draws, pool=pool, seed=seed, limit=limit, views=views)
        measured = metrics(write_report(report, loaded, pictures, options))
    else:
        measured = evaluate_checkpoint(
            loaded, in_classes_of(loaded.labels, pictures), sizes=wanted, draws=draws, pool=pool, limit=limit,
            seed=seed, views=views, progress=True,
        )  # fmt: skip
    if write:
        write_metrics(folder, measured)
    if as_json:
        print_json(measured)
    else:
        show(f"{loaded.name} on {measured['n']:,} images of {name}", measured)


def open_dataset(name: str, data_dir: Path | None) -> LabelledPictures:
    """The test images of a data set by its name, or pictures of one's own by their path.

    Raises:
        DataError: there is none, or it cannot be read.
    """
    if name.endswith(".npz"):
        return load_npz(name)
    if os.sep in name:  # a bare name is that of a data set; ./name is a folder
        return load_class_folders(name)
    return load_dataset(name, "test", data_dir)


def write_report(
    folder: Path, model: Checkpoint, dataset: LabelledPictures, options: AssessmentOptions
) -> dict[str, Any]:
    """Assess, and write the report in its three forms, each file complete or not there; returns the document.

    What takes no plots is written first, so that nothing of it hangs on the drawing.

    Raises:
        CcnetError: the folder cannot be made, matplotlib is missing, or as `assess`.
        OSError: a file cannot be written.
    """
    require_plots()  # before the work, as a bad path: both are told at once
    folder.mkdir(parents=True, exist_ok=True)
    total, reached = passes_needed(model, len(dataset), options), 0
    with progress(f"assessing {model.name}", total, "passes") as bar:

        def on_progress(done: int, _: int) -> None:
            nonlocal reached
            bar.advance(done - reached)
            reached = done

        document = assess(model, dataset, options, on_progress=on_progress)
    forms: tuple[Callable[[dict[str, Any]], str], ...] = (_as_json, markdown, html)
    for name, form in zip(REPORT_FILES, forms, strict=True):
        write_atomically(folder / name, form(document).encode())
    return document


def _as_json(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def show(title: str, measured: dict[str, Any]) -> None:
    """Accuracies as a table on stdout."""
    rows = [
        (str(row["size"]), f"{row['accuracy_mean']:.2%}", f"{row['accuracy_std']:.2%}")
        for row in measured.get("ensembles", [])
    ]
    rows = rows or [("-", f"{measured['accuracy']:.2%}", "-")]
    rows += [
        (f"{row['size']} views", f"{row['accuracy']:.2%}", "-") for row in measured.get("views", []) if row["size"] > 1
    ]
    print_table(title, ("k", "accuracy", "std over draws"), rows)
