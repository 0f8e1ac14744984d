"""A real service process for a benchmark: started, ready, measured, stopped."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0


class ServiceProcess:
    """One `python -m service`.

    Attributes:
        url: Where it answers.
        popen: The process.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", url: str) -> None:
        self.popen, self.url = popen, url

    @property
    def rss_mib(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    @property
    def connections(self) -> int:
        """Open files that are sockets, the listening one and those of the event loop included."""
        return sum(os.readlink(file).startswith("socket:") for file in Path(f"/proc/{self.popen.pid}/fd").iterdir())

    def metric(self, name: str) -> float:
        """The value of a series without labels."""
        text = httpx.get(f"{self.url}/metrics").text
        return float(next(line for line in text.splitlines() if line.startswith(f"{name} ")).split()[1])

    def terminate(self) -> int:
        """SIGTERM, and the exit status."""
        self.popen.send_signal(signal.SIGTERM)
        return self.popen.wait(60)


@contextmanager
def running_service(module: str = "service", **settings: object) -> Iterator[ServiceProcess]:
    """A ready service on a free port; settings are those of docs/settings.md in lower case, without CCNET_."""
    port = _free_port()
    given = {"port": port, "device": "cpu"} | settings
    environment = os.environ | {f"CCNET_{name.upper()}": str(value) for name, value in given.items()}
    with tempfile.TemporaryFile() as log:
        popen = subprocess.Popen([sys.executable, "-m", module], cwd=ROOT, env=environment, stdout=log, stderr=log)
        service = ServiceProcess(popen, f"http://127.0.0.1:{port}")
        try:
            _wait_until_ready(service)
            yield service
        finally:
            if popen.poll() is None:
                popen.kill()
                popen.wait()


def _wait_until_ready(service: ServiceProcess) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if service.popen.poll() is not None:
            raise RuntimeError(f"the service ended with status {service.popen.returncode} before it was ready")
        try:
            if httpx.get(f"{service.url}/health/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the service was not ready after {START_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
