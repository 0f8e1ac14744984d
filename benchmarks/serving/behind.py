"""What an evaluation job costs the requests that come while it runs behind them, and what it gets done meanwhile."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvloop

from benchmarks.serving.load import percentile
from benchmarks.serving.pictures import bodies
from benchmarks.serving.process import ServiceProcess, running_service
from benchmarks.serving.wire import Wire
from ccnet import Client
from ccnet.benchmarks.measure import median_and_spread
from ccnet.benchmarks.report import Result, Row, Unit

MEMBERS = 4
BLOCKS_S = {0.0: 6.0, 0.02: 8.0, 0.2: 20.0}  # pause of a client after an answer, and how long it asks, in seconds
PASSES = "ccnet_background_passes_total"


def background(result: Result, quick: bool) -> None:
    """One client that asks, pauses and asks again, with and without a job, in turns; and a job that nobody disturbs."""
    rounds, share = (1, 0.3) if quick else (7, 1.0)
    found: dict[tuple[str, str, Unit], list[float]] = {}
    with tempfile.TemporaryDirectory() as folder, running_service(state_dir=Path(folder)) as service:
        for _ in range(rounds):
            with _job(service):
                found.setdefault(("nobody asks", "job, passes a second", ""), []).append(_alone(service, 6.0 * share))
            for pause_s, seconds in BLOCKS_S.items():
                case = f"a pause of {1000 * pause_s:.0f} ms after each answer"
                without, _ = _asked(service, pause_s, seconds * share)
                with _job(service):
                    beside, rate = _asked(service, pause_s, seconds * share)
                found.setdefault((case, "job, passes a second", ""), []).append(rate)
                for name, at in (("p50", 0.5), ("p99", 0.99)):
                    alone_s, beside_s = percentile(without, at), percentile(beside, at)
                    found.setdefault((case, f"{name} without a job", "s"), []).append(alone_s)
                    found.setdefault((case, f"{name} with a job", "s"), []).append(beside_s)
                    found.setdefault((case, f"{name}, with / without", "x"), []).append(beside_s / alone_s)
    for (case, what, unit), values in found.items():
        value, spread = median_and_spread(values)
        result.add(Row(case, what, value, unit, spread))


@contextmanager
def _job(service: ServiceProcess) -> Iterator[None]:
    """While an evaluation runs, which has made its first passes."""
    with Client(service.url) as client:
        before = service.metric(PASSES)
        job = client.evaluate("fashion-mnist", max_shift=())
        while service.metric(PASSES) == before:
            time.sleep(0.05)
        yield
        if client.delete_evaluation(job) is None:
            raise RuntimeError("the job ended before the measurement did; give it more images or draws")


def _alone(service: ServiceProcess, seconds: float) -> float:
    """Passes a second of the job."""
    before, begun = service.metric(PASSES), time.perf_counter()
    time.sleep(seconds)
    return (service.metric(PASSES) - before) / (time.perf_counter() - begun)


def _asked(service: ServiceProcess, pause_s: float, seconds: float) -> tuple[list[float], float]:
    """Times of the answers in seconds, sorted, and passes a second of the job meanwhile."""
    before, begun = service.metric(PASSES), time.perf_counter()
    times = uvloop.run(_ask(f"{service.url}/v1/classify?ensemble_size={MEMBERS}", pause_s, seconds))
    return sorted(times), (service.metric(PASSES) - before) / (time.perf_counter() - begun)


async def _ask(url: str, pause_s: float, seconds: float) -> list[float]:
    body = bodies(1)
    times: list[float] = []
    async with Wire() as wire:
        end = time.perf_counter() + seconds
        while (begun := time.perf_counter()) < end:
            if (status := await wire.post(url, body(len(times)))) != 200:
                raise RuntimeError(f"a request was answered with {status}")
            times.append(time.perf_counter() - begun)
            await asyncio.sleep(pause_s)
    return times
