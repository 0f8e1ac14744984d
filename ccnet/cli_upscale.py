"""`ccnet upscale`: enlarges a picture by any factor, or trains the network that does it; see `ccnet.upscaling`."""

import math
import re
import time
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any

import typer

from ccnet.checkpoint import UPSCALERS_FOLDER
from ccnet.cli_support import checkpoints_root, number_option, print_json, progress
from ccnet.errors import CcnetError, CheckpointError
from ccnet.upscaling.ensembles import ImageAggregate, Members
from ccnet.upscaling.folder import load_upscaler
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.picture_files import Ensemble, Target, prepare

_MAX_ENSEMBLE = 64
_LONGEST_NUMBER = 24  # characters: "1e9999999" would be an honest fraction of ten million digits


def upscale(
    picture: Annotated[Path | None, typer.Argument(help="PNG, JPEG or WebP file.", show_default=False)] = None,
    output: Annotated[
        Path | None, typer.Argument(help="File to write: .png, .jpg, .jpeg or .webp.", show_default=False)
    ] = None,
    scale: Annotated[
        str | None, typer.Option(help="Factor from 1 to 4, such as 2.37 or 5/3; for each axis WIDTHxHEIGHT: 1.6x2.37.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Size instead, WIDTHxHEIGHT in px: 640x480.")] = None,
    method: Annotated[str, typer.Option(help="cc (the network), or bicubic.")] = "cc",
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint", "-c",
            help="Upscaler's folder, or its name in upscalers/ under CCNET_CHECKPOINTS; default: the first there.",
        ),
    ] = None,
    ensemble: Annotated[
        int | None, number_option(least=1, most=_MAX_ENSEMBLE, text="Members; several times the work.")
    ] = None,
    aggregate: Annotated[ImageAggregate | None, typer.Option(help="Of the members' images; default: median.")] = None,
    members: Annotated[
        Members | None,
        typer.Option(help="Steps (two, of random factors) or views (turned and mirrored); default: steps."),
    ] = None,
    seed: Annotated[int, number_option(text="Of the steps; with --train of everything.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    train: Annotated[
        str | None, typer.Option(help="Train instead, on the pictures of a folder, or on a data set by name.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="With --train: folder of the run; default: runs/upscaler.")] = None,
    steps: Annotated[int | None, number_option(least=1, text="With --train: of the optimiser; default: 2,400.")] = None,
    kernel_input: Annotated[
        str | None, typer.Option(help="With --train: offset or distance; default: offset.")
    ] = None,
    threads: Annotated[int | None, number_option(least=1, text="With --train: CPU threads; default: all.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="With --train: start anew instead of going on.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a line.")] = False,
) -> None:  # fmt: skip
    """Enlarge a picture by any factor from 1 to 4, another along each axis (docs/upscaling.md)."""
    if train is not None:
        _refuse(
            {
                "picture": picture, "--scale": scale, "--size": size, "--method": method != "cc" or None,
                "--checkpoint": checkpoint, "--ensemble": ensemble, "--aggregate": aggregate, "--members": members,
                "--force": force or None, "--json": as_json or None,
            },
            "--train makes an upscaler and takes no {}; leave one of them out",
        )  # fmt: skip
        _train(train, out or Path("runs/upscaler"), steps, kernel_input or "offset", seed, threads, fresh)
        return
    training_alone = {"--steps": steps, "--kernel-input": kernel_input, "--threads": threads, "--fresh": fresh or None}
    _refuse({"--out": out} | training_alone, "{} belongs to --train, which was not given; leave it out")
    if ensemble is None:
        _refuse(
            {"--aggregate": aggregate, "--members": members},
            "{} belongs to --ensemble; give that, such as --ensemble 8",
        )
    if picture is None or output is None:
        raise CcnetError("give a picture and the file to write: ccnet upscale in.png out.png --scale 2.37")
    if method not in ("cc", "bicubic"):
        raise CcnetError(f"the method is cc or bicubic; got {method!r}")
    if method == "bicubic" and (ensemble is not None or checkpoint is not None):
        raise CcnetError("bicubic interpolation has no ensemble and no checkpoint; leave them out, or use --method cc")
    started = time.monotonic()
    job = prepare(picture, output, _target(scale, size), force=force)
    name, model = (None, None) if method == "bicubic" else open_upscaler(checkpoint)
    wanted = None if ensemble is None else Ensemble(ensemble, members or "steps", aggregate or "median", seed)
    total = math.prod(job.out_size) * (1 + (ensemble or 0))
    with progress(f"enlarging {picture.name}", total, "px", shown=not as_json) as report:
        job.run(model, wanted, report.advance)
    seconds = time.monotonic() - started
    if as_json:
        print_json(
            {
                "picture": str(picture), "output": str(output), "method": method, "checkpoint": name,
                "scale": [str(s) for s in job.scale], "in_size": list(job.pixels.shape[:2]),
                "out_size": list(job.out_size), "seconds": round(seconds, 3),
            }
        )  # fmt: skip
    else:
        typer.echo(f"{output}: {job.out_size[1]} x {job.out_size[0]} px, {seconds:.1f} s")


def open_upscaler(name: str | None) -> tuple[str, CCUpscaler]:
    """(name, network) of an upscaler by path or name; without one the first there is.

    Raises:
        CheckpointError: there is none, or it cannot be loaded; the message names those there are.
    """
    root = checkpoints_root() / UPSCALERS_FOLDER
    if name is not None and Path(name).exists():
        model, config = load_upscaler(name)
        return str(config["name"]), model
    folders = sorted(path.parent for path in root.glob("*/config.json") if not path.parent.name.startswith("."))
    for folder in folders:
        if name is None or name == folder.name:
            model, config = load_upscaler(folder)
            return str(config["name"]), model
    asked = "no upscaler" if name is None else f"no upscaler {name!r}"
    there = ", ".join(folder.name for folder in folders) or "none"
    raise CheckpointError(
        f"{asked} in {root}; there are: {there}. Give a folder with -c, set CCNET_CHECKPOINTS, make one with "
        "`ccnet upscale --train FOLDER`, or use --method bicubic"
    )


def _refuse(given: dict[str, Any], words: str) -> None:
    """Name the first option that was given (is not None) where it would mean nothing."""
    if named := next((name for name, value in given.items() if value is not None), None):
        raise CcnetError(words.format(named))


def _target(scale: str | None, size: str | None) -> Target:
    if (scale is None) == (size is None):
        raise CcnetError("give either --scale, such as 2.37 or 1.6x2.37, or --size, such as 640x480")
    if size is not None:
        if (sides := re.fullmatch(r"(\d{1,9})x(\d{1,9})", size)) is None:
            raise CcnetError(f"a size is WIDTHxHEIGHT in px, such as 640x480; got {size!r}")
        return Target(size=(int(sides[2]), int(sides[1])))
    factors = [_factor(text, str(scale)) for text in str(scale).split("x")]
    if len(factors) > 2:
        raise CcnetError(f"a scale is one factor or two, WIDTHxHEIGHT, such as 1.6x2.37; got {scale!r}")
    return Target(scale=(factors[-1], factors[0]))


def _factor(text: str, given: str) -> Fraction:
    try:
        if len(text) > _LONGEST_NUMBER or "e" in text.lower():
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise CcnetError(f"a scale is a factor such as 3, 2.37 or 5/3, or two, 1.6x2.37; got {given!r}") from None


def _train(
    source: str, out: Path, steps: int | None, kernel_input: str, seed: int, threads: int | None, fresh: bool
) -> None:
    from ccnet.upscaling.recipe import UpscalerTraining
    from ccnet.upscaling.training import train_upscaler

    given: dict[str, Any] = {} if steps is None else {"steps": steps}
    config = UpscalerTraining(source, kernel_input=kernel_input, seed=seed, threads=threads, **given)
    result = train_upscaler(config, out, resume=not fresh)
    if not result.finished:
        raise typer.Exit(130)
    typer.echo(f"checkpoint: {result.checkpoint}")
