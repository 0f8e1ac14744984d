"""`ccnet sequences`: what the sampler draws, with sizes."""

import pytest

from ccnet import sample_scale_sequences
from tests.ccnet.cli.calls import assert_refused, parsed, run, said


def test_they_are_the_sampler_s_with_their_sizes() -> None:
    answer = parsed("sequences", "-k", 2, "--seed", 3, "--std", 0.1, "--in-size", 16)
    drawn = sample_scale_sequences(2, seed=3, std=0.1, in_size=(16, 16))
    assert answer["seed"] == 3
    for told, sequence in zip(answer["sequences"], drawn, strict=True):
        assert told["vertical"] == [str(scale) for scale in sequence.vertical]
        assert told["horizontal"] == [str(scale) for scale in sequence.horizontal]
        assert [tuple(size) for size in told["shapes"]] == list(sequence.shapes((16, 16)))


def test_they_may_be_conditioned_on_the_product_with_small_numerators() -> None:
    answer = parsed("sequences", "-k", 3, "--seed", 3, "--method", "conditioned", "--max-numerator", 7)
    drawn = sample_scale_sequences(3, seed=3, method="conditioned", max_numerator=7)
    assert [told["vertical"] for told in answer["sequences"]] == [[str(s) for s in q.vertical] for q in drawn]


def test_the_table_has_every_layer() -> None:
    text = said("sequences", "-k", 1, "--seed", 3)
    assert "sequence 1 of 1, seed 3" in text
    assert "32, 32" in text
    assert "8, 8" in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-k", 0], ["'0' was given"]),
        (["--in-size", 30], ["30 px", "multiple of 4"]),
        (["--in-size", 0], ["4 to 4,096"]),
        (["--std", "nan"], ["std is a finite number"]),
        (["--std", -1], ["at least 0"]),
        (["--method", "best"], ['"corrected"', '"conditioned"', "got 'best'"]),
        (["--max-numerator", 0], ["'0' was given", "1 or more"]),
        (["--max-numerator", 7], ["max_numerator=7", "leave max_numerator out"]),
        (["--method", "conditioned", "--std", 0], ["no product of 7 scales out of 1 is exactly 1/4"]),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(options: list[object], words: list[str]) -> None:
    assert_refused(run("sequences", *options), *words)
