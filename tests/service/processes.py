"""A process of the service, as operators run it."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 90


class Process:
    """`python -m service` on a free port, with its log.

    Args:
        under: A command that it is started by, such as `nice`.
        module: Another one that serves.
        settings: Those of docs/settings.md in lower case, without CCNET_.
    """

    def __init__(self, under: Sequence[str] = (), module: str = "service", **settings: object) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("CCNET_")}
        environment |= {f"CCNET_{name.upper()}": str(value) for name, value in settings.items()}
        self.popen = subprocess.Popen(
            [*under, sys.executable, "-m", module], cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True
        )
        self.log: list[dict] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.popen.stderr is not None
        for line in self.popen.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.log.append({"message": line.strip()})

    def wait_for(self, message: str) -> dict:
        """The first line of the log that begins so."""
        give_up = time.monotonic() + PATIENCE_S
        while time.monotonic() < give_up:
            for line in list(self.log):
                if line["message"].startswith(message):
                    return line
            if self.popen.poll() is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise AssertionError(f"no line {message!r} in {self.log}")

    @property
    def url(self) -> str:
        return self.wait_for("Uvicorn running on ")["message"].split()[3]

    def leave(self) -> int:
        """The exit status."""
        status = self.popen.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        return status
