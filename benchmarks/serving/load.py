"""Load on a service: closed loops of clients that ask again at once, and open loops that arrive as they like.

A closed loop finds what a service can do at most. An open loop, Poisson arrivals at a given rate, finds what its users
see: a slow answer does not keep the next user from asking.
"""

import asyncio
import json
import random
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from benchmarks.serving.pictures import Body
from benchmarks.serving.wire import Wire

PATIENCE_S = 120.0  # with an answer
SCRIPT = Path(__file__).with_name("closed_loop.lua")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: its status (0: no answer), and seconds from when it was due: to the answer, and to the sending."""

    status: int
    seconds: float
    lag_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load: the answers, and how long it lasted in seconds."""

    answers: tuple[Answer, ...]
    seconds: float

    def times(self, *statuses: int) -> list[float]:
        """Seconds of the answers of these statuses, sorted."""
        return sorted(answer.seconds for answer in self.answers if answer.status in statuses)

    @property
    def lags(self) -> list[float]:
        """Seconds by which requests were sent late, sorted."""
        return sorted(answer.lag_s for answer in self.answers)

    def count(self, *statuses: int) -> int:
        """Answers of these statuses."""
        return sum(answer.status in statuses for answer in self.answers)


@dataclass(frozen=True, slots=True)
class Loop:
    """What came of a closed loop: requests, all answered with 200, and seconds."""

    requests: int
    seconds: float
    p50_s: float
    p99_s: float

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def percentile(values: list[float], share: float) -> float:
    """Of sorted values; not a number without any."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def closed_loop(url: str, bodies: Sequence[Body], *, clients: int, seconds: float, warm_up_s: float = 1.0) -> Loop:
    """`clients` that ask again as soon as they are answered, in one thread of wrk, which takes little of the machine.

    Args:
        url: With its options.
        bodies: Of the requests, in turn; of one type.
        clients: Connections.
        seconds: How long, after the warm-up.
        warm_up_s: A run before, which does not count.

    Raises:
        RuntimeError: A request was refused or lost.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / str(number) for number in range(len(bodies))]
        for file, body in zip(files, bodies, strict=True):
            file.write_bytes(body.content)
        for duration in (warm_up_s, seconds):
            options = [
                "--threads=1",
                f"--connections={clients}",
                f"--duration={max(1, round(duration))}s",
                "--timeout=60s",
            ]
            command = ["wrk", *options, f"--script={SCRIPT}", url, "--", bodies[0].content_type, *map(str, files)]
            said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    outcome = json.loads(said.splitlines()[-1])
    if outcome["refused"] or outcome["broken"] or not outcome["requests"]:
        raise RuntimeError(f"a closed loop must be answered with 200 throughout: {outcome}")
    return Loop(outcome["requests"], outcome["microseconds"] / 1e6, outcome["p50_us"] / 1e6, outcome["p99_us"] / 1e6)


def open_loop(
    url: Callable[[int], str],
    body: Callable[[int], Body],
    *,
    rate: float,
    seconds: float,
    seed: int,
    tells: Callable[[Answer], bool] = lambda answer: False,
) -> Load:
    """Poisson arrivals, each a request of its own.

    Args:
        url: Of a request, by its number.
        body: The same.
        rate: Arrivals a second.
        seconds: How long they come.
        seed: Of their moments.
        tells: Given every answer; after one for which it is true no more requests come, and those under way are
            awaited.
    """
    return uvloop.run(_open_loop(url, body, rate, seconds, seed, tells))


async def _open_loop(
    url: Callable[[int], str],
    body: Callable[[int], Body],
    rate: float,
    seconds: float,
    seed: int,
    tells: Callable[[Answer], bool],
) -> Load:
    dice = random.Random(seed)
    answers: list[Answer] = []
    told = False

    async def one(wire: Wire, number: int, due: float) -> None:
        nonlocal told
        lag_s = time.perf_counter() - due
        try:
            async with asyncio.timeout(PATIENCE_S):
                status = await wire.post(url(number), body(number))
        except TimeoutError:
            status = 0
        answers.append(Answer(status, time.perf_counter() - due, lag_s))
        told = tells(answers[-1]) or told

    begin = due = time.perf_counter()
    async with Wire() as wire, asyncio.TaskGroup() as tasks:
        number = 0
        while not told and (due := due + dice.expovariate(rate)) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(wire, number, due))
            number += 1
    return Load(tuple(answers), time.perf_counter() - begin)
