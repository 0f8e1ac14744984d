"""Table 4: the printed scales, and which spread they speak for."""

import math
from fractions import Fraction

import pytest
import torch

from ccnet.paper import table_4
from ccnet.paper.findings import Findings

from .conftest import MakeContext


def tail(sigmas: float) -> float:
    """Logarithm of the probability beyond so many sigmas, by Laplace's continued fraction; from 3 sigmas on."""
    fraction = sigmas
    for depth in range(200, 0, -1):
        fraction = sigmas + depth / fraction
    return -sigmas * sigmas / 2 - math.log(math.sqrt(2 * math.pi) * fraction)


def log_probability(low: float, high: float) -> float:
    return float(table_4.log_probability(*torch.tensor([[low], [high]], dtype=torch.float64)))


@pytest.mark.parametrize(("low", "high"), [(-1.0, 1.0), (-0.5, 3.0), (1.0, 2.5), (-6.0, -5.0), (7.0, 8.0)])
def test_near_probabilities_are_those_of_the_error_function(low: float, high: float) -> None:
    exact = (math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2
    assert log_probability(low, high) == pytest.approx(math.log(exact), rel=1e-9)


@pytest.mark.parametrize(("low", "high"), [(9.0, 9.2), (20.0, 30.0), (60.0, 60.5), (1e4, 1e4 + 1)])
def test_far_probabilities_are_those_of_the_exact_tail_on_both_sides(low: float, high: float) -> None:
    exact = tail(low) + math.log1p(-math.exp(tail(high) - tail(low)))
    assert log_probability(low, high) == pytest.approx(exact, rel=1e-9)
    assert log_probability(-high, -low) == log_probability(low, high)


def test_probabilities_of_a_partition_add_up_to_one() -> None:
    ends = torch.cat([torch.tensor([-1e6]), torch.linspace(-40, 40, 161), torch.tensor([1e6])]).double()
    assert float(table_4.log_probability(ends[:-1], ends[1:]).exp().sum()) == pytest.approx(1, rel=1e-12)


def test_the_likelihood_is_that_of_a_literal_sum_over_the_scales() -> None:
    drawn, spread, total = [Fraction(5, 6), Fraction(2, 3), Fraction(9, 10)], 0.01, 0.0
    for scale in drawn:
        ends = [(end - table_4.MEAN) / spread for end in table_4.nearest_to(scale)]
        low, high = sorted(map(abs, ends))
        if scale == Fraction(5, 6):  # the mean lies in its interval
            low, high = ends
            total += math.log((math.erfc(low / math.sqrt(2)) - math.erfc(high / math.sqrt(2))) / 2)
        else:
            total += tail(low) + math.log1p(-math.exp(tail(high) - tail(low)))
    assert table_4.log_likelihood(drawn, spread) == pytest.approx(total, rel=1e-9)


def test_the_printed_scales_speak_for_a_spread_near_a_twentieth_and_not_for_the_texts() -> None:
    findings = Findings()
    table_4.judge_spread(findings)
    (claim,) = findings.claims
    assert claim.verdict == "fails"
    assert "likeliest at 0.053 (0.041 to 0.072)" in claim.evidence
    assert "at 0.01 their likelihood is e^226 times smaller" in claim.evidence


def test_scales_drawn_with_the_texts_spread_would_have_said_so(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = ("1/1", "5/6", "4/5", "5/6", "4/5", "5/6", "4/5", "5/6")
    monkeypatch.setattr(table_4, "EXAMPLES", {"planted": (drawn, drawn, ())})
    findings = Findings()
    table_4.judge_spread(findings)
    assert [claim.verdict for claim in findings.claims] == ["holds"]


def test_a_printed_size_that_eq_4_does_not_give_is_noticed(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [claim.verdict for claim in table_4.find(make_context()).claims] == ["holds", "holds", "fails"]
    vertical, horizontal, sizes = table_4.EXAMPLES["example 1"]
    planted = (vertical, horizontal, (*sizes[:-1], (9, 8)))
    monkeypatch.setattr(table_4, "EXAMPLES", {"example 1": planted})
    assert [claim.verdict for claim in table_4.find(make_context()).claims][:2] == ["fails", "holds"]
