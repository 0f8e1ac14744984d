"""`ccnet VERB`: one thin command a verb; all work is done by the rooms of the library.

Bad input ends with exit status 2 and one line on stderr that says what is allowed. `--json` prints one JSON document.
"""

import json
import logging
import os
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.table import Table
from torch import Tensor

from ccnet import __version__
from ccnet.checkpoint import Checkpoint, load_checkpoint, read_config
from ccnet.data import load_dataset
from ccnet.ensemble import ScaleEnsemble
from ccnet.equivariance import ShiftSimilarity, noise_images, table1
from ccnet.errors import CcnetError, CheckpointError
from ccnet.evaluation import evaluate as evaluate_checkpoint
from ccnet.evaluation import write_metrics
from ccnet.models import CCNet
from ccnet.pictures import read_picture
from ccnet.sequences import ScaleSequence, sample_scale_sequences

app = typer.Typer(
    help="Continuous-convolution networks: classify with scale ensembles, train, evaluate, probe and serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
console = Console()

CheckpointOption = Annotated[
    str | None, typer.Option("--checkpoint", "-c", help="Checkpoint folder, or its name under CCNET_CHECKPOINTS.")
]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N; auto takes a GPU when there is one.")]
DataDirOption = Annotated[Path | None, typer.Option(help="Folder of the data set; default: the system's.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]
SeedOption = Annotated[int | None, typer.Option(help="Of the drawn sequences; drawn anew when absent, and shown.")]
SizeOption = Annotated[int, typer.Option("--ensemble-size", "-k", help="Members of the ensemble.")]


def main() -> None:
    """Run the command line; exit status 2 for input that cannot be right."""
    try:
        app()
    except CcnetError as error:
        sys.stderr.write(f"ccnet: {error}\n")
        sys.exit(2)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Continuous-convolution networks: classify with scale ensembles, train, evaluate, probe and serve."""
    if version:
        console.print(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        raise typer.Exit(2)


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on (CCNET_HOST).")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port, 0 for a free one (CCNET_PORT).")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda (CCNET_DEVICE).")] = None,
    checkpoints: Annotated[Path | None, typer.Option(help="Folder of checkpoints (CCNET_CHECKPOINTS).")] = None,
    model: Annotated[str | None, typer.Option(help="Default model (CCNET_MODEL).")] = None,
) -> None:
    """Start the HTTP service; all other settings are environment variables, see docs/settings.md."""
    try:
        from service.__main__ import main as serve_main
    except ModuleNotFoundError as error:
        raise CcnetError(f"serving needs the package {error.name!r}: pip install 'ccnet[service]'") from error
    given = {"HOST": host, "PORT": port, "DEVICE": device, "CHECKPOINTS": checkpoints, "MODEL": model}
    os.environ.update({f"CCNET_{name}": str(value) for name, value in given.items() if value is not None})
    serve_main()


@app.command()
def classify(
    pictures: Annotated[list[Path], typer.Argument(help="PNG, JPEG or WebP files.", show_default=False)],
    checkpoint: CheckpointOption = None,
    ensemble_size: SizeOption = 4,
    seed: SeedOption = None,
    top: Annotated[int, typer.Option(min=1, help="Classes shown a picture.")] = 3,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Classify pictures with an ensemble of scale sequences, without a server."""
    loaded = open_checkpoint(checkpoint, device)
    seed = secrets.randbits(32) if seed is None else seed
    x = loaded.preprocess([read_picture(path) for path in pictures])
    logits, agreement = run_ensemble(loaded, x, ensemble_size, seed)
    probabilities = logits.softmax(dim=1)
    values, classes = probabilities.topk(min(top, len(loaded.labels)), dim=1)
    results: list[dict[str, Any]] = [
        {
            "picture": str(path),
            "label": loaded.labels[int(classes[i, 0])],
            "probability": float(values[i, 0]),
            "agreement": float(agreement[i]),
            "top": [
                {"label": loaded.labels[int(c)], "probability": float(p)}
                for c, p in zip(classes[i], values[i], strict=True)
            ],
        }
        for i, path in enumerate(pictures)
    ]
    if as_json:
        print_json({"model": loaded.name, "ensemble_size": ensemble_size, "seed": seed, "results": results})
        return
    table = Table("picture", "label", "probability", "agreement", "next best", title=f"{loaded.name}, seed {seed}")
    for result in results:
        others = ", ".join(f"{t['label']} {t['probability']:.1%}" for t in result["top"][1:])
        table.add_row(
            result["picture"], result["label"], f"{result['probability']:.1%}", f"{result['agreement']:.0%}", others
        )
    console.print(table)


@app.command()
def sequences(
    ensemble_size: SizeOption = 4,
    seed: SeedOption = None,
    std: Annotated[float, typer.Option(help="Standard deviation of a scale before rounding.")] = 0.05,
    in_size: Annotated[int, typer.Option(help="Side of the network's input, px.")] = 32,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say how many draws were not valid.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw scale sequences and show the map sizes of every layer (Table 4)."""
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(message)s")
    seed = secrets.randbits(32) if seed is None else seed
    drawn = sample_scale_sequences(ensemble_size, seed=seed, std=std, in_size=(in_size, in_size))
    if as_json:
        print_json({"seed": seed, "sequences": [describe_sequence(s, (in_size, in_size)) for s in drawn]})
        return
    for number, sequence in enumerate(drawn, 1):
        table = Table("layer", "scale [H, W]", "output [H, W]", title=f"sequence {number} of {len(drawn)}, seed {seed}")
        for j, (scale, size) in enumerate(zip(sequence.scales, sequence.shapes((in_size, in_size)), strict=True), 1):
            table.add_row(str(j), f"{scale[0]}, {scale[1]}", f"{size[0]}, {size[1]}")
        console.print(table)


@app.command()
def probe(
    checkpoints: Annotated[
        list[str] | None, typer.Option("--checkpoint", "-c", help="Checkpoint; repeat to compare several.")
    ] = None,
    source: Annotated[str, typer.Option("--input", help="noise, or the name of a data set.")] = "noise",
    max_shift: Annotated[str, typer.Option(help="Largest shifts in px, comma separated.")] = "2,4,6",
    samples: Annotated[int, typer.Option(min=1, help="Images measured.")] = 200,
    seed: Annotated[int, typer.Option(help="Of shifts, noise and sequences.")] = 0,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure shift-equivariance as in Table 1 (docs/equivariance.md says how)."""
    try:
        shifts = [int(word) for word in max_shift.split(",")]
    except ValueError:
        raise CcnetError(f'max shifts are whole numbers of px such as "2,4,6"; got {max_shift!r}') from None
    report: dict[str, list[ShiftSimilarity]] = {}
    names: list[str | None] = list(checkpoints) if checkpoints else [None]
    for name in names:
        loaded = open_checkpoint(name, device)
        images, fill = probe_images(loaded, source, samples, seed, data_dir)
        report[loaded.name] = table1(loaded.model, images, shifts, seed=seed, fill=fill)
    if as_json:
        print_json(
            [
                {"model": name, "input": source, "rows": [row.row() for row in rows], "protocol": rows[0].protocol}
                for name, rows in report.items()
            ]
        )
        return
    table = Table("model", "max shift", "cosine", "95% interval", "same label", title=f"{source}, {samples} images")
    for name, rows in report.items():
        for row in rows:
            same = "-" if row.consistency is None else f"{row.consistency:.1%}"
            interval = f"{row.ci95[0]:.3f} to {row.ci95[1]:.3f}"
            table.add_row(name, f"±{row.max_shift}", f"{row.cosine_mean:.3f}", interval, same)
    console.print(table)


@app.command()
def train(
    arch: Annotated[str, typer.Option(help="ccnet or convnet.")] = "ccnet",
    dataset: Annotated[str, typer.Option(help="fashion-mnist or cifar-10.")] = "fashion-mnist",
    data_dir: DataDirOption = None,
    recipe: Annotated[str, typer.Option(help="fast, or paper (A.2, 400 epochs).")] = "fast",
    epochs: Annotated[int | None, typer.Option(help="Passes over the training images; default: the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step; default: the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate; default: the recipe's.")] = None,
    kernel_input: Annotated[str, typer.Option(help="offset or distance (ccnet).")] = "offset",
    seed: Annotated[int, typer.Option(help="Of weights, order, augmentation and sequences.")] = 0,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, typer.Option(help="CPU threads; default: all cores.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the run; default: runs/DATASET-ARCH.")] = None,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Where the final checkpoint goes; default: in the run.")
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start anew instead of resuming the run.")] = False,
) -> None:
    """Train a network, or go on with an interrupted run; measures it and writes a checkpoint."""
    from ccnet.recipes import recipe as preset
    from ccnet.training import train as run

    config = preset(
        recipe,
        arch,
        dataset=dataset,
        data_dir=None if data_dir is None else str(data_dir),
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        kernel_input=kernel_input,
        seed=seed,
        device=device,
        threads=threads,
    )
    result = run(config, out or Path("runs") / f"{dataset}-{arch}", checkpoint_dir=checkpoint, resume=not fresh)
    if result.finished:
        console.print(f"checkpoint: {result.checkpoint}")
    else:
        raise typer.Exit(130)


@app.command()
def evaluate(
    checkpoint: Annotated[str | None, typer.Argument(help="Checkpoint folder or name.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set; default: the checkpoint's own.")] = None,
    data_dir: DataDirOption = None,
    sizes: Annotated[str, typer.Option(help="Ensemble sizes, comma separated.")] = "1,2,3,4,8",
    draws: Annotated[int, typer.Option(min=1, help="Sequences, and ensembles of each size.")] = 10,
    limit: Annotated[int | None, typer.Option(min=1, help="Only the first images of the test set.")] = None,
    seed: Annotated[int, typer.Option(help="Of the drawn sequences.")] = 0,
    device: DeviceOption = "auto",
    write: Annotated[
        bool, typer.Option("--write", help="Write the result into the checkpoint's config and card.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Accuracy with one sequence and with ensembles, on a test set."""
    loaded, folder = open_checkpoint(checkpoint, device), checkpoint_folder(checkpoint)
    name = dataset or str(loaded.config.get("data", {}).get("dataset", "fashion-mnist"))
    try:
        wanted = tuple(int(word) for word in sizes.split(","))
    except ValueError:
        raise CcnetError(f'sizes are whole numbers such as "1,2,4"; got {sizes!r}') from None
    metrics = evaluate_checkpoint(
        loaded, load_dataset(name, "test", data_dir), sizes=wanted, draws=draws, limit=limit, seed=seed,
        progress=not as_json,
    )  # fmt: skip
    if write:
        write_metrics(folder, metrics)
    if as_json:
        print_json(metrics)
        return
    table = Table("k", "accuracy", "std over draws", title=f"{loaded.name} on {metrics['n']:,} images of {name}")
    if "ensembles" not in metrics:
        table.add_row("-", f"{metrics['accuracy']:.2%}", "-")
    for row in metrics.get("ensembles", []):
        table.add_row(str(row["size"]), f"{row['accuracy_mean']:.2%}", f"{row['accuracy_std']:.2%}")
    console.print(table)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """The checkpoints that are at hand."""
    configs = [read_config(folder) for folder in checkpoint_folders()]
    if as_json:
        print_json([{k: c.get(k) for k in ("name", "architecture", "labels", "metrics")} for c in configs])
        return
    table = Table("name", "architecture", "classes", "accuracy", title=str(checkpoints_root()))
    for config in configs:
        accuracy = (config.get("metrics") or {}).get("accuracy")
        shown = "-" if accuracy is None else f"{accuracy:.2%}"
        table.add_row(config["name"], config["architecture"]["name"], str(len(config["labels"])), shown)
    console.print(table)


def checkpoints_root() -> Path:
    """The folder of checkpoints: CCNET_CHECKPOINTS, else ./checkpoints."""
    return Path(os.environ.get("CCNET_CHECKPOINTS") or "checkpoints")


def checkpoint_folders() -> list[Path]:
    """Every checkpoint under `checkpoints_root`, by name."""
    found = (path.parent for path in checkpoints_root().glob("*/config.json"))
    return sorted(folder for folder in found if not folder.name.startswith("."))  # dotted: one that is being written


def checkpoint_folder(name: str | None) -> Path:
    """The folder of a path or a name; without one CCNET_MODEL, else the first CCNet.

    Raises:
        CheckpointError: there is none; the message names those there are.
    """
    name = name or os.environ.get("CCNET_MODEL")
    if name is not None and Path(name).is_dir():
        return Path(name)
    folders = checkpoint_folders()
    for folder in folders:
        wanted = name == folder.name if name else read_config(folder)["architecture"]["name"] == "CCNet"
        if wanted:
            return folder
    there = ", ".join(folder.name for folder in folders) or "none"
    raise CheckpointError(
        f"no checkpoint {name!r} in {checkpoints_root()}; there are: {there}. Give a folder or set CCNET_CHECKPOINTS"
    )


def open_checkpoint(name: str | None, device: str) -> Checkpoint:
    """Load a checkpoint by path or name onto a device; "auto" takes a GPU when there is one."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return load_checkpoint(checkpoint_folder(name), device)


def run_ensemble(checkpoint: Checkpoint, x: Tensor, size: int, seed: int) -> tuple[Tensor, Tensor]:
    """(logits [N, classes], agreement [N]) of a CCNet's ensemble; a ConvNet is one member that agrees with itself."""
    if isinstance(checkpoint.model, CCNet):
        output = ScaleEnsemble(checkpoint.model)(x, size=size, seed=seed)
        return output.logits, output.agreement
    with torch.inference_mode():
        return checkpoint.model(x), torch.ones(len(x))


def probe_images(
    checkpoint: Checkpoint, source: str, samples: int, seed: int, data_dir: Path | None
) -> tuple[Tensor, Sequence[float]]:
    """(prepared images, the value that enters from outside when they are shifted: black, or 0 for noise)."""
    preprocessing = checkpoint.preprocessing
    if source == "noise":
        shape = (preprocessing.channels, *preprocessing.input_size)
        return noise_images(samples, shape, seed).to(checkpoint.device), [0.0] * preprocessing.channels
    images = load_dataset(source, "test", data_dir).first(samples).images
    black = [-mean / std for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True)]
    return checkpoint.preprocess(images), black


def describe_sequence(sequence: ScaleSequence, in_size: tuple[int, int]) -> dict[str, Any]:
    """A sequence as JSON values."""
    return {
        "vertical": [str(s) for s in sequence.vertical],
        "horizontal": [str(s) for s in sequence.horizontal],
        "shapes": [list(size) for size in sequence.shapes(in_size)],
    }


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
