"""Goodput: the highest rate of arrivals at which a server answers in time, for the service and for its peers.

Open loop: requests arrive as a Poisson process, whatever the server does, each for one picture and an ensemble of 1 to
8 members, drawn evenly. A rate is met if every request is answered with 200 and the 99th percentile of the times, from
when a request was due to the end of its answer, is at most 500 ms; it is missed if two tries are. Every rate is tried
with 300 requests, or for two seconds; a try ends early once it cannot be met any more. The rate is doubled or halved
until one is met and the next is not, then bisected; what comes out must hold for half a minute of other arrivals, or
the next lower one is taken. Where requests one after another take longer already, no rate is tried.

Arrivals, sizes and pictures follow from a seed, which is the same for all servers and differs between rounds; the
servers take turns, and one of them is alive at a time. The load generator shares the machine with them, and it is the
same for all; how late it sends is told. LitServe is served with batches of several sizes, and the best one counts.
"""

import base64
import json
import math
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import httpx

from benchmarks.serving.load import Answer, open_loop, percentile
from benchmarks.serving.pictures import Body, png_files
from benchmarks.serving.process import ServiceProcess, running_peer, running_service
from ccnet.benchmarks.measure import median_and_spread
from ccnet.benchmarks.report import Result, Row, Target

LARGEST = 8  # members
P99_S = 0.5
SERVICE, DAY_ONE = "the service", "LitServe, layer of a day"
ENSEMBLES = {batch: f"LitServe, ScaleEnsemble, batches of {batch}" for batch in (8, 32)}
FASTAPI = "plain FastAPI, ScaleEnsemble"
BEST_PEER = Target("goodput vs the better of LitServe and FastAPI with ScaleEnsemble", 1.3, "at least")
A_DAY = Target("goodput vs LitServe with the paper's layer as written in a day", 3.0, "at least")
WARM_UP = 24  # requests, one after another
REQUESTS = 300  # at a rate, or more:
SHORTEST_S = 2.0  # since a few requests are answered in time at any rate
CONFIRM_S = 30.0  # that the rate which comes out must hold
HOPELESS = 0.02  # of the requests of a try too late, and the rest need not be sent
STEPS = 10  # lower rates of which one must
LOWEST = 1 / 64  # of the rate to begin with; lower ones are not tried


@dataclass(frozen=True, slots=True)
class Contender:
    """A server and how it is asked.

    Attributes:
        name: In the table.
        start: Starts it, ready.
        path: Of a request for an ensemble of k members.
        body: Of a request for a picture and k members.
    """

    name: str
    start: Callable[[], AbstractContextManager[ServiceProcess]]
    path: Callable[[int], str]
    body: Callable[[bytes, int], Body]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of a rate, in requests a second: failures are answers other than 200, or none; times in seconds.

    Attributes:
        lag_s: How late the load generator sent its requests, the 99th percentile.
    """

    rate: float
    requests: int
    failures: int
    p50_s: float
    p99_s: float
    lag_s: float = 0.0

    @property
    def met(self) -> bool:
        """Whether all were answered, and in time."""
        return self.requests > 0 and self.failures == 0 and self.p99_s <= P99_S

    @property
    def goodput(self) -> float:
        """The rate if it was met, else 0."""
        return self.rate if self.met else 0.0


def _png(picture: bytes, size: int) -> Body:
    return Body(picture, "image/png")


def _base64_json(picture: bytes, size: int) -> Body:
    """As LitServe's own examples send pictures."""
    values = {"image_bytes": base64.b64encode(picture).decode(), "ensemble_size": size}
    return Body(json.dumps(values).encode(), "application/json")


def _peer(name: str, *options: object) -> Callable[[], AbstractContextManager[ServiceProcess]]:
    return lambda: running_peer(f"benchmarks.serving.peers.{name}", *options)


CONTENDERS = (
    Contender(SERVICE, running_service, "/v1/classify?ensemble_size={}".format, _png),
    *(
        Contender(name, _peer("litserve_ensemble", "--batch", batch), "/predict".format, _base64_json)
        for batch, name in ENSEMBLES.items()
    ),
    Contender(FASTAPI, _peer("plain_fastapi"), "/predict?ensemble_size={}".format, _png),
    Contender(DAY_ONE, _peer("litserve_day_one"), "/predict".format, _base64_json),
)


def goodput(result: Result, quick: bool) -> None:
    """The service beside its peers."""
    rounds, requests, confirm_s, precision = (1, 20, 1.0, 0.5) if quick else (3, REQUESTS, CONFIRM_S, 0.05)
    found: dict[str, list[Attempt]] = {contender.name: [] for contender in CONTENDERS}
    for seed in range(rounds):
        for contender in CONTENDERS:
            found[contender.name].append(measure(contender, requests, confirm_s, precision, seed))
    for name, attempts in found.items():
        for what, values in (
            ("requests a second", [attempt.goodput for attempt in attempts]),
            ("p50 at it, ms", [1000 * attempt.p50_s for attempt in attempts]),
            ("p99 at it, ms", [1000 * attempt.p99_s for attempt in attempts]),
            ("sent late, p99, ms", [1000 * attempt.lag_s for attempt in attempts]),
        ):
            value, spread = median_and_spread(values)
            result.add(Row(name, what, value, "", spread))
    _add_ratio(result, found, "the best of LitServe and plain FastAPI", (*ENSEMBLES.values(), FASTAPI), BEST_PEER)
    _add_ratio(result, found, DAY_ONE, (DAY_ONE,), A_DAY)


def measure(contender: Contender, requests: int, confirm_s: float, precision: float, seed: int) -> Attempt:
    """Start a server, find its goodput, and end it.

    Args:
        contender: The server.
        requests: That arrive at each rate, at least.
        confirm_s: Seconds that the rate which comes out must hold.
        precision: Of the rate, relative.
        seed: Of arrivals, sizes and pictures.
    """
    dice = random.Random(seed)
    sizes = [dice.randint(1, LARGEST) for _ in range(10_000)]
    files = png_files()

    with contender.start() as server:

        def url(number: int) -> str:
            return server.url + contender.path(sizes[number % len(sizes)])

        def body(number: int) -> Body:
            return contender.body(files[number % len(files)], sizes[number % len(sizes)])

        def attempt(rate: float, seconds: float, arrivals: int) -> Attempt:
            hopeless = Hopeless(rate * seconds)
            load = open_loop(url, body, rate=rate, seconds=seconds, seed=arrivals, tells=hopeless)
            times = load.times(200)
            failures = len(load.answers) - len(times)
            p50_s, p99_s = percentile(times, 0.5), percentile(times, 0.99)
            tried = Attempt(rate, len(load.answers), failures, p50_s, p99_s, percentile(load.lags, 0.99))
            _say(f"{contender.name}: {rate:.1f}/s {'met' if tried.met else 'missed'}, p99 {1000 * p99_s:.0f} ms")
            return tried

        def twice(rate: float) -> Attempt:
            seconds = max(requests / rate, SHORTEST_S)
            first = attempt(rate, seconds, seed)
            return first if first.met else attempt(rate, seconds, seed + 1000)

        alone = _alone_s(url, body)
        mean_s = statistics.fmean(alone)
        if max(alone) > P99_S:
            return Attempt(1 / mean_s, len(alone), 0, statistics.median(alone), max(alone))
        found = highest_met(twice, 0.5 / mean_s, precision)
        if not found.met:
            return found
        rates = [found.rate / (1 + precision) ** lower for lower in range(STEPS)]
        confirmed = (attempt(rate, confirm_s, seed + 2000) for rate in rates)
        return next((tried for tried in confirmed if tried.met), replace(found, failures=found.requests))


class Hopeless:
    """Whether a try cannot be met any more, from one answer to the next.

    Args:
        requests: That the try would send.
    """

    def __init__(self, requests: float) -> None:
        self._bearable = max(HOPELESS * requests, 5)
        self._late = 0

    def __call__(self, answer: Answer) -> bool:
        self._late += answer.seconds > P99_S
        return answer.status != 200 or self._late > self._bearable


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def highest_met(attempt: Callable[[float], Attempt], first: float, precision: float) -> Attempt:
    """The last attempt that met its rate, where none was met at a rate higher by `precision`, relative to it.

    Where even the lowest rate is not met, the last attempt.

    Args:
        attempt: Tries a rate.
        first: The rate to begin with.
        precision: As above.
    """
    best: Attempt | None = None
    missed = math.inf
    rate = first
    while best is None or missed / best.rate > 1 + precision:
        tried = attempt(rate)
        if tried.met:
            best = tried
        else:
            missed = rate
        if best is None:
            rate /= 2
            if rate < LOWEST * first:
                return tried
        else:
            rate = 2 * best.rate if missed == math.inf else math.sqrt(best.rate * missed)
    return best


def _alone_s(url: Callable[[int], str], body: Callable[[int], Body]) -> list[float]:
    """Seconds of requests one after another; the first ones warm the server up and do not count."""
    times = []
    with httpx.Client(timeout=120) as client:
        for number in range(2 * WARM_UP):
            of_one = body(number)
            started = time.perf_counter()
            headers = {"Content-Type": of_one.content_type}
            client.post(url(number), content=of_one.content, headers=headers).raise_for_status()
            times.append(time.perf_counter() - started)
    return times[WARM_UP:]


def _add_ratio(
    result: Result, found: dict[str, list[Attempt]], what: str, others: tuple[str, ...], target: Target
) -> None:
    """The service's goodput over that of the best of others, round by round.

    Where no peer meets any rate, it is over the one that was missed, where requests one after another are late already
    the rate of these: a lower bound.
    """
    best = [
        max(attempts, key=lambda attempt: (attempt.met, attempt.rate))
        for attempts in zip(*(found[name] for name in others), strict=True)
    ]
    ratios = [ours.goodput / theirs.rate for ours, theirs in zip(found[SERVICE], best, strict=True)]
    missed = sum(not theirs.met for theirs in best)
    if missed:
        result.notes.append(f"{what}: no rate could be met in {missed} of {len(best)} rounds, the ratio is more")
    value, spread = median_and_spread(ratios)
    result.add(Row(f"{SERVICE} / {what}", "ratio", value, "x", spread), target)
