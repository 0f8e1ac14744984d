"""The layer as its users meet it: any scale and size, known kernels, and clear errors."""

import copy
from fractions import Fraction

import numpy as np
import pytest
import torch

from ccnet import CCConv2d, CcnetError, InternalNet, available_backends, cc_conv2d
from ccnet.backends.discrete import ROWS_MIN_IMAGES


@pytest.mark.parametrize(
    ("scale", "out_size", "expected"),
    [
        (1, None, (8, 6)),
        (0.5, None, (4, 3)),
        (Fraction(5, 7), None, (6, 5)),
        ((2, Fraction(1, 3)), None, (16, 2)),
        (Fraction(5, 7), (3, 9), (3, 9)),
        (1.37, 4, (4, 4)),
        ([2, np.float32(0.5)], None, (16, 3)),
        (1, [3, np.int64(9)], (3, 9)),
        (1, torch.Size((3, 9)), (3, 9)),
    ],
)
def test_output_size_is_the_ceil_of_scale_times_size_or_what_was_asked(scale, out_size, expected):
    assert CCConv2d(2, 3, 3)(torch.zeros(1, 2, 8, 6), scale, out_size).shape == (1, 3, *expected)


def test_a_known_kernel_can_be_plugged_in():
    # A linear ramp is reproduced by any interpolating kernel, here the tent, away from the border.
    def tent(points):
        return (1 - points.abs()).clamp(min=0).prod(dim=1).view(-1, 1, 1)

    ramp = torch.arange(12, dtype=torch.float64).view(1, 1, 1, 12).expand(1, 1, 12, 12)
    out = cc_conv2d(ramp, tent, 2, scale=Fraction(5, 3))
    inner = out[0, 0, 5, 2:-2]
    torch.testing.assert_close(inner.diff(), torch.full_like(inner.diff(), 3 / 5))


def test_bias_is_added_to_every_pixel():
    layer = CCConv2d(1, 2, 3)
    layer.bias = torch.nn.Parameter(torch.tensor([1.0, -2.0]))
    out = layer(torch.zeros(1, 1, 4, 4), Fraction(3, 4))
    assert out[0, 0].unique().tolist() == [1.0]
    assert out[0, 1].unique().tolist() == [-2.0]
    assert CCConv2d(1, 2, 3, bias=False).bias is None


def test_bias_starts_as_that_of_a_conv2d():
    torch.manual_seed(0)
    bias = CCConv2d(16, 2000, 3).bias
    assert bias is not None
    bound = (16 * 3 * 3) ** -0.5
    assert float(bias.detach().abs().max()) == pytest.approx(bound, rel=0.01)
    assert float(bias.detach().std()) == pytest.approx(bound / 3**0.5, rel=0.05)


def test_backend_of_a_call_overrides_that_of_the_layer():
    layer, points = CCConv2d(1, 1, 3, backend="standard"), []
    layer.kernel.register_forward_hook(lambda _net, arguments, _out: points.append(len(arguments[0])))
    x = torch.rand(1, 1, 6, 6)
    outs = [layer(x, Fraction(2, 3)), layer(x, Fraction(2, 3), backend="discrete")]
    assert points == [4 * 4, 2 * 2]  # one an output pixel, one a phase
    torch.testing.assert_close(*outs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_layer_trains_in_every_dtype_it_is_moved_to(dtype):
    layer = CCConv2d(1, 1, 3).to(dtype)
    out = layer(torch.rand(1, 1, 5, 5, dtype=dtype), 0.7)
    out.sum().backward()
    assert out.dtype == dtype
    assert all(p.grad is not None and p.grad.dtype == dtype for p in layer.parameters())


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("scale", [1, Fraction(4, 5)])
@pytest.mark.parametrize("images", [2, ROWS_MIN_IMAGES])
def test_autocast_is_what_it_is_for_conv2d(backend, scale, images):
    torch.manual_seed(0)
    layer, x = CCConv2d(2, 3, 3, backend=backend), torch.randn(images, 2, 6, 6, requires_grad=True)
    exact = copy.deepcopy(layer).double()
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x, scale)
        again = layer(x.bfloat16(), scale)
        double = exact(x.double(), scale)
    out.float().sum().backward()
    assert out.dtype == again.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in (x, *layer.parameters()))
    assert double.dtype == torch.float64  # autocast leaves it alone
    torch.testing.assert_close(out, again)
    torch.testing.assert_close(out.double(), exact(x.double(), scale), rtol=0.02, atol=0.02)


def test_the_kernel_is_evaluated_as_without_autocast():
    layer, points = CCConv2d(2, 3, 3), []
    layer.kernel.register_forward_hook(lambda _net, arguments, out: points.append((arguments[0], out)))
    with torch.autocast("cpu", torch.bfloat16):
        layer(torch.randn(1, 2, 6, 6), Fraction(4, 5))
    layer(torch.randn(1, 2, 6, 6), Fraction(4, 5))
    for inside, outside in zip(*points, strict=True):
        assert inside.dtype == torch.float32
        assert torch.equal(inside, outside)


BAD_CALLS = {
    "scale 0": ({"scale": 0}, "above 0"),
    "negative scale": ({"scale": -1}, "above 0"),
    "scale nan": ({"scale": float("nan")}, "finite"),
    "scale infinite": ({"scale": (1, float("inf"))}, "finite"),
    "output size 0": ({"out_size": 0}, "at least 1"),
    "output size of three": ({"out_size": (1, 2, 3)}, "pair"),
    "output size that is no number": ({"out_size": "4"}, "whole number"),
    "output size of two and a half": ({"out_size": (2.5, 3)}, "whole number"),
    "more output than a memory holds": ({"scale": 1e9}, "at most"),
    "unknown backend": ({"backend": "cuda"}, "no backend"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_bad_call_says_what_is_allowed(arguments, says):
    with pytest.raises(CcnetError, match=says):
        CCConv2d(1, 1, 3)(torch.zeros(1, 1, 4, 4), **arguments)


def test_wrong_channels_are_named():
    with pytest.raises(CcnetError, match=r"takes \[N, 3, H, W\]; got torch.float32 \[1, 4, 5, 5\]"):
        CCConv2d(3, 1, 3)(torch.zeros(1, 4, 5, 5))


def test_an_input_of_another_dtype_than_the_layers_is_refused():
    with pytest.raises(CcnetError, match=r"parameters are torch.float32; got x of torch.float64"):
        CCConv2d(1, 1, 3)(torch.zeros(1, 1, 4, 4, dtype=torch.float64))


@pytest.mark.parametrize("x", [torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.uint8), [[[[1.0]]]]])
def test_what_is_no_batch_of_float_images_is_refused(x):
    with pytest.raises(CcnetError, match="floating point tensor"):
        cc_conv2d(x, lambda points: points, 3)
    with pytest.raises(CcnetError):
        CCConv2d(1, 1, 3)(x)


def test_a_kernel_that_is_no_function_and_a_bias_of_another_shape_are_refused():
    x = torch.zeros(1, 1, 4, 4)
    with pytest.raises(CcnetError, match="function of points"):
        cc_conv2d(x, torch.zeros(1, 1, 3, 3), 3)  # type: ignore[arg-type]
    for bias in (torch.zeros(1), torch.zeros(3), torch.zeros(2, 1)):
        with pytest.raises(CcnetError, match=r"one value an output channel, \[2\]"):
            cc_conv2d(x, lambda points: points[:, :1, None].expand(-1, 2, 1), 3, bias=bias)


@pytest.mark.parametrize(
    "arguments",
    [
        {"in_channels": 0},
        {"in_channels": 2.0},
        {"out_channels": -1},
        {"kernel_size": 0},
        {"kernel_size": 3.0},
        {"kernel_size": (3, 3, 3)},
        {"kernel_input": "absolute"},
        {"hidden": ()},
        {"hidden": 16},
        {"hidden": (16, 0)},
        {"backend": "none"},
    ],
)
def test_a_bad_layer_is_refused_when_it_is_made(arguments):
    with pytest.raises(CcnetError):
        CCConv2d(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, **arguments})


def test_a_copy_and_a_layer_with_its_state_give_the_same_output():
    layer, x = CCConv2d(2, 3, (3, 4)), torch.rand(1, 2, 6, 6)
    restored = CCConv2d(2, 3, (3, 4))
    restored.load_state_dict(layer.state_dict())
    for other in (restored, copy.deepcopy(layer)):
        assert torch.equal(other(x, 0.8), layer(x, 0.8))
    assert set(layer.state_dict()) == {"bias", *(f"kernel.{name}" for name in layer.kernel.state_dict())}


@pytest.mark.parametrize("grad", [True, False])
def test_an_internal_net_of_another_input_or_shape_is_refused(grad):
    x = torch.zeros(1, 2, 6, 6)
    with torch.set_grad_enabled(grad):
        for net in (
            InternalNet(2, 4, (3, 3), kernel_input="distance"),
            InternalNet(2, 4, (2, 3)),
            InternalNet(3, 4, (3, 3)),
        ):
            with pytest.raises(CcnetError, match="the kernel must map points"):
                cc_conv2d(x, net, 3, scale=Fraction(2, 3), kernel_input="offset")
