"""Damaged requests for `/v2/.../infer`, any number of them, each from its seed and number alone.

A right request (`originals`) is damaged once to three times: in its JSON, in the raw tensor behind it, in its headers,
or in the bytes of the body as they are sent. One in 50 stays as it is: it has to be answered with 200, or nothing would
be learned from the others.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.serving.originals import LENGTH, Draft, compressed, original

UNTOUCHED = "untouched"
NUMBERS: tuple[Any, ...] = (
    *(0, -1, 1, 2, 3, 7, 64, 255, 256, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**30),
    *(1e308, -1e308, 1e39, 0.5, 1.0, -0.0, float("nan"), float("inf"), float("-inf")),
)
VALUES: tuple[Any, ...] = (
    *NUMBERS,
    *(None, True, False, "", "0", "1", "images", "NaN", "\0", "é" * 3, "\ud800", "a" * 2000, "1/0 x 1/0", "; ; ;"),
    *([], [[]], [0], [None], {}, {"": {}}, {"name": "images"}, {"binary_data": 1}),
)
LENGTHS = (
    *("", "0", "-1", "+5", " 7", "1", "1e3", "0x10", "1_0", "²", "٣", "NaN", "5, 5", "0" * 20 + "1"),
    *(str(2**power + more) for power in (31, 32, 63, 64, 200) for more in (-1, 0)),
)
CODINGS = ("gzip", "deflate", "br", "gzip, gzip", "identity", "GZIP", "x-gzip", "zstd", ",", "gzip;q=1", "\xff")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A request as it is sent.

    Attributes:
        damage: What was done to it.
        data: All of it, head and body.
    """

    damage: str
    data: bytes


def mutant(seed: int, number: int) -> Mutant:
    """Number so and so of a seed."""
    dice = random.Random(f"{seed}:{number}")
    draft = original(dice)
    done: list[str] = []
    written: list[tuple[str, _OnBytes]] = []
    if dice.random() >= 0.02:
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            kind = dice.choice(("JSON", "JSON", "tensor", "header", "bytes"))
            if kind == "JSON" and draft.document:
                done.append(_damage_json(dice, draft))
            elif kind == "tensor" and draft.tail:
                done.append(_damage_tail(dice, draft))
            elif kind == "header":
                done.append(_damage_headers(dice, draft))
            else:
                name, act = dice.choice(_ON_BYTES)
                done.append(name)
                written.append((name, act))
    return Mutant(" + ".join(done) or UNTOUCHED, _written(dice, draft, [act for _, act in written]))


_OnBytes = Callable[[random.Random, bytes], bytes]


def _written(dice: random.Random, draft: Draft, acts: list[_OnBytes]) -> bytes:
    """Head and body; what is done to bytes is done before they are compressed, or after."""
    body, length = draft.body()
    before = dice.random() < 0.5
    for act in acts if before else ():
        body = act(dice, body)
    body = compressed(body, draft.coding)
    for act in () if before else acts:
        body = act(dice, body)
    headers = {"Host": "localhost", "Content-Type": "application/octet-stream"}
    if draft.coding:
        headers["Content-Encoding"] = draft.coding
    if length is not None:
        headers[LENGTH] = str(length)
    headers |= draft.headers
    chunked = dice.random() < 0.1
    headers |= {"Transfer-Encoding": "chunked"} if chunked else {"Content-Length": str(len(body))}
    head = f"POST {draft.path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode("utf-8") + b"\r\n" + (_in_chunks(dice, body) if chunked else body)


def _in_chunks(dice: random.Random, body: bytes) -> bytes:
    parts, start = [], 0
    while start < len(body):
        part = body[start : start + dice.randint(1, 4096)]
        parts.append(b"%x\r\n%b\r\n" % (len(part), part))
        start += len(part)
    return b"".join([*parts, b"0\r\n\r\n"])


def _damage_json(dice: random.Random, draft: Draft) -> str:
    """Change, remove, add or repeat something anywhere in the JSON."""
    draft.document = _copy(draft.document)
    holder, key, name = dice.choice(_places(draft.document, "request"))
    act = dice.randrange(5)
    if act <= 1:
        value = dice.choice(VALUES)
        holder[key] = value
        return f"{name} = {value!r:.40}"
    if act == 2:
        del holder[key]
        return f"{name} removed"
    if act == 3:
        holder[key] = _changed(dice, holder[key])
        return f"{name} changed"
    if isinstance(holder, list):
        holder.insert(key, _copy(holder[key]))
        return f"{name} twice"
    added = dice.choice(("name", "data", "shape", "parameters", "sequences", "classification", "binary_data_size", "x"))
    holder[added] = _copy(dice.choice((holder[key], *VALUES)))
    return f"{name} and {added} beside it"


def _copy(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copy(inner) for key, inner in value.items()}
    return [_copy(inner) for inner in value] if isinstance(value, list) else value


def _places(value: Any, name: str) -> list[tuple[Any, Any, str]]:
    """(holder, key, name) of every value inside; of a long list a few."""
    found: list[tuple[Any, Any, str]] = []
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))[:4]
    for key in keys:
        inner, path = value[key], f"{name}.{key!s:.20}"
        found.append((value, key, path))
        if isinstance(inner, dict | list):
            found += _places(inner, path)
    return found


def _changed(dice: random.Random, value: Any) -> Any:
    """Something near a value, or of another type."""
    if isinstance(value, bool):
        return dice.choice((not value, int(value), str(value)))
    if isinstance(value, int | float):
        near = (value + 1, value - 1, -value, value * 2, value * 2**32, float(value), str(value), [value])
        return dice.choice(near)
    if isinstance(value, str):
        cut = dice.randrange(len(value) + 1)
        return dice.choice((value[:cut], value + value, value.upper(), f" {value}", value[cut:] + "/0", [value], {}))
    if isinstance(value, list):
        deep: Any = value
        for _ in range(dice.choice((1, 2, 90, 120)) if len(value) < 50 else 1):
            deep = [deep]
        return dice.choice((value[:-1], value * 2, value[::-1], deep, dict.fromkeys(map(str, value[:4]))))
    return dice.choice((list(value) if value else 0, [value], str(value)))


def _damage_tail(dice: random.Random, draft: Draft) -> str:
    """Numbers in the tensor that are none, lengths in it that lie, or what happens to any bytes."""
    tail = bytearray(draft.tail)
    where = dice.randrange(max(1, len(tail) - 4)) // 4 * 4
    if dice.random() < 0.4:
        value = dice.choice((0, 1, 3, 0xFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x7F7FFFFF))
        everywhere = dice.random() < 0.3
        start = dice.choice((0, where))
        tail[start : start + 4] = value.to_bytes(4, "little")
        if everywhere:
            tail[:] = (value.to_bytes(4, "little") * (len(tail) // 4 + 1))[: len(tail)]
        draft.tail = bytes(tail)
        return f"tensor word {value:#x}{' everywhere' if everywhere else f' at {start}'}"
    name, act = dice.choice(_ON_BYTES)
    draft.tail = act(dice, draft.tail)
    return f"tensor {name}"


def _damage_headers(dice: random.Random, draft: Draft) -> str:
    """Lengths and codings that are wrong."""
    act = dice.randrange(5)
    if act <= 1:
        _, length = draft.body()
        value = dice.choice(LENGTHS) if dice.random() < 0.6 else str((length or 0) + dice.randint(-9, 9))
        draft.headers[LENGTH] = value
        return f"{LENGTH}: {value}"
    if act == 2:
        value = dice.choice(CODINGS)
        draft.headers["Content-Encoding"] = value
        return f"Content-Encoding: {value!r} of {draft.coding or 'a plain'} body"
    name, values = dice.choice(_HEADERS)
    draft.headers[name] = dice.choice(values)
    return f"{name}: {draft.headers[name]!r:.40}"


_HEADERS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("Accept-Encoding", ("gzip;q=x", ";;,,", "gzip;q=nan", "*;q=0", "br", "a" * 3000, "deflate;q=1e400", "\xff\xfe")),
    ("Content-Type", ("", "application/json", "image/png", "multipart/form-data", "\x80", "a/b;" * 500)),
    ("X-Request-ID", ("", "a b", "x" * 500, "\xe9", "%0d%0a", "../..")),
    ("traceparent", ("00-", "00-" + "0" * 32 + "-" + "0" * 16 + "-01", "ff-é", "x" * 300)),
    ("Authorization", ("Bearer", "Bearer \xff", "Basic YTpi", "x" * 1000)),
)


def _flip(dice: random.Random, data: bytes) -> bytes:
    flipped = bytearray(data)
    for _ in range(dice.choice((1, 1, 4, 32)) if data else 0):
        flipped[dice.randrange(len(flipped))] ^= 1 << dice.randrange(8)
    return bytes(flipped)


def _cut(dice: random.Random, data: bytes) -> bytes:
    return data[: dice.randrange(len(data) + 1)] if dice.random() < 0.5 else data[dice.randrange(len(data) + 1) :]


def _duplicate(dice: random.Random, data: bytes) -> bytes:
    start = dice.randrange(len(data) + 1)
    end = min(len(data), start + dice.choice((1, 4, 100, 5000)))
    return data[:end] + data[start:end] * dice.randint(1, 3) + data[end:]


def _splice(dice: random.Random, data: bytes) -> bytes:
    other, _ = original(dice).body()
    return data[: dice.randrange(len(data) + 1)] + other[dice.randrange(len(other) + 1) :]


def _insert(dice: random.Random, data: bytes) -> bytes:
    where = dice.randrange(len(data) + 1)
    more = dice.choice((b"\0", b"\xff" * 8, b"[" * 5000, b'{"a":' * 200, b'"', b"\xed\xa0\x80", dice.randbytes(16)))
    return data[:where] + more + data[where:]


def _number(dice: random.Random, data: bytes) -> bytes:
    """Another number in the place of a digit, as text."""
    digits = [index for index, byte in enumerate(data[:400]) if 48 <= byte <= 57]
    if not digits:
        return data + b"0"
    where = dice.choice(digits)
    text = dice.choice((b"-1", b"9" * 400, b"1e999", b"NaN", b"0.", b"-", b"1E-400", b"01", b"null"))
    return data[:where] + text + data[where + 1 :]


def _noise(dice: random.Random, data: bytes) -> bytes:
    return dice.randbytes(dice.choice((0, 1, 7, 100, 4096, 8192)))


def _bomb(dice: random.Random, data: bytes) -> bytes:
    """What inflates to much, if it is taken for compressed."""
    return compressed(dice.choice((b"\0", b"[", b" ")) * dice.choice((2**16, 2**20)), dice.choice(("gzip", "deflate")))


_ON_BYTES: tuple[tuple[str, _OnBytes], ...] = (
    ("bits flipped", _flip),
    ("bits flipped", _flip),
    ("cut", _cut),
    ("part repeated", _duplicate),
    ("spliced", _splice),
    ("inserted", _insert),
    ("number as text", _number),
    ("noise", _noise),
    ("bomb", _bomb),
)
