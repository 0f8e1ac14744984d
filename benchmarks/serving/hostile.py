"""100,000 damaged requests for `/v2/.../infer` over real connections: none may be answered with 500, or not at all.

Every request follows from a seed and its number (`mutants`), so that one that fails can be sent again, alone:
`python -m benchmarks.serving.hostile --replay SEED:NUMBER [--url http://127.0.0.1:8000]` prints it and its answer.
"""

import argparse
import asyncio
import json
import sys
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from benchmarks.serving.mutants import UNTOUCHED, mutant
from benchmarks.serving.originals import LENGTH
from benchmarks.serving.process import ServiceProcess, running_service
from ccnet.benchmarks.report import Result, Row, Target

SEED = 0
CLIENTS = 24
PATIENCE_S = 60.0
# Small bounds, so that a damaged number that is still right costs little; every bound is checked on the same path.
SETTINGS: dict[str, Any] = {
    "ensemble_size": 1,
    "max_images_per_request": 8,
    "max_request_passes": 16,
    "inference_threads": 1,
}
DOCUMENTED = frozenset({200, 400, 404, 413, 415, 422, 429, 503, 504})
BUSY = frozenset({429, 503, 504})
NO_ANSWER = 0
SHOWN = 20  # cases named in the notes
CONTROL = json.dumps(
    {
        "parameters": {"ensemble_size": 2, "seed": 7},
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 4, 4, 1], "data": list(range(0, 256, 16))}],
    }
).encode()


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer; status `NO_ANSWER` where the connection ended before it."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    @property
    def well_formed(self) -> bool:
        """Whether it is what a client of the protocol can read."""
        try:
            coding = self.headers.get("content-encoding")
            body = zlib.decompress(self.body, 32 + zlib.MAX_WBITS) if coding else self.body
            document = json.loads(body[: int(self.headers.get(LENGTH.lower(), len(body)))])
        except (ValueError, zlib.error):
            return False
        return isinstance(document, dict) and ("outputs" if self.status == 200 else "error") in document


class Connection:
    """A connection that is kept, and made anew when the service has closed it.

    Args:
        url: Of the service.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        self._host, self._port = parts.hostname, parts.port or 80
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, data: bytes) -> Reply:
        """The answer to a request."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(self._host, self._port)
            reader, writer = self._streams
            writer.write(data)
            reply = await asyncio.wait_for(self._read(reader), PATIENCE_S)
        except (OSError, EOFError, TimeoutError, ValueError):
            reply = Reply(NO_ANSWER)
        if not reply.status or reply.headers.get("connection") == "close":
            self.close()
        return reply

    def close(self) -> None:
        """Close it until the next request."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    @staticmethod
    async def _read(reader: asyncio.StreamReader) -> Reply:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        pairs = (line.partition(":") for line in lines)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        return Reply(int(first.split()[1]), headers, body)


@dataclass
class Attack:
    """A run over the numbers of a seed.

    Attributes:
        url: Of the service.
        statuses: How often each came.
        wrong: What should not have been: how often, by kind.
        cases: Their seeds and numbers, and what was damaged.
    """

    url: str
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)
    cases: list[str] = field(default_factory=list)

    async def run(self, numbers: range) -> None:
        """All of these, over `CLIENTS` connections."""
        waiting = iter(numbers)
        await asyncio.gather(*(self._client(waiting) for _ in range(CLIENTS)))

    async def _client(self, numbers: Iterator[int]) -> None:
        connection = Connection(self.url)
        for number in numbers:
            request = mutant(SEED, number)
            reply = await connection.ask(request.data)
            self.statuses[reply.status] += 1
            if what := what_is_wrong(request.damage, reply):
                self.wrong[what] += 1
                self.cases.append(f"{SEED}:{number} {what}: {reply.status} to {request.damage}")
        connection.close()


def tensors(result: Result, quick: bool) -> None:
    """Mutated bodies in all the forms of the protocol, and whether the service is what it was afterwards."""
    requests = 2_000 if quick else 100_000
    with running_service(**SETTINGS) as service:
        control, memory = asyncio.run(_control(service.url)), service.rss_mib
        attack = Attack(service.url)
        started = time.perf_counter()
        asyncio.run(attack.run(range(requests)))
        seconds = time.perf_counter() - started
        _report(result, f"{requests:,} damaged requests", attack)
        case = "afterwards"
        ended, after = _ended(service), Reply(NO_ANSWER)
        if not ended:
            after = asyncio.run(_control(service.url))
            result.add(Row(case, "memory before, MiB", memory, "MiB"))
            result.add(Row(case, "memory after, MiB", service.rss_mib, "MiB"))
        result.add(Row(case, "process ended", ended, ""), Target("damaged tensors: process ended", 0))
        differs = control.status != 200 or (control.status, control.body) != (after.status, after.body)
        result.add(Row(case, "control answer differs", differs, ""), Target("damaged tensors: control differs", 0))
    result.add(Row("time", "all requests", seconds, "s"))
    result.add(Row("time", "requests a second", requests / seconds, ""))


WRONG = {
    "500": "answers of 500",
    "other 5xx": "answers of 5xx but 503 and 504",
    "no answer": "requests without an answer",
    "undocumented": "answers of an undocumented status",
    "unreadable": "answers not in the protocol's form",
    "right one refused": "untouched requests refused",
}


def what_is_wrong(damage: str, reply: Reply) -> str:
    """A key of `WRONG`, or nothing."""
    if reply.status == NO_ANSWER:
        return "no answer"
    if reply.status == 500:
        return "500"
    if reply.status not in DOCUMENTED:
        return "other 5xx" if reply.status > 500 else "undocumented"
    if not reply.well_formed:
        return "unreadable"
    return "right one refused" if damage == UNTOUCHED and reply.status not in BUSY | {200} else ""


def _report(result: Result, case: str, attack: Attack) -> None:
    for kind, what in WRONG.items():
        result.add(Row(case, what, attack.wrong[kind], ""), Target(f"damaged tensors: {what}", 0))
    for status, count in sorted(attack.statuses.items()):
        result.add(Row(case, f"status {status or 'none'}", count, ""))
    result.notes += [f"SEED:NUMBER {text}" for text in attack.cases[:SHOWN]]
    if attack.cases:
        result.notes.append("send one again: python -m benchmarks.serving.hostile --replay SEED:NUMBER")


def _ended(service: ServiceProcess) -> bool:
    return service.popen.poll() is not None


async def _control(url: str) -> Reply:
    """What a right request with a seed is answered; the same at any time."""
    head = f"POST /v2/models/fashion-mnist-ccnet/infer HTTP/1.1\r\nHost: a\r\nContent-Length: {len(CONTROL)}\r\n\r\n"
    return await _alone(url, head.encode() + CONTROL)


async def _alone(url: str, data: bytes) -> Reply:
    connection = Connection(url)
    reply = await connection.ask(data)
    connection.close()
    return reply


def replay(case: str, url: str | None) -> None:
    """Send one request again, to a service that runs or to one that is started for it."""
    seed, number = map(int, case.split(":"))
    request = mutant(seed, number)
    sys.stdout.write(f"{request.damage}\n{request.data!r}\n\n")
    if url is not None:
        reply = asyncio.run(_alone(url, request.data))
    else:
        with running_service(**SETTINGS) as service:
            reply = asyncio.run(_alone(service.url, request.data))
    sys.stdout.write(f"{reply.status or 'no answer'} {reply.headers}\n{reply.body!r}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replay", metavar="SEED:NUMBER", required=True, help="the request to send again")
    parser.add_argument("--url", help="of a service that runs; without it one is started")
    options = parser.parse_args()
    replay(options.replay, options.url)


if __name__ == "__main__":
    main()
