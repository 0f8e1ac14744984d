"""Every backend is Eq. 1: outputs and all gradients agree with a literal float64 loop."""

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccnet import CCConv2d, CcnetError, InternalNet, available_backends, cc_conv2d
from ccnet.backends import chunked, discrete, get_backend, resolve_backend, row_products
from ccnet.grid import AxisGrid
from ccnet.types import KernelInput
from tests.ccnet.literal import literal_cc_conv2d

TOLERANCE = 1e-10
F = Fraction
CASES: dict[str, tuple[Any, Any, Any, Any]] = {  # (in size, scale, kernel size, out size or None)
    "as in Table 5": ((6, 6), (F(2, 3), F(2, 3)), (3, 3), None),
    "upscaling": ((4, 3), (F(7, 4), F(3, 2)), (4, 4), None),
    "numerator above the output size": ((7, 6), (F(189, 250), F(75, 98)), (3, 3), None),
    "float scales": ((5, 7), (0.731, 1.37), (3, 2), None),
    "another scale and kernel an axis": ((8, 5), (F(1, 2), F(5, 6)), (4, 3), None),
    "one phase on one axis": ((6, 6), (F(1), F(4, 5)), (3, 3), None),
    "one phase on both": ((9, 8), (F(1, 3), F(1, 2)), (3, 4), None),
    "kernel larger than the input": ((2, 1), (F(3, 2), F(2)), (5, 7), None),
    "one pixel": ((1, 1), (F(1), F(1)), (3, 3), None),
    "1x1 kernel": ((5, 5), (F(3, 4), F(2)), (1, 1), None),
    "output far larger than the scale's": ((3, 3), (F(1, 2), F(1)), (3, 3), (9, 8)),
    "windows beyond any memory's reach": ((4, 5), (F(1, 10**30), F(3, 10**12)), (3, 4), (3, 5)),
    "steps that no machine word holds": ((4, 5), (F(1, 2**65), 2.0**-70), (3, 4), None),
    "every window outside": ((2, 3), (1e-300, 1e-9), (3, 2), (2, 2)),
    "output of one pixel": ((6, 7), (F(5, 6), F(2)), (3, 4), (1, 1)),
    "windows that overlap within a phase": ((5, 7), (F(3, 2), F(1, 2)), (4, 5), None),
}


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Chunks of 2 to 5 output px a side, so that these small layers are cut as large ones are."""
    monkeypatch.setattr(chunked, "CHUNK_VALUES", 3000)


def compare_with_literal(images, channels, size, scale, kernel, kernel_input, generator, out=None):
    """Output, dL/dx and dL/dtheta of every backend beside the loop over n and m, all within 1e-10."""
    exact = (Fraction(scale[0]), Fraction(scale[1]))
    out_size = out or (math.ceil(exact[0] * size[0]), math.ceil(exact[1] * size[1]))
    net = network(channels, kernel, kernel_input, generator)
    x = torch.randn(images, channels[0], *size, dtype=torch.float64, generator=generator, requires_grad=True)
    inputs = [x, *net.parameters()]
    expected = literal_cc_conv2d(x, net, kernel, exact, out_size, kernel_input)
    direction = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    expected_gradients = gradients(expected, inputs, direction)
    for backend in available_backends():
        actual = cc_conv2d(x, net, kernel, scale=scale, out_size=out, kernel_input=kernel_input, backend=backend)
        assert_all_close([actual], [expected], backend)
        assert_all_close(gradients(actual, inputs, direction), expected_gradients, backend)


def network(
    channels: tuple[int, int], kernel_size: tuple[int, int], kernel_input: KernelInput, generator
) -> InternalNet:
    """A float64 Internal-Net whose parameters the generator decides."""
    torch.manual_seed(int(torch.randint(2**31, (), generator=generator)))
    return InternalNet(channels[0], channels[1], kernel_size, kernel_input=kernel_input).double()


def gradients(y: Tensor, inputs: Sequence[Tensor], direction: Tensor) -> list[Tensor]:
    """dy/dinput in a direction, 0 for what y does not depend on."""
    found = torch.autograd.grad(y, inputs, direction, allow_unused=True)
    return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]


def assert_all_close(actual: Sequence[Tensor], expected: Sequence[Tensor], name: str = "") -> None:
    """Same number, shapes and dtypes, and values within 1e-10."""
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=0, atol=TOLERANCE, msg=lambda text: f"{name}: {text}")


@pytest.mark.parametrize("images", [2, discrete.ROWS_MIN_IMAGES], ids=["few images", "many images"])
@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_every_backend_agrees_with_the_literal_sum(case, kernel_input, images, generator):
    size, scale, kernel, out = case
    compare_with_literal(images, (2, 3), size, scale, kernel, kernel_input, generator, out)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.sampled_from([1, 3, discrete.ROWS_MIN_IMAGES]),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    scale=st.tuples(*[st.fractions(Fraction(1, 5), Fraction(9, 4), max_denominator=12)] * 2),
    kernel=st.tuples(st.integers(1, 5), st.integers(1, 4)),
    kernel_input=st.sampled_from(["distance", "offset"]),
    out=st.none() | st.tuples(st.integers(1, 8), st.integers(1, 8)),
)
def test_every_backend_agrees_with_the_literal_sum_on_random_layers(
    images, channels, size, scale, kernel, kernel_input, out, generator
):
    compare_with_literal(images, channels, size, scale, kernel, kernel_input, generator, out)


def test_the_comparison_itself_fails_on_one_wrong_value():
    right = torch.zeros(3, dtype=torch.float64)
    wrong = right.clone()
    wrong[1] = 1e-9
    with pytest.raises(AssertionError, match=r"discrete: .*not close"):
        assert_all_close([wrong], [right], "discrete")


@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("images", [1, discrete.ROWS_MIN_IMAGES])
def test_gradients_of_first_and_second_order_agree_with_differences(backend, kernel_input, images, generator):
    net = network((1, 2), (1, 2), kernel_input, generator)
    x = torch.randn(images, 1, 3, 2, dtype=torch.float64, generator=generator, requires_grad=True)

    def layer(x, *_parameters):
        scale = (Fraction(2, 3), Fraction(3, 2))
        return cc_conv2d(x, net, (1, 2), scale=scale, kernel_input=kernel_input, backend=backend)

    inputs = (x, *net.parameters())
    assert torch.autograd.gradcheck(layer, inputs, fast_mode=True)
    assert torch.autograd.gradgradcheck(layer, inputs, fast_mode=True)


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("scale", [1, Fraction(4, 5)])
def test_gradients_do_not_depend_on_what_else_is_asked_for(backend, scale, generator):
    net = network((2, 3), (3, 3), "offset", generator)
    x = torch.randn(discrete.ROWS_MIN_IMAGES, 2, 6, 6, dtype=torch.float64, generator=generator)

    def differentiate(x: Tensor, inputs: Sequence[Tensor], create_graph: bool) -> list[Tensor]:
        y = cc_conv2d(x, net, 3, scale=scale, kernel_input="offset", backend=backend)
        found = torch.autograd.grad(y.square().sum(), inputs, create_graph=create_graph, allow_unused=True)
        return [torch.zeros_like(i) if g is None else g for g, i in zip(found, inputs, strict=True)]

    variable, parameters = x.clone().requires_grad_(), list(net.parameters())
    of_x, *of_parameters = differentiate(variable, [variable, *parameters], create_graph=False)
    for create_graph in (False, True):
        assert_all_close(differentiate(x, parameters, create_graph), of_parameters)
        net.requires_grad_(False)
        assert_all_close(differentiate(variable, [variable], create_graph), [of_x])
        net.requires_grad_(True)


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
def test_scale_one_over_n_of_matching_parity_is_conv2d(backend, kernel_size, scale, stride, padding, generator):
    weight = torch.randn(3, 2, kernel_size, kernel_size, dtype=torch.float64, generator=generator)
    x = torch.randn(2, 2, 12, 12, dtype=torch.float64, generator=generator)
    actual = cc_conv2d(
        x, lambda points: weight.expand(len(points), *weight.shape), kernel_size,
        scale=scale, kernel_input="offset", backend=backend,
    )  # fmt: skip
    expected = torch.nn.functional.conv2d(x, weight, stride=stride, padding=padding)
    assert_all_close([actual], [expected])


@pytest.mark.parametrize("backend", available_backends())
def test_distances_are_grid_minus_neighbour(backend):
    # An asymmetric kernel: only the neighbour half a pixel to the right (d = g - m = -1/2) counts.
    def right(points):
        return (points[:, 1] < 0).to(points.dtype).view(-1, 1, 1)

    x = torch.tensor([[[[10.0, 20.0, 30.0, 40.0]]]], dtype=torch.float64)
    out = cc_conv2d(x, right, (1, 2), scale=(1, Fraction(1, 2)), backend=backend)
    assert out.tolist() == [[[[20.0, 40.0]]]]


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("out_channels", [1, 3])  # with one output channel torch reads another layout into the strides
def test_layout_of_the_input_does_not_matter(backend, out_channels, generator):
    net = network((4, out_channels), (3, 3), "offset", generator)
    x = torch.randn(discrete.ROWS_MIN_IMAGES, 4, 6, 7, dtype=torch.float64, generator=generator)
    layouts = [
        x,
        x.contiguous(memory_format=torch.channels_last),
        x.permute(2, 3, 1, 0).contiguous().permute(3, 2, 0, 1),
        torch.cat([x, x], dim=3)[:, :, :, 7:],
        x.repeat_interleave(2, dim=0)[::2],
    ]
    for scale in (1, Fraction(4, 5)):
        results = []
        for layout in layouts:
            variable = layout.detach().requires_grad_()
            y = cc_conv2d(variable, net, 3, scale=scale, kernel_input="offset", backend=backend)
            results.append([y, *torch.autograd.grad(y.square().sum(), [variable, *net.parameters()])])
        for result in results[1:]:
            assert_all_close(result, results[0])


@pytest.mark.parametrize("backend", available_backends())
@pytest.mark.parametrize("images", [2, discrete.ROWS_MIN_IMAGES])
def test_half_precision_keeps_the_input_dtype_and_gives_the_kernel_exact_points(backend, images, generator):
    net = network((2, 3), (3, 3), "distance", generator)
    x = torch.randn(images, 2, 6, 6, dtype=torch.float64, generator=generator).bfloat16()
    seen = []

    def kernel(points):
        seen.append(points.dtype)
        return net(points)

    for scale in (1, Fraction(4, 5)):
        out = cc_conv2d(x, kernel, 3, scale=scale, backend=backend)
        expected = cc_conv2d(x.double(), net, 3, scale=scale, backend="standard")
        assert out.dtype == torch.bfloat16
        torch.testing.assert_close(out.double(), expected, rtol=0.02, atol=0.02)
    assert set(seen) == {torch.float32}


@pytest.mark.parametrize(
    ("images", "scale", "out_size", "path"),
    [
        (64, 1, None, "convolution"),
        (1, Fraction(1, 2), None, "convolution"),
        (64, Fraction(4, 5), None, "rows"),
        (1, Fraction(4, 5), None, "gather"),
        (64, Fraction(1, 100), 3, "rows"),  # one phase, but windows far outside
        (1, Fraction(1, 100), 3, "gather"),
    ],
)
def test_the_discrete_backend_says_which_path_it_takes(images, scale, out_size, path, monkeypatch):
    taken: list[str] = []
    names = {"_convolution": "convolution", "gather": "gather", "_rows": "rows"}

    def observed(function, name):
        def call(*arguments):
            taken.append(name)
            return function(*arguments)

        return call

    for function, name in names.items():
        monkeypatch.setattr(discrete, function, observed(getattr(discrete, function), name))
    axis = AxisGrid.make(10, out_size, scale, 4)
    x = torch.zeros(images, 2, 10, 10)
    assert discrete.choose_path(len(x), x.device, axis, axis) == path
    discrete.apply(x, InternalNet(2, 2, (4, 4)), axis, axis, "offset")
    assert taken == [path]


def test_weights_are_generated_once_a_period():
    points_seen = []
    net = InternalNet(1, 1, (3, 3))

    def counting(points):
        points_seen.append(len(points))
        return net(points)

    cc_conv2d(torch.zeros(1, 1, 30, 30), counting, 3, scale=(Fraction(2, 3), Fraction(4, 5)), kernel_input="offset")
    assert points_seen == [2 * 4]


@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
def test_the_chunked_backend_keeps_neither_weights_nor_neighbours(kernel_input, monkeypatch):
    kept: dict[int, int] = {}  # bytes of each storage that waits for the backward pass

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    net = InternalNet(2, 3, (3, 3), kernel_input=kernel_input)
    x = torch.rand(4, 2, 40, 40, requires_grad=True)
    monkeypatch.setattr(chunked, "CHUNK_VALUES", 50_000)
    totals = {}
    for backend in ("standard", "chunked"):
        kept.clear()
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            cc_conv2d(x, net, 3, scale=0.9, kernel_input=kernel_input, backend=backend)
        totals[backend] = sum(kept.values())
    assert totals["chunked"] <= 2 * x.untyped_storage().nbytes()
    assert totals["standard"] > 10 * totals["chunked"]


def test_chunks_of_weights_and_neighbours_stay_under_their_bound(monkeypatch):
    points_of_chunks = []
    net = InternalNet(2, 3, (3, 3))

    def counting(points):
        points_of_chunks.append(len(points))
        return net(points)

    monkeypatch.setattr(chunked, "CHUNK_VALUES", 5000)
    x = torch.zeros(4, 2, 20, 20)
    cc_conv2d(x, counting, 3, kernel_input="offset", backend="chunked")
    values_per_point = (4 + 3) * 2 * 3 * 3  # (images + C_out) C_in K_h K_w
    assert max(points_of_chunks) * values_per_point <= 5000
    assert sum(points_of_chunks) == 20 * 20 + 1  # every output pixel once, and one point to learn C_out


@pytest.mark.parametrize("band_bytes", [1, 300, 5000])
@pytest.mark.parametrize("scale", [Fraction(1, 2), Fraction(4, 5), Fraction(5, 3)], ids=str)
def test_bands_of_rows_change_nothing(band_bytes, scale, generator, monkeypatch):
    layer = CCConv2d(2, 3, (4, 3), backend="discrete").double()
    x = torch.randn(20, 2, 13, 7, dtype=torch.float64, generator=generator, requires_grad=True)
    expected = layer(x, scale, backend="standard")
    direction = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    wanted = gradients(expected, [x, *layer.parameters()], direction)
    monkeypatch.setattr(row_products, "BAND_BYTES", band_bytes)
    y = layer(x, scale)
    assert_all_close([y], [expected])
    assert_all_close(gradients(y, [x, *layer.parameters()], direction), wanted)


@pytest.mark.parametrize("backend", available_backends())
def test_no_images_give_no_outputs(backend):
    net = InternalNet(2, 3, (3, 3))
    out = cc_conv2d(torch.zeros(0, 2, 6, 6), net, 3, scale=Fraction(2, 3), kernel_input="offset", backend=backend)
    assert out.shape == (0, 3, 4, 4)


def test_an_unknown_backend_names_those_there_are():
    with pytest.raises(CcnetError, match=r"standard.*chunked.*discrete"):
        get_backend("fast")
    assert resolve_backend("auto") == ("native" if "native" in available_backends() else "discrete")


@pytest.mark.parametrize("backend", available_backends())
def test_a_kernel_of_the_wrong_shape_is_refused(backend):
    for kernel in (lambda points: points, lambda points: points.numpy()):
        with pytest.raises(CcnetError, match="kernel must"):
            cc_conv2d(torch.zeros(1, 1, 4, 4), kernel, 3, kernel_input="offset", backend=backend)
