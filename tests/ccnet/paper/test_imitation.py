"""Known kernels, the picture, and what is measured of a learned kernel, against literal loops."""

import math
from fractions import Fraction
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.layer import CCConv2d, cc_conv2d
from ccnet.paper.dead_leaves import dead_leaves
from ccnet.paper.imitation import (
    Recipe,
    kernel_errors,
    looked_at,
    new_layer,
    parameters_of,
    random_scales,
    raster,
    seam_jump,
    teach,
    widest_gap,
    with_parameters,
)
from ccnet.paper.kernel_pictures import from_sketch, sketch_of
from ccnet.paper.known_kernels import (
    GAUSSIAN_SIGMAS,
    GAUSSIAN_SIZE,
    bicubic,
    keys_cubic,
    resize_bicubic,
    rotated_gaussian,
    widened_bicubic,
)
from ccnet.types import Kernel
from tests.ccnet.literal import literal_grid


def keys_one(t: float, a: float) -> float:
    """Keys, 1981, written as in the paper's Eq. 15 for one number."""
    t = abs(t)
    if t <= 1:
        return (a + 2) * t**3 - (a + 3) * t**2 + 1
    return a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0


def resized_literally(image: torch.Tensor, scale: tuple[float, float], a: float) -> torch.Tensor:
    """Bicubic resizing by a loop over all output and all input px; shares no code with ccnet."""
    height, width = image.shape
    rows, columns = (math.ceil(Fraction(s) * size) for s, size in zip(scale, image.shape, strict=True))
    down, across = literal_grid(height, rows, Fraction(scale[0])), literal_grid(width, columns, Fraction(scale[1]))
    out = torch.zeros(rows, columns, dtype=torch.float64)
    for n, g in enumerate(down):
        for o, h in enumerate(across):
            out[n, o] = sum(
                keys_one(float(g - i), a) * keys_one(float(h - j), a) * float(image[i, j])
                for i in range(height)
                for j in range(width)
                if abs(g - i) < 2 and abs(h - j) < 2
            )
    return out


@pytest.mark.parametrize("scale", [(0.37, 1.21), (0.5, 2 / 3), (1.0, 1.3)])
def test_the_truth_is_the_literal_double_sum_and_what_a_cc_layer_with_that_kernel_gives(scale):
    image = dead_leaves(12, 3)
    literal = resized_literally(image[0, 0], scale, -0.5)
    torch.testing.assert_close(resize_bicubic(image, scale)[0, 0], literal, rtol=0, atol=1e-12)
    torch.testing.assert_close(cc_conv2d(image, bicubic, 4, scale=scale)[0, 0], literal, rtol=0, atol=1e-12)


def test_a_truth_with_the_other_constant_of_torch_is_noticed():
    image = dead_leaves(12, 3)
    other = resized_literally(image[0, 0], (0.7, 0.7), -0.75)
    assert (resize_bicubic(image, (0.7, 0.7))[0, 0] - other).abs().max() > 0.01
    assert not torch.allclose(keys_cubic(torch.tensor(0.5)), keys_cubic(torch.tensor(0.5), a=-0.75))


@pytest.mark.parametrize(("up", "every"), [(3, 5), (5, 7)])
def test_without_antialiasing_bicubic_by_a_fraction_is_every_few_px_of_pillows_enlargement(up, every):
    image = dead_leaves(up * every * 2 + every, 1)  # so that the two grids meet
    size = image.shape[2]
    enlarged = Image.fromarray(image[0, 0].float().numpy()).resize((size * up, size * up), Image.Resampling.BICUBIC)
    positions = [(2 * g * up + up - 1) / 2 for g in literal_grid(size, size * up // every, Fraction(up, every))]
    assert all(position == int(position) for position in positions)
    inside = [n for n, position in enumerate(positions) if 3 * up < position < up * (size - 3)]
    taken = [int(positions[n]) for n in inside]
    theirs = torch.from_numpy(np.array(enlarged))[taken][:, taken]
    ours = resize_bicubic(image, Fraction(up, every))[0, 0][inside][:, inside]
    torch.testing.assert_close(ours.float(), theirs, rtol=0, atol=2e-6)


def test_the_rotated_gaussian_is_a_density_with_its_long_axis_down_to_the_right():
    points = raster(2 * GAUSSIAN_SIZE)
    values = rotated_gaussian(points)[:, 0, 0]
    share = values / values.sum()
    assert float(values.mean()) * (2 * GAUSSIAN_SIZE) ** 2 == pytest.approx(1, abs=1e-6)
    covariance = points.T @ (share[:, None] * points)
    long, short = GAUSSIAN_SIGMAS
    expected = torch.tensor([[1, 0.0], [0, 1]]) * (long**2 + short**2) / 2
    expected += torch.tensor([[0, 1], [1, 0.0]]) * (long**2 - short**2) / 2
    torch.testing.assert_close(covariance, expected.double(), rtol=0, atol=1e-3)


def test_the_widened_kernel_keeps_its_weight_and_is_the_plain_one_at_scale_1():
    points = raster(8)
    assert float(widened_bicubic((0.5, 0.8))(points).mean()) * 64 == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(widened_bicubic((1.0, 1.0))(points), bicubic(points))


def test_the_picture_is_of_its_seed_and_has_mean_0_and_variance_1():
    picture = dead_leaves(32, 5)
    assert torch.equal(picture, dead_leaves(32, 5))
    assert not torch.equal(picture, dead_leaves(32, 6))
    assert float(picture.mean()) == pytest.approx(0, abs=1e-12)
    assert float(picture.var()) == pytest.approx(1)


def test_the_raster_holds_the_middles_of_squares_row_by_row():
    expected = [[(i + 0.5) * 4 / 3 - 2, (j + 0.5) * 4 / 3 - 2] for i in range(3) for j in range(3)]
    torch.testing.assert_close(raster(4, 3), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("size", [4, 5])
@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
def test_a_kernel_that_is_looked_at_is_the_weight_that_the_layer_gives_that_distance(size, kernel_input):
    layer = new_layer(size, kernel_input, (16, 16), 2)
    one = torch.zeros(1, 1, 9, 9)
    one[..., 4, 4] = 1
    scale = 0.83
    with torch.no_grad():
        out = layer(one, scale)[0, 0].double()
    grid = torch.tensor([float(g) - 4 for g in literal_grid(9, len(out), Fraction(scale))], dtype=torch.float64)
    points = torch.cartesian_prod(grid, grid)
    near = (points.abs() < size / 2).all(dim=1)
    torch.testing.assert_close(looked_at(layer, points)[near], out.flatten()[near], rtol=0, atol=1e-6)
    assert out.flatten()[~near].abs().max() == 0


def planted(kernel: Kernel, size: int) -> CCConv2d:
    """A layer whose kernel is given."""
    return cast("CCConv2d", SimpleNamespace(kernel=kernel, kernel_size=(size, size), kernel_input="distance"))


def test_the_error_of_the_true_kernel_is_0_and_that_of_a_scaled_one_is_its_scale():
    assert kernel_errors(planted(bicubic, 4), bicubic) == (0, 0)
    relative, largest = kernel_errors(planted(lambda points: 1.25 * bicubic(points), 4), bicubic)
    assert relative == pytest.approx(0.25)
    assert largest == pytest.approx(0.25)


def test_a_step_at_every_seam_is_found_and_a_continuous_kernel_has_none():
    def stepped(points: torch.Tensor) -> torch.Tensor:
        return (bicubic(points)[:, 0, 0] + 0.3 * (points.floor().sum(dim=1) % 2))[:, None, None]

    peak = float(bicubic(raster(4)).max())
    assert seam_jump(planted(stepped, 4), bicubic) == pytest.approx(0.3 / peak, rel=1e-3)
    assert seam_jump(planted(bicubic, 4), bicubic) < 1e-5


@pytest.mark.parametrize(
    ("scale", "gap"),
    [((0.5, 0.5), 1), ((1.0, 1.0), 1), ((2 / 3, 2 / 3), None), ((Fraction(2, 3), Fraction(4, 5)), 1 / 2)],
)
def test_the_widest_gap_is_1_px_at_scales_1_and_1_2_and_half_of_it_at_2_3(scale, gap):
    found = widest_gap(60, scale, 4)
    assert found == (pytest.approx(gap) if gap else pytest.approx(0.5, abs=1e-9))


def test_a_grid_that_drifts_through_the_px_leaves_small_gaps_and_one_next_to_1_does_not():
    assert widest_gap(64, (0.7123, 0.8456), 4) < 0.1
    assert widest_gap(64, (1.004, 0.996), 4) > 0.6


def test_teaching_is_repeatable_lowers_the_error_and_leaves_global_randomness_alone():
    image, scale = dead_leaves(16, 0), (0.83, 0.71)
    state = torch.random.get_rng_state()
    told = []
    trails = [
        teach(
            new_layer(4, "distance", (16, 16), 1),
            image,
            resize_bicubic(image, scale),
            scale,
            Recipe(20, 20),
            lambda steps, _: told.append(steps),
        )
        for _ in range(2)
    ]
    assert torch.equal(state, torch.random.get_rng_state())
    assert trails[0] == trails[1]
    assert [moment["step"] for moment in trails[0]] == Recipe(20, 20).stops
    assert sum(told) == 2 * 40
    assert trails[0][-1]["mse"] < 0.2 * trails[0][0]["mse"]


def test_parameters_go_out_and_come_back_to_the_last_bit_and_as_a_sketch_to_a_thousandth():
    layer, other = (new_layer(4, "offset", (16, 16), seed) for seed in (1, 2))
    numbers = parameters_of(layer)
    assert parameters_of(with_parameters(other, numbers)) == numbers
    drawn = parameters_of(from_sketch(other, sketch_of(numbers)))
    assert drawn == pytest.approx(numbers, rel=1e-3, abs=1e-6)


def test_random_scales_are_of_their_generator_and_within_the_range_of_the_paper():
    drawn = random_scales(torch.Generator().manual_seed(4), 50)
    assert drawn == random_scales(torch.Generator().manual_seed(4), 50)
    assert all(0.3 <= axis <= 1.3 for pair in drawn for axis in pair)
