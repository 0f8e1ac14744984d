"""The layer as its users meet it: any scale and size, known kernels, and clear errors."""

from fractions import Fraction

import pytest
import torch

from ccnet import CCConv2d, CcnetError, cc_conv2d


@pytest.mark.parametrize(
    ("scale", "out_size", "expected"),
    [
        (1, None, (8, 6)),
        (0.5, None, (4, 3)),
        (Fraction(5, 7), None, (6, 5)),
        ((2, Fraction(1, 3)), None, (16, 2)),
        (Fraction(5, 7), (3, 9), (3, 9)),
        (1.37, 4, (4, 4)),
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
    with torch.no_grad():
        layer.bias.copy_(torch.tensor([1.0, -2.0]))
    out = layer(torch.zeros(1, 1, 4, 4), Fraction(3, 4))
    assert out[0, 0].unique().tolist() == [1.0]
    assert out[0, 1].unique().tolist() == [-2.0]
    assert CCConv2d(1, 2, 3, bias=False).bias is None


def test_backend_of_a_call_overrides_that_of_the_layer():
    layer = CCConv2d(1, 1, 3, backend="standard")
    x = torch.rand(1, 1, 5, 5)
    torch.testing.assert_close(layer(x, Fraction(3, 5)), layer(x, Fraction(3, 5), backend="chunked"))


def test_the_layer_trains_in_every_dtype_it_is_moved_to():
    for dtype in (torch.float32, torch.float64):
        layer = CCConv2d(1, 1, 3).to(dtype)
        layer(torch.rand(1, 1, 5, 5, dtype=dtype), 0.7).sum().backward()
        assert all(p.grad is not None and p.grad.dtype == dtype for p in layer.parameters())


BAD_CALLS = {
    "scale 0": ({"scale": 0}, "above 0"),
    "negative scale": ({"scale": -1}, "above 0"),
    "scale nan": ({"scale": float("nan")}, "finite"),
    "scale infinite": ({"scale": (1, float("inf"))}, "finite"),
    "output size 0": ({"out_size": 0}, "at least 1"),
    "output size of three": ({"out_size": (1, 2, 3)}, "pair"),
    "unknown backend": ({"backend": "cuda"}, "no backend"),
}


@pytest.mark.parametrize(("arguments", "says"), BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_a_bad_call_says_what_is_allowed(arguments, says):
    with pytest.raises(CcnetError, match=says):
        CCConv2d(1, 1, 3)(torch.zeros(1, 1, 4, 4), **arguments)


def test_wrong_channels_are_named():
    with pytest.raises(CcnetError, match=r"takes \[N, 3, H, W\]; got \[1, 4, 5, 5\]"):
        CCConv2d(3, 1, 3)(torch.zeros(1, 4, 5, 5))


def test_a_tensor_that_is_no_batch_of_float_images_is_refused():
    for x in (torch.zeros(3, 4, 4), torch.zeros(1, 1, 4, 4, dtype=torch.uint8)):
        with pytest.raises(CcnetError):
            cc_conv2d(x, lambda points: points, 3)


@pytest.mark.parametrize(
    "arguments",
    [
        {"in_channels": 0},
        {"out_channels": -1},
        {"kernel_size": 0},
        {"kernel_size": (3, 3, 3)},
        {"kernel_input": "absolute"},
        {"hidden": ()},
        {"backend": "none"},
    ],
)
def test_a_bad_layer_is_refused_when_it_is_made(arguments):
    with pytest.raises(CcnetError):
        CCConv2d(**{"in_channels": 1, "out_channels": 1, "kernel_size": 3, **arguments})
