"""The samplers of one axis: the rounded normal prior, its distribution given the product, and what cannot be drawn.

The oracles are literal: every sequence enumerated, the prior integrated by asking `limit_denominator`, and the
conditional distribution drawn by rejection.
"""

import itertools
import math
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from ccnet.errors import SequenceError
from ccnet.samplers import AxisDistribution, AxisSampler, ConditionedSampler, CorrectedSampler
from ccnet.samplers.conditioned import ProductTable
from ccnet.samplers.rounding import rounded_normal

F = Fraction
QUARTER, HALF, ONE = F(1, 4), F(1, 2), F(1)
Axis = tuple[Fraction, ...]
MEAN = 0.25 ** (1 / 7)


def distribution(
    layers: int = 7,
    total: Fraction = QUARTER,
    std: float = 0.05,
    max_denominator: int = 10,
    min_scale: Fraction = HALF,
    max_scale: Fraction = ONE,
    max_numerator: int | None = None,
) -> AxisDistribution:
    return AxisDistribution(layers, total, std, max_denominator, min_scale, max_scale, max_numerator)


def rationals(wanted: AxisDistribution) -> list[Fraction]:
    """Every scale within the limits."""
    parts = itertools.product(range(1, 2 * wanted.max_denominator + 1), range(1, wanted.max_denominator + 1))
    limit = wanted.max_numerator or 10**6
    return sorted(
        s for s in {F(*part) for part in parts} if wanted.min_scale <= s <= wanted.max_scale and s.numerator <= limit
    )


def enumerated(wanted: AxisDistribution, in_size: int = 1000) -> dict[Axis, float]:
    """The probability of every axis, by going through all of them."""
    low, high = wanted.min_scale, wanted.max_scale
    prior = {
        s: math.exp(w) for s, w in rounded_normal(wanted.mean, wanted.std, wanted.max_denominator, low, high).items()
    }
    weights = {}
    for scales in itertools.product(rationals(wanted), repeat=wanted.layers):
        products = list(itertools.accumulate(scales, lambda a, b: a * b))
        if products[-1] == wanted.total and all(math.ceil(in_size * p) >= in_size * wanted.total for p in products):
            weights[(F(1), *scales)] = math.prod(prior[s] for s in scales)
    return {axis: weight / sum(weights.values()) for axis, weight in weights.items()}


def drawn(sampler: AxisSampler, count: int, in_size: int = 1000) -> list[Axis]:
    rng = random.Random(20061120)
    return [sampler.draw(rng, in_size) for _ in range(count)]


def assert_distributed(axes: Iterable[Axis], probabilities: Mapping[Axis, float]) -> None:
    """A chi-square test at 1e-4, with what is expected less than five times thrown together."""
    counts = Counter(axes)
    assert counts.keys() <= probabilities.keys(), "an axis that has no probability"
    pairs = [(counts[axis], p * counts.total()) for axis, p in probabilities.items()]
    rare = [pair for pair in pairs if pair[1] < 5]
    pairs = [pair for pair in pairs if pair[1] >= 5]
    if rare:
        pairs.append((sum(seen for seen, _ in rare), sum(expected for _, expected in rare)))
    seen, expected = zip(*pairs, strict=True)
    p_value = stats.chisquare(seen, expected).pvalue
    assert p_value > 1e-4, f"p = {p_value:.1e}"


class TestRoundedNormal:
    @settings(deadline=None, max_examples=15)
    @given(mean=st.floats(0.3, 1.2), std=st.floats(0.01, 0.3), max_denominator=st.integers(1, 12))
    def test_it_is_the_integral_over_what_rounds_to_each_rational(self, mean, std, max_denominator):
        points = mean + std * (np.arange(4000) - 1999.5) / 250  # 8 standard deviations to both sides
        density = stats.norm.pdf(points, mean, std) * std / 250
        integral: Counter[Fraction] = Counter()
        for x, mass in zip(points.tolist(), density.tolist(), strict=True):
            integral[F(x).limit_denominator(max_denominator)] += mass
        found = rounded_normal(mean, std, max_denominator, F(1, 4), F(5, 4))
        assert set(found) >= {s for s in integral if F(1, 4) <= s <= F(5, 4)}
        for scale, weight in found.items():
            assert math.exp(weight) == pytest.approx(integral[scale], abs=4e-3)  # a point at either border

    def test_it_is_what_the_paper_draws(self):
        rng = random.Random(1)
        counts = Counter(F(rng.gauss(MEAN, 0.05)).limit_denominator(10) for _ in range(20_000))
        prior = rounded_normal(MEAN, 0.05, 10, F(1, 2), F(3, 2))
        assert_distributed(((s,) for s in counts.elements()), {(s,): math.exp(w) for s, w in prior.items()})

    @given(max_denominator=st.integers(1, 30), index=st.integers(0, 10**6))
    def test_borders_are_those_of_limit_denominator(self, max_denominator, index):
        values = list(rounded_normal(0.5, 1, max_denominator, F(0), F(1)))
        below, above = list(itertools.pairwise(values))[index % (len(values) - 1)]
        border, step = (below + above) / 2, F(1, 10**12)
        assert (border - step).limit_denominator(max_denominator) == below
        assert (border + step).limit_denominator(max_denominator) == above

    def test_all_rationals_together_have_probability_1(self):
        assert math.fsum(map(math.exp, rounded_normal(0.8, 0.2, 10, F(-4), F(6)).values())) == pytest.approx(
            1, abs=1e-12
        )

    @pytest.mark.parametrize("std", [0.2, 0.01, 1e-3, 1e-4, 1e3])
    def test_far_tails_keep_their_digits(self, std):
        prior = rounded_normal(MEAN, std, 10, F(1, 2), F(1))
        assert list(prior) == rationals(distribution())
        for scale, (low, high) in {F(3, 4): (F(41, 56), F(55, 72)), F(9, 10): (F(161, 180), F(19, 20))}.items():
            z = [(float(border) - MEAN) / std for border in (low, high)]
            if scale > MEAN:
                z = [-z[1], -z[0]]
            outer, inner = (float(special.log_ndtr(value)) for value in z)
            expected = inner + math.log(-math.expm1(outer - inner))
            assert prior[scale] == pytest.approx(expected, rel=1e-8)

    def test_without_spread_the_mean_alone_is_left(self):
        assert rounded_normal(0.82, 0, 10, F(1, 2), F(1)) == {F(9, 11).limit_denominator(10): 0.0}
        assert rounded_normal(0.82, 0, 10, F(1, 2), F(3, 4)) == {}

    @pytest.mark.parametrize("std", [1e-320, 1e-200, 1e300, 1e308])
    def test_a_spread_at_the_ends_of_floats_gives_no_error_and_no_nan(self, std):
        prior = rounded_normal(MEAN, std, 10, F(1, 2), F(1))
        assert all(weight <= 0 for weight in prior.values())


SMALL = {
    "three layers": distribution(3, F(1, 2), 0.15, 4),
    "five layers": distribution(5, F(1, 4), 0.1, 4),
    "a narrow prior": distribution(4, F(1, 2), 0.02, 6),
    "numerators up to 3": distribution(4, F(1, 2), 0.15, 8, max_numerator=3),
    "upscaling": distribution(3, F(1, 2), 0.5, 3, F(1, 3), F(2)),
}


class TestConditioned:
    @pytest.mark.parametrize("wanted", SMALL.values(), ids=SMALL.keys())
    def test_axes_are_drawn_with_their_probabilities(self, wanted):
        probabilities = enumerated(wanted)
        assert len(probabilities) > 8
        assert_distributed(drawn(ConditionedSampler(wanted), 10_000), probabilities)

    def test_it_is_what_rejection_would_leave(self):
        wanted = distribution(3, F(1, 2), 0.15, 4)
        rng, kept = random.Random(7), list[Axis]()
        while len(kept) < 3000:
            gauss = [rng.gauss(wanted.mean, wanted.std) for _ in range(3)]
            scales = [F(x).limit_denominator(4) for x in gauss]
            if math.prod(scales) == wanted.total and all(F(1, 2) <= s <= 1 for s in scales):
                kept.append((F(1), *scales))
        assert_distributed(kept, enumerated(wanted))
        with pytest.raises(AssertionError, match="p ="):  # and the test would notice another prior
            assert_distributed(kept, enumerated(distribution(3, F(1, 2), 0.12, 4)))

    def test_upscaling_never_takes_a_map_below_the_last(self):
        wanted = SMALL["upscaling"]
        small, large = enumerated(wanted, in_size=2), enumerated(wanted, in_size=1000)
        assert small.keys() > large.keys()  # 2 px can be scaled by 1/3 and still have the 1 px of the last map
        sampler = ConditionedSampler(wanted)
        assert_distributed(drawn(sampler, 10_000, in_size=2), small)
        assert_distributed(drawn(sampler, 10_000, in_size=1000), large)

    @pytest.mark.parametrize(
        ("low", "high", "max_numerator", "count"),
        [
            (F(2, 3), F(9, 10), None, 86_100),
            (F(2, 3), F(9, 10), 7, 10_500),
            (F(1, 2), F(1), None, 535_416),
            (F(1, 2), F(1), 7, 147_861),
        ],
    )
    def test_there_are_as_many_axes_as_documented(self, low, high, max_numerator, count):
        scales = rationals(distribution(min_scale=low, max_scale=high, max_numerator=max_numerator))
        ways = Counter({F(1): 1})
        for left in range(6, -1, -1):
            longer: Counter[Fraction] = Counter()
            for product, number in ways.items():
                for scale in scales:
                    if low**left * product * scale <= F(1, 4) <= high**left * product * scale:
                        longer[product * scale] += number
            ways = longer
        assert ways == {F(1, 4): count}
        table = ProductTable.make(dict.fromkeys(scales, 0.0), 7, F(1, 4))
        assert math.exp(table.log_sum) == pytest.approx(count, rel=1e-12)

    @pytest.mark.parametrize(
        ("low", "high", "mean", "std"), [(F(1, 2), F(1), 0.8218, 0.0493), (F(2, 3), F(9, 10), 0.8218, 0.0482)]
    )
    def test_scales_have_the_documented_mean_and_spread(self, low, high, mean, std):
        wanted = distribution(min_scale=low, max_scale=high)
        table = ProductTable.make(rounded_normal(wanted.mean, 0.05, 10, low, high), 7, F(1, 4))
        first = table.choices[0][F(1, 4)]  # every layer has the same distribution: the order of scales is free
        shares = np.diff([0.0, *first.shares]) / first.shares[-1]
        values = np.array([float(s) for s in first.scales])
        assert shares @ values == pytest.approx(mean, abs=1e-4)
        assert (shares @ values**2 - (shares @ values) ** 2) ** 0.5 == pytest.approx(std, abs=1e-4)
        told = np.array([float(s) for axis in drawn(ConditionedSampler(wanted), 2000) for s in axis[1:]])
        assert told.mean() == pytest.approx(mean, abs=5 * std / 2000**0.5)
        assert told.std() == pytest.approx(std, abs=0.002)

    @pytest.mark.parametrize("std", [0.05, 0.01, 1e-5])
    @pytest.mark.parametrize(
        ("layers", "total"), [(2, F(1, 2)), (3, F(1, 8)), (5, F(1, 2)), (7, F(1, 2)), (7, F(1, 8)), (12, F(1, 2))]
    )
    def test_other_layers_totals_and_spreads_give_axes_with_exactly_that_product(self, layers, total, std):
        for axis in drawn(ConditionedSampler(distribution(layers, total, std)), 5):
            assert len(axis) == layers + 1
            assert math.prod(axis) == total
            assert all(F(1, 2) <= s <= 1 and s.denominator <= 10 for s in axis[1:])

    def test_one_layer_takes_the_total_itself(self):
        assert drawn(ConditionedSampler(distribution(1, F(1, 2))), 1) == [(F(1), F(1, 2))]

    def test_the_smallest_spread_leaves_the_most_probable_axes(self):
        axes = drawn(ConditionedSampler(distribution(std=1e-3)), 50)
        assert {tuple(sorted(axis)) for axis in axes} == {
            (F(3, 4), F(4, 5), F(4, 5), F(5, 6), F(5, 6), F(6, 7), F(7, 8), F(1))
        }

    def test_the_order_in_which_weights_come_does_not_change_a_draw(self):
        weights = rounded_normal(MEAN, 0.05, 10, F(1, 2), F(1))
        shuffled = dict(sorted(weights.items(), key=lambda item: item[0].numerator))
        assert list(shuffled) != list(weights)
        one, other = (ProductTable.make(each, 7, F(1, 4)) for each in (weights, shuffled))
        assert one.draw(random.Random(3)) == other.draw(random.Random(3))

    @pytest.mark.parametrize(
        ("wanted", "says"),
        [
            (distribution(std=0.0), "no product of 7 scales out of 1 is exactly 1/4"),
            (distribution(2, F(1, 3), 0.1, 2), "out of 2 is exactly 1/3.*denominator up to 2"),
            (distribution(3, F(1, 3), min_scale=F(2, 3), max_numerator=1), "out of 1 is.*numerator up to 1"),
            (distribution(2, F(1, 3), 0.1, 1), "std 0.1 allows.*corrected"),
            (distribution(max_denominator=1000), "max_denominator=1000"),
            (distribution(max_scale=F(10**6)), "narrow the range"),
            (distribution(max_denominator=20), "at most 1,000,000"),
            (distribution(1000, F(1, 2), 0.1, 2), "at most 100 layers; got 1000"),
            (distribution(std=0.0, min_scale=F(4, 5), max_scale=F(83, 100)), "out of 0 is exactly 1/4"),
        ],
    )
    def test_what_cannot_be_drawn_is_refused(self, wanted, says):
        with pytest.raises(SequenceError, match=says):
            drawn(ConditionedSampler(wanted), 1)


class TestCorrected:
    def test_it_takes_no_limit_on_numerators(self):
        with pytest.raises(SequenceError, match=r'max_numerator=7 was given.*method="conditioned"'):
            CorrectedSampler(distribution(max_numerator=7))

    def test_it_counts_what_it_draws_again(self):
        sampler = CorrectedSampler(distribution())
        drawn(sampler, 200)
        assert 10 <= sampler.rejected <= 60  # about one axis in eight
        conditioned = ConditionedSampler(distribution())
        drawn(conditioned, 200)
        assert conditioned.rejected == 0
