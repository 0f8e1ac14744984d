"""The parser of the protocol by itself: what is sent comes out as it went in, and nothing hostile gets further."""

import base64
import json
import random
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import Malformed, OptionOutOfRange, ServiceError, TooLarge
from service.openinference.messages import OUTPUTS, Question, Wanted, parse_question
from service.openinference.options import MAX_SEQUENCE_PHASES
from service.openinference.pictures import check_form
from tests.service.fakes import FakeModel

MODEL = FakeModel()
MAX_IMAGES = 64


def parse(document: dict, raw: bytes = b"", header: str | None = None, **more: Any) -> Question:
    """The question in a document and the bytes behind it."""
    text = json.dumps(document | more).encode()
    if header is None and raw:
        header = str(len(text))
    return parse_question(text + raw, header, MODEL, MAX_IMAGES)


def images(datatype: Any = "UINT8", shape: Any = (1, 2, 2, 1), **more: Any) -> dict:
    """A request with one input."""
    return {"inputs": [{"name": "images", "datatype": datatype, "shape": shape} | more]}


def sized(size: Any) -> dict:
    return {"parameters": {"binary_data_size": size}}


def elements(*files: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(file)) + file for file in files)


@given(
    shape=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3)),
    datatype=st.sampled_from(["UINT8", "FP32"]),
    form=st.sampled_from(["binary", "flat", "nested"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_numbers_come_out_as_they_went_in(shape, datatype, form, seed):
    rng = np.random.default_rng(seed)
    if datatype == "UINT8":
        data: np.ndarray = rng.integers(0, 256, shape, dtype=np.uint8)
    else:
        data = rng.normal(size=shape).astype(np.float32)
    if form == "binary":
        question = parse(images(datatype, shape, **sized(data.nbytes)), data.tobytes())
    else:
        question = parse(images(datatype, shape, data=(data.ravel() if form == "flat" else data).tolist()))
    assert isinstance(question.data, np.ndarray)
    assert question.data.dtype == data.dtype
    np.testing.assert_array_equal(question.data, data)


@given(files=st.lists(st.binary(max_size=40), min_size=1, max_size=5), form=st.sampled_from(["raw", "base64", "json"]))
def test_files_come_out_as_they_went_in(files, form):
    texts = [base64.b64encode(file) for file in files]
    if form == "json":
        question = parse(images("BYTES", [len(files)], data=[text.decode() for text in texts]))
    else:
        raw = elements(*(files if form == "raw" else texts))
        parameters: dict = {"binary_data_size": len(raw)} | ({"content_type": "base64"} if form == "base64" else {})
        question = parse(images("BYTES", [len(files)], parameters=parameters), raw)
    assert question.data == files


PIXELS = images(data=[0, 1, 2, 3])


@pytest.mark.parametrize(
    ("document", "raw", "message"),
    [
        (images(**sized(4)), b"\0\0\0", "says 4 bytes; 3 follow"),
        (images(**sized(3)), b"\0\0\0", "takes 4"),
        (images(**sized(-4)), b"\0\0\0\0", "whole number of bytes"),
        (images(**sized(4.0)), b"\0\0\0\0", "whole number of bytes"),
        (images(**sized(True)), b"\0", "whole number of bytes"),
        (images(data=[0, 1, 2, 3], **sized(4)), b"\0\0\0\0", "both data and"),
        (images(), b"", "neither data nor"),
        (images(), b"\0\0\0\0", "follow the JSON"),
        (PIXELS, b"\0", "follow the JSON"),
        (images(shape=[-1, 2, 2, 1], data=[]), b"", "at least 1"),
        (images(shape=[0, 2, 2, 1], data=[]), b"", "at least 1"),
        (images(shape=[1, 2, 2, 1.0], data=[0] * 4), b"", "whole numbers"),
        (images(shape=[True, 2, 2, 1], data=[0] * 4), b"", "whole numbers"),
        (images(shape=[], data=[]), b"", "1 to 8"),
        (images(shape="4", data=[0] * 4), b"", "1 to 8"),
        (images(shape=[1] * 9, data=[0]), b"", "1 to 8"),
        (images(shape=[1, 2**62, 2**62, 3], **sized(0)), b"", "takes"),
        (images(shape=[1, 2**63, 2**63, 2**63 - 1], **sized(4)), b"\0\0\0\0", "takes"),
        (images("FP16", data=[0] * 4), b"", "allowed are UINT8, FP32 and BYTES"),
        (images(["UINT8"], data=[0] * 4), b"", "allowed are UINT8, FP32 and BYTES"),
        (images(data=[0, 1, 2]), b"", "flat list of 4"),
        (images(data=[[0, 1], [2, 3]]), b"", "nested"),
        (images(data={"0": 1}), b"", "must be a list"),
        (images(data=[0, 1, 2, 256]), b"", "does not fit"),
        (images(data=[0, 1, 2, -1]), b"", "does not fit"),
        (images(data=[0, 1, 2, 1.5]), b"", "float"),
        (images(data=[0, 1, 2, True]), b"", "bool"),
        (images(data=[0, 1, 2, None]), b"", "NoneType"),
        (images(data=[0, 1, 2, [3]]), b"", "nested"),
        (images("FP32", data=[0, 1, 2, 1e39]), b"", "does not fit"),
        (images("FP32", data=[0, 1, 2, "3"]), b"", "str"),
        (images("BYTES", [1], data=[7]), b"", "texts"),
        (images("BYTES", [1], data=["%%"]), b"", "base64"),
        (images("BYTES", [1], data=["ü"]), b"", "base64"),
        (images("BYTES", [2], **sized(5)), elements(b"a"), "before the length of element 1"),
        (images("BYTES", [1], **sized(7)), struct.pack("<I", 2**32 - 1) + b"abc", "4294967295"),
        (images("BYTES", [1], **sized(6)), elements(b"a") + b"x", "left after"),
        ({"inputs": PIXELS["inputs"] * 2}, b"", "same name"),
        ({"inputs": [PIXELS["inputs"][0] | {"name": "pixels"}]}, b"", "there is one, 'images'"),
        ({"inputs": [PIXELS["inputs"][0] | {"name": 3}]}, b"", "must have a name"),
        ({"inputs": []}, b"", "there is one, 'images'"),
        ({"inputs": {}}, b"", "list of objects"),
        ({"inputs": [7]}, b"", "list of objects"),
        ({}, b"", "list of objects"),
        (PIXELS | {"id": 5}, b"", "id"),
        (PIXELS | {"id": "x" * 1025}, b"", "id"),
        (PIXELS | {"input": []}, b"", "allowed are id"),
        (PIXELS | {"parameters": []}, b"", "must be an object"),
        (PIXELS | {"outputs": [{"name": "logits"}, {"name": "logits"}]}, b"", "same name"),
        (PIXELS | {"outputs": [{"name": "scores"}]}, b"", "there are logits"),
        (PIXELS | {"outputs": "logits"}, b"", "list of objects"),
    ],
)
def test_what_does_not_add_up_is_refused_with_a_reason(document, raw, message):
    with pytest.raises(Malformed, match=message):
        parse(document, raw)


@pytest.mark.parametrize("header", ["-1", "+1", "1e1", " 1", "", "9" * 30, "99999", "²", "0x10"])
def test_a_header_length_outside_the_body_is_refused(header):
    with pytest.raises(Malformed, match="Inference-Header-Content-Length"):
        parse(PIXELS, header=header)


@pytest.mark.parametrize("body", [b"", b"\0", b"\0" * (4 * 32 * 32 + 1)])
def test_a_raw_tensor_must_be_whole_images(body):
    with pytest.raises(Malformed, match="FP32"):
        parse_question(body, "0", MODEL, MAX_IMAGES)


def test_too_many_images_are_refused_before_their_data_is_looked_at():
    with pytest.raises(TooLarge, match="65 images"):
        parse(images("BYTES", [65], data=7))


@pytest.mark.parametrize(
    "parameters",
    [
        {"seed": -1},
        {"seed": 2**53},
        {"seed": "1"},
        {"seed": None},
        {"timeout": 0},
        {"timeout": 1.5},
        {"ensemble_size": True},
        {"binary_data_output": 1},
        {"aggregate": ["mean"]},
        {"layout": "NHW"},
        {"sequences": 3},
        {"sequences": None},
        {"sequences": ""},
        {"sequences": "1 " * 2000},
        {"sequences": ";" * 64},
        {"sequences": "1 0 1 1 1 1 1 1"},
        {"priority": 1},
    ],
)
def test_parameters_outside_their_range_are_refused(parameters):
    with pytest.raises(OptionOutOfRange):
        parse(PIXELS, parameters=parameters)


def test_a_sequence_whose_weights_would_fill_the_memory_is_refused():
    scale = " ".join(["997/1000"] * 6)
    rest = f"{1000**6}/{4 * 997**6}"
    with pytest.raises(OptionOutOfRange, match=f"at most {MAX_SEQUENCE_PHASES}"):
        parse(PIXELS, parameters={"sequences": f"1 {scale} {rest}"})


def test_sequences_need_a_model_that_takes_them():
    text = json.dumps(PIXELS | {"parameters": {"sequences": "1 1/2 1/2 1 1 1 1 1"}}).encode()
    with pytest.raises(OptionOutOfRange, match="takes no scale sequences"):
        parse_question(text, None, FakeModel(takes_sequences=False), MAX_IMAGES)


def test_outputs_are_binary_where_they_or_the_request_say_so():
    asked = [
        {"name": "labels"},
        {"name": "logits", "parameters": {"binary_data": False}},
        {"name": "probabilities", "parameters": {"classification": 9}},
    ]
    outputs = parse(PIXELS, outputs=asked, parameters={"binary_data_output": True}).outputs
    assert outputs == (Wanted("labels", True), Wanted("logits", False), Wanted("probabilities", True, 3))
    assert parse(PIXELS).outputs == (Wanted("logits"), Wanted("probabilities"), Wanted("labels"))


@pytest.mark.parametrize(
    ("datatype", "shape", "layout", "expected"),
    [
        ("UINT8", [2, 28, 28, 1], None, "NHWC"),
        ("UINT8", [2, 3, 28, 28], None, "NCHW"),
        ("UINT8", [2, 3, 9, 3], "NCHW", "NCHW"),
        ("UINT8", [2, 3, 9, 3], None, "could be"),
        ("UINT8", [2, 3, 9, 4], "NHWC", "with layout NHWC"),
        ("UINT8", [2, 28, 28, 2], None, "C = 1 or 3"),
        ("UINT8", [28, 28, 1], None, "C = 1 or 3"),
        ("FP32", [2, 1, 32, 32], None, "NCHW"),
        ("FP32", [2, 32, 32, 1], None, "NHWC"),
        ("FP32", [2, 1, 28, 28], None, "pixels of any size as UINT8"),
        ("FP32", [2, 3, 32, 32], None, "pixels of any size as UINT8"),
        ("BYTES", [2], None, "NHWC"),
        ("BYTES", [2, 2], None, "a file an element"),
    ],
)
def test_the_shape_says_the_layout_or_is_refused(datatype, shape, layout, expected):
    tensor = parse(images(datatype, shape, data=_data(datatype, shape))).tensor
    if expected in ("NHWC", "NCHW"):
        assert check_form(tensor, layout, MODEL, 10**6) == expected
    else:
        with pytest.raises(Malformed, match=expected):
            check_form(tensor, layout, MODEL, 10**6)


def _data(datatype: str, shape: list[int]) -> list:
    return ([""] if datatype == "BYTES" else [0]) * int(np.prod(shape))


def test_pictures_of_too_many_pixels_are_refused():
    tensor = parse(images(shape=[1, 10, 11, 1], data=[0] * 110)).tensor
    with pytest.raises(TooLarge, match="11x10"):
        check_form(tensor, None, MODEL, 109)


def valid_bodies() -> list[tuple[bytes, str | None]]:
    """Bodies of every form, with their header lengths."""
    pixels = bytes(range(8))
    documents: list[tuple[dict, bytes]] = [
        (images(shape=[2, 2, 2, 1], **sized(8)), pixels),
        (
            images(shape=[2, 2, 2, 1], data=list(pixels))
            | {"id": "a", "outputs": [{"name": name} for name in OUTPUTS]},
            b"",
        ),
        (images("FP32", [1, 1, 32, 32], **sized(4096)), np.zeros(1024, "<f4").tobytes()),
        (images("BYTES", [2], **sized(13)), elements(b"abc", b"de")),
        (
            images("BYTES", [1], data=["YWJj"]) | {"parameters": {"min_size": 1, "sequences": "1 1/2 1/2 1 1 1 1 1"}},
            b"",
        ),
    ]
    bodies: list[tuple[bytes, str | None]] = [(bytes(4096), "0")]
    for document, raw in documents:
        text = json.dumps(document).encode()
        bodies.append((text + raw, str(len(text))))
    return bodies


BODIES = valid_bodies()


def mutated(rng: random.Random) -> tuple[bytes, str | None]:
    """A valid body after some of what goes wrong on wires and in minds."""
    body, header = rng.choice(BODIES)
    changed = bytearray(body)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(changed) + 1)
        what = rng.randrange(6)
        if what == 0 and position < len(changed):
            changed[position] ^= 1 << rng.randrange(8)
        elif what == 1:
            changed[position:position] = rng.randbytes(rng.randint(1, 8))
        elif what == 2:
            del changed[position : position + rng.randint(1, 8)]
        elif what == 3:
            changed[position : position + 1] = rng.choice(
                [b"-1", b"99999999999999999999", b"null", b"1e9", b'"', b"[", b"]"]
            )
        elif what == 4:
            header = rng.choice([None, "0", str(rng.randrange(2 * len(body))), "-1", header])
        else:
            other, _ = rng.choice(BODIES)
            changed[position:] = other[rng.randrange(len(other)) :]
    return bytes(changed), header


def test_every_body_to_be_mutated_is_valid():
    for body, header in BODIES:
        assert parse_question(body, header, MODEL, MAX_IMAGES).outputs


@pytest.mark.parametrize("seed", range(10))
def test_mutated_bodies_are_read_or_refused_and_nothing_else(seed):
    rng = random.Random(seed)
    refusals: list[ServiceError] = []
    for _ in range(2000):
        body, header = mutated(rng)
        try:
            question = parse_question(body, header, MODEL, MAX_IMAGES)
            check_form(question.tensor, question.options.layout, MODEL, 10**6)
        except ServiceError as error:
            refusals.append(error)
    assert len(refusals) > 1000
    assert {400 <= error.status < 500 for error in refusals} == {True}
    assert max(len(error.detail) for error in refusals) < 3000


JSON_VALUES: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=300)
@given(
    what=st.sampled_from(["name", "datatype", "shape", "data", "parameters", "id", "outputs", "inputs"]),
    value=JSON_VALUES,
    raw=st.binary(max_size=16),
)
def test_any_json_in_any_place_is_read_or_refused(what, value, raw):
    document = images(shape=[1, 2, 2, 1], data=[0, 1, 2, 3])
    if what in ("id", "outputs", "inputs"):
        document[what] = value
    else:
        document["inputs"][0][what] = value
    status = 200
    try:
        parse(document, raw)
    except ServiceError as error:
        status = error.status
    assert 200 <= status < 500
