"""`ccnet VERB ...` in this process, and what tests of the command line ask of its answer."""

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from ccnet.cli import app

DATA = Path(__file__).parents[2] / "data"
SAMPLE = ("--data-dir", str(DATA))
VERBS = ("serve", "classify", "sequences", "probe", "train", "evaluate", "bench", "models", "upscale")
DISTRIBUTION = {"std": 0.03, "method": "corrected", "pool_size": 0}


def run(*arguments: object) -> Result:
    """`ccnet ARGUMENTS`, in this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="ccnet")


def said(*arguments: object) -> str:
    """What a call that succeeds prints."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.stdout


def parsed(*arguments: object) -> Any:
    """The JSON that a call prints, and nothing beside it."""
    return json.loads(said(*arguments, "--json"))


def assert_refused(result: Result, *words: str) -> None:
    """Exit status 2, and one line on stderr with these words; nothing on stdout."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    line = result.stderr
    assert line.startswith("ccnet: ")
    assert line.count("\n") == 1
    assert line.endswith("\n")
    for word in words:
        assert word in line
