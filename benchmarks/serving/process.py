"""Real server processes for a benchmark, the service and its peers: started, ready, measured, stopped."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import httpx

ROOT = Path(__file__).resolve().parents[2]
START_S = 120.0
LOG_TAIL_BYTES = 2000  # of the log of a process that did not start, in the error


class ServiceProcess:
    """One `python -m service`, or another server.

    Attributes:
        url: Where it answers.
        popen: The process; it leads a group of its own, to which the processes that it starts belong.
    """

    def __init__(self, popen: "subprocess.Popen[bytes]", url: str) -> None:
        self.popen, self.url = popen, url

    @property
    def rss_mib(self) -> float:
        """Resident memory now."""
        status = Path(f"/proc/{self.popen.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    @property
    def processor_s(self) -> tuple[float, float]:
        """Processor time that the main thread, which is the event loop's, and the other threads have had."""
        tasks = Path(f"/proc/{self.popen.pid}/task")
        of_thread = {task.name: int((task / "schedstat").read_text().split()[0]) / 1e9 for task in tasks.iterdir()}
        main = of_thread.pop(str(self.popen.pid))
        return main, sum(of_thread.values())

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
    with _running(["-m", module], port, environment, "/health/ready") as service:
        yield service


@contextmanager
def running_peer(module: str, *options: object) -> Iterator[ServiceProcess]:
    """A ready server of another make on a free port, started by `python -m MODULE --port PORT` and its options."""
    port = _free_port()
    with _running(["-m", module, "--port", str(port), *map(str, options)], port, dict(os.environ), "/health") as peer:
        yield peer


@contextmanager
def _running(arguments: list[str], port: int, environment: dict[str, str], ready_path: str) -> Iterator[ServiceProcess]:
    command = [sys.executable, *arguments]
    with tempfile.TemporaryFile() as log:
        # As `make serve` and the image have it: threads that wait for work in vain take it from the event loop.
        environment = {"OMP_WAIT_POLICY": "PASSIVE"} | environment
        popen = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)
        server = ServiceProcess(popen, f"http://127.0.0.1:{port}")
        try:
            _wait_until_ready(server, ready_path, log)
            yield server
        finally:
            with suppress(ProcessLookupError):  # nothing of the group is left
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


def _wait_until_ready(server: ServiceProcess, path: str, log: IO[bytes]) -> None:
    until = time.monotonic() + START_S
    while time.monotonic() < until:
        if server.popen.poll() is not None:
            log.seek(0)
            said = log.read()[-LOG_TAIL_BYTES:].decode(errors="replace")
            raise RuntimeError(f"the server ended with status {server.popen.returncode} before it was ready:\n{said}")
        try:
            if httpx.get(server.url + path).status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise RuntimeError(f"the server was not ready after {START_S:.0f} s")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
