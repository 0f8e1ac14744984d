"""What a shift probe is made of: shifting images, shifting maps back, the cosine after the cut."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from ccnet.equivariance import cosine_after_cut, draw_shifts, shift_images, shift_map_back
from ccnet.errors import CcnetError
from tests.ccnet.literal_shifts import shift_images_literal, shift_map_back_literal

# ---------------------------------------------------------------- shifting


@pytest.mark.parametrize("border", ["zero", "circular", "reflect"])
def test_shifted_images_equal_the_literal_loop(border: str) -> None:
    batch = torch.randn(4, 2, 5, 7, dtype=torch.float64)
    dy, dx = torch.tensor([0, 2, -3, 4]), torch.tensor([0, -4, 4, 1])
    moved = shift_images(batch, dy, dx, border=border, fill=0.25)  # type: ignore[arg-type]
    assert torch.equal(moved, shift_images_literal(batch, dy, dx, border, 0.25))


def test_a_positive_shift_moves_the_content_down_and_right() -> None:
    batch = torch.zeros(1, 1, 6, 6)
    batch[0, 0, 1, 2] = 1
    moved = shift_images(batch, torch.tensor([3]), torch.tensor([1]))
    assert moved.nonzero().tolist() == [[0, 0, 4, 3]]


def test_fill_may_differ_by_channel() -> None:
    batch = torch.ones(1, 2, 4, 4)
    moved = shift_images(batch, torch.tensor([1]), torch.tensor([0]), fill=(-1.0, 3.0))
    assert moved[0, :, 0].tolist() == [[-1.0] * 4, [3.0] * 4]
    with pytest.raises(CcnetError, match=r"one a channel \(2\); got 3"):
        shift_images(batch, torch.tensor([1]), torch.tensor([0]), fill=(0.0, 0.0, 0.0))


@pytest.mark.parametrize("outside", ["edge", "zero", "circular"])
@pytest.mark.parametrize("a", [-0.5, -0.75, -0.6])
def test_shift_back_equals_the_literal_double_sum(a: float, outside: str) -> None:
    features = torch.randn(5, 2, 5, 6, dtype=torch.float64)
    dy = torch.tensor([0.0, 0.25, -1.5, 1.5, 7.3], dtype=torch.float64)
    dx = torch.tensor([0.75, -1.25, 0.5, -0.0, 1e-9], dtype=torch.float64)
    aligned = shift_map_back(features, dy, dx, a=a, outside=outside)  # type: ignore[arg-type]
    torch.testing.assert_close(aligned, shift_map_back_literal(features, dy, dx, a, outside), rtol=0, atol=1e-12)


def test_shift_back_equals_torchs_own_bicubic_where_that_applies() -> None:
    features = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    dy, dx = 1.25, -0.5
    y, x = torch.meshgrid(torch.arange(8.0).double() + dy, torch.arange(8.0).double() + dx, indexing="ij")
    grid = torch.stack([x, y], dim=-1)[None] / 3.5 - 1  # grid_sample wants (x, y) in [-1, 1] between pixel centres
    want = F.grid_sample(features, grid, mode="bicubic", padding_mode="border", align_corners=True)
    got = shift_map_back(features, torch.tensor([dy]), torch.tensor([dx]), a=-0.75, outside="edge")
    torch.testing.assert_close(got, want, rtol=0, atol=1e-12)


def test_a_shift_back_by_nothing_changes_no_bit() -> None:
    features = torch.randn(2, 3, 8, 8)
    assert torch.equal(shift_map_back(features, torch.zeros(2), torch.zeros(2)), features)


def blob(centre_y: float, centre_x: float, size: int = 16) -> Tensor:
    """A smooth bump, wider than high and with a tail to one side: no mirror image of itself."""
    y, x = torch.meshgrid(torch.arange(size).double() - centre_y, torch.arange(size).double() - centre_x, indexing="ij")
    return (torch.exp(-(y**2) / 8 - x**2 / 18) * (1 + 0.3 * torch.tanh((x - y) / 4)))[None, None]


@pytest.mark.parametrize(("dy", "dx"), [(1.5, 0.0), (0.0, -1.25), (-0.75, 1.0), (0.5, 0.5)])
def test_shift_back_has_the_right_sign_on_each_axis(dy: float, dx: float) -> None:
    still, moved = blob(7, 8), blob(7 + dy, 8 + dx)
    inner = (..., slice(3, 13), slice(3, 13))
    aligned = shift_map_back(moved, torch.tensor([dy]), torch.tensor([dx]))
    wrong = shift_map_back(moved, torch.tensor([-dy]), torch.tensor([-dx]))
    assert (aligned - still)[inner].abs().max() < 0.02
    assert (wrong - still)[inner].abs().max() > 0.15


@given(r=st.integers(0, 7), pairs=st.integers(1, 400), seed=st.integers(0, 2**40), include_zero=st.booleans())
@settings(max_examples=60, deadline=None)
def test_drawn_shifts_stay_in_the_square(r: int, pairs: int, seed: int, include_zero: bool) -> None:
    if r == 0 and not include_zero:
        with pytest.raises(CcnetError, match="nothing to draw"):
            draw_shifts(pairs, r, seed=seed, include_zero=include_zero)
        return
    shift = draw_shifts(pairs, r, seed=seed, include_zero=include_zero)
    assert shift.shape == (pairs, 2)
    assert int(shift.abs().max()) <= r
    assert include_zero or bool((shift != 0).any(dim=1).all())
    assert torch.equal(draw_shifts(pairs + 9, r, seed=seed, include_zero=include_zero)[:pairs], shift)


@pytest.mark.parametrize("include_zero", [True, False])
def test_drawn_shifts_are_uniform_with_both_ends(include_zero: bool) -> None:
    pairs = 20_000
    shift = draw_shifts(pairs, 2, seed=3, include_zero=include_zero)
    cells, counts = torch.unique(shift, dim=0, return_counts=True)
    expected = 25 if include_zero else 24
    assert len(cells) == expected
    # 5 standard deviations of a binomial count
    assert (counts - pairs / expected).abs().max() < 5 * math.sqrt(pairs / expected)


# ---------------------------------------------------------------- cosine


def test_cosine_equals_the_literal_sum_over_the_inner_block() -> None:
    a, b = torch.rand(2, 3, 6, 7, dtype=torch.float64), torch.rand(2, 3, 6, 7, dtype=torch.float64)
    flat, by_position = cosine_after_cut(a, b, cut=2), cosine_after_cut(a, b, cut=2, per="position")
    for n in range(2):
        inner = [(c, i, j) for c in range(3) for i in (2, 3) for j in (2, 3, 4)]
        dot = sum(float(a[n][p] * b[n][p]) for p in inner)
        lengths = math.sqrt(sum(float(a[n][p]) ** 2 for p in inner) * sum(float(b[n][p]) ** 2 for p in inner))
        assert abs(float(flat[n]) - dot / lengths) < 1e-12
        positions = [F.cosine_similarity(a[n, :, i, j], b[n, :, i, j], dim=0) for i in (2, 3) for j in (2, 3, 4)]
        assert abs(float(by_position[n] - sum(positions) / 6)) < 1e-12


def test_two_zero_maps_have_no_cosine_and_one_zero_map_has_none_in_common() -> None:
    zero, other = torch.zeros(1, 2, 5, 5), torch.ones(1, 2, 5, 5)
    for per in ("flatten", "position"):
        assert cosine_after_cut(zero, zero, per=per).isnan().item()
        assert cosine_after_cut(zero, other, per=per).item() == 0
    half = other.clone()
    half[..., 2, 2] = 0  # position (2, 2) is the whole block after a cut of 2
    assert cosine_after_cut(half, half, cut=1, per="position").item() == pytest.approx(1, abs=1e-12)
    assert cosine_after_cut(half, other, cut=1, per="position").item() == pytest.approx(8 / 9, abs=1e-12)


def test_cosine_of_tiny_maps_does_not_underflow() -> None:
    a = torch.rand(1, 2, 5, 5, dtype=torch.float64) + 0.1
    assert cosine_after_cut(a * 1e-200, a * 1e-250, cut=0).item() == pytest.approx(1, abs=1e-12)


def test_a_cut_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(CcnetError, match=r"4 x 9 map; use a smaller cut \(at most 1\)"):
        cosine_after_cut(torch.ones(1, 1, 4, 9), torch.ones(1, 1, 4, 9), cut=2)
