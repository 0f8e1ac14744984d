"""The JSON of the protocol: objects are read, and what would cost too much is refused before it is parsed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import Malformed, TooLarge
from service.openinference.strict_json import MAX_DEPTH, MAX_LISTS, load_object


def nested(depth: int, opening: bytes = b"[", closing: bytes = b"]") -> bytes:
    return b'{"a":' + opening * (depth - 1) + closing * (depth - 1) + b"}"


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_deep_nesting_is_refused_before_it_is_parsed(opening, closing):
    if opening == b"[":
        assert load_object(nested(MAX_DEPTH, opening, closing))
    with pytest.raises(Malformed, match="deeper than 100"):
        load_object(nested(MAX_DEPTH + 1, opening, closing))
    with pytest.raises(Malformed, match="deeper than 100"):
        load_object(nested(10**6, opening, closing))


@given(text=st.text(alphabet='[]{}"\\a', max_size=30), times=st.integers(1, 60))
def test_brackets_in_texts_are_no_nesting(text, times):
    document = {"a": [text] * times, text: 1}
    assert load_object(json.dumps(document).encode()) == document


def test_wide_but_flat_json_is_taken_and_too_many_lists_are_not():
    assert len(load_object(b'{"a":[' + b"[]," * 1000 + b"[]]}")["a"]) == 1001
    with pytest.raises(TooLarge, match="lists"):
        load_object(b'{"a":[' + b"[]," * MAX_LISTS + b"[]]}")


@pytest.mark.parametrize("body", [b"", b"[]", b"7", b"{", b"\xff", b'{"a": NaN}', b'{"a": 1e999}', b"{}{}"])
def test_what_is_no_json_object_is_refused(body):
    with pytest.raises(Malformed):
        load_object(body)
