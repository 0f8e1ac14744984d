"""Runs the GPU checks in processes of their own: under Triton's interpreter, and on a GPU where there is one.

Triton decides when it is imported whether its kernels are interpreted, so neither kind may share a process with the
other, nor with tests that know nothing of Triton.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
pytestmark = pytest.mark.timeout(600)  # half a minute each on an idle machine

CHECKS = ("gpu_kernel_checks.py", "gpu_program_checks.py")


def run_checks(name: str, interpreted: bool, *options: str) -> None:
    """Run one file of checks, which must all pass; a check may only be skipped for want of a GPU."""
    pytest.importorskip("triton", reason="Triton is not installed")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("TRITON_", "PYTEST_"))}
    environment |= {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""} if interpreted else {}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *options]
    finished = subprocess.run(
        [*command, str(HERE / name)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stdout[-5000:] + finished.stderr[-2000:]
    assert re.search(r"\b[1-9]\d* passed", finished.stdout), "nothing ran"
    skipped = [line for line in finished.stdout.splitlines() if line.startswith("SKIPPED")]
    allowed = r"needs a GPU$" if interpreted else r"a GPU has graphs$"
    assert all(re.search(allowed, line) for line in skipped), skipped


@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_pass_under_the_interpreter(name):
    run_checks(name, True, "-m", "not slow")


@pytest.mark.slow
def test_the_slow_checks_pass_under_the_interpreter():
    run_checks("gpu_program_checks.py", True, "-m", "slow")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("name", CHECKS)
def test_the_checks_pass_on_the_gpu(name):
    run_checks(name, False)


def test_a_check_that_fails_is_noticed(tmp_path, monkeypatch):
    (tmp_path / "failing.py").write_text("def test_it():\n    assert False\n")
    monkeypatch.setitem(globals(), "HERE", tmp_path)
    with pytest.raises(AssertionError, match="1 failed"):
        run_checks("failing.py", True)
