"""Load on a service: closed loops of clients that ask again at once, and open loops that arrive as they like.

A closed loop finds what a service can do at most. An open loop, Poisson arrivals at a given rate, finds what its users
see: a slow answer does not keep the next user from asking.
"""

import asyncio
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from benchmarks.serving.pictures import Body


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: its status (0: no answer), and its time in seconds from when it should have been sent."""

    status: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Load:
    """What came of a load: the answers, and how long it lasted in seconds."""

    answers: tuple[Answer, ...]
    seconds: float

    def times(self, *statuses: int) -> list[float]:
        """Seconds of the answers of these statuses, sorted."""
        return sorted(answer.seconds for answer in self.answers if answer.status in statuses)

    def count(self, *statuses: int) -> int:
        """Answers of these statuses."""
        return sum(answer.status in statuses for answer in self.answers)


def percentile(values: list[float], share: float) -> float:
    """Of sorted values; not a number without any."""
    return values[min(len(values) - 1, int(share * len(values)))] if values else float("nan")


def closed_loop(url: str, body: Callable[[int], Body], *, clients: int, seconds: float, warm_up_s: float = 1.0) -> Load:
    """`clients` that ask again as soon as they are answered; what began in the warm-up does not count.

    Args:
        url: With its options.
        body: Of request number n.
    """
    return asyncio.run(_closed_loop(url, body, clients, seconds, warm_up_s))


def open_loop(
    url: Callable[[int], str], body: Callable[[int], Body], *, rate: float, seconds: float, seed: int
) -> Load:
    """Poisson arrivals, `rate` a second, each a request of its own."""
    return asyncio.run(_open_loop(url, body, rate, seconds, seed))


async def _closed_loop(url: str, body: Callable[[int], Body], clients: int, seconds: float, warm_up_s: float) -> Load:
    begin = time.perf_counter() + warm_up_s
    end = begin + seconds
    answers: list[Answer] = []
    numbers = iter(range(10**9))

    async def client(session: aiohttp.ClientSession) -> None:
        while (started := time.perf_counter()) < end:
            status = await ask(session, url, body(next(numbers)))
            if started >= begin:
                answers.append(Answer(status, time.perf_counter() - started))

    async with _session() as session:
        await asyncio.gather(*(client(session) for _ in range(clients)))
    return Load(tuple(answers), time.perf_counter() - begin)


async def _open_loop(
    url: Callable[[int], str], body: Callable[[int], Body], rate: float, seconds: float, seed: int
) -> Load:
    dice = random.Random(seed)
    answers: list[Answer] = []

    async def one(session: aiohttp.ClientSession, number: int, due: float) -> None:
        status = await ask(session, url(number), body(number))
        answers.append(Answer(status, time.perf_counter() - due))

    begin = due = time.perf_counter()
    async with _session() as session, asyncio.TaskGroup() as tasks:
        number = 0
        while (due := due + dice.expovariate(rate)) < begin + seconds:
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(session, number, due))
            number += 1
    return Load(tuple(answers), time.perf_counter() - begin)


async def ask(session: aiohttp.ClientSession, url: str, body: Body) -> int:
    """The status of one request, its answer read; 0 when the connection breaks."""
    try:
        async with session.post(url, data=body.content, headers={"Content-Type": body.content_type}) as response:
            await response.read()
            return response.status
    except aiohttp.ClientError:
        return 0


def _session() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(total=120),
        skip_auto_headers=["User-Agent"],
    )
