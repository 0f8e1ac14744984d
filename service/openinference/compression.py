"""Compressed bodies within a bound: what is inflated is counted while it grows, whatever the compressed size is."""

import gzip
import zlib
from typing import Literal, cast

from service.errors import Malformed, UnsupportedImage

Coding = Literal["gzip", "deflate"]

PIECE_BYTES = 2**20  # inflated at a time
_FED_BYTES = 2**16  # given to zlib at a time; what it does not take yet is copied, so this bounds the copies
_WORTH_BYTES = 1024  # an answer below this fits a network packet or two anyway
_WINDOW = {"gzip": 16 + zlib.MAX_WBITS, "deflate": zlib.MAX_WBITS}  # deflate in HTTP is zlib's format, RFC 9110 8.4.1.2


def coding_of(content_encoding: str) -> Coding | None:
    """How a body is compressed, None for not at all, by its Content-Encoding.

    Raises:
        UnsupportedImage: Another coding, or several, one in the other.
    """
    coding = content_encoding.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in _WINDOW:
        return cast(Coding, coding)
    raise UnsupportedImage(f"Content-Encoding {content_encoding[:100]!r} was given; allowed is one of gzip and deflate")


class Inflater:
    """Inflates one body, a piece at a time.

    Args:
        body: Compressed.
        coding: How.
    """

    def __init__(self, body: bytes, coding: Coding) -> None:
        self._body = memoryview(body)
        self._coding = coding
        self._position = 0
        self._inflating = zlib.decompressobj(_WINDOW[coding])

    def piece(self) -> bytes:
        """The next bytes, `PIECE_BYTES` of them at most; none at the end.

        Raises:
            Malformed: Damaged or incomplete, or something follows the compressed data.
        """
        inflated = bytearray()
        while len(inflated) < PIECE_BYTES and not self._inflating.eof:
            fed = self._inflating.unconsumed_tail or self._next()
            try:
                found = self._inflating.decompress(fed, PIECE_BYTES - len(inflated))
            except zlib.error as error:
                raise Malformed(f"the body is not {self._coding}, or damaged: {error}") from error
            if not fed and not found:
                raise Malformed(f"the {self._coding} body ends before its last byte; send all of it")
            inflated += found
        if self._inflating.eof and (self._inflating.unused_data or self._position < len(self._body)):
            raise Malformed(f"something follows the {self._coding} data in the body; compress it as one stream")
        return bytes(inflated)

    def _next(self) -> memoryview:
        fed = self._body[self._position : self._position + _FED_BYTES]
        self._position += len(fed)
        return fed


def wanted_coding(accept_encoding: str) -> Coding | None:
    """The compression that a client prefers among ours, by its Accept-Encoding; gzip where it has no preference."""
    weights: dict[str, float] = {}
    for entry in accept_encoding.lower().split(","):
        name, *parameters = (part.strip() for part in entry.split(";"))
        weights[name] = _weight(parameters)
    best = max(("gzip", "deflate"), key=lambda coding: weights.get(coding, weights.get("*", 0.0)))
    return cast(Coding, best) if weights.get(best, weights.get("*", 0.0)) > 0 else None


def _weight(parameters: list[str]) -> float:
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter[2:])
            except ValueError:
                return 0.0
    return 1.0


def compressed(body: bytes, coding: Coding | None) -> tuple[bytes, Coding | None]:
    """A body as it is sent, and its coding; as it is where compression gains nothing."""
    if coding is None or len(body) < _WORTH_BYTES:
        return body, None
    smaller = gzip.compress(body, 1, mtime=0) if coding == "gzip" else zlib.compress(body, 1)
    return (smaller, coding) if len(smaller) < len(body) else (body, None)
