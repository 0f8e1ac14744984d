"""Build the image, bring the compose file up as an operator would, use it over HTTP, and take it down again.

    make docker-smoke

Checks, in this order: the image's health check turns healthy; the container cannot write and has neither rights nor a
compiler; a request without a seed finds its weights prepared; real pictures are classified, most of them rightly; the
same seed gives the same answer twice; Prometheus scrapes the service, has its series and knows the alerts; a stop
drains and ends with status 0. Whatever happens, the containers, their network and volume are removed at the end; images
stay.

Images and build arguments come from the environment, as docker-compose.yml says (BASE_IMAGE, PROMETHEUS_IMAGE, ...).
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tests" / "data" / "fashion-mnist-sample.npz"
PROJECT = "ccnet-smoke"
PICTURES = 40
LEAST_RIGHT = 0.8  # of the pictures; ten classes, so guessing reaches 0.1
HEALTHY_WITHIN_S = 120.0
SCRAPED_WITHIN_S = 60.0
ALERTS = {"CcnetDown", "CcnetErrors", "CcnetSlow", "CcnetOverloaded"}


def compose_command() -> list[str]:
    """`docker compose` where the plugin is installed, else `docker-compose`."""
    if shutil.which("docker") is None:
        sys.exit("docker was not found: install Docker and start its engine")
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    if shutil.which("docker-compose"):
        return ["docker-compose"]
    sys.exit("neither `docker compose` nor docker-compose was found: install one of them")


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def say(what: str) -> None:
    """One line of progress, with the seconds since the start."""
    print(f"[{time.monotonic() - STARTED:6.1f} s] {what}", flush=True)


def wait_for(what: str, ready: Callable[[], bool], within_s: float) -> None:
    """Ask every half second until it is so.

    Raises:
        AssertionError: it was not so within the time.
    """
    deadline = time.monotonic() + within_s
    while not ready():
        assert time.monotonic() < deadline, f"not within {within_s:.0f} s: {what}"
        time.sleep(0.5)
    say(what)


class Stack:
    """The compose project of this run, on ports of its own."""

    def __init__(self) -> None:
        self.ports = {"HTTP_PORT": free_port(), "PROMETHEUS_PORT": free_port()}
        self._compose = [*compose_command(), "--project-name", PROJECT]
        self._environment = os.environ | {name: str(port) for name, port in self.ports.items()}

    def compose(self, *arguments: str, check: bool = True) -> None:
        """Run a compose verb, its output shown."""
        subprocess.run([*self._compose, *arguments], cwd=ROOT, env=self._environment, check=check)

    def container(self, service: str) -> str:
        """The id of a service's container."""
        listing = [*self._compose, "ps", "--quiet", "--all", service]
        if self._compose[0] == "docker-compose":
            listing.remove("--all")  # its ps lists stopped containers anyway
        output = subprocess.run(listing, cwd=ROOT, env=self._environment, check=True, capture_output=True, text=True)
        return output.stdout.strip()

    def inspect(self, service: str) -> dict[str, Any]:
        """What the engine knows of a service's container."""
        command = ["docker", "inspect", self.container(service)]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        document: list[dict[str, Any]] = json.loads(output)
        return document[0]

    def run_inside(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a service's container."""
        whole = ["docker", "exec", self.container(service), *command]
        return subprocess.run(whole, check=False, capture_output=True, text=True)


@contextmanager
def running_stack() -> Iterator[Stack]:
    """Build and start; on the way out show the logs if something failed, and remove all that was made."""
    stack = Stack()
    try:
        stack.compose("up", "--build", "--detach")
        yield stack
    except BaseException:
        stack.compose("logs", "--tail=50", check=False)
        raise
    finally:
        stack.compose("down", "--volumes", "--remove-orphans", check=False)


def check_hardening(stack: Stack) -> None:
    """The container runs without rights and cannot change its own files."""
    facts = stack.inspect("ccnet")
    assert facts["HostConfig"]["ReadonlyRootfs"]
    assert facts["HostConfig"]["CapDrop"] == ["ALL"]
    assert stack.run_inside("ccnet", "id", "-u").stdout.strip() == "10001"
    assert stack.run_inside("ccnet", "touch", "/srv/ccnet/x").returncode != 0, "the root file system can be written to"
    bindings = [binding for ports in facts["NetworkSettings"]["Ports"].values() for binding in ports or []]
    assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}, bindings
    assert stack.run_inside("ccnet", "sh", "-c", "command -v cc gcc g++").returncode != 0, "a compiler is in the image"
    say("runs as user 10001 on a read-only file system, reachable from this machine alone")


def sample_pictures() -> tuple[list[bytes], list[str]]:
    """PNG files of test pictures, and the names of their classes."""
    with np.load(SAMPLE, allow_pickle=False) as sample:
        images, labels, classes = sample["images"][:PICTURES], sample["labels"][:PICTURES], sample["classes"]
    files = []
    for image in images:
        buffer = BytesIO()
        Image.fromarray(image[..., 0]).save(buffer, format="PNG")
        files.append(buffer.getvalue())
    return files, [str(classes[label]) for label in labels]


def check_classification(client: httpx.Client) -> None:
    """Most pictures get their name, and the same seed gives the same answer twice."""
    pictures, names = sample_pictures()
    parts = [("images", (f"{index}.png", picture, "image/png")) for index, picture in enumerate(pictures)]
    options: dict[str, str | int] = {"ensemble_size": 4, "seed": 7, "include": "logits"}
    answers = [client.post("/v1/classify", params=options, files=parts) for _ in range(2)]
    first, second = (answer.raise_for_status().json()["results"] for answer in answers)
    right = sum(result["label"] == name for result, name in zip(first, names, strict=True))
    assert right >= LEAST_RIGHT * len(names), f"only {right} of {len(names)} pictures were named rightly"
    logits = [np.array([result["logits"] for result in results]) for results in (first, second)]
    np.testing.assert_allclose(logits[0], logits[1], atol=1e-4)
    say(f"{right} of {len(names)} pictures named rightly, twice the same with the same seed")


def check_prepared_weights(client: httpx.Client) -> None:
    """A request without a seed finds its weights prepared; says which kernels the image has."""

    def events() -> dict[str, float]:
        lines = client.get("/metrics").raise_for_status().text.splitlines()
        found = [line.rpartition(" ") for line in lines if line.startswith("ccnet_plan_cache_events_total{")]
        return {name: float(value) for name, _, value in found}

    before = events()
    client.post("/v1/classify", files={"images": sample_pictures()[0][0]}).raise_for_status()
    made = {name.split('"')[1]: value - before[name] for name, value in events().items()}
    assert made["hit"] > 0, made
    assert made["miss"] == 0, made
    models = client.get("/v1/models").raise_for_status().json()["models"]
    computes = ", ".join(f"{model['name']} {model['backend']} {model['instruction_set']}" for model in models)
    say(f"a request without a seed found its weights prepared; how models compute: {computes}")


def check_prometheus(client: httpx.Client) -> None:
    """Prometheus reaches the service, holds its series and has loaded the alerts."""

    def is_scraped() -> bool:
        try:
            targets = client.get("/api/v1/targets").json()["data"]["activeTargets"]
        except (httpx.TransportError, ValueError):
            return False
        return any(target["labels"]["job"] == "ccnet" and target["health"] == "up" for target in targets)

    def counts_classifications() -> bool:
        query = 'sum(ccnet_request_duration_seconds_count{job="ccnet",route="/v1/classify",status="200"})'
        result = client.get("/api/v1/query", params={"query": query}).raise_for_status().json()["data"]["result"]
        return bool(result) and float(result[0]["value"][1]) >= 2

    wait_for("Prometheus scrapes the service", is_scraped, SCRAPED_WITHIN_S)
    wait_for("Prometheus counts the classifications", counts_classifications, SCRAPED_WITHIN_S)
    groups = client.get("/api/v1/rules").raise_for_status().json()["data"]["groups"]
    alerts = {rule["name"]: rule["state"] for group in groups for rule in group["rules"]}
    assert set(alerts) == ALERTS, alerts
    assert "firing" not in alerts.values(), alerts
    say(f"Prometheus watches {len(alerts)} alerts, none firing")


def main() -> None:
    """The whole run."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to stop"))  # an exit cleans up, a plain SIGTERM would not
    with running_stack() as stack:
        wait_for(
            "the image's health check is healthy",
            lambda: stack.inspect("ccnet")["State"].get("Health", {}).get("Status") == "healthy",
            HEALTHY_WITHIN_S,
        )
        check_hardening(stack)
        with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['HTTP_PORT']}", timeout=60) as client:
            check_prepared_weights(client)
            check_classification(client)
        with httpx.Client(base_url=f"http://127.0.0.1:{stack.ports['PROMETHEUS_PORT']}", timeout=10) as client:
            check_prometheus(client)
        stack.compose("stop", "ccnet")
        state = stack.inspect("ccnet")["State"]
        assert state["ExitCode"] == 0, f"stopped with status {state['ExitCode']}"
        say("a stop drains and ends with status 0")
    say("all good, everything removed")


STARTED = time.monotonic()

if __name__ == "__main__":
    main()
