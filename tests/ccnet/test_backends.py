"""Every backend is Eq. 1: outputs and all gradients agree with a literal float64 loop."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ccnet import CcnetError, InternalNet, available_backends, cc_conv2d
from ccnet.backends import discrete, get_backend
from ccnet.grid import AxisGrid
from tests.ccnet.literal import literal_cc_conv2d

TOLERANCE = 1e-10
F = Fraction
CASES = {  # (in size, scale, kernel size, out size or None)
    "as in Table 5": ((6, 6), (F(2, 3), F(2, 3)), (3, 3), None),
    "upscaling": ((4, 5), (F(7, 4), F(3, 2)), (4, 4), None),
    "numerator above the output size": ((7, 6), (F(189, 250), F(75, 98)), (3, 3), None),
    "float scales": ((5, 7), (0.731, 1.37), (3, 2), None),
    "another scale and kernel an axis": ((8, 5), (F(1, 2), F(5, 6)), (4, 3), None),
    "one phase on one axis": ((6, 6), (F(1), F(4, 5)), (3, 3), None),
    "one phase on both": ((9, 8), (F(1, 3), F(1, 2)), (3, 4), None),
    "kernel larger than the input": ((2, 1), (F(3, 2), F(2)), (5, 7), None),
    "one pixel": ((1, 1), (F(1), F(1)), (3, 3), None),
    "1x1 kernel": ((5, 5), (F(3, 4), F(2)), (1, 1), None),
    "output far larger than the scale's": ((3, 3), (F(1, 2), F(1)), (3, 3), (9, 8)),
    "output of one pixel": ((6, 7), (F(5, 6), F(2)), (3, 4), (1, 1)),
    "windows that overlap within a phase": ((5, 7), (F(3, 2), F(1, 2)), (4, 5), None),
}


def compare_with_literal(backend, images, channels, size, scale, kernel, kernel_input, generator, out=None):
    """Output, dL/dx and dL/dtheta of a backend beside the loop over n and m, all within 1e-10."""
    exact = tuple(Fraction(s) for s in scale)
    out_size = out or tuple(math.ceil(s * n) for s, n in zip(exact, size, strict=True))
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    net = InternalNet(*channels, kernel, kernel_input=kernel_input).double()
    x = torch.randn(images, channels[0], *size, dtype=torch.float64, generator=generator, requires_grad=True)
    inputs = [x, *net.parameters()]
    expected = literal_cc_conv2d(x, net, kernel, exact, out_size, kernel_input)
    direction = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    actual = cc_conv2d(x, net, kernel, scale=scale, out_size=out_size, kernel_input=kernel_input, backend=backend)
    assert_all_close([actual], [expected])
    expected_gradients = torch.autograd.grad(expected, inputs, direction, allow_unused=True)
    gradients = torch.autograd.grad(actual, inputs, direction, allow_unused=True)
    zero = [torch.zeros_like(i) for i in inputs]
    assert_all_close(
        [z if g is None else g for g, z in zip(gradients, zero, strict=True)],
        [z if g is None else g for g, z in zip(expected_gradients, zero, strict=True)],
    )


def assert_all_close(actual, expected):
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("images", [2, discrete.ROWS_MIN_IMAGES], ids=["few images", "many images"])
@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_backend_agrees_with_the_literal_sum(case, backend, kernel_input, images, generator):
    size, scale, kernel, out = case
    compare_with_literal(backend, images, (2, 3), size, scale, kernel, kernel_input, generator, out)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    backend=st.sampled_from(available_backends()),
    images=st.sampled_from([1, 3, discrete.ROWS_MIN_IMAGES]),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 8), st.integers(1, 8)),
    scale=st.tuples(*[st.fractions(Fraction(1, 5), Fraction(5, 2), max_denominator=12)] * 2),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    kernel_input=st.sampled_from(["distance", "offset"]),
    out=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
)
def test_backend_agrees_with_the_literal_sum_on_random_layers(
    backend, images, channels, size, scale, kernel, kernel_input, out, generator
):
    compare_with_literal(backend, images, channels, size, scale, kernel, kernel_input, generator, out)


def test_the_comparison_itself_fails_on_one_wrong_value():
    right = torch.zeros(3, dtype=torch.float64)
    wrong = right.clone()
    wrong[1] = 1e-9
    with pytest.raises(AssertionError, match="not close"):
        assert_all_close([wrong], [right])


@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("images", [1, discrete.ROWS_MIN_IMAGES])
def test_gradients_pass_gradcheck(backend, kernel_input, images, generator):
    net = InternalNet(1, 2, (2, 3), kernel_input=kernel_input, hidden=(3,)).double()
    x = torch.randn(images, 1, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)

    def layer(x, *_parameters):
        return cc_conv2d(
            x, net, (2, 3), scale=(Fraction(2, 3), Fraction(3, 2)), kernel_input=kernel_input, backend=backend
        )

    assert torch.autograd.gradcheck(layer, (x, *net.parameters()))


@pytest.mark.parametrize(
    ("kernel_size", "scale", "stride", "padding"),
    [
        (3, 1, 1, 1),
        (5, 1, 1, 2),
        (4, Fraction(1, 2), 2, 1),
        (2, Fraction(1, 2), 2, 0),
        (3, Fraction(1, 3), 3, 0),
        (5, Fraction(1, 3), 3, 1),
    ],
)
@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("images", [2, discrete.ROWS_MIN_IMAGES])
def test_scale_one_over_n_of_matching_parity_is_conv2d(backend, images, kernel_size, scale, stride, padding, generator):
    weight = torch.randn(3, 2, kernel_size, kernel_size, dtype=torch.float64, generator=generator)
    x = torch.randn(images, 2, 12, 12, dtype=torch.float64, generator=generator)
    actual = cc_conv2d(
        x, lambda points: weight.expand(len(points), *weight.shape), kernel_size,
        scale=scale, kernel_input="offset", backend=backend,
    )  # fmt: skip
    expected = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    torch.testing.assert_close(actual, expected, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("backend", available_backends())
def test_distances_are_grid_minus_neighbour(backend):
    # An asymmetric kernel: only the neighbour half a pixel to the right (d = g - m = -1/2) counts.
    def right(points):
        return (points[:, 1] < 0).to(points.dtype).view(-1, 1, 1)

    x = torch.tensor([[[[10.0, 20.0, 30.0, 40.0]]]], dtype=torch.float64)
    out = cc_conv2d(x, right, (1, 2), scale=(1, Fraction(1, 2)), backend=backend)
    assert out.tolist() == [[[[20.0, 40.0]]]]


@pytest.mark.parametrize("backend", available_backends())
def test_layout_of_the_input_does_not_matter(backend, generator):
    net = InternalNet(4, 3, (3, 3)).double()
    x = torch.randn(discrete.ROWS_MIN_IMAGES, 4, 8, 8, dtype=torch.float64, generator=generator)
    layouts = [
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
        torch.cat([x, x], dim=3)[:, :, :, 8:],
        x.flip(0).flip(0).expand_as(x),
    ]
    for scale in (1, Fraction(4, 5)):
        outs = [cc_conv2d(a, net, 3, scale=scale, kernel_input="offset", backend=backend) for a in layouts]
        assert_all_close(outs, [outs[0]] * len(outs))


@pytest.mark.parametrize(
    ("images", "scale", "path"),
    [
        (64, 1, "convolution"),
        (1, Fraction(1, 2), "convolution"),
        (64, Fraction(4, 5), "rows"),
        (1, Fraction(4, 5), "gather"),
    ],
)
def test_the_discrete_backend_says_which_path_it_takes(images, scale, path, monkeypatch):
    taken = []
    for name in ("_convolution", "_gather", "_rows"):
        function = getattr(discrete, name)
        monkeypatch.setattr(discrete, name, lambda *a, _f=function, _n=name: taken.append(_n) or _f(*a))
    axis = AxisGrid.make(10, None, scale, 4)
    x = torch.zeros(images, 2, 10, 10)
    assert discrete.choose_path(x, axis, axis) == path
    discrete.apply(x, InternalNet(2, 2, (4, 4)), axis, axis, "offset")
    assert taken == [f"_{path}"]


def test_weights_are_generated_once_a_period():
    points_seen = []
    net = InternalNet(1, 1, (3, 3))

    def counting(points):
        points_seen.append(len(points))
        return net(points)

    cc_conv2d(torch.zeros(1, 1, 30, 30), counting, 3, scale=(Fraction(2, 3), Fraction(4, 5)), kernel_input="offset")
    assert points_seen == [2 * 4]


def test_no_images_give_no_outputs():
    for backend in available_backends():
        out = cc_conv2d(
            torch.zeros(0, 2, 6, 6),
            InternalNet(2, 3, (3, 3)),
            3,
            scale=Fraction(2, 3),
            kernel_input="offset",
            backend=backend,
        )
        assert out.shape == (0, 3, 4, 4)


def test_an_unknown_backend_names_those_there_are():
    with pytest.raises(CcnetError, match=r"standard.*chunked.*discrete"):
        get_backend("fast")


@pytest.mark.parametrize("backend", available_backends())
def test_a_kernel_of_the_wrong_shape_is_refused(backend):
    with pytest.raises(CcnetError, match="kernel must"):
        cc_conv2d(torch.zeros(1, 1, 4, 4), lambda points: points, 3, kernel_input="offset", backend=backend)
