"""Steps survive a stop at any moment, and no result is taken for that of other settings."""

import json
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ccnet import CcnetError
from ccnet.paper.context import Context, Options

from .conftest import MakeContext


def never() -> object:
    """What must not be computed again."""
    raise AssertionError("computed anew")


def never_a_tensor() -> torch.Tensor:
    """As `never`."""
    raise AssertionError("computed anew")


def test_a_kept_step_is_taken_up_with_equal_settings(make_context: MakeContext) -> None:
    assert make_context().step("one", lambda: {"a": (1, 2)}, size=3) == {"a": [1, 2]}
    again = make_context()
    assert again.step("one", never, size=3) == {"a": [1, 2]}
    assert again.taken_up == 1


@pytest.mark.parametrize("kind", ["values", "tensors"])
def test_other_settings_other_options_and_fresh_runs_compute_anew(
    make_context: MakeContext, options: Options, kind: str
) -> None:
    def result(context: Context, number: float, **settings: object) -> float:
        if kind == "values":
            return float(context.step("one", lambda: number, **settings))
        return float(context.array_step("one", lambda: torch.tensor([number]), **settings))

    assert result(make_context(), 1, fingerprint="x") == 1
    assert result(make_context(), 2, fingerprint="x") == 1
    assert result(make_context(), 3, fingerprint="y") == 3
    assert result(make_context(fresh=True), 4, fingerprint="y") == 4
    other = make_context()
    other.options = replace(options, seed=1)
    assert result(other, 5, fingerprint="y") == 5
    other = make_context()
    other.options = replace(options, seed=1, threads=2)  # decides how fast, and not what
    assert result(other, 6, fingerprint="y") == 5


def test_a_tensor_is_read_as_it_was_to_the_last_bit(make_context: MakeContext) -> None:
    tensor = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    assert torch.equal(make_context().array_step("one", lambda: tensor.transpose(0, 1)), tensor.transpose(0, 1))
    kept = make_context().array_step("one", never_a_tensor)
    assert torch.equal(kept, tensor.transpose(0, 1))
    assert kept.dtype == torch.float32


def test_a_damaged_tensor_is_computed_anew(make_context: MakeContext, tmp_path: Path) -> None:
    make_context().array_step("one", lambda: torch.ones(10))
    path = tmp_path / "steps" / "one.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    assert make_context().array_step("one", lambda: torch.zeros(2)).tolist() == [0, 0]


@pytest.mark.parametrize("damaged", [b"", b"{", b"\xff\xfe", b"[1]", b"null", b'{"depends_on": 1}'], ids=repr)
def test_a_damaged_file_is_computed_anew(make_context: MakeContext, tmp_path: Path, damaged: bytes) -> None:
    make_context().step("one", lambda: 1)
    path = tmp_path / "steps" / "one.json"
    path.write_bytes(damaged)
    assert make_context().step("one", lambda: 2) == 2
    without = json.loads(path.read_bytes())
    del without["result"]
    path.write_text(json.dumps(without))
    assert make_context().step("one", lambda: 3) == 3


def test_a_step_taken_twice_is_refused(make_context: MakeContext) -> None:
    context = make_context()
    context.step("one", lambda: 1)
    with pytest.raises(CcnetError, match="twice"):
        context.step("one", lambda: 2)


def test_the_commits_that_computed_the_steps_are_known(make_context: MakeContext) -> None:
    make_context(commit="old").step("one", lambda: 1)
    context = make_context(commit="new")
    context.step("one", never)
    context.array_step("two", lambda: torch.ones(1))
    assert context.commits == ["old", "new"]


KILLED = """
import os, signal, sys
from pathlib import Path
import torch
from ccnet.paper.context import Context, Options

context = Context(Options(), Path(sys.argv[1]), shown=False, commit="abc")
context.step("first", lambda: 7)
context.array_step("second", lambda: torch.full((2,), 7.0))
context.step("third", lambda: os.kill(os.getpid(), signal.SIGKILL))
"""


def test_a_run_that_is_killed_in_a_step_goes_on_with_that_step(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.json", "second.safetensors"]
    again = Context(Options(), tmp_path, shown=False, commit="abc")
    assert again.step("first", never) == 7
    assert again.array_step("second", never_a_tensor).tolist() == [7, 7]
    assert again.step("third", lambda: 8) == 8
