"""Figure 5: ladders that are exact, and one that ends elsewhere."""

import math
from fractions import Fraction

import pytest

from ccnet.paper import fig_5

from .conftest import MakeContext


@pytest.mark.parametrize("sequence", [fig_5.uniform(), fig_5.alternating()], ids=["uniform", "alternating"])
def test_the_scales_of_an_axis_multiply_to_a_quarter_exactly(sequence) -> None:
    for axis in (sequence.vertical, sequence.horizontal):
        assert math.prod(axis) == Fraction(1, 4)
        assert len(axis) == 8
        assert axis[0] == 1


def test_alternating_layers_change_one_axis_each() -> None:
    sequence = fig_5.alternating()
    changed = [(v != 1, h != 1) for v, h in zip(sequence.vertical[1:], sequence.horizontal[1:], strict=True)]
    assert changed == [(True, False), (False, True)] * 3 + [(True, False)]


def test_all_ladders_end_at_8_by_8_and_are_drawn(make_context: MakeContext) -> None:
    findings = fig_5.find(make_context())
    assert [claim.verdict for claim in findings.claims] == ["holds", "holds"]
    drawn = fig_5.plot(findings.as_json())
    assert len(drawn.axes) == len(findings.series["ladders"])
    assert [len(axes.patches) for axes in drawn.axes] == [9] * len(drawn.axes)


def test_sequences_that_are_shown_count_once(make_context: MakeContext) -> None:
    (ends, _) = fig_5.find(make_context()).claims
    assert f" of {fig_5.QUICK_SAMPLED + 2} end at" in ends.evidence  # the sampled ones, uniform and alternating


def test_ladders_that_do_not_end_where_they_should_fail(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fig_5, "FINAL", (9, 9))
    assert [claim.verdict for claim in fig_5.find(make_context()).claims] == ["fails", "fails"]
