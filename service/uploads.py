"""The bytes of a request -> the encoded images in it, in each of the three forms; limits before work.

    raw body    Content-Type: image/png, image/jpeg or image/webp
    multipart   one or more parts named `images`
    JSON        {"images": ["<base64 of a file>", ...]}

The body is counted while it streams, with or without a Content-Length. What the bytes hold is `service.images`' matter.
"""

import base64
import binascii
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

import orjson
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import Malformed, OptionOutOfRange, TooLarge, UnsupportedImage

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

PART_NAME = "images"
JSON_KEY = "images"
FORMS = (
    "a raw body with Content-Type image/png, image/jpeg or image/webp; multipart/form-data with parts named "
    f'`{PART_NAME}`; or application/json with {{"{JSON_KEY}": [base64, ...]}}'
)


async def read_body(
    stream: AsyncIterator[bytes],
    content_length: str | None,
    max_bytes: int,
    take: Callable[[int], None],
    *,
    may_be_empty: bool = False,
) -> bytes:
    """All bytes of a body, refused as soon as they are known to be too many.

    Args:
        stream: The chunks as they arrive.
        content_length: The header's value, if there is one; checked first and not trusted.
        max_bytes: Most bytes allowed.
        take: Told how many bytes more are held, and raises when there is no room for them.
        may_be_empty: Whether no byte at all is a body too.

    Raises:
        TooLarge: More bytes were announced or came.
        QueueFull: What `take` raises.
        Malformed: No byte came.
    """
    allowed = f"at most {max_bytes:,} bytes are allowed: send fewer or smaller images"
    if content_length is not None and content_length.isdecimal() and int(content_length) > max_bytes:
        raise TooLarge(f"a body of {int(content_length):,} bytes was announced; {allowed}")
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > max_bytes:
            raise TooLarge(f"more than {max_bytes:,} bytes of body were sent; {allowed}")
        take(len(chunk))
    if not body and not may_be_empty:
        raise Malformed(f"the body is empty; send {FORMS}")
    return bytes(body)


def require_plain(content_encoding: str) -> None:
    """Refuse a compressed body: unpacked it could have any size, and pictures are compressed already.

    Raises:
        UnsupportedImage: A Content-Encoding other than identity.
    """
    if content_encoding.strip().lower() not in ("", "identity"):
        raise UnsupportedImage(f"Content-Encoding {content_encoding[:100]!r} was given; send the body uncompressed")


def split_images(body: bytes, content_type: str, max_images: int) -> list[bytes]:
    """The encoded images of a body, in order.

    Args:
        body: The whole body.
        content_type: The header's value; it decides the form, not the format of the images.
        max_images: Most images allowed.

    Returns:
        One `bytes` an image; at least one.

    Raises:
        Malformed: The body is not of the form that its Content-Type says, or holds no image.
        OptionOutOfRange: JSON keys beside `images`.
        TooLarge: Too many images.
        UnsupportedImage: A Content-Type that is none of the three forms.
    """
    kind, parameters = parse_options_header(content_type.encode("latin-1", "replace"))
    media_type = kind.decode("latin-1")
    if media_type == "multipart/form-data":
        images = _from_multipart(body, parameters.get(b"boundary", b""), max_images)
    elif media_type == "application/json":
        images = _from_json(body, max_images)
    elif media_type.startswith("image/") or media_type == "application/octet-stream":
        images = [body]
    else:
        given = f"Content-Type {content_type[:100]!r}" if content_type else "no Content-Type"
        raise UnsupportedImage(f"{given} was given; send {FORMS}")
    if not images:
        raise Malformed(f"the body holds no image; send {FORMS}")
    return images


def _from_json(body: bytes, max_images: int) -> list[bytes]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the body is not JSON: {error}") from error
    texts = document.get(JSON_KEY) if isinstance(document, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise Malformed(f'the JSON must be an object with "{JSON_KEY}": a list of base64 texts, one an image')
    if unknown := [key for key in document if key != JSON_KEY]:
        raise OptionOutOfRange(
            f'{unknown[0][:100]!r} was given in the JSON; only "{JSON_KEY}" is allowed there; '
            "options are query parameters"
        )
    _check_count(len(texts), max_images)
    return [_from_base64(text, index) for index, text in enumerate(texts)]


def _from_base64(text: str, index: int) -> bytes:
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(
            f"image {index}: not base64; send the base64 of the file's bytes alone (the alphabet with + and /), "
            "without a data: prefix"
        ) from error


def _from_multipart(body: bytes, boundary: bytes, max_images: int) -> list[bytes]:
    if not boundary:
        raise Malformed("the Content-Type multipart/form-data has no boundary; let the HTTP client set it")
    parts = _Parts(max_images)
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise Malformed(f"the multipart body is damaged: {error}") from error
    if not parts.complete:
        raise Malformed("the multipart body ends before its closing boundary; send all of it")
    return [bytes(part) for part in parts.images]


class _Parts:
    """Collects the parts named `images` while the parser walks through a body."""

    def __init__(self, max_images: int) -> None:
        self.images: list[bytearray] = []
        self.complete = False
        self._max_images = max_images
        self._header = bytearray()
        self._value = bytearray()
        self._name = ""

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._part_begin,
            "on_header_field": self._header_field,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_finished,
            "on_part_data": self._part_data,
            "on_end": self._end,
        }

    def _part_begin(self) -> None:
        self._name = ""

    def _header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        if self._name != PART_NAME:
            raise Malformed(
                f"a part named {self._name[:100]!r} was given; every part must be named '{PART_NAME}', and options are "
                "query parameters"
            )
        _check_count(len(self.images) + 1, self._max_images)
        self.images.append(bytearray())

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        self.images[-1] += data[start:end]

    def _end(self) -> None:
        self.complete = True


def _check_count(count: int, max_images: int) -> None:
    if count > max_images:
        raise TooLarge(f"{count} images were given; one request may hold at most {max_images}: send several requests")
