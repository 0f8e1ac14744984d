"""What the verbs of the command line share: errors in one line, checkpoints by name, tables, JSON, lists of numbers."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from ccnet.checkpoint import Checkpoint, load_checkpoint, read_config
from ccnet.errors import CcnetError, CheckpointError
from ccnet.progress import ProgressReport
from ccnet.training_run import device_named

_UsageError: Any = typer.BadParameter.__base__  # what typer raises for any wrong option; it exports no name for it


class Verbs(TyperGroup):
    """The verbs; input that cannot be right ends with exit status 2 and one line on stderr."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except CcnetError as error:
            message = str(error)
        except OSError as error:
            if error.filename is None:  # of no file: a closed pipe, or a fault of ours
                raise
            message = f"{error.filename}: {error.strerror}"
        except _UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "ccnet"
            message = f"{error.format_message().rstrip('.')}; see {command} --help"
        sys.stderr.write(f"ccnet: {' '.join(message.split())}\n")
        raise typer.Exit(2)


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
    if name is not None and Path(name).exists():
        return Path(name)  # a file too: loading says what is wrong with it
    folders = checkpoint_folders()
    for folder in folders:
        wanted = name == folder.name if name else read_config(folder)["architecture"].get("name") == "CCNet"
        if wanted:
            return folder
    asked = f"no checkpoint {name!r}" if name else "no checkpoint of a CCNet"
    there = ", ".join(folder.name for folder in folders) or "none"
    raise CheckpointError(
        f"{asked} in {checkpoints_root()}; there are: {there}. Give a folder with -c, set CCNET_CHECKPOINTS, "
        "or make one with `ccnet train`"
    )


def open_checkpoint(name: str | None, device: str) -> Checkpoint:
    """Load a checkpoint by path or name onto a device; "auto" takes a GPU when there is one.

    Raises:
        CcnetError: no such checkpoint or device.
    """
    where = device_named(device)
    if where.type not in ("cpu", "cuda"):
        raise CcnetError(f"device {device!r} was given; allowed are 'auto', 'cpu', 'cuda' and 'cuda:NUMBER'")
    try:
        return load_checkpoint(checkpoint_folder(name), where)
    except RuntimeError as error:  # torch's, for the number of a GPU that is not there
        raise CcnetError(f"device {device!r} cannot be used: {error}") from error


def describe_checkpoint(folder: Path) -> dict[str, Any]:
    """What a checkpoint's config says in short; for a damaged one its folder's name and the error."""
    try:
        config = read_config(folder)
    except CheckpointError as error:
        return {"name": folder.name, "error": str(error)}
    return {key: config.get(key) for key in ("name", "architecture", "labels", "metrics")}


def number_option(*names: str, least: int = 0, most: int | None = None, text: str) -> Any:
    """An option for a whole number in a range; a refusal says what was given and what is allowed.

    Args:
        names: of the option, such as "--ensemble-size", "-k"; none for that of the parameter.
        least, most: allowed, both included; None has no end.
        text: what `--help` says.
    """
    allowed = f"{least} or more" if most is None else f"{least} to {most:,}"

    def parse(given: str) -> int:
        try:
            number = int(given)
        except ValueError:
            number = least - 1
        if number < least or (most is not None and number > most):
            raise typer.BadParameter(f"{given!r} was given; allowed is a whole number, {allowed}")
        return number

    return typer.Option(*names, parser=parse, metavar=f"<{allowed}>", help=text)


def whole_numbers(text: str, what: str) -> tuple[int, ...]:
    """The numbers of a text such as "2,4,6".

    Args:
        text: as given.
        what: what the numbers are, for the message.

    Raises:
        CcnetError: it is no such text.
    """
    try:
        return tuple(int(word) for word in text.split(","))
    except ValueError:
        raise CcnetError(f'{what} are whole numbers with commas between, such as "2,4,6"; got {text!r}') from None


def progress(title: str, total: int, unit: str, *, shown: bool = True) -> ProgressReport:
    """A progress bar on stderr, so that stdout stays what was asked for."""
    return ProgressReport(title, total, unit=unit, enabled=shown, stream=sys.stderr)


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout; names are shown as they are, whatever brackets they hold."""
    table = Table(*columns, title=Text(title))
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")
