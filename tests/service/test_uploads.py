"""The three forms of a request body, and what is wrong with those that are none."""

import base64
from collections.abc import AsyncIterator

import orjson
import pytest

from service.errors import Malformed, OptionOutOfRange, QueueFull, TooLarge, UnsupportedImage
from service.holding import Holding
from service.uploads import read_body, require_plain, split_images

ONE, TWO = b"first \r\n--x bytes", b"\x89PNG second"


def multipart(*parts: tuple[str, bytes], closing: bytes = b"--frontier--\r\n") -> tuple[bytes, str]:
    """A multipart body and its Content-Type."""
    body = b"".join(
        f'--frontier\r\nContent-Disposition: form-data; name="{name}"; filename="a.png"\r\n\r\n'.encode()
        + data
        + b"\r\n"
        for name, data in parts
    )
    return body + closing, "multipart/form-data; boundary=frontier"


def json_of(*images: bytes) -> bytes:
    return orjson.dumps({"images": [base64.b64encode(image).decode() for image in images]})


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    for part in parts:
        yield part


def free(count: int) -> None:
    """Room for any number of bytes."""


async def test_a_body_is_put_together_from_its_chunks():
    assert await read_body(chunks(b"ab", b"", b"c"), None, 3, free) == b"abc"


async def test_a_body_that_is_announced_too_large_is_not_read():
    async def unread() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    with pytest.raises(TooLarge, match="a body of 4 bytes was announced; at most 3"):
        await read_body(unread(), "4", 3, free)


@pytest.mark.parametrize("announced", [None, "2", "nonsense"])
async def test_a_body_is_counted_while_it_streams_whatever_was_announced(announced):
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"ab"

    with pytest.raises(TooLarge, match="more than 3 bytes"):
        await read_body(endless(), announced, 3, free)


async def test_an_empty_body_is_malformed():
    with pytest.raises(Malformed, match="empty"):
        await read_body(chunks(b""), "0", 3, free)


async def test_every_byte_that_came_is_held_and_given_back_at_the_end():
    holding = Holding(10)
    with holding.share() as first:
        await read_body(chunks(b"abc", b"def"), None, 10, first.take)
        assert holding.held == 6
        with (
            pytest.raises(QueueFull, match="10 bytes of requests are being worked on; at most 10"),
            holding.share() as s,
        ):
            await read_body(chunks(b"abcd", b"e"), None, 10, s.take)
        assert holding.held == 6
        with holding.share() as second:
            await read_body(chunks(b"abcd"), None, 10, second.take)
            assert holding.held == 10
    assert holding.held == 0


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_plain_body_is_taken(encoding):
    require_plain(encoding)


@pytest.mark.parametrize("encoding", ["gzip", "br", "identity, gzip", "x" * 5000])
def test_a_compressed_body_is_refused(encoding):
    with pytest.raises(UnsupportedImage, match=r"Content-Encoding .* was given; send the body uncompressed") as refusal:
        require_plain(encoding)
    assert len(refusal.value.detail) < 250


@pytest.mark.parametrize(
    "content_type", ["image/png", "image/jpeg", "image/webp; q=1", "IMAGE/PNG", "application/octet-stream"]
)
def test_a_raw_body_is_one_image(content_type):
    assert split_images(ONE, content_type, 1) == [ONE]


def test_multipart_gives_every_part_named_images():
    body, content_type = multipart(("images", ONE), ("images", TWO), ("images", b""))
    assert split_images(body, content_type, 3) == [ONE, TWO, b""]


def test_json_gives_every_image_also_when_its_base64_is_wrapped():
    wrapped = orjson.dumps({"images": [base64.encodebytes(ONE * 50).decode()]})
    assert split_images(json_of(ONE, TWO), "application/json; charset=utf-8", 2) == [ONE, TWO]
    assert split_images(wrapped, "application/json", 1) == [ONE * 50]


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/x-www-form-urlencoded", "imagepng"])
def test_other_content_types_are_refused_with_the_three_forms(content_type):
    with pytest.raises(UnsupportedImage, match=r"multipart/form-data.*application/json"):
        split_images(ONE, content_type, 1)


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b"{}",
        b'{"images": "abc"}',
        b'{"images": [1]}',
        b'{"images": []}',
        b'{"images": ["%%%"]}',
        b'{"images": ["data:image/png;base64,AAAA"]}',
        b'{"images": ["\xc3\xa9"]}',
        b"[" * 100_000,
    ],
)
def test_json_of_another_shape_is_malformed(body):
    with pytest.raises(Malformed):
        split_images(body, "application/json", 1)


def test_options_in_the_json_are_refused_rather_than_ignored():
    with pytest.raises(OptionOutOfRange, match=r"'seed'.*query parameters"):
        split_images(b'{"images": [], "seed": 1}', "application/json", 1)


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (*multipart(("image", ONE)), "every part must be named 'images'"),
        (*multipart(("images", ONE), ("seed", b"1")), "named 'seed' was given.*options are query parameters"),
        (*multipart(), "holds no image|damaged"),
        (*multipart(("images", ONE), closing=b""), "closing boundary|damaged"),
        (multipart(("images", ONE))[0], "multipart/form-data", "no boundary"),
        (b"nothing of the kind", "multipart/form-data; boundary=frontier", "damaged"),
    ],
)
def test_multipart_that_is_damaged_or_misnamed_is_malformed(body, content_type, message):
    with pytest.raises(Malformed, match=message):
        split_images(body, content_type, 5)


@pytest.mark.parametrize("form", ["json", "multipart"])
def test_images_are_counted(form):
    body, content_type = (
        (json_of(ONE, TWO, ONE), "application/json")
        if form == "json"
        else multipart(("images", ONE), ("images", TWO), ("images", ONE))
    )
    assert len(split_images(body, content_type, 3)) == 3
    with pytest.raises(TooLarge, match="3 images were given; one request may hold at most 2"):
        split_images(body, content_type, 2)
