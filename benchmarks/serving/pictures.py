"""Bodies of requests: test images of Fashion-MNIST as PNG files, one a request or several as multipart."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccnet.data import load_dataset

PICTURES = 256
_BOUNDARY = "ccnet-benchmark"


@dataclass(frozen=True, slots=True)
class Body:
    """What a request carries."""

    content: bytes
    content_type: str


@lru_cache(maxsize=1)
def pictures() -> NDArray[np.uint8]:
    """The first test images, [PICTURES, 28, 28, 1].

    Raises:
        DataError: The data set is not installed; the message says how to get it.
    """
    return load_dataset("fashion-mnist", "test").images[:PICTURES]


@lru_cache(maxsize=1)
def png_files() -> tuple[bytes, ...]:
    """The same as files."""
    return tuple(_png(picture) for picture in pictures())


def bodies(images: int) -> Callable[[int], Body]:
    """The body of request number n, with as many images."""
    files = png_files()
    if images == 1:
        return lambda number: Body(files[number % len(files)], "image/png")
    return lambda number: _multipart([files[(number * images + index) % len(files)] for index in range(images)])


def _multipart(files: list[bytes]) -> Body:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="images"; filename="{index}.png"\r\n'
        f"Content-Type: image/png\r\n\r\n".encode()
        + data
        + b"\r\n"
        for index, data in enumerate(files)
    ]
    return Body(b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}")


def _png(picture: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()
