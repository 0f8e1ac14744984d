"""Image files made by the tests."""

import functools
import io
import struct
import zlib

import numpy as np
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(image: Image.Image | np.ndarray, image_format: str = "PNG", **options: object) -> bytes:
    """A picture as the bytes of a file."""
    if isinstance(image, np.ndarray):
        image = Image.fromarray(image)
    stream = io.BytesIO()
    image.save(stream, image_format, **options)
    return stream.getvalue()


def grey(value: int, size: int = 4) -> bytes:
    """A square PNG of one grey."""
    return encoded(np.full((size, size), value, dtype=np.uint8))


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@functools.cache
def huge_png(side: int = 30_000) -> bytes:
    """A PNG of side x side black pixels of 1 bit, about 100 kB, made row by row and never held decoded."""
    packer = zlib.compressobj(9)
    row = bytes(1 + (side + 7) // 8)
    rows = [packer.compress(row * 100) for _ in range(side // 100)]
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    data = b"".join(rows) + packer.flush()
    return PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")


def webp_on_canvas(side: int) -> bytes:
    """An animated WebP of side x side pixels whose only frame covers 16 x 16 of them; a hundred bytes."""
    image = encoded(Image.new("RGB", (16, 16)), "WEBP", lossless=True)[12:]  # without its RIFF header
    canvas = bytes([0x02, 0, 0, 0]) + 2 * (side - 1).to_bytes(3, "little")
    frame = bytes(6) + 2 * (16 - 1).to_bytes(3, "little") + bytes([100, 0, 0, 0]) + image
    chunks = _webp_chunk(b"VP8X", canvas) + _webp_chunk(b"ANIM", bytes(6)) + _webp_chunk(b"ANMF", frame)
    return _webp_chunk(b"RIFF", b"WEBP" + chunks)


def _webp_chunk(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data
