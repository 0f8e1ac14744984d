"""Compressed bodies: inflated piece by piece, damage noticed, and codings chosen as the client asks."""

import gzip
import random
import zlib
from typing import Any

import pytest

from service.errors import Malformed, UnsupportedImage
from service.openinference.compression import PIECE_BYTES, Inflater, coding_of, compressed, wanted_coding


def inflated(body: bytes, coding: Any) -> bytes:
    inflater, found = Inflater(body, coding), b""
    while piece := inflater.piece():
        assert len(piece) <= PIECE_BYTES
        found += piece
    return found


@pytest.mark.parametrize(("coding", "compress"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
@pytest.mark.parametrize("data", [b"", b"x", random.Random(1).randbytes(300_000), bytes(3 * PIECE_BYTES)])
def test_what_was_compressed_is_inflated_piece_by_piece(coding, compress, data):
    body = compress(data)
    assert inflated(body, coding) == data
    for damaged in (body[:-1], body[: len(body) // 2], body + b"x", body + compress(b"y"), b"x" + body, b""):
        with pytest.raises(Malformed):
            inflated(damaged, coding)


def test_codings_are_chosen_as_asked():
    assert coding_of(" GZIP ") == "gzip"
    assert coding_of("identity") is None
    for unknown in ("gzip, gzip", "br", "gzip,deflate", "x" * 1000):
        with pytest.raises(UnsupportedImage):
            coding_of(unknown)
    for accepted, expected in {
        "": None,
        "identity": None,
        "br": None,
        "gzip;q=0": None,
        "gzip;q=nan": None,
        "gzip;q=x, deflate;q=0.1": "deflate",
        "gzip;q=0.1, deflate;q=0.2": "deflate",
        "*": "gzip",
        "*, gzip;q=0": "deflate",
        "deflate, gzip": "gzip",
    }.items():
        assert wanted_coding(accepted) == expected, accepted
    assert compressed(b"x" * 100, "gzip") == (b"x" * 100, None)
    noise = random.Random(2).randbytes(5000)
    assert compressed(noise, "deflate") == (noise, None)
    data, coding = compressed(bytes(5000), "deflate")
    assert (zlib.decompress(data), coding) == (bytes(5000), "deflate")
