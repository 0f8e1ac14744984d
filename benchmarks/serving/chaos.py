"""Clients that misbehave, at random, over raw connections: what a service meets in its life, ten thousand times.

Each kind says what may come of it. A connection that breaks is an answer too where the client broke it.
"""

import asyncio
import io
import json
import random
import struct
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from benchmarks.serving.faulty import POISON
from benchmarks.serving.pictures import png_files

PATH = "/v1/classify"
V2_PATH = "/v2/models/fashion-mnist-ccnet/infer"
PATIENCE_S = 60.0


@dataclass
class Chaos:
    """A run.

    Attributes:
        host, port: Of the service.
        dice: Decides everything.
        outcomes: How often a kind came to a status; 0 is a connection without an answer.
        unexpected: Those that should not have been, as text.
    """

    host: str
    port: int
    dice: random.Random
    outcomes: Counter[tuple[str, int]] = field(default_factory=Counter)
    unexpected: list[str] = field(default_factory=list)

    async def run(self, requests: int, clients: int) -> None:
        """This many requests, from so many clients at once."""
        numbers = iter(range(requests))

        async def client() -> None:
            for _ in numbers:
                kind = self.dice.choice(list(KINDS))
                await self.one(kind)

        await asyncio.gather(*(client() for _ in range(clients)))

    async def one(self, kind: str) -> None:
        """One request of a kind."""
        act, allowed = KINDS[kind]
        try:
            status = await asyncio.wait_for(act(self), PATIENCE_S)
        except TimeoutError:
            status = -1
        except OSError:
            status = 0
        self.outcomes[kind, status] += 1
        if status not in allowed:
            self.unexpected.append(f"{kind}: {status}")

    async def ask(self, head: str, body: bytes, *, sent: int | None = None, pause_s: float = 0.0) -> int:
        """Send a request, perhaps only `sent` bytes of its body or with pauses, and read the status of the answer."""
        reader, writer = await asyncio.open_connection(self.host, self.port)
        try:
            writer.write(head.encode("latin-1"))
            body = body if sent is None else body[:sent]
            step = max(1, len(body) // 5) if pause_s else max(1, len(body))
            for begin in range(0, len(body), step):
                writer.write(body[begin : begin + step])
                await writer.drain()
                await asyncio.sleep(pause_s)
            if sent is not None:  # hangs up in the middle
                return 0
            line = await reader.readline()
            return int(line.split()[1]) if line.startswith(b"HTTP/") else 0
        finally:
            writer.close()

    async def hang_up(self, head: str, body: bytes) -> int:
        """Send all of it, and go before the answer."""
        _, writer = await asyncio.open_connection(self.host, self.port)
        writer.write(head.encode("latin-1") + body)
        await writer.drain()
        await asyncio.sleep(self.dice.random() * 0.05)
        writer.close()
        return 0

    def head(self, body: bytes, content_type: str = "image/png", path: str = PATH, *more: str) -> str:
        """Of a POST that closes its connection."""
        options = f"?ensemble_size={self.dice.randint(1, 8)}" if path == PATH else ""
        lines = [
            f"POST {path}{options} HTTP/1.1",
            f"Host: {self.host}",
            "Connection: close",
            f"Content-Length: {len(body)}",
            f"Content-Type: {content_type}",
            *more,
        ]
        return "\r\n".join(lines) + "\r\n\r\n"

    def picture(self) -> bytes:
        return self.dice.choice(png_files())


async def _good(chaos: Chaos) -> int:
    body = chaos.picture()
    return await chaos.ask(chaos.head(body), body)


async def _hangs_up(chaos: Chaos) -> int:
    body = chaos.picture()
    return await chaos.hang_up(chaos.head(body), body)


async def _half_a_body(chaos: Chaos) -> int:
    body = chaos.picture()
    return await chaos.ask(chaos.head(body), body, sent=chaos.dice.randrange(len(body)))


async def _slow(chaos: Chaos) -> int:
    body = chaos.picture()
    return await chaos.ask(chaos.head(body), body, pause_s=0.05)


async def _damaged(chaos: Chaos) -> int:
    body = bytearray(chaos.picture())
    for _ in range(8):
        body[chaos.dice.randrange(8, len(body))] = chaos.dice.randrange(256)
    return await chaos.ask(chaos.head(bytes(body)), bytes(body))


async def _cut_off(chaos: Chaos) -> int:
    body = chaos.picture()[: chaos.dice.randrange(1, 60)]
    return await chaos.ask(chaos.head(body), body)


async def _bomb(chaos: Chaos) -> int:
    body = png_header(60_000, 60_000)
    return await chaos.ask(chaos.head(body), body)


async def _webp_bomb(chaos: Chaos) -> int:
    body = webp_canvas(13_000, 13_000)
    return await chaos.ask(chaos.head(body, "image/webp"), body)


async def _too_large(chaos: Chaos) -> int:
    head = chaos.head(b"").replace("Content-Length: 0", "Content-Length: 99999999999")
    return await chaos.ask(head, b"")


async def _nonsense(chaos: Chaos) -> int:
    return await chaos.ask(chaos.dice.randbytes(64).decode("latin-1") + "\r\n\r\n", b"")


async def _deep_json(chaos: Chaos) -> int:
    body = b'{"images": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    return await chaos.ask(chaos.head(body, "application/json"), body)


async def _bad_option(chaos: Chaos) -> int:
    body = chaos.picture()
    head = chaos.head(body).replace("ensemble_size=", "ensemble_size=9999")
    return await chaos.ask(head, body)


async def _wrong_tensor(chaos: Chaos) -> int:
    size = chaos.dice.choice([0, 7, 4096, 2**40, -1])
    described = {
        "inputs": [
            {"name": "images", "datatype": "FP32", "shape": [1, 1, 32, 32], "parameters": {"binary_data_size": size}}
        ]
    }
    header = json.dumps(described).encode()
    body = header + chaos.dice.randbytes(chaos.dice.randrange(5000))
    length = chaos.dice.choice([len(header), len(header) - 3, 10**9, -5])
    more = f"Inference-Header-Content-Length: {length}"
    return await chaos.ask(chaos.head(body, "application/octet-stream", V2_PATH, more), body)


async def _poison(chaos: Chaos) -> int:
    buffer = io.BytesIO()
    Image.fromarray(np.full((28, 28), POISON, dtype=np.uint8)).save(buffer, "PNG")
    body = buffer.getvalue()
    return await chaos.ask(chaos.head(body), body)


def png_header(width: int, height: int) -> bytes:
    """The beginning of a PNG file that claims a size, up to its first pixels."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 2**20) + b"IDAT" + zlib.compress(bytes(1000))


def webp_canvas(width: int, height: int) -> bytes:
    """A WebP file of one pixel on a canvas of a size, for which a decoder may make room before it looks further."""
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1)).save(buffer, "WEBP", lossless=True)
    canvas = bytes(4) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = b"WEBP" + b"VP8X" + struct.pack("<I", len(canvas)) + canvas + buffer.getvalue()[12:]
    return b"RIFF" + struct.pack("<I", len(chunks)) + chunks


BUSY = frozenset({429})
KINDS: dict[str, tuple[Callable[[Chaos], Awaitable[int]], frozenset[int]]] = {
    "good": (_good, BUSY | {200}),
    "good again": (_good, BUSY | {200}),
    "hangs up before the answer": (_hangs_up, frozenset({0})),
    "half a body": (_half_a_body, frozenset({0})),
    "slow sender": (_slow, BUSY | {200}),
    "damaged picture": (_damaged, BUSY | {200, 400, 413, 415}),
    "picture cut off": (_cut_off, BUSY | {400, 415}),
    "bomb": (_bomb, BUSY | {413}),
    "WebP bomb": (_webp_bomb, BUSY | {413}),
    "announces too much": (_too_large, BUSY | {413}),
    "not HTTP": (_nonsense, frozenset({400, 0})),
    "deep JSON": (_deep_json, BUSY | {400, 413, 422}),
    "bad option": (_bad_option, frozenset({422})),
    "wrong tensor": (_wrong_tensor, BUSY | {400, 404, 413, 422}),
    "the model fails": (_poison, BUSY | {500}),
}
