"""The network, tiles and ensembles."""

from fractions import Fraction

import pytest
import torch

from ccnet import CcnetError
from ccnet.backends import available_backends
from ccnet.upscaling import CCUpscaler, bicubic
from ccnet.upscaling.ensembles import draw_steps, enlarge_ensemble
from ccnet.upscaling.pixels import visible_luma
from ccnet.upscaling.tiles import enlarge

PAIR = (Fraction(237, 100), Fraction(8, 5))


@pytest.fixture
def model(generator):
    torch.manual_seed(generator.initial_seed())
    model = CCUpscaler(8, 3)
    model.last.kernel.reset_parameters()  # a residual that is far from nothing
    return model.requires_grad_(False).eval()


def without_residual(model):
    for parameter in (*model.last.kernel.last.parameters(), model.last.bias):
        torch.nn.init.zeros_(parameter)
    return model


@pytest.mark.parametrize("size", [(1, 1), (1, 33), (20, 1), (13, 17)])
@pytest.mark.parametrize("scale", [2, Fraction(4, 3), PAIR, (1, 4)])
def test_sizes_are_the_inputs_times_the_factor_rounded_up(model, size, scale):
    expected = bicubic(torch.zeros(1, 1, *size), scale).shape
    assert model(torch.rand(1, 1, *size), scale).shape == expected


def test_without_residual_it_is_bicubic_interpolation(model):
    x = torch.rand(2, 1, 9, 11)
    assert torch.equal(without_residual(model)(x, PAIR), bicubic(x, PAIR))


@pytest.mark.parametrize("size", [(1, 1), (1, 30), (12, 7)])
def test_factor_1_leaves_a_picture_as_it_is_whatever_the_weights(model, size):
    x = torch.rand(1, 1, *size)
    assert torch.equal(model(x, 1), x)


def test_every_axis_has_a_factor_of_its_own(model):
    x = torch.rand(1, 1, 12, 12)
    out = model(x, (2, Fraction(7, 3)))
    assert out.shape == (1, 1, 24, 28)
    assert not torch.equal(out, model(x, (Fraction(7, 3), 2)).mT)


def test_a_given_size_is_what_comes_out(model):
    assert model(torch.rand(1, 1, 10, 10), Fraction(5, 4), (12, 13)).shape == (1, 1, 12, 13)


@pytest.mark.parametrize("kernel_input", ["offset", "distance"])
@pytest.mark.parametrize("side", [7, 16])
@pytest.mark.parametrize("scale", [2, PAIR, (Fraction(64, 21), 1)])
def test_tiles_give_what_the_whole_picture_gives(kernel_input, side, scale):
    torch.manual_seed(0)
    model = CCUpscaler(8, 3, kernel_input=kernel_input).double()
    model.last.kernel.reset_parameters()
    x = torch.rand(1, 1, 21, 15, dtype=torch.float64)
    whole = model(x, scale).clamp(0, 1)
    torch.testing.assert_close(enlarge(model, x, scale, side=side), whole, atol=1e-12, rtol=0)


def test_tiles_in_float32_agree_with_the_whole_to_1e_5(model):
    x = torch.rand(1, 1, 40, 50)
    torch.testing.assert_close(enlarge(model, x, PAIR, side=33), model(x, PAIR).clamp(0, 1), atol=1e-5, rtol=0)


@pytest.mark.skipif("native" not in available_backends(), reason="needs the native kernels")
def test_backends_agree(model):
    model = model.double()
    x = torch.rand(1, 1, 9, 8, dtype=torch.float64)
    out = []
    for backend in ("native", "discrete", "standard"):
        model.last.backend = backend
        out.append(model(x, PAIR))
    torch.testing.assert_close(out[0], out[1])
    torch.testing.assert_close(out[0], out[2])


def test_every_parameter_gets_a_gradient():
    model = CCUpscaler(4, 2)
    model(torch.rand(1, 1, 8, 8), PAIR).square().mean().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())


@pytest.mark.parametrize("x", [torch.rand(1, 3, 8, 8), torch.rand(8, 8), torch.zeros(1, 1, 8, 8, dtype=torch.uint8)])
def test_what_is_no_grey_picture_is_refused(model, x):
    with pytest.raises(CcnetError, match=r"grey floating point \[N, 1, H, W\]"):
        model(x, 2)


def test_colours_are_bicubic_but_for_luma(model):
    x = torch.rand(1, 3, 12, 12) / 4 + 0.3
    out, plain = enlarge(model, x, PAIR), enlarge(None, x, PAIR)
    added = out - plain
    torch.testing.assert_close(added[:, 0], added[:, 1], atol=1e-6, rtol=0)
    torch.testing.assert_close(added[:, 0], added[:, 2], atol=1e-6, rtol=0)
    assert added.abs().max() > 1e-3


def test_a_grey_picture_and_its_rgb_copy_are_enlarged_alike(model):
    x = torch.rand(1, 1, 10, 12)
    colour = enlarge(model, x.expand(1, 3, 10, 12).contiguous(), PAIR)
    torch.testing.assert_close(colour, enlarge(model, x, PAIR).expand_as(colour), atol=1e-5, rtol=0)


def test_invisible_colours_do_not_bleed_into_what_is_visible():
    x = torch.zeros(1, 4, 8, 8)
    x[:, 0], x[:, 3, :, 4:] = 1.0, 1.0  # red everywhere, and opaque on the right
    x[:, 1:3, :, :4] = 1.0  # but white where nobody sees it
    out = enlarge(None, x, 3)
    visible = out[:, 3] > 0.01
    torch.testing.assert_close(out[:, 0][visible], torch.ones_like(out[:, 0][visible]))
    assert out[:, 1][visible].max() < 1e-5


def test_an_opaque_picture_is_enlarged_as_one_without_opacity(model):
    x = torch.rand(1, 3, 9, 9)
    opaque = torch.cat([x, torch.ones(1, 1, 9, 9)], dim=1)
    out = enlarge(model, opaque, 2)
    torch.testing.assert_close(out[:, :3], enlarge(model, x, 2), atol=1e-6, rtol=0)
    torch.testing.assert_close(out[:, 3], torch.ones(1, 18, 18))
    torch.testing.assert_close(visible_luma(opaque), visible_luma(x))


def test_the_rim_of_what_is_transparent_is_interpolated(model):
    x = torch.full((1, 2, 12, 12), 0.5)
    x[:, 1, :, :6] = 0.0
    out, plain = enlarge(model, x, 2), enlarge(None, x, 2)
    torch.testing.assert_close(out[..., 10:14], plain[..., 10:14], atol=1e-6, rtol=0)
    even = torch.cat([torch.rand(1, 1, 12, 12), torch.full((1, 1, 12, 12), 0.5)], dim=1)
    assert not torch.allclose(enlarge(model, even, 2), enlarge(None, even, 2), atol=1e-3)


def test_steps_multiply_to_the_factor_and_differ():
    members = draw_steps(PAIR, 8, seed=3)
    assert members[0] == (PAIR,)
    assert len(set(members)) == 8
    assert all((a[0] * b[0], a[1] * b[1]) == PAIR for a, b in members[1:])
    assert all(1 <= s <= 4 for member in members for step in member for s in step)
    assert members == draw_steps(PAIR, 8, seed=3) != draw_steps(PAIR, 8, seed=4)


@pytest.mark.parametrize("size", [(40, 41), (1, 7), (54, 13)])
def test_steps_reach_the_size_of_one_step_whatever_was_rounded_between(model, size):
    scale = (Fraction("3.3"), Fraction("3.3"))
    _, _, height, width = bicubic(torch.zeros(1, 1, *size), scale).shape
    image = enlarge_ensemble(model, torch.rand(1, 1, *size), scale, (height, width), size=8, seed=0)
    assert image.shape == (1, 1, height, width)


def test_factor_1_has_no_steps_to_draw():
    with pytest.raises(CcnetError, match="in 1 ways; 2 members were asked for"):
        draw_steps(1, 2, seed=0)


@pytest.mark.parametrize("members", ["steps", "views"])
def test_an_ensemble_of_one_is_the_plain_answer(model, members):
    x = torch.rand(1, 1, 9, 8)
    image = enlarge_ensemble(model, x, PAIR, (22, 13), size=1, members=members)
    torch.testing.assert_close(image, enlarge(model, x, PAIR))


@pytest.mark.parametrize("aggregate", ["mean", "median"])
def test_members_without_residual_of_views_are_all_bicubic(model, aggregate):
    x = torch.rand(1, 1, 9, 8)
    image = enlarge_ensemble(without_residual(model), x, PAIR, (22, 13), size=8, members="views", aggregate=aggregate)
    torch.testing.assert_close(image, bicubic(x, PAIR).clamp(0, 1), atol=1e-5, rtol=0)


def test_eight_views_commute_with_mirrors_and_turns(model):
    x = torch.rand(1, 1, 9, 8)
    image = enlarge_ensemble(model, x, PAIR, (22, 13), size=8, members="views", aggregate="mean")
    mirrored = enlarge_ensemble(model, x.flip(3), PAIR, (22, 13), size=8, members="views", aggregate="mean")
    turned = enlarge_ensemble(model, x.mT.contiguous(), PAIR[::-1], (13, 22), size=8, members="views", aggregate="mean")
    torch.testing.assert_close(image, mirrored.flip(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(image, turned.mT, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 9, "members": "views"}, "9 members were asked for; allowed are 1 to 8 views"),
        ({"size": 0}, "0 members"),
        ({"size": 10**9}, "1000000000 members"),
        ({"size": 2, "aggregate": "mode"}, "'mode'"),
    ],
)
def test_an_ensemble_that_cannot_be_is_refused(model, options, message):
    with pytest.raises(CcnetError, match=message):
        enlarge_ensemble(model, torch.rand(1, 1, 9, 8), PAIR, (22, 13), **options)
