"""The kernel beside the specification, on the CPU under Triton's interpreter or on a GPU.

`test_gpu.py` runs this file in a process of its own, because Triton decides whether to interpret when it is imported.
By hand: `TRITON_INTERPRET=1 python -m pytest tests/ccnet/gpu_kernel_checks.py`, and on a GPU without the variable.
"""

import math
from fractions import Fraction

import pytest
import torch
from torch import Tensor

from ccnet import CCConv2d
from ccnet.backends import standard
from ccnet.gpu.tables import LayerTables
from ccnet.gpu.tiling import TileSizes
from ccnet.gpu.weights import slot_weights
from ccnet.grid import AxisGrid
from ccnet.prefixes import Node

kernel = pytest.importorskip("ccnet.gpu.kernel", reason="Triton is not installed", exc_type=ImportError)

F = Fraction
SMALL = TileSizes(16, 16, 16, 4, 2)
# ||out - ref|| / ||ref|| of one layer; the interpreter multiplies tf32 exactly
TOLERANCE = {"ieee": 1e-6, "tf32": 2e-3, "bf16": 1e-2}
CASES: dict[str, tuple[tuple[int, int], tuple[object, object], tuple[int, int], tuple[int, int] | None]] = {
    # (in size, scale, kernel size, out size or None)
    "odd scales": ((6, 7), (F(3, 5), F(5, 7)), (3, 3), None),
    "upscaling": ((4, 3), (F(7, 4), F(3, 2)), (4, 4), None),
    "numerator above the output size": ((7, 6), (F(189, 250), F(75, 98)), (3, 3), None),
    "float scales": ((5, 6), (0.731, 1.37), (3, 2), None),
    "even and rectangular kernel": ((8, 5), (F(1, 2), F(5, 6)), (4, 3), None),
    "one phase": ((9, 8), (F(1, 3), F(1, 2)), (3, 4), None),
    "scale one": ((5, 6), (F(1), F(1)), (3, 3), None),
    "kernel larger than the input": ((2, 1), (F(3, 2), F(2)), (5, 7), None),
    "output far larger than the scale's": ((3, 3), (F(1, 2), F(1)), (3, 3), (9, 8)),
    "windows beyond any memory's reach": ((4, 5), (F(1, 10**30), F(3, 10**12)), (3, 4), (3, 5)),
    "every window outside": ((2, 3), (1e-300, 1e-9), (3, 2), (2, 2)),
    "output of one pixel": ((6, 7), (F(5, 6), F(2)), (3, 4), (1, 1)),
}


@pytest.fixture
def device() -> str:
    if kernel.INTERPRETED:
        return "cpu"
    if not torch.cuda.is_available():
        pytest.skip("needs a GPU, or TRITON_INTERPRET=1")
    return "cuda"


def make_node(parent, in_size, scale, kernel_size, out_size=None) -> Node:
    out = out_size or (None, None)
    axes = [AxisGrid.make(i, o, s, k) for i, o, s, k in zip(in_size, out, scale, kernel_size, strict=True)]
    return Node(parent, axes[0], axes[1])


def make_layer(in_channels: int, out_channels: int, kernel_size, kernel_input="offset") -> CCConv2d:
    torch.manual_seed(20061120)
    return CCConv2d(in_channels, out_channels, kernel_size, kernel_input=kernel_input)


def bias_of(layer: CCConv2d) -> Tensor:
    assert layer.bias is not None
    return layer.bias.detach()


def to_rows(maps: list[Tensor], images: int, channels: int) -> Tensor:
    """Maps [N, C, H, W] of different sizes as one ragged buffer [pixels, images, channels], padded with NaN images."""
    rows = torch.cat([m.permute(2, 3, 0, 1).flatten(0, 1) for m in maps])
    padded = torch.zeros(len(rows), images, channels, dtype=rows.dtype)
    padded[:, : rows.shape[1], : rows.shape[2]] = rows
    padded[:, rows.shape[1] :] = torch.nan  # must not reach any other image
    return padded


def run(layer, nodes, maps, device, *, precision="ieee", size=SMALL, backwards=False) -> list[Tensor]:
    """The nodes' output maps [N, C_out, H', W'] in float64, all from one launch into a poisoned buffer."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    images = len(maps[0])
    bits = (images - 1).bit_length()
    channels = -(-layer.in_channels // size.depth) * size.depth
    tables = LayerTables.make(nodes, [tuple(m.shape[2:]) for m in maps])
    weights = slot_weights(layer, tables.slots, dtype, padded_channels=channels).to(device)
    x = to_rows(maps, 1 << bits, channels).to(device, dtype)
    tiles = tables.tiles(1 << bits, size.rows)
    tiles = (tiles.flip(0) if backwards else tiles).contiguous().to(device)
    y = torch.full((tables.out_pixels, 1 << bits, layer.out_channels), torch.nan, dtype=dtype, device=device)
    kernel.apply_layer(
        x, weights, bias_of(layer).to(device), tables.to(x.device), tiles, y, size,
        image_bits=bits, tf32=precision == "tf32",
    )  # fmt: skip
    out, begin = [], 0
    for node in nodes:
        grid = (node.vertical.out_size, node.horizontal.out_size)
        part = y[begin : begin + math.prod(grid), :images].cpu().double()
        out.append(part.permute(1, 2, 0).unflatten(2, grid))
        begin += math.prod(grid)
    assert begin == len(y)
    return out


def specification(layer, nodes, maps) -> list[Tensor]:
    exact = layer.double()
    out = []
    for node in nodes:
        x = maps[node.parent].double()
        y = standard.apply(x, exact.kernel, node.vertical, node.horizontal, exact.kernel_input)
        out.append((y + exact.bias.view(-1, 1, 1)).relu().detach())
    layer.float()
    return out


def assert_near(actual: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """The same shapes, no NaN, and a relative error of every map within the tolerance."""
    for a, e in zip(actual, expected, strict=True):
        assert a.shape == e.shape
        assert not a.isnan().any(), "not every element was written, or padding was read"
        error = float((a - e).norm() / e.norm())
        assert error <= tolerance, f"relative error {error:.2e}, allowed {tolerance:.0e}"


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_kernel_agrees_with_the_specification(case, device, generator):
    size, scale, kernel_size, out = case
    layer = make_layer(2, 16, kernel_size, "distance" if case is CASES["odd scales"] else "offset")
    nodes = [make_node(0, size, scale, kernel_size, out)]
    maps = [torch.randn(2, 2, *size, generator=generator)]
    assert_near(run(layer, nodes, maps, device), specification(layer, nodes, maps), TOLERANCE["ieee"])


@pytest.mark.parametrize("images", [1, 3])
def test_members_of_different_shapes_scales_and_parents_share_one_launch(images, device, generator):
    layer = make_layer(16, 32, (3, 3))
    nodes = [
        make_node(1, (7, 4), (F(2, 3), F(2, 3)), (3, 3)),
        make_node(0, (5, 6), (F(2, 3), F(4, 5)), (3, 3)),
        make_node(2, (3, 3), (F(1), F(1)), (3, 3)),
        make_node(0, (5, 6), (F(75, 98), F(1, 2)), (3, 3)),
        make_node(1, (7, 4), (F(1), F(1)), (3, 3)),  # meets the weights of another node
    ]
    maps = [torch.randn(images, 16, *size, generator=generator) for size in ((5, 6), (7, 4), (3, 3))]
    launches = []
    launch = type(kernel._layer).__getitem__

    def counted(function, shape):
        launches.append(shape)
        return launch(function, shape)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(kernel._layer), "__getitem__", counted)
        actual = run(layer, nodes, maps, device)
    assert len(launches) == 1
    assert_near(actual, specification(layer, nodes, maps), TOLERANCE["ieee"])


@pytest.mark.parametrize(
    "size",
    [
        TileSizes(16, 32, 32, 4, 2),
        TileSizes(32, 16, 32, 2, 3),
        TileSizes(64, 32, 16, 4, 4),
        TileSizes(128, 16, 16, 8, 3),
    ],
    ids=str,
)
@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
def test_every_cut_into_tiles_and_every_precision_gives_the_same_layer(precision, size, device, generator):
    layer = make_layer(32, 32, (3, 2))
    nodes = [make_node(0, (5, 6), (F(1), F(1)), (3, 2)), make_node(0, (5, 6), (F(2, 3), F(1)), (3, 2))]
    maps = [torch.randn(4, 32, 5, 6, generator=generator)]
    actual = run(layer, nodes, maps, device, precision=precision, size=size)
    assert_near(actual, specification(layer, nodes, maps), TOLERANCE[precision])


def test_a_tile_writes_nothing_of_another_slot_whichever_comes_first(device, generator):
    layer, maps = make_layer(16, 16, (2, 2)), [torch.randn(1, 16, 3, 3, generator=generator)]
    nodes = [make_node(0, (3, 3), (F(2, 3), F(1)), (2, 2)), make_node(0, (3, 3), (F(1), F(1)), (2, 2))]
    for backwards in (False, True):
        actual = run(layer, nodes, maps, device, backwards=backwards)
        assert_near(actual, specification(layer, nodes, maps), TOLERANCE["ieee"])


def test_exact_float32_is_no_tf32(device, generator):
    layer = make_layer(32, 32, (3, 3))
    nodes, maps = [make_node(0, (8, 8), (F(1), F(1)), (3, 3))], [torch.randn(2, 32, 8, 8, generator=generator)]
    assert_near(
        run(layer, nodes, maps, device, size=TileSizes(64, 32, 32, 4, 2)), specification(layer, nodes, maps), 1e-6
    )


def test_maps_laid_out_image_by_image_hold_the_same_values(device, generator):
    layer = make_layer(16, 16, (3, 3))
    scales = ((F(1), F(2, 3)), (F(2, 3), F(1)))
    nodes = [make_node(i, (2 + i, 3 - i), scale, (3, 3), (2, 2)) for i, scale in enumerate(scales)]
    maps = [torch.randn(2, 16, 2, 3, generator=generator), torch.randn(2, 16, 3, 2, generator=generator)]
    tables = LayerTables.make(nodes, [(2, 3), (3, 2)])
    weights = slot_weights(layer, tables.slots, torch.float32, padded_channels=16).to(device)
    y = torch.full((2, 2, 4, 16), torch.nan, device=device)
    kernel.apply_layer(
        to_rows(maps, 2, 16).to(device), weights, bias_of(layer).to(device), tables.to(y.device),
        tables.tiles(2, 16).to(device), y, SMALL, image_bits=1, map_pixels=4,
    )  # fmt: skip
    actual = [m.cpu().double().transpose(1, 2).unflatten(2, (2, 2)) for m in y]
    assert_near(actual, specification(layer, nodes, maps), TOLERANCE["ieee"])


def test_a_nan_stays_with_its_image_and_is_not_turned_into_zero(device, generator):
    layer = make_layer(16, 16, (3, 3))
    nodes, x = [make_node(0, (4, 4), (F(1, 2), F(1)), (3, 3))], torch.randn(2, 16, 4, 4, generator=generator)
    x[1, 3, 2, 2] = torch.nan
    (actual,) = run(layer, nodes, [x], device)
    (expected,) = specification(layer, nodes, [x])
    assert expected[1].isnan().any()
    assert not expected[0].isnan().any()
    torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def test_the_comparison_itself_fails_on_a_wrong_or_unwritten_value():
    right = torch.ones(3, 4)
    for value in (1.01, torch.nan):
        wrong = right.clone()
        wrong[1, 2] = value
        with pytest.raises(AssertionError):
            assert_near([wrong], [right], 1e-4)
