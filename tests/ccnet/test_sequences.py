"""Scale sequences: Table 4, Eq. 4, the sampler of A.2 and what makes a sequence valid."""

import math
import re
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet import ScaleSequence, SequenceError, sample_scale_sequences

F = Fraction
TABLE_4 = {
    "example 1": (
        "1 5/6 5/6 8/9 189/250 6/7 5/6 3/4 x 1 7/9 4/5 5/6 3/4 6/7 7/8 6/7",
        ((32, 32), (27, 25), (23, 20), (20, 17), (15, 13), (13, 11), (11, 10), (8, 8)),
    ),
    "example 2": (
        "1 75/98 4/5 4/5 7/8 5/6 7/9 9/10 x 1 7/8 2/3 3/4 5/6 5/6 864/875 5/6",
        ((32, 32), (25, 28), (20, 19), (16, 14), (14, 12), (12, 10), (9, 10), (8, 8)),
    ),
}


@pytest.mark.parametrize(("text", "sizes"), TABLE_4.values(), ids=TABLE_4.keys())
def test_table_4_has_the_papers_sizes(text, sizes):
    sequence = ScaleSequence.parse(text)
    sequence.require_valid()
    assert sequence.total == (Fraction(1, 4), Fraction(1, 4))
    assert sequence.shapes((32, 32)) == sizes


def test_sizes_follow_the_cumulative_product_and_not_a_ceil_a_layer():
    sequence = ScaleSequence.parse(TABLE_4["example 2"][0])
    width, layer_by_layer = 32, []
    for scale in sequence.horizontal:
        width = math.ceil(width * scale)
        layer_by_layer.append(width)
    assert layer_by_layer[3] == 15  # 19 * 3/4 = 14.25
    assert sequence.shapes((32, 32))[3][1] == 14


@settings(deadline=None)  # a crowded machine is no error
@given(seed=st.integers(0, 2**32), k=st.integers(1, 5))
def test_sampled_sequences_are_valid_and_distinct(seed, k):
    sequences = sample_scale_sequences(k, seed=seed)
    assert len(set(sequences)) == k
    for sequence in sequences:
        sequence.require_valid()
        for axis in (sequence.vertical, sequence.horizontal):
            assert axis[0] == 1
            assert math.prod(axis) == Fraction(1, 4)
            assert all(Fraction(1, 2) <= s <= 1 for s in axis[1:])
            assert sum(s.denominator > 10 for s in axis) <= 1  # only the corrected layer


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32),
    k=st.integers(1, 5),
    layers=st.integers(4, 8),
    std=st.sampled_from(["table4", "text", 0.2]),
    max_numerator=st.sampled_from([None, 9, 7]),
)
def test_conditioned_sequences_are_valid_and_distinct_and_correct_no_layer(seed, k, layers, std, max_numerator):
    sequences = sample_scale_sequences(
        k, seed=seed, layers=layers, std=std, method="conditioned", max_numerator=max_numerator
    )
    assert len(set(sequences)) == k
    for sequence in sequences:
        sequence.require_valid(layers=layers + 1)
        for axis in (sequence.vertical, sequence.horizontal):
            assert axis[0] == 1
            assert math.prod(axis) == Fraction(1, 4)
            assert all(Fraction(1, 2) <= s <= 1 for s in axis)
            assert all(s.denominator <= 10 and s.numerator <= (max_numerator or 10) for s in axis)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32))
def test_text_form_round_trips(seed):
    (sequence,) = sample_scale_sequences(1, seed=seed)
    assert ScaleSequence.parse(str(sequence)) == sequence


@pytest.mark.parametrize(
    ("text", "scales"),
    [
        ("1 1/2", ((1, F(1, 2)), (1, F(1, 2)))),  # one list serves both axes
        ("1, .5 x 0.75,2", ((1, F(1, 2)), (F(3, 4), 2))),
        ("1/2x1", ((F(1, 2),), (1,))),
    ],
)
def test_text_may_hold_fractions_or_decimals_with_spaces_or_commas(text, scales):
    assert ScaleSequence.parse(text) == ScaleSequence(*scales)


def test_scales_may_come_as_any_numbers_in_any_iterable():
    expected = ScaleSequence((F(1), F(1, 2)), (F(1), F(1, 2)))
    assert ScaleSequence([1, 0.5], (s for s in (1, F(1, 2)))) == expected  # type: ignore[arg-type]
    assert ScaleSequence(np.array([1, 0.5]), np.array([1, 0.5])) == expected  # type: ignore[arg-type]


def test_the_same_seed_gives_the_same_sequences_and_smaller_draws_are_prefixes():
    assert sample_scale_sequences(3, seed=5) == sample_scale_sequences(8, seed=5)[:3]
    assert sample_scale_sequences(3, seed=5) != sample_scale_sequences(3, seed=6)
    assert sample_scale_sequences(3) != sample_scale_sequences(3)
    eight = sample_scale_sequences(8, seed=5, method="conditioned")
    assert sample_scale_sequences(3, seed=5, method="conditioned") == eight[:3]
    assert sample_scale_sequences(3, seed=6, method="conditioned") != eight[:3]
    assert not set(eight) & set(sample_scale_sequences(8, seed=5))


def test_a_seed_means_the_same_sequence_on_every_machine_and_in_every_release():
    (sequence,) = sample_scale_sequences(1, seed=3)
    assert str(sequence) == "1 5/6 8/9 75/112 7/8 4/5 4/5 9/10 x 1 6/7 7/8 6/7 7/9 20/27 3/4 9/10"
    (sequence,) = sample_scale_sequences(1, seed=3, method="conditioned")
    assert str(sequence) == "1 7/9 5/6 4/5 6/7 6/7 3/4 7/8 x 1 7/8 7/9 4/5 9/10 5/6 6/7 5/7"
    (sequence,) = sample_scale_sequences(1, seed=3, method="conditioned", max_numerator=7)
    assert str(sequence) == "1 4/5 5/6 4/5 6/7 5/6 3/4 7/8 x 1 6/7 7/9 7/9 1 3/4 6/7 3/4"


def test_drawn_scales_have_the_mean_and_spread_that_table_4_shows():
    drawn = np.array([float(s) for axis in drawn_axes(200) for s in axis[1:] if s.denominator <= 10])
    assert drawn.mean() == pytest.approx(0.25 ** (1 / 7), abs=0.006)
    assert drawn.std() == pytest.approx(0.05, abs=0.004)


def test_every_layer_is_corrected_equally_often_and_axes_are_drawn_independently():
    axes = drawn_axes(200)
    assert all(vertical != horizontal for vertical, horizontal in zip(axes[::2], axes[1::2], strict=True))
    corrected = [j for axis in axes for j, s in enumerate(axis) if s.denominator > 10]  # at most one an axis
    counts = [corrected.count(j) for j in range(8)]
    assert counts[0] == 0  # the first layer is fixed
    expected = len(corrected) / 7
    assert all(abs(count - expected) < 4 * expected**0.5 for count in counts[1:])
    assert len(corrected) > 0.7 * len(axes)


@cache
def drawn_axes(k: int) -> list[tuple[Fraction, ...]]:
    return [axis for q in sample_scale_sequences(k, seed=1) for axis in (q.vertical, q.horizontal)]


def test_both_spreads_have_names():
    assert sample_scale_sequences(2, seed=0, std="text") == sample_scale_sequences(2, seed=0, std=0.01)
    assert sample_scale_sequences(2, seed=0, std="table4") == sample_scale_sequences(2, seed=0)


def test_the_texts_spread_of_a_hundredth_gives_few_scales():
    sequences = sample_scale_sequences(20, seed=0, std="text")
    drawn = {s for q in sequences for s in q.vertical if s.denominator <= 10 and s != 1}
    assert drawn <= {Fraction(4, 5), Fraction(5, 6), Fraction(6, 7), Fraction(7, 9)}


def test_no_scale_leaves_the_range_that_was_asked_for():
    sequences = sample_scale_sequences(20, seed=0, min_scale=Fraction(7, 10), max_scale=0.9)
    scales = {s for q in sequences for axis in (q.vertical, q.horizontal) for s in axis[1:]}
    assert min(scales) >= Fraction(7, 10)
    assert max(scales) <= 0.9
    upscaling = sample_scale_sequences(60, seed=0, max_scale=2)
    assert max(s for q in upscaling for s in q.vertical) > 1
    for sequence in sample_scale_sequences(20, seed=0, layers=3, std=0.4, min_scale=Fraction(1, 10), max_scale=4):
        sequence.require_valid(layers=4)  # no map below the last, however far single scales reach


def test_conditioned_draws_keep_to_the_range_that_was_asked_for():
    limits: dict[str, Any] = {"min_scale": Fraction(2, 3), "max_scale": 0.9, "method": "conditioned"}
    scales = {s for q in sample_scale_sequences(50, seed=0, **limits) for s in (*q.vertical[1:], *q.horizontal[1:])}
    assert min(scales) >= Fraction(2, 3)
    assert max(scales) == Fraction(9, 10)  # the float 0.9 lies a little above
    upscaling = sample_scale_sequences(
        20, seed=0, layers=3, std=0.4, min_scale=F(1, 5), max_scale=2, method="conditioned"
    )
    assert max(s for q in upscaling for s in q.vertical) > 1
    for sequence in upscaling:
        sequence.require_valid(layers=4)  # no map below the last, however far single scales reach


def test_refused_draws_are_counted_and_told(caplog):
    with caplog.at_level("DEBUG", logger="ccnet.sequences"):
        sample_scale_sequences(100, seed=0)
    told = re.search(r"drew 100 sequences; (\d+) axes were not valid", caplog.text)
    assert told
    assert 5 <= int(told[1]) <= 60  # about one axis in eight


def test_other_sizes_layers_and_totals():
    (sequence,) = sample_scale_sequences(1, seed=0, layers=3, total=Fraction(1, 2), in_size=(28, 30))
    sequence.require_valid(layers=4, total=Fraction(1, 2), in_size=(28, 30))
    assert sequence.shapes((28, 30))[-1] == (14, 15)


BAD_SEQUENCES = {
    "wrong length": ("1 1/2 1/2", "8 layers; the sequence has 3"),
    "wrong product": ("1 " + "4/5 " * 7, "exactly 1/4"),
    "empties a map": ("1 1/10 5/2 1 1 1 1 1", "shrink"),
    "empties a map along one axis": ("1 1/4 1 1 1 1 1 1 x 1 1/8 2 1 1 1 1 1", "shrink"),
    "wrong product along one axis": ("1 1/4 1 1 1 1 1 1 x 1 1/2 1 1 1 1 1 1", "horizontal scales must"),
}


@pytest.mark.parametrize(("text", "says"), BAD_SEQUENCES.values(), ids=BAD_SEQUENCES.keys())
def test_a_sequence_that_the_network_cannot_run_is_refused(text, says):
    with pytest.raises(SequenceError, match=says):
        ScaleSequence.parse(text).require_valid()


@pytest.mark.parametrize(
    "text",
    ["", "a b", "1 1/0", "1 x 1 x 1", "1 1/2 x 1", "1 -1/2", "1 0", "nan 1", "1e9999999999 1", "9" * 5000, "1 x", None],
)
def test_text_that_is_no_sequence_is_refused(text):
    with pytest.raises(SequenceError):
        ScaleSequence.parse(text)


@pytest.mark.parametrize("scales", [(), 1, "1 1/2", None, (1, "1/2"), (1, 0), (1, float("nan"))])
def test_scales_that_are_no_sequence_are_refused(scales):
    with pytest.raises(SequenceError):
        ScaleSequence(scales, (F(1), F(1)))


def test_an_input_that_cannot_be_quartered_is_refused():
    with pytest.raises(SequenceError, match="multiple of 4"):
        ScaleSequence.parse(TABLE_4["example 1"][0]).shapes((30, 32))


@pytest.mark.parametrize("in_size", [32, (32,), (32, 32, 3), (0, 32), (32.0, 32), "32"])
def test_sizes_that_are_none_are_refused(in_size):
    with pytest.raises(SequenceError, match="in_size"):
        ScaleSequence.parse("1 1/4").shapes(in_size)
    with pytest.raises(SequenceError, match="in_size"):
        sample_scale_sequences(1, in_size=in_size)


BAD_DRAWS: dict[str, tuple[dict[str, Any], str]] = {
    "no members": ({"k": 0}, "k must be at least 1"),
    "negative": ({"k": -3}, "k must be at least 1"),
    "text": ({"k": "4"}, "k is a whole number"),
    "a float": ({"k": 4.0}, "k is a whole number"),
    "a seed that is text": ({"seed": "4"}, "seed is a whole number"),
    "negative seed": ({"seed": -4}, "seed must be at least 0"),  # random.Random would take it for 4
    "unreachable total": ({"total": F(1, 1000)}, "cannot multiply to 1/1000"),
    "a total that maps cannot keep": ({"total": 2, "max_scale": 3}, "total is at most 1"),
    "a height that cannot be quartered": ({"in_size": (30, 32)}, "input of 30 px"),
    "a width that cannot be quartered": ({"in_size": (32, 30)}, "input of 30 px"),
    "unknown spread": ({"std": "table5"}, "'table4', 'text'"),
    "negative spread": ({"std": -0.1}, "at least 0"),
    "nan spread": ({"std": float("nan")}, "finite"),
    "spread so small that there is one sequence": (
        {"k": 2, "std": 0.0, "layers": 1, "min_scale": F(1, 8)},
        "only 1 distinct",
    ),
    "unknown method": ({"method": "best"}, '"corrected".*"conditioned".*got .best.'),
    "no method": ({"method": None}, "got None"),
    "numerators of a corrected scale": ({"max_numerator": 7}, 'max_numerator=7.*method="conditioned"'),
    "numerator 0": ({"max_numerator": 0, "method": "conditioned"}, "max_numerator must be at least 1"),
    "half a numerator": ({"max_numerator": 6.5, "method": "conditioned"}, "max_numerator is a whole number"),
    "no scales that multiply to the total": (
        {"method": "conditioned", "max_denominator": 1, "layers": 2, "min_scale": F(1, 3)},
        "no product of 2 scales out of 1 is exactly 1/4",
    ),
    "one conditioned sequence": (
        {"k": 2, "method": "conditioned", "layers": 2},
        "only 1 distinct",
    ),
    "a conditioned height that cannot be quartered": ({"method": "conditioned", "in_size": (30, 32)}, "input of 30 px"),
    "no layers": ({"layers": 0}, "layers must be at least 1"),
    "denominator 0": ({"max_denominator": 0}, "max_denominator must be at least 1"),
    "half a denominator": ({"max_denominator": 2.5}, "max_denominator is a whole number"),
    "denominators that leave no choice": (
        {"max_denominator": 1, "layers": 2, "min_scale": F(1, 3)},
        "no valid sequence",
    ),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_DRAWS.values(), ids=BAD_DRAWS.keys())
def test_a_draw_that_cannot_be_made_is_refused(arguments, says):
    with pytest.raises(SequenceError, match=says):
        sample_scale_sequences(**{"k": 1, "seed": 0, **arguments})
