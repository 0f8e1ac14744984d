"""The projected grid is Eq. 2, exactly, and windows and phases follow from it."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ccnet import CcnetError, projected_grid
from ccnet.grid import MAX_SIZE, AxisGrid, exact_scale, exact_scales, whole_number
from tests.ccnet.literal import literal_grid, literal_neighbours

scales = st.one_of(
    st.fractions(min_value=Fraction(1, 9), max_value=4, max_denominator=40), st.floats(min_value=0.11, max_value=4)
)
sizes = st.integers(min_value=1, max_value=40)


@pytest.mark.parametrize(
    ("in_size", "out_size", "scale", "expected"),
    [
        (4, 2, Fraction(1, 2), ["1/2", "5/2"]),  # Fig. 4a: the centre of two pixels, not pixel 2n
        (9, 3, Fraction(1, 3), ["1", "4", "7"]),  # Sec. 4: scale 1/3 falls on pixel centres
        (4, 3, Fraction(3, 5), ["-1/6", "3/2", "19/6"]),  # Fig. 4b: 2.4 px wanted, 3 px given
        (4, 6, Fraction(7, 5), ["-2/7", "3/7", "8/7", "13/7", "18/7", "23/7"]),
        (5, 5, 1, ["0", "1", "2", "3", "4"]),
    ],
)
def test_projected_grid_of_the_papers_examples(in_size, out_size, scale, expected):
    assert projected_grid(in_size, out_size, scale) == [Fraction(g) for g in expected]


@settings(deadline=None)  # a crowded machine is no error
@given(in_size=sizes, out_size=sizes, scale=scales)
def test_projected_grid_is_equation_2(in_size, out_size, scale):
    assert projected_grid(in_size, out_size, scale) == literal_grid(in_size, out_size, Fraction(scale))


@settings(deadline=None)
@given(in_size=sizes, out_size=sizes, scale=scales, kernel_size=st.integers(min_value=1, max_value=6))
def test_windows_phases_and_offsets_describe_the_nearest_neighbours(in_size, out_size, scale, kernel_size):
    axis = AxisGrid.make(in_size, out_size, scale, kernel_size)
    for n, g in enumerate(literal_grid(in_size, out_size, Fraction(scale))):
        neighbours = literal_neighbours(g, kernel_size)
        assert list(range(axis.starts[n], axis.starts[n] + kernel_size)) == neighbours
        assert axis.neighbours(n) == [m if 0 <= m < in_size else in_size for m in neighbours]
        phase = n % axis.period
        assert axis.distances(phase) == [g - m for m in neighbours]
        assert Fraction(-1, 2) < axis.offsets[phase] <= Fraction(1, 2)
    assert axis.period == min(Fraction(scale).numerator, out_size)
    assert axis.pad_before == max(0, -axis.starts[0])
    assert axis.pad_after == max(0, axis.starts[-1] + kernel_size - in_size)


@pytest.mark.parametrize(("scale", "kernel_size", "first"), [(1, 4, -2), (1, 2, -1), (Fraction(1, 2), 3, -1)])
def test_a_neighbour_half_a_kernel_away_counts_on_the_left_only(scale, kernel_size, first):
    axis = AxisGrid.make(8, None, scale, kernel_size)
    assert axis.starts[0] == first
    assert max(axis.distances(0)) == Fraction(kernel_size, 2)


def test_exact_scales_avoid_the_wrong_ceil_that_floats_give():
    assert math.ceil(28 * (3 / 5) * (5 / 6)) == 15  # 14.000000000000002
    assert AxisGrid.make(28, None, Fraction(3, 5) * Fraction(5, 6), 3).out_size == 14


def test_a_float_scale_is_taken_at_its_exact_value():
    assert exact_scale(0.1) == Fraction(3602879701896397, 36028797018963968)
    assert exact_scales((0.5, 2)) == (Fraction(1, 2), Fraction(2))
    assert exact_scales([1, Fraction(2, 3)]) == (Fraction(1), Fraction(2, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [np.float32(0.1), np.float64(0.1), np.int64(3), np.uint8(3)])
def test_numpys_numbers_are_taken_as_the_numbers_that_they_are(number):
    scale = exact_scale(number)
    assert scale == Fraction(number.item())
    assert type(scale.numerator) is int  # a NumPy integer inside would overflow silently
    assert AxisGrid.make(4, np.int64(2), 1, 3).out_size == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("scale", "says"),
    [
        (0, "above 0"),
        (-0.5, "above 0"),
        (float("nan"), "finite"),
        (float("inf"), "finite"),
        ("1/2", "Fraction"),
        (True, "Fraction"),
        (None, "Fraction"),
        (1 + 0j, "Fraction"),
        (np.float32("nan"), "finite"),
    ],
)
def test_a_bad_scale_is_refused_with_what_is_allowed(scale, says):
    with pytest.raises(CcnetError, match=says):
        projected_grid(4, 4, scale)


@pytest.mark.parametrize(("in_size", "out_size"), [(0, 4), (4, 0), (-1, 4), (4, 2.0), (True, 4), (4, "4")])
def test_a_bad_size_is_refused(in_size, out_size):
    with pytest.raises(CcnetError, match="_size"):
        projected_grid(in_size, out_size, 1)


@pytest.mark.parametrize("scale", [1e6, 1e300, Fraction(10**5000)])
def test_a_scale_that_asks_for_more_than_a_memory_holds_is_refused(scale):
    with pytest.raises(CcnetError, match=rf"out_size is at most {MAX_SIZE} px.*smaller scale"):
        AxisGrid.make(8, None, scale, 3)


def test_a_whole_number_may_have_another_lower_bound():
    assert whole_number("seed", 0, least=0) == 0
    with pytest.raises(CcnetError, match="seed must be at least 0; got -1"):
        whole_number("seed", -1, least=0)


def test_a_pair_of_three_scales_is_refused():
    with pytest.raises(CcnetError, match="pair"):
        exact_scales((1, 1, 1))  # type: ignore[arg-type]
