"""The body of `POST /v1/evaluations`: options as JSON, or a form of options and a data set, which goes to a file.

    JSON        {"dataset": "fashion-mnist", "ensemble_sizes": [1, 4], ...}
    multipart   a part `options` with the same JSON, and a part `dataset` with a file

Bytes are counted as they come. Those of the data set are hashed and written on the way, in large pieces, by a thread.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from pydantic import ValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import Malformed, NoState, OptionOutOfRange, TooLarge
from service.evaluations.schemas import EvaluationOptions

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

OPTIONS, DATASET = "options", "dataset"
MAX_OPTIONS_BYTES = 2**16
MAX_HEADER_BYTES = 2**13  # of one part
WRITTEN_TOGETHER = 2**20  # bytes that are parsed and written in one go
MAX_GIVEN = 100  # characters of a wrong value that are repeated to whoever sent it


@dataclass(frozen=True, slots=True)
class Received:
    """What a form held.

    Attributes:
        options: JSON, `{}` where the part was left out.
        filename: Of the data set, as the client calls it.
        digest: SHA-256 of the data set, in hex.
    """

    options: bytes
    filename: str
    digest: str


async def receive_json(stream: AsyncIterator[bytes]) -> bytes:
    """Read a body of options alone.

    Raises:
        TooLarge: It is longer than options can be.
    """
    body = bytearray()
    async for chunk in stream:
        body += chunk
        if len(body) > MAX_OPTIONS_BYTES:
            raise TooLarge(f"more than {MAX_OPTIONS_BYTES:,} bytes of options were sent; send a data set in a form")
    return bytes(body)


async def receive_form(
    stream: AsyncIterator[bytes], content_length: str | None, content_type: str, file: IO[bytes], max_bytes: int
) -> Received:
    """Read a form; its data set is in `file` then.

    Args:
        stream: The body as it arrives.
        content_length: The header's value, checked first and not trusted.
        content_type: Likewise; names the boundary.
        file: Where the data set goes.
        max_bytes: Most bytes of the data set.

    Raises:
        Malformed: It is no such form.
        TooLarge: More bytes were announced or came.
        NoState: They cannot be written.
    """
    most = max_bytes + MAX_OPTIONS_BYTES + 4 * MAX_HEADER_BYTES
    if content_length is not None and content_length.isdecimal() and int(content_length) > most:
        raise TooLarge(f"a body of {int(content_length):,} bytes was announced; {_allowed(max_bytes)}")
    _, parameters = parse_options_header(content_type.encode("latin-1", "replace"))
    form = _Form(parameters.get(b"boundary", b""), file, max_bytes)
    waiting, came = bytearray(), 0
    async for chunk in stream:
        waiting += chunk
        came += len(chunk)
        if came > most:
            raise TooLarge(f"more than {most:,} bytes of body were sent; {_allowed(max_bytes)}")
        if len(waiting) >= WRITTEN_TOGETHER:
            await asyncio.to_thread(form.write, bytes(waiting))
            waiting.clear()
    await asyncio.to_thread(form.write, bytes(waiting))
    return form.received()


def read_evaluation(text: bytes, *, uploaded: bool) -> EvaluationOptions:
    """The options of a job.

    Args:
        text: JSON.
        uploaded: Whether the data set came with them.

    Raises:
        Malformed: It is no JSON object.
        OptionOutOfRange: An option is unknown or out of its range, or the data set is given twice or not at all.
    """
    try:
        options = EvaluationOptions.model_validate_json(text)
    except ValidationError as error:
        found = error.errors()
        if any(entry["type"] in ("json_invalid", "model_type") for entry in found):
            raise Malformed(f"the options are no JSON object: {found[0]['msg']}") from error
        told = "; ".join(
            f"{'.'.join(map(str, entry['loc']))[:MAX_GIVEN]}: {str(entry['input'])[:MAX_GIVEN]!r} was given; "
            f"{entry['msg']}"
            for entry in found[:5]
        )
        raise OptionOutOfRange(told) from error
    if (options.dataset is None) is not uploaded:
        raise OptionOutOfRange(
            "dataset: both a name and a file were given; leave one out"
            if uploaded
            else "dataset: none was given; name a built-in one, or send a form with a part `dataset`"
        )
    return options


def _allowed(max_bytes: int) -> str:
    return f"at most {max_bytes:,} bytes of data set are allowed: send fewer or smaller pictures"


class _Form:
    """Takes a form apart while it comes: options into memory, the data set into a file."""

    def __init__(self, boundary: bytes, file: IO[bytes], max_bytes: int) -> None:
        if not boundary:
            raise Malformed("the Content-Type multipart/form-data has no boundary; let the HTTP client set it")
        self._file, self._max_bytes = file, max_bytes
        self._options = bytearray()
        self._hash = hashlib.sha256()
        self._bytes = 0
        self._seen: set[str] = set()
        self._name, self._filename = "", ""
        self._header, self._value = bytearray(), bytearray()
        self._complete = False
        self._parser = MultipartParser(boundary, self._callbacks())

    def write(self, data: bytes) -> None:
        """The next bytes of the body."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise Malformed(f"the multipart body is damaged: {error}") from error
        except OSError as error:
            raise NoState(f"the data set cannot be kept: {error.strerror}; try again later") from error

    def received(self) -> Received:
        """What there was, once all bytes are written."""
        if not self._complete:
            raise Malformed("the multipart body ends before its closing boundary; send all of it")
        if DATASET not in self._seen:
            raise Malformed(f"the form has no part `{DATASET}`; to name a built-in data set send JSON")
        return Received(bytes(self._options) or b"{}", self._filename, self._hash.hexdigest())

    def _callbacks(self) -> "MultipartCallbacks":
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
        self._bound_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._bound_header()

    def _bound_header(self) -> None:
        if len(self._header) + len(self._value) > MAX_HEADER_BYTES:
            raise Malformed(f"a header of a part has more than {MAX_HEADER_BYTES:,} bytes")

    def _header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            _, options = parse_options_header(bytes(self._value))
            self._name = options.get(b"name", b"").decode("utf-8", "replace")
            if self._name == DATASET:
                self._filename = options.get(b"filename", b"").decode("utf-8", "replace")
        self._header.clear()
        self._value.clear()

    def _headers_finished(self) -> None:
        if self._name not in (OPTIONS, DATASET) or self._name in self._seen:
            raise Malformed(
                f"a part named {self._name[:MAX_GIVEN]!r} was given; a form has one part `{DATASET}` with the file and "
                f"at most one part `{OPTIONS}` with JSON"
            )
        self._seen.add(self._name)

    def _part_data(self, data: bytes, start: int, end: int) -> None:
        piece = data[start:end]
        if self._name == OPTIONS:
            self._options += piece
            if len(self._options) > MAX_OPTIONS_BYTES:
                raise TooLarge(f"the part `{OPTIONS}` has more than {MAX_OPTIONS_BYTES:,} bytes")
            return
        self._bytes += len(piece)
        if self._bytes > self._max_bytes:
            raise TooLarge(f"more than {self._max_bytes:,} bytes of data set were sent; {_allowed(self._max_bytes)}")
        self._hash.update(piece)
        self._file.write(piece)

    def _end(self) -> None:
        self._complete = True
