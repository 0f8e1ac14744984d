"""Parts of a grid, and bicubic interpolation as a CC layer."""

from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ccnet import CcnetError, cc_conv2d
from ccnet.grid import AxisGrid, projected_grid
from ccnet.upscaling import bicubic, keys_kernel
from ccnet.upscaling.axes import whole_axes

PAIR = (Fraction(237, 100), Fraction(8, 5))


@given(
    in_size=st.integers(1, 20),
    scale=st.fractions(1, 4, max_denominator=20),
    kernel_size=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=50, deadline=None)
def test_a_part_of_a_grid_looks_where_the_whole_looks(in_size, scale, kernel_size, data):
    whole = AxisGrid.make(in_size, None, scale, kernel_size)
    first = data.draw(st.integers(0, whole.out_size - 1))
    last = data.draw(st.integers(first + 1, whole.out_size))
    origin = data.draw(st.integers(-5, in_size))
    part = whole.part(range(first, last), range(origin, origin + 9))
    position = projected_grid(in_size, whole.out_size, scale)
    for n in range(part.out_size):
        centre = part.starts[n] + Fraction(kernel_size - 1, 2) + part.offsets[n % part.period]
        assert centre + origin == position[first + n]
        assert part.starts[n] + origin == whole.starts[first + n]
    assert AxisGrid.of_key(part.key) == part


@pytest.mark.parametrize("outputs", [range(0), range(3, 41), range(-1, 4), range(0, 10, 2)])
def test_a_part_that_the_grid_has_not_is_refused(outputs):
    with pytest.raises(CcnetError, match="outputs 0 to 39"):
        AxisGrid.make(20, 40, 2, 4).part(outputs, range(20))


def test_bicubic_is_a_cc_layer_with_keys_kernel_over_repeated_edges():
    x = torch.rand(2, 1, 13, 17, dtype=torch.float64)
    padded = torch.nn.functional.pad(x, (3, 3, 3, 3), mode="replicate")  # alike on both sides: Eq. 2 stays centred
    out = bicubic(x, PAIR)
    assert out.shape == (2, 1, 31, 28)
    torch.testing.assert_close(out, cc_conv2d(padded, keys_kernel, 4, scale=PAIR, out_size=(31, 28)))


@pytest.mark.parametrize("scale", [2, 3, Fraction(5, 2)])
def test_bicubic_is_pillows_away_from_the_edges(scale):
    picture = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    out = bicubic(torch.from_numpy(picture)[None, None], scale)[0, 0].numpy()
    theirs = Image.fromarray(picture).resize(out.shape[::-1], Image.Resampling.BICUBIC)
    np.testing.assert_allclose(out[8:-8, 8:-8], np.asarray(theirs)[8:-8, 8:-8], atol=1e-5)


def test_bicubic_keeps_a_constant_picture_to_its_edges():
    torch.testing.assert_close(bicubic(torch.full((1, 3, 5, 4), 0.3), PAIR), torch.full((1, 3, 12, 7), 0.3))


def test_bicubic_is_exact_for_a_quadratic_picture():
    rows = torch.arange(30, dtype=torch.float64)
    x = (rows**2).view(1, 1, 30, 1).expand(1, 1, 30, 6)
    position = torch.tensor([float(g) for g in projected_grid(30, 72, Fraction("2.4"))], dtype=torch.float64)
    out = bicubic(x, (Fraction("2.4"), 1))[0, 0, :, 3]
    torch.testing.assert_close(out[10:-10], position[10:-10] ** 2)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (7, 5)])
def test_factor_1_leaves_a_picture_as_it_is(size):
    x = torch.rand(1, 3, *size)
    assert torch.equal(bicubic(x, 1), x)


@pytest.mark.parametrize("scale", [0.5, 4.01, (2, Fraction(9, 2))])
def test_a_factor_out_of_range_is_refused(scale):
    with pytest.raises(CcnetError, match="enlarged by 1 to 4 along each axis"):
        whole_axes((20, 20), scale, None, 4)


def test_a_size_that_contradicts_the_factor_is_refused():
    with pytest.raises(CcnetError, match=r"out_size \(42, 40\) is not the picture's \(20, 20\) times the scale"):
        whole_axes((20, 20), 2, (42, 40), 4)
