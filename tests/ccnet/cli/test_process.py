"""The installed program itself, and `ccnet serve`."""

import json
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tests.ccnet.cli.calls import run

COMMAND = (sys.executable, "-c", "from ccnet.cli import main; main()")


def test_a_setting_of_the_service_that_is_not_allowed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCNET_PORT", "")  # so that what `serve` sets is taken back
    result = run("serve", "--port", "70000")
    assert result.exit_code == 2
    assert result.stderr.startswith("CCNET_PORT: '70000' was given")


def test_bad_input_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [*COMMAND, "classify", str(tmp_path / "none.png")], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.count("\n") == 1
    assert "none.png: No such file" in done.stderr


def test_serve_takes_its_options_answers_and_stops_with_status_0(folder: Path) -> None:
    command = [*COMMAND, "serve", "--port", "0", "--device", "cpu", "--checkpoints", str(folder)]
    with subprocess.Popen([*command, "--model", "tiny-convnet"], stderr=subprocess.PIPE, text=True) as process:
        killer = threading.Timer(90, process.kill)
        killer.start()
        try:
            assert process.stderr is not None
            lines = iter(process.stderr.readline, "")
            started = next(json.loads(line) for line in lines if '"starting"' in line)
            assert next(line for line in lines if '"ready"' in line)
            process.send_signal(signal.SIGTERM)
            process.stderr.read()
            assert process.wait() == 0
        finally:
            killer.cancel()
            process.kill()
    assert started["settings"]["port"] == 0
    assert started["settings"]["model"] == "tiny-convnet"
