"""Heads without end and clients without haste: real connections to the server's own HTTP parser."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest
import uvicorn
from uvicorn.server import ServerState

from service.protocol import bounded_protocol
from service.settings import Settings

MAX_HEAD_BYTES = 2000
HASTY_S = 0.5
LIVE = b"GET /live HTTP/1.1\r\nHost: x\r\n\r\n"


async def echo(scope, receive, send):
    """Answers the length of the path at once for /early, else the length of the body."""
    length = len(scope["path"])
    while not scope["path"].startswith("/early"):
        message = await receive()
        length = len(message["body"])
        if not message["more_body"]:
            break
    body = str(length).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


@contextlib.asynccontextmanager
async def serving(head_timeout_s: float) -> AsyncIterator[int]:
    """The port of a server of `echo`."""
    settings = Settings(max_head_bytes=MAX_HEAD_BYTES, head_timeout_s=head_timeout_s)
    protocol = bounded_protocol(settings)
    config = uvicorn.Config(echo, http=protocol, lifespan="off", log_config=None)
    config.load()
    state = ServerState()
    server = await asyncio.get_running_loop().create_server(
        lambda: protocol(config=config, server_state=state, app_state={}), "127.0.0.1", 0
    )
    async with server:
        yield server.sockets[0].getsockname()[1]
        server.close()
        for connection in list(state.connections):
            if connection.transport is not None:
                connection.transport.close()
        await asyncio.gather(*state.tasks)


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Of a server that has time."""
    async with serving(head_timeout_s=60) as port:
        yield port


@pytest.fixture
async def hasty() -> AsyncIterator[int]:
    """Of a server that has little time, yet enough for what is sent at once."""
    async with serving(HASTY_S) as port:
        yield port


@contextlib.asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """(status, body) of one answer."""
    head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).lower()
    length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    return int(head.split()[1]), await reader.readexactly(length)


async def closed(reader: asyncio.StreamReader) -> bool:
    """Whether nothing more comes and the connection ends."""
    try:
        return await asyncio.wait_for(reader.read(), 30) == b""
    except ConnectionResetError:
        return True


def assert_problem(status: int, body: bytes, expected: int) -> None:
    document = json.loads(body)
    assert (status, document["status"]) == (expected, expected)
    assert set(document) == {"type", "title", "status", "detail", "request_id"}


@pytest.mark.parametrize(
    "head",
    [
        b"GET /live HTTP/1.1\r\nX: " + bytes([97]) * MAX_HEAD_BYTES,
        b"GET /" + b"a" * MAX_HEAD_BYTES,
        b"GET /live HTTP/1.1\r\n" + b"X: and a value of letters\r\n" * (MAX_HEAD_BYTES // 26 + 2),  # fewer than 100
    ],
    ids=["one header", "path", "many headers"],
)
async def test_a_head_without_end_is_refused_as_soon_as_it_is_too_long(port, head):
    async with connected(port) as (reader, writer):
        for start in range(0, len(head), 500):
            writer.write(head[start : start + 500])
            await writer.drain()
            await asyncio.sleep(0)
        status, body = await answer(reader)
        assert_problem(status, body, 431)
        assert b"2,000 bytes" in body
        assert await closed(reader)


async def test_under_v2_a_refused_head_has_the_form_of_its_protocol(port):
    async with connected(port) as (reader, writer):
        writer.write(b"GET /v2/health/live HTTP/1.1\r\nX: " + b"a" * MAX_HEAD_BYTES)
        status, body = await answer(reader)
        assert status == 431
        assert set(json.loads(body)) == {"error"}


async def test_heads_that_fit_are_taken_again_and_again_on_one_connection(port):
    head = b"GET /live HTTP/1.1\r\nHost: x\r\nX: " + b"a" * (MAX_HEAD_BYTES - 100) + b"\r\n\r\n"
    async with connected(port) as (reader, writer):
        for _ in range(5):
            for part in (head[:700], head[700:1500], head[1500:]):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.001)
            assert await answer(reader) == (200, b"0")


async def test_many_requests_in_one_piece_are_all_answered(port):
    async with connected(port) as (reader, writer):
        writer.write(LIVE * 200 + LIVE[:20])
        for _ in range(200):
            assert await answer(reader) == (200, b"0")
        writer.write(LIVE[20:])
        assert await answer(reader) == (200, b"0")


async def test_a_body_is_no_part_of_the_head(port):
    body = b"x" * 3 * MAX_HEAD_BYTES
    async with connected(port) as (reader, writer):
        for _ in range(2):
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
            writer.write(body)
            assert (await answer(reader))[0] == 200


@pytest.mark.parametrize(
    "begun", [b"", b"GET /live HT", b"GET /live HTTP/1.1\r\nHost:"], ids=["silent", "line", "header"]
)
async def test_a_connection_on_which_no_whole_head_comes_is_closed(hasty, begun):
    async with connected(hasty) as (reader, writer):
        writer.write(begun)
        assert await closed(reader)


async def test_a_second_head_has_the_same_time_as_the_first(hasty):
    async with connected(hasty) as (reader, writer):
        writer.write(LIVE)
        assert await answer(reader) == (200, b"0")
        writer.write(LIVE[:20])
        assert await closed(reader)


async def test_a_slow_body_is_left_to_the_deadline_of_the_request(hasty):
    async with connected(hasty) as (reader, writer):
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
        for byte in b"abcd":
            await asyncio.sleep(HASTY_S / 3)
            writer.write(bytes([byte]))
        assert await answer(reader) == (200, b"1")


async def test_a_body_that_goes_on_after_the_answer_does_not_hold_the_connection(hasty):
    async with connected(hasty) as (reader, writer):
        writer.write(b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc")
        assert await answer(reader) == (200, b"6")
        assert await closed(reader)


async def test_what_is_no_http_gets_a_problem(port):
    async with connected(port) as (reader, writer):
        writer.write(b"\x16\x03\x01\x02\x00 no http\r\n\r\n")
        assert_problem(*await answer(reader), 400)
        assert await closed(reader)
