"""The figures: each takes a quick flag and gives rows, with targets where there are any."""

import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import aiohttp
import httpx

from benchmarks.serving.behind import background
from benchmarks.serving.chaos import Chaos
from benchmarks.serving.conforming import schema
from benchmarks.serving.goodput import goodput
from benchmarks.serving.hostile import tensors
from benchmarks.serving.load import closed_loop, open_loop, percentile
from benchmarks.serving.pictures import Body, bodies, png_files
from benchmarks.serving.process import ROOT, ServiceProcess, running_service
from ccnet.benchmarks.measure import median_and_spread
from ccnet.benchmarks.report import Result, Row, Target, Unit

MEMBERS = 4
DEADLINE_S = 1.0  # under overload
THROUGHPUT = Target("throughput over HTTP vs the same passes in a bare loop", 0.9, "at least")
LATENCY = Target("added latency at concurrency 1 over decode + forward, p50, ms", 3.0)
IN_TIME = Target("overload 3x: accepted requests inside their deadline, %", 99.0, "at least")
REFUSED = Target("overload 3x: refusals answered, p99, ms", 50.0)
ALIVE = Target("overload 3x: /health/live, p99, ms", 50.0)
LOST = Target("SIGTERM with 200 in flight: lost", 0.0)


def throughput(result: Result, quick: bool) -> None:
    """Saturation: closed loops, beside a bare loop over the same passes, in turns; and what a request costs."""
    rounds, seconds = (1, 2.0) if quick else (9, 6.0)
    cases = {"1 image a request, 32 clients": (1, 32), "16 images a request, 8 clients": (16, 8)}
    bare: list[float] = []
    rates: dict[str, list[float]] = {case: [] for case in cases}
    spent: dict[str, list[tuple[float, float]]] = {case: [] for case in cases}
    with running_service() as service:
        for _ in range(rounds):
            bare.append(_bare("--members", MEMBERS, "--batch", 64, "--seconds", seconds)["images_per_s"])
            for case, (images, clients) in cases.items():
                passes, before = service.metric("ccnet_batch_passes_sum"), service.processor_s
                loop = closed_loop(_classify(service.url), _some(bodies(images)), clients=clients, seconds=seconds)
                rates[case].append(loop.rate * images)
                requests = (service.metric("ccnet_batch_passes_sum") - passes) / MEMBERS / images  # the warm-up's too
                main, others = (1000 * (a - b) / requests for a, b in zip(service.processor_s, before, strict=True))
                spent[case].append((main, others))
    for case, of_case in rates.items():
        result.add(_row(case, "images a second", of_case))
        result.add(_row(case, "bare loop, images a second", bare))
        ratios = [rate / loop for rate, loop in zip(of_case, bare, strict=True)]
        result.add(_row(case, "HTTP / bare loop", ratios, "x"), THROUGHPUT)
        for what, of_thread in zip(("event loop", "passes"), zip(*spent[case], strict=True), strict=True):
            result.add(_row(case, f"{what}, processor ms a request", list(of_thread)))


def latency(result: Result, quick: bool) -> None:
    """One client: what HTTP adds to decoding and classifying one image."""
    added, alone, over_http = [], [], []
    with running_service() as service:
        for _ in range(1 if quick else 9):
            bare_s = statistics.median(_bare("--members", MEMBERS, "--latency")["seconds"])
            http_s = closed_loop(
                _classify(service.url), _some(bodies(1)), clients=1, seconds=2.0 if quick else 5.0
            ).p50_s
            alone.append(bare_s)
            over_http.append(http_s)
            added.append(1000 * (http_s - bare_s))
    case = f"k = {MEMBERS}, one image, one client"
    for what, values in (("over HTTP", over_http), ("decode + forward", alone)):
        result.add(_row(case, f"{what}, p50", values, "s"))
    result.add(_row(case, "added, ms", added), LATENCY)


def overload(result: Result, quick: bool) -> None:
    """Poisson arrivals at three times what the service can do, each with a deadline of a second.

    In time is what the client had whole a second after the request was due; all but refusals count as accepted.
    """
    rounds, seconds = (1, 4.0) if quick else (5, 20.0)
    found: dict[str, list[float]] = {}
    for seed in range(rounds):
        with running_service() as service:
            url = _classify(service.url)
            capacity = closed_loop(url, _some(bodies(1)), clients=64, seconds=3.0).rate
            with ThreadPoolExecutor(1) as pool:
                probing = pool.submit(_probe, service.url, seconds)
                load = open_loop(
                    lambda _, url=url: f"{url}&timeout_ms={1000 * DEADLINE_S:.0f}",  # type: ignore[misc]
                    bodies(1),
                    rate=3 * capacity,
                    seconds=seconds,
                    seed=seed,
                )
                live = probing.result()
        in_time = sum(answer.status == 200 and answer.seconds <= DEADLINE_S for answer in load.answers)
        accepted = len(load.answers) - load.count(429)
        for what, value in (
            ("requests a second", 3 * capacity),
            ("answered", load.count(200)),
            ("answered late or given up", accepted - in_time),
            ("refused", load.count(429)),
            ("other answers or none", accepted - load.count(200, 504)),
            ("in time, %", 100 * in_time / max(1, accepted)),
            ("refusals p50, ms", 1000 * percentile(load.times(429), 0.5)),
            ("refusals p99, ms", 1000 * percentile(load.times(429), 0.99)),
            ("live p99, ms", 1000 * percentile(live, 0.99)),
            ("live, slowest, ms", 1000 * live[-1]),
        ):
            found.setdefault(what, []).append(value)
    targets = {"in time, %": IN_TIME, "refusals p99, ms": REFUSED, "live p99, ms": ALIVE}
    for what, values in found.items():
        target = targets.get(what)
        result.add(_row(f"3 x capacity, {rounds} x {seconds:.0f} s", what, values), *([target] if target else []))


def drain(result: Result, quick: bool) -> None:
    """SIGTERM while 200 requests are in flight."""
    requests = 30 if quick else 300
    with running_service() as service:
        before, statuses = asyncio.run(_drained(service.url, requests, service.terminate))
    case = f"{requests} sent at once"
    result.add(Row(case, "in flight at the signal", requests - before, ""))
    result.add(Row(case, "answered", statuses.count(200), ""))
    result.add(Row(case, "lost", requests - statuses.count(200), ""), LOST)
    if not quick and requests - before < 200:
        raise RuntimeError(f"only {requests - before} were in flight when the service was told to stop")


def chaos(result: Result, quick: bool) -> None:
    """Ten thousand requests of all kinds of misbehaviour, and a model that fails at one picture."""
    requests = 300 if quick else 10_000
    with running_service("benchmarks.serving.faulty") as service:
        host, port = service.url.removeprefix("http://").split(":")
        storm = Chaos(host, int(port), random.Random(0))
        asyncio.run(storm.run(requests // 10, 32))  # caches, pools and the allocator find their size
        before, control, sockets = service.rss_mib, _control(service.url), _settled(service)
        asyncio.run(storm.run(requests, 32))
        after, again, left = service.rss_mib, _control(service.url), _settled(service)
        case = f"{requests} requests"
        result.add(Row(case, "unexpected outcomes", len(storm.unexpected), ""), Target("chaos: unexpected outcomes", 0))
        result.add(Row(case, "control answers that differ", control != again, ""), Target("chaos: control differs", 0))
        waiting = service.metric("ccnet_queue_passes")
        result.add(Row(case, "passes left waiting", waiting, ""), Target("chaos: passes left waiting", 0))
        flying = service.metric("ccnet_requests_in_flight")
        result.add(Row(case, "requests left in flight", flying, ""), Target("chaos: requests left in flight", 0))
        result.add(Row(case, "connections left", left - sockets, ""), Target("chaos: connections left", 0))
        result.add(Row(case, "memory before, MiB", before, "MiB"))
        result.add(
            Row(case, "memory after / before", after / before, "x"), Target("chaos: memory after / before", 1.05)
        )
    result.notes += [f"{kind}: {status}: {count}" for (kind, status), count in sorted(storm.outcomes.items())]
    result.notes += [f"UNEXPECTED {text}: {count}" for text, count in Counter(storm.unexpected).items()]


FIGURES: dict[str, Callable[[Result, bool], None]] = {
    "throughput": throughput,
    "latency": latency,
    "goodput": goodput,
    "overload": overload,
    "background": background,
    "drain": drain,
    "chaos": chaos,
    "tensors": tensors,
    "schema": schema,
}


def _classify(url: str) -> str:
    return f"{url}/v1/classify?ensemble_size={MEMBERS}"


def _control(url: str) -> Any:
    """What a request with a seed is answered, without what differs by nature."""
    files = [("images", data) for data in png_files()[:3]]
    response = httpx.post(f"{url}/v1/classify?ensemble_size=4&seed=7&include=logits,members", files=files, timeout=60)
    return response.raise_for_status().json()["results"]


def _settled(service: ServiceProcess) -> int:
    """Sockets that stay open when nobody asks, after a moment at most."""
    for _ in range(100):
        if service.metric("ccnet_queue_passes") == 0:
            break
        time.sleep(0.1)
    time.sleep(1.0)
    return service.connections


def _bare(*options: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.serving.bare", *map(str, options)]
    finished = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    values: dict[str, Any] = json.loads(finished.stdout)
    return values


def _row(case: str, what: str, values: list[float], unit: Unit = "") -> Row:
    value, spread = median_and_spread(values)
    return Row(case, what, value, unit, spread)


def _some(body: Callable[[int], Body]) -> list[Body]:
    return [body(number) for number in range(64)]


def _probe(url: str, seconds: float) -> list[float]:
    """Times of /health/live meanwhile, in seconds, sorted; taken by a process that does nothing else."""
    command = [sys.executable, "-m", "benchmarks.serving.alive", url, str(seconds)]
    said = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return sorted(json.loads(said))


async def _drained(url: str, requests: int, terminate: Callable[[], int]) -> tuple[int, list[int]]:
    """How many were answered before the service was told to stop, all having been sent; and the statuses of all."""
    dice = random.Random(0)
    files = png_files()
    sent = asyncio.Event()
    begun = 0

    async def count(*_: object) -> None:
        nonlocal begun
        begun += 1
        if begun == requests:
            sent.set()

    trace = aiohttp.TraceConfig()
    trace.on_request_chunk_sent.append(count)

    async def one(session: aiohttp.ClientSession) -> int:
        try:
            url_of_one = f"{url}/v1/classify?ensemble_size={dice.randint(4, 8)}"
            headers = {"Content-Type": "image/png"}
            async with session.post(url_of_one, data=dice.choice(files), headers=headers) as response:
                await response.read()
                return response.status
        except aiohttp.ClientError:
            return 0

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector, trace_configs=[trace]) as session:
        tasks = [asyncio.create_task(one(session)) for _ in range(requests)]
        await sent.wait()
        await asyncio.sleep(0.2)  # what was sent has been read
        before = sum(task.done() for task in tasks)
        stopping = asyncio.create_task(asyncio.to_thread(terminate))
        statuses = await asyncio.gather(*tasks)
        if await stopping:
            raise RuntimeError("the service ended with another status than 0")
    return before, list(statuses)
