"""JSON of a request, refused before it is parsed when its nesting is deep or its lists are too many to hold.

A list of two bytes, `[]`, becomes an object of 56 and a reference of 8, so the size of a body alone bounds little.
"""

from typing import Any

import numpy as np
import orjson

from service.errors import Malformed, TooLarge

MAX_DEPTH = 100
MAX_LISTS = 2**20  # lists and objects together
_SCANNED_BYTES = 2**20  # at a time
_STRUCTURE = b'[]{}"'
_DROPPED = bytes(byte for byte in range(256) if byte not in _STRUCTURE)
_STEPS = np.zeros(256, np.int32)
_STEPS[list(b"[{")] = 1
_STEPS[list(b"]}")] = -1


def load_object(text: bytes) -> dict[str, Any]:
    """The object that a JSON text is.

    Raises:
        Malformed: No JSON, no object, or nested deeper than `MAX_DEPTH`.
        TooLarge: More than `MAX_LISTS` lists and objects.
    """
    _check_structure(text)
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise Malformed(f"the request is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Malformed("the request must be a JSON object")
    return document


def _check_structure(text: bytes) -> None:
    """Follow brackets and quotes alone, without Python objects for them."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return
    # Escapes first: what remains of quotes begins or ends a text. Pairs from the left, as a parser takes them.
    structure = text.replace(b"\\\\", b"").replace(b'\\"', b"").translate(None, _DROPPED)
    depth = lists = 0
    quotes = 0
    for start in range(0, len(structure), _SCANNED_BYTES):
        piece = np.frombuffer(structure, np.uint8, min(_SCANNED_BYTES, len(structure) - start), start)
        texts = quotes + np.cumsum(piece == ord('"'))
        steps = np.where(texts % 2 == 0, _STEPS[piece], 0)
        depths = depth + np.cumsum(steps)
        lists += int((steps == 1).sum())
        if int(depths.max()) > MAX_DEPTH:
            raise Malformed(f"the JSON is nested deeper than {MAX_DEPTH}; the protocol needs less than 20")
        if lists > MAX_LISTS:
            raise TooLarge(f"the JSON has more than {MAX_LISTS:,} lists; send the data flat, or as binary data")
        quotes, depth = int(texts[-1]), int(depths[-1])
