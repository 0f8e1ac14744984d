"""Tensors as the protocol carries them: datatype, shape and data, as JSON or as raw bytes behind it.

Raw bytes are little-endian and row-major; a BYTES element is its length, 4 bytes, and so many bytes. Every number that
a client sends is checked before it is used: shapes by products of unbounded whole numbers, sizes against what is there.
"""

import base64
import binascii
import itertools
import math
import reprlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import Malformed, TooLarge

Datatype = Literal["UINT8", "FP32", "BYTES"]
Array = NDArray[np.uint8] | NDArray[np.float32]

NUMPY_TYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
MAX_RANK = 8
MAX_SHOWN = 100  # characters of a wrong value that are repeated to whoever sent it
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Declared:
    """What a request says of a tensor, checked by itself.

    Attributes:
        name: Of the tensor.
        datatype: One that is taken.
        shape: Of at least one axis, no size below 1.
    """

    name: str
    datatype: Datatype
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        """The product of the shape."""
        return math.prod(self.shape)


def declared(entry: dict[str, Any], max_first: int) -> Declared:
    """Name, datatype and shape of an input.

    Args:
        entry: From the JSON of a request, with a `name` that is text.
        max_first: Largest first size of the shape, which is the number of images.

    Raises:
        Malformed: A datatype or shape that is not taken.
        TooLarge: A first size above `max_first`.
    """
    name, datatype, shape = entry["name"], entry.get("datatype"), entry.get("shape")
    if datatype not in ("UINT8", "FP32", "BYTES"):
        raise Malformed(f"input {name!r}: datatype {shown(datatype)} was given; allowed are UINT8, FP32 and BYTES")
    if not isinstance(shape, list) or not 1 <= len(shape) <= MAX_RANK or not all(type(size) is int for size in shape):
        raise Malformed(
            f"input {name!r}: the shape must be a list of 1 to {MAX_RANK} whole numbers; got {shown(shape)}"
        )
    if min(shape) < 1:
        raise Malformed(f"input {name!r}: shape {shown(shape)} was given; every size must be at least 1")
    if shape[0] > max_first:
        raise TooLarge(f"{shape[0]} images were given; one request may hold at most {max_first}: send several requests")
    return Declared(name, cast(Datatype, datatype), tuple(shape))


def from_binary(tensor: Declared, raw: memoryview) -> Array | list[bytes]:
    """The data of a tensor from the bytes that belong to it: an array of its shape, or the elements of a BYTES tensor.

    Raises:
        Malformed: Not as many bytes as its shape demands, or lengths that do not add up.
    """
    if tensor.datatype == "BYTES":
        return _elements(tensor, raw)
    dtype = NUMPY_TYPES[tensor.datatype]
    needed = tensor.elements * dtype.itemsize
    if len(raw) != needed:
        raise Malformed(
            f"input {tensor.name!r}: {len(raw)} bytes came; {tensor.datatype} of shape {list(tensor.shape)} takes "
            f"{needed}"
        )
    return np.frombuffer(raw, dtype).reshape(tensor.shape)


def _elements(tensor: Declared, raw: memoryview) -> list[bytes]:
    found: list[bytes] = []
    position = 0
    for index in range(tensor.elements):
        start = position + _LENGTH.size
        if start > len(raw):
            raise Malformed(
                f"input {tensor.name!r}: the bytes end before the length of element {index} of {tensor.elements}"
            )
        end = start + _LENGTH.unpack_from(raw, position)[0]
        if end > len(raw):
            raise Malformed(
                f"input {tensor.name!r}: element {index} should have {end - start} bytes; {len(raw) - start} are left"
            )
        found.append(bytes(raw[start:end]))
        position = end
    if position != len(raw):
        raise Malformed(f"input {tensor.name!r}: {len(raw) - position} bytes are left after its last element")
    return found


def from_json(tensor: Declared, data: Any) -> Array | list[bytes]:
    """The data of a tensor from JSON: nested lists of its shape, or one flat list in row-major order.

    Elements of BYTES are texts, of which their UTF-8 is taken.

    Raises:
        Malformed: Another number of elements, another nesting, or an element that is not of the datatype.
    """
    flat = _flattened(tensor, data)
    if tensor.datatype == "BYTES":
        if not all(type(element) is str for element in flat):
            raise Malformed(f"input {tensor.name!r}: the data of BYTES must be texts")
        return [cast(str, element).encode() for element in flat]
    allowed = {int} if tensor.datatype == "UINT8" else {int, float}
    if wrong := set(map(type, flat)) - allowed:
        found = ", ".join(sorted(kind.__name__ for kind in wrong))
        raise Malformed(
            f"input {tensor.name!r}: the data of {tensor.datatype} must be numbers of its kind; got {found}"
        )
    low, high = (0, 255) if tensor.datatype == "UINT8" else (-_LARGEST_FP32, _LARGEST_FP32)
    if min(flat) < low or max(flat) > high:
        raise Malformed(
            f"input {tensor.name!r}: a number does not fit {tensor.datatype}, which goes from {low} to {high}"
        )
    return np.array(flat, NUMPY_TYPES[tensor.datatype]).reshape(tensor.shape)


_LARGEST_FP32 = float(np.finfo(np.float32).max)


def _flattened(tensor: Declared, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise Malformed(f"input {tensor.name!r}: the data must be a list; got {shown(data)}")
    if len(data) == tensor.elements and not any(isinstance(element, list) for element in data):
        return data
    level: list[Any] = [data]
    for size in tensor.shape:
        if not all(isinstance(part, list) and len(part) == size for part in level):
            raise Malformed(
                f"input {tensor.name!r}: the data must be one flat list of {tensor.elements} elements, or lists nested "
                f"as its shape {list(tensor.shape)} says"
            )
        level = list(itertools.chain.from_iterable(level))
    return level


def from_base64(tensor: Declared, elements: Sequence[bytes]) -> list[bytes]:
    """What is in base64 texts.

    Raises:
        Malformed: An element is not base64.
    """
    decoded = []
    for index, element in enumerate(elements):
        try:
            decoded.append(base64.b64decode(b"".join(element.split()), validate=True))
        except binascii.Error as error:
            raise Malformed(
                f"input {tensor.name!r}: element {index} is not base64; send that of a file's bytes alone, without a "
                "data: prefix"
            ) from error
    return decoded


def to_binary(data: Array | Sequence[str]) -> bytes:
    """A tensor's bytes: of an array, or of texts as BYTES."""
    if isinstance(data, np.ndarray):
        return data.tobytes()
    encoded = [text.encode() for text in data]
    return b"".join(part for element in encoded for part in (_LENGTH.pack(len(element)), element))


def shown(value: Any) -> str:
    """A wrong value for an error message, cut to a bearable length."""
    text = _SHORT.repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


_SHORT = reprlib.Repr()
_SHORT.maxlist, _SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxlong = MAX_RANK + 1, 2, MAX_SHOWN, MAX_SHOWN
