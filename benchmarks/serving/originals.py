"""Requests of the Open Inference Protocol that are right, in all their forms: what `mutants` makes wrong ones of.

FP32 and UINT8 in both layouts, BYTES of files, base64 and JSON data, raw tensors, parameters and outputs of all kinds.
"""

import base64
import io
import json
import random
import struct
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

# A pass of the ConvNet is cheap, and what happens before it is the same.
PATHS = tuple(
    f"/v2/models/fashion-mnist-{model}/infer"
    for model in ("ccnet", "ccnet/versions/1", "convnet", "convnet", "convnet/versions/1")
)
LENGTH = "Inference-Header-Content-Length"
MAX_IMAGES = 2
SEQUENCE = "1 7/8 3/4 7/9 7776/8575 7/9 5/6 5/6 x 1 7/9 3/4 9/10 5/6 6/7 5/6 4/5"
OUTPUTS = ("logits", "probabilities", "labels", "agreement", "entropy")


@dataclass(slots=True)
class Draft:
    """A request before it is written down.

    Attributes:
        path: Which model.
        document: Its JSON; None for a raw tensor.
        tail: The bytes behind the JSON.
        headers: Beside those of the framing.
        coding: How the body is compressed; "" for not at all.
    """

    path: str
    document: dict[str, Any] | None
    tail: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    coding: str = ""

    def body(self) -> tuple[bytes, int | None]:
        """The body, not compressed, and how many bytes of it are JSON where that has to be said."""
        if self.document is None:
            return self.tail, 0
        text = json.dumps(self.document).encode("utf-8", "surrogatepass")
        return text + self.tail, len(text) if self.tail else None


def original(dice: random.Random) -> Draft:
    """One that the service has to answer with 200."""
    path = dice.choice(PATHS)
    images = dice.randint(1, MAX_IMAGES)
    if dice.random() < 0.08:
        draft = Draft(path, None, _prepared(dice, images))
    else:
        entry, tail = dice.choice(_INPUTS)(dice, images)
        document: dict[str, Any] = {"inputs": [entry]}
        if dice.random() < 0.3:
            document["id"] = f"request {dice.randrange(10**6)}"
        if parameters := _parameters(dice, path, entry):
            document["parameters"] = parameters
        if dice.random() < 0.5:
            document["outputs"] = _outputs(dice)
        draft = Draft(path, document, tail)
    draft.coding = dice.choice(["", "", "", "gzip", "deflate"])
    if dice.random() < 0.3:
        draft.headers["Accept-Encoding"] = dice.choice(["gzip", "deflate", "gzip, deflate;q=0.5", "identity", "*"])
    return draft


def compressed(body: bytes, coding: str) -> bytes:
    """A body in a Content-Encoding."""
    if coding == "gzip":
        packer = zlib.compressobj(1, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
        return packer.compress(body) + packer.flush()
    return zlib.compress(body, 1) if coding == "deflate" else body


def _parameters(dice: random.Random, path: str, entry: dict[str, Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    if "-ccnet/" in path and dice.random() < 0.5:
        if dice.random() < 0.2:
            chosen["sequences"] = SEQUENCE
        else:
            chosen |= {"ensemble_size": dice.randint(1, 2), "seed": dice.randrange(2)}
    for name, value in (
        ("aggregate", dice.choice(["mean", "median", "mean_probability"])),
        ("min_size", 1),
        ("timeout", 60_000_000),
        ("binary_data_output", dice.random() < 0.5),
    ):
        if dice.random() < 0.2:
            chosen[name] = value
    if entry["datatype"] != "BYTES" and dice.random() < 0.2:
        chosen["layout"] = "NHWC" if entry["shape"][3] == 1 else "NCHW"
    return chosen


def _outputs(dice: random.Random) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = []
    for name in dice.sample(OUTPUTS, dice.randint(1, len(OUTPUTS))):
        entry: dict[str, Any] = {"name": name}
        if dice.random() < 0.5:
            entry["parameters"] = {"binary_data": dice.random() < 0.5}
        if name in OUTPUTS[:2] and dice.random() < 0.2:
            entry.setdefault("parameters", {})["classification"] = dice.randint(0, 12)
        entries.append(entry)
    return entries


def _entry(datatype: str, shape: list[int], tail: bytes) -> tuple[dict[str, Any], bytes]:
    described = {"name": "images", "datatype": datatype, "shape": shape}
    return described | {"parameters": {"binary_data_size": len(tail)}}, tail


def _prepared(dice: random.Random, images: int) -> bytes:
    start = dice.randrange(8)
    return _network_inputs()[start : start + images].tobytes()


@lru_cache(maxsize=1)
def _network_inputs() -> np.ndarray[Any, np.dtype[np.float32]]:
    """Noise as the network takes pictures, [16, 32, 32]."""
    return np.random.default_rng(0).standard_normal((16, 32, 32), dtype=np.float32)


def _fp32(dice: random.Random, images: int) -> tuple[dict[str, Any], bytes]:
    shape = dice.choice([[images, 1, 32, 32], [images, 32, 32, 1]])
    return _entry("FP32", shape, _prepared(dice, images))


def _uint8(dice: random.Random, images: int) -> tuple[dict[str, Any], bytes]:
    height, width = dice.choice([(28, 28), (32, 32), (7, 5), (2, 40)])
    shape = dice.choice([[images, height, width, 1], [images, 1, height, width], [images, 3, height, width]])
    return _entry("UINT8", shape, dice.randbytes(images * shape[1] * shape[2] * shape[3]))


def _files(dice: random.Random, images: int) -> tuple[dict[str, Any], bytes]:
    files = [dice.choice(_encoded()) for _ in range(images)]
    tail = b"".join(struct.pack("<I", len(data)) + data for data in files)
    return _entry("BYTES", dice.choice([[images], [images, 1]]), tail)


def _base64_files(dice: random.Random, images: int) -> tuple[dict[str, Any], bytes]:
    texts = [base64.b64encode(dice.choice(_encoded())) for _ in range(images)]
    entry, tail = _entry("BYTES", [images], b"".join(struct.pack("<I", len(text)) + text for text in texts))
    entry["parameters"]["content_type"] = "base64"
    return entry, tail


def _json_data(dice: random.Random, images: int) -> tuple[dict[str, Any], bytes]:
    if dice.random() < 0.3:
        texts = [base64.b64encode(dice.choice(_encoded())).decode() for _ in range(images)]
        return {"name": "images", "datatype": "BYTES", "shape": [images], "data": texts}, b""
    height, width = dice.choice([(4, 5), (8, 6)])
    values: Any = list(dice.randbytes(images * height * width))
    if dice.random() < 0.5:
        values = np.array(values).reshape(images, height, width, 1).tolist()
    return {"name": "images", "datatype": "UINT8", "shape": [images, height, width, 1], "data": values}, b""


_INPUTS = (_fp32, _uint8, _files, _base64_files, _json_data)


@lru_cache(maxsize=1)
def _encoded() -> tuple[bytes, ...]:
    """Files of the three types, in grey and colour."""
    files = []
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 10), dtype=np.uint8)
    for number in range(len(pixels)):
        picture = Image.fromarray(pixels[number])
        if number % 2:
            picture = picture.convert("RGB")
        buffer = io.BytesIO()
        picture.save(buffer, ("PNG", "JPEG", "WEBP")[number % 3])
        files.append(buffer.getvalue())
    return tuple(files)
