"""`ccnet VERB`: one thin command a verb; all work is done by the rooms of the library.

Bad input ends with exit status 2 and one line on stderr that says what is allowed. `--json` prints one JSON document on
stdout; progress goes to stderr.
"""

import logging
import os
import secrets
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from ccnet import __version__
from ccnet.cli_bench import bench
from ccnet.cli_evaluate import evaluate
from ccnet.cli_options import DataDirOption, DeviceOption, JsonOption, MaxNumeratorOption, SeedOption
from ccnet.cli_paper import paper
from ccnet.cli_probe import probe
from ccnet.cli_remote import KeyOption, UrlOption, classify_remotely, require_one_place
from ccnet.cli_runs import ENSEMBLE_SIZE, describe, draw_members, run_members
from ccnet.cli_support import (
    Verbs,
    checkpoint_folders,
    checkpoints_root,
    describe_checkpoint,
    number_option,
    open_checkpoint,
    print_json,
    print_table,
)
from ccnet.cli_upscale import upscale
from ccnet.errors import CcnetError, CheckpointError
from ccnet.pictures import read_picture
from ccnet.sequences import ScaleSequence, sample_scale_sequences

MAX_ENSEMBLE_SIZE = 64  # as over HTTP

app = typer.Typer(
    cls=Verbs,
    help="Continuous-convolution networks: classify with scale ensembles, train, evaluate, probe and serve.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def main() -> None:
    """Run the command line; exit status 2 for input that cannot be right."""
    app()


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    """Continuous-convolution networks: classify with scale ensembles, train, evaluate, probe and serve."""
    if version:
        typer.echo(__version__)
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
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c",
            help="Checkpoint folder, or its name under CCNET_CHECKPOINTS; with --url the name of a model there.",
        ),
    ] = None,
    ensemble_size: Annotated[
        int | None,
        number_option(
            "--ensemble-size", "-k", least=1, most=MAX_ENSEMBLE_SIZE,
            text=f"Members of the ensemble; default: {ENSEMBLE_SIZE}, and 1 for a ConvNet.",
        ),
    ] = None,
    seed: SeedOption = None,
    top: Annotated[int, number_option(least=1, text="Classes shown a picture.")] = 3,
    device: DeviceOption = "auto",
    url: Annotated[str | None, UrlOption] = None,
    api_key_env: Annotated[str | None, KeyOption] = None,
    as_json: JsonOption = False,
) -> None:  # fmt: skip
    """Classify pictures with an ensemble of scale sequences, here or (--url) by a running service."""
    require_one_place(url, api_key_env, device)
    if url is not None:
        answer = classify_remotely(url, pictures, checkpoint, ensemble_size, seed, top, api_key_env)
    else:
        answer = classify_here(pictures, checkpoint, ensemble_size, seed, top, device)
    if as_json:
        print_json(answer)
        return
    print_table(
        "{model}, {ensemble_size} member{s}, seed {seed}".format(
            s="s" if answer["ensemble_size"] > 1 else "", **answer
        ),
        ("picture", "label", "probability", "agreement", "next best"),
        [
            (
                result["picture"],
                result["label"],
                f"{result['probability']:.1%}",
                f"{result['agreement']:.0%}",
                ", ".join(f"{other['label']} {other['probability']:.1%}" for other in result["top"][1:]),
            )
            for result in answer["results"]
        ],
    )


@app.command()
def sequences(
    ensemble_size: Annotated[
        int, number_option("--ensemble-size", "-k", least=1, most=10_000, text="How many.")
    ] = ENSEMBLE_SIZE,
    seed: SeedOption = None,
    std: Annotated[float, typer.Option(help="Standard deviation of a scale before rounding.")] = 0.05,
    method: Annotated[
        str, typer.Option(help="corrected (A.2: one layer takes up the rest), or conditioned on the product.")
    ] = "corrected",
    max_numerator: MaxNumeratorOption = None,
    in_size: Annotated[int, number_option(least=4, most=4096, text="Side of the network's input, px.")] = 32,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Also say how many draws were not valid.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Draw scale sequences and show the map sizes of every layer (Table 4)."""
    if verbose:
        logging.basicConfig(level=logging.DEBUG, format="%(message)s")
    seed = secrets.randbits(32) if seed is None else seed
    options: dict[str, Any] = {"std": std, "method": method, "max_numerator": max_numerator}
    drawn = sample_scale_sequences(ensemble_size, seed=seed, in_size=(in_size, in_size), **options)
    if as_json:
        print_json({"seed": seed, "sequences": [describe_sequence(s, (in_size, in_size)) for s in drawn]})
        return
    for number, sequence in enumerate(drawn, 1):
        layers = zip(sequence.scales, sequence.shapes((in_size, in_size)), strict=True)
        print_table(
            f"sequence {number} of {len(drawn)}, seed {seed}",
            ("layer", "scale [H, W]", "output [H, W]"),
            [(str(j), f"{s[0]}, {s[1]}", f"{size[0]}, {size[1]}") for j, (s, size) in enumerate(layers, 1)],
        )


app.command()(probe)


@app.command()
def train(
    arch: Annotated[str, typer.Option(help="ccnet, convnet or blurconvnet.")] = "ccnet",
    dataset: Annotated[str, typer.Option(help="fashion-mnist or cifar-10.")] = "fashion-mnist",
    data_dir: DataDirOption = None,
    recipe: Annotated[str, typer.Option(help="fast, or paper (A.2, 400 epochs).")] = "fast",
    epochs: Annotated[
        int | None, number_option(least=1, text="Passes over the training images; default: the recipe's.")
    ] = None,
    batch_size: Annotated[int | None, number_option(least=1, text="Images a step; default: the recipe's.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Highest learning rate; default: the recipe's.")] = None,
    kernel_input: Annotated[str, typer.Option(help="offset or distance (ccnet).")] = "offset",
    sequence_method: Annotated[str, typer.Option(help="How scales are drawn: corrected or conditioned.")] = "corrected",
    sequence_max_numerator: MaxNumeratorOption = None,
    init: Annotated[
        str | None, typer.Option(help="Initial weights: default, or unit-variance; default: the recipe's.")
    ] = None,
    seed: Annotated[int, number_option(text="Of weights, order, augmentation and sequences.")] = 0,
    device: DeviceOption = "auto",
    threads: Annotated[int | None, number_option(least=1, text="CPU threads; default: all cores.")] = None,
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
        sequence_method=sequence_method,
        sequence_max_numerator=sequence_max_numerator,
        init=init,
        seed=seed,
        device=device,
        threads=threads,
    )
    result = run(config, out or Path("runs") / f"{dataset}-{arch}", checkpoint_dir=checkpoint, resume=not fresh)
    if result.finished:
        typer.echo(f"checkpoint: {result.checkpoint}")
    else:
        raise typer.Exit(130)


app.command()(evaluate)
app.command()(bench)
app.command()(upscale)
app.command()(paper)


@app.command()
def models(as_json: JsonOption = False) -> None:
    """The checkpoints that are at hand."""
    found = [describe_checkpoint(folder) for folder in checkpoint_folders()]
    if as_json:
        print_json(found)
        return
    if not found:
        raise CheckpointError(f"no checkpoint in {checkpoints_root()}; set CCNET_CHECKPOINTS, or make one: ccnet train")
    print_table(
        str(checkpoints_root()),
        ("name", "architecture", "classes", "accuracy"),
        [
            (one["name"], "damaged", "-", one["error"])
            if "error" in one
            else (
                one["name"],
                str(one["architecture"].get("name")),
                str(len(one["labels"])),
                "-" if (one["metrics"] or {}).get("accuracy") is None else f"{one['metrics']['accuracy']:.2%}",
            )
            for one in found
        ],
    )


def classify_here(
    pictures: list[Path], checkpoint: str | None, size: int | None, seed: int | None, top: int, device: str
) -> dict[str, Any]:
    """What `ccnet classify` prints, as JSON values, from a checkpoint."""
    loaded = open_checkpoint(checkpoint, device)
    seed = secrets.randbits(32) if seed is None else seed
    sequences = draw_members(loaded, size, seed)
    # One by one: only what the network takes of a picture is kept.
    x = torch.cat([loaded.preprocess([read_picture(path)]) for path in pictures])
    output = run_members(loaded, x, sequences)
    results = [
        {"picture": str(path), **result} for path, result in zip(pictures, describe(loaded, output, top), strict=True)
    ]
    return {"model": loaded.name, "ensemble_size": max(1, len(sequences)), "seed": seed, "results": results}


def describe_sequence(sequence: ScaleSequence, in_size: tuple[int, int]) -> dict[str, Any]:
    """A sequence as JSON values."""
    return {
        "vertical": [str(s) for s in sequence.vertical],
        "horizontal": [str(s) for s in sequence.horizontal],
        "shapes": [list(size) for size in sequence.shapes(in_size)],
    }
