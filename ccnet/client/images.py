"""What a user has -> encoded files, as the service takes them: PNG, JPEG or WebP.

Files go as they are. Pixels are encoded as PNG, so that nothing is lost. What cannot be right is refused here, before
anything is sent; nothing is ever fetched from an address.
"""

import io
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from ccnet.errors import CcnetError, PictureError, PictureFormatError
from ccnet.pictures import sniff_format

CHANNELS = (1, 3)
TAKEN = (
    "a path, the bytes of a PNG, JPEG or WebP file, a binary file object, a PIL image, a uint8 array [H, W], "
    "[H, W, 1], [H, W, 3] or [N, H, W, C], or a list of these"
)
PNG_MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I;16B"})  # written without a change
PNG_EFFORT = 1  # of 9: pixels are on the way for milliseconds, and the larger efforts save little
MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


class Readable(Protocol):
    """A file object, opened in binary mode."""

    def read(self) -> bytes:
        """All that is left of the file."""
        ...


Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | NDArray[np.uint8] | Readable
Pictures = Picture | Iterable[Picture]


def encode_images(images: Pictures) -> tuple[bytes, ...]:
    """The files to send, one an image, at least one.

    Args:
        images: One image or several: a path, the bytes of a file, a binary file object, a PIL image, a uint8 array
            [H, W], [H, W, 1] (grey) or [H, W, 3] (red, green, blue), or a batch of them [N, H, W, C].

    Raises:
        CcnetError: none, or something else.
        PictureError: a file that cannot be read, a picture that cannot be encoded, an array of another type or shape.
        PictureFormatError: a file that is no PNG, JPEG or WebP.
    """
    encoded = tuple(file for index, one in enumerate(_listed(images)) for file in _encoded(one, f"image {index}"))
    if not encoded:
        raise CcnetError(f"no image was given; give at least one: {TAKEN}")
    return encoded


def media_type(encoded: bytes) -> str:
    """The Content-Type of a file that `encode_images` gave."""
    return MEDIA_TYPES[sniff_format(encoded) or "PNG"]


def _listed(images: Pictures) -> Iterable[Any]:
    """The images one by one; arrays, bytes and files can be iterated over too, but are one image."""
    single = isinstance(images, str | os.PathLike | bytes | bytearray | memoryview | Image.Image | np.ndarray)
    if single or hasattr(images, "read") or isinstance(images, Mapping) or not isinstance(images, Iterable):
        return [images]
    return images


def _encoded(image: Any, name: str) -> Iterator[bytes]:
    """The files of one argument; several for a batch."""
    if isinstance(image, np.ndarray):
        for pixels in _split(image, name):
            yield _png(Image.fromarray(np.ascontiguousarray(pixels)), name)
    elif isinstance(image, Image.Image):
        yield _png(image, name)
    else:
        yield _file(image, name)


def _file(image: Any, name: str) -> bytes:
    """The bytes of a file, of which the first must be those of a format that is taken."""
    if isinstance(image, str | os.PathLike):
        name = os.fspath(image)
        try:
            data: Any = Path(image).read_bytes()
        except (OSError, ValueError) as error:  # ValueError: a null byte in the path
            reason = getattr(error, "strerror", None) or error
            raise PictureError(f"{name}: {reason}; give the path of a PNG, JPEG or WebP file") from error
    else:
        data = image.read() if hasattr(image, "read") else image
    if isinstance(data, str):
        raise PictureError(f"{name}: the file object gives text; open it in binary mode, as open(path, 'rb') does")
    if not isinstance(data, bytes | bytearray | memoryview):
        raise PictureError(f"{name}: {_kind(image)} was given; give {TAKEN}")
    content = bytes(data)
    if not content:
        raise PictureError(f"{name}: there are no bytes in it; give a PNG, JPEG or WebP file")
    if sniff_format(content) is None:
        raise PictureFormatError(f"{name}: begins like no PNG, JPEG or WebP file; only these three are taken")
    return content


def _split(array: NDArray[Any], name: str) -> Iterator[NDArray[np.uint8]]:
    """The images of an array, each [H, W] or [H, W, 3]."""
    shape = list(array.shape)
    if array.dtype != np.uint8:
        raise PictureError(
            f"{name}: an array of {array.dtype} was given; pixels are uint8 from 0 to 255: scale, round and "
            "convert it with .astype('uint8')"
        )
    if not (array.ndim == 2 or (array.ndim in (3, 4) and shape[-1] in CHANNELS)):
        raise PictureError(
            f"{name}: an array of shape {shape} was given; allowed are [H, W], [H, W, 1], [H, W, 3] and [N, H, W, 1 or "
            "3]: channels come last, and a batch of grey images needs an axis of one channel, x[..., None]"
        )
    if not array.size:
        raise PictureError(f"{name}: an array of shape {shape} was given, which has no pixels; give at least one")
    for pixels in array if array.ndim == 4 else [array]:
        yield pixels[:, :, 0] if pixels.ndim == 3 and pixels.shape[2] == 1 else pixels


def _png(picture: Image.Image, name: str) -> bytes:
    """A picture as a PNG file with the same pixels; of an animation the frame at which it stands."""
    # A file just opened keeps the orientation of its EXIF data, and so is shown as its path would be. A picture made
    # from it by turning may still carry that data, which no longer fits.
    exif = picture.info.get("exif") if isinstance(picture, ImageFile.ImageFile) else None
    stream = io.BytesIO()
    try:
        if picture.mode not in PNG_MODES:
            picture = picture.convert(_png_mode(picture.mode, name))
        picture.save(stream, "PNG", compress_level=PNG_EFFORT, exif=exif, icc_profile=None)
    except PictureError:
        raise
    except Exception as error:  # decoders raise anything from OSError to SyntaxError on damaged files
        raise PictureError(f"{name}: the picture cannot be encoded as PNG: {error}") from error
    return stream.getvalue()


def _png_mode(mode: str, name: str) -> str:
    """The mode in which PNG can hold a picture, as the service would convert it."""
    if mode == "F":
        raise PictureError(f"{name}: a picture of mode F (floats) was given; say what is white, and convert it to L")
    if mode.startswith("I"):
        return "I;16"
    if mode in ("La", "RGBa", "PA"):
        return "LA" if mode == "La" else "RGBA"
    return "RGB"


def _kind(thing: object) -> str:
    return f"{type(thing).__module__}.{type(thing).__qualname__}"
