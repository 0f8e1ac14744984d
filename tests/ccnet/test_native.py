"""The native kernels: every instruction set computes Eq. 1, and the same bits whatever else is in the batch."""

import shutil
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from ccnet import CCConv2d, CcnetError, InternalNet, available_backends, cc_conv2d
from ccnet.backends import native, resolve_backend
from ccnet.backends.gathering import gather
from ccnet.backends.phases import phase_points
from ccnet.grid import AxisGrid, Scale
from ccnet.native import kernels, library, why_missing

ROOT = Path(__file__).resolve().parents[2]
needs_kernels = pytest.mark.skipif(kernels() is None, reason=f"no native kernels here: {why_missing()}")
KERNELS = kernels()
INSTRUCTION_SETS = () if KERNELS is None else KERNELS.instruction_sets

# (images, C_in, C_out, (H, W), scales, (K_h, K_w)): one channel, panels that are not full, windows wider than the map,
# upscaling, as many phases as pixels, more pixels a phase than are taken together.
LAYERS: dict[str, tuple[int, int, int, tuple[int, int], tuple[Scale, Scale], tuple[int, int]]] = {
    "one channel": (3, 1, 1, (7, 9), (Fraction(2, 3), Fraction(3, 4)), (3, 3)),
    "panels not full": (2, 5, 19, (8, 6), (Fraction(4, 5), Fraction(5, 6)), (2, 4)),
    "several panels": (7, 16, 80, (6, 6), (Fraction(5, 6), 1), (3, 3)),
    "window wider than the map": (1, 3, 17, (3, 4), (Fraction(3, 2), Fraction(1, 2)), (7, 6)),
    "a phase a pixel": (4, 4, 32, (9, 9), (Fraction(189, 200), Fraction(97, 101)), (3, 4)),
    "many pixels a phase": (9, 4, 16, (20, 24), (Fraction(1, 2), Fraction(2, 3)), (4, 3)),
    "one output": (2, 8, 16, (4, 4), (Fraction(1, 4), Fraction(1, 4)), (4, 4)),
}


def draw(case, dtype, generator):
    """x and phase weights of a layer, and its grids."""
    images, in_channels, out_channels, (height, width), scales, kernel = LAYERS[case]
    grids = [
        AxisGrid.make(n, None, scale, taps) for n, scale, taps in zip((height, width), scales, kernel, strict=True)
    ]
    shape = (*(grid.period for grid in grids), out_channels, in_channels, *kernel)
    weights = torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)
    x = torch.randn(images, in_channels, height, width, dtype=torch.float64, generator=generator).to(dtype)
    return x, weights, grids


@pytest.fixture
def instruction_set(request):
    assert KERNELS is not None
    best = KERNELS.instruction_set
    KERNELS.use(request.param)
    yield request.param
    KERNELS.use(best)


@needs_kernels
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS, indirect=True)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("case", LAYERS)
def test_every_instruction_set_agrees_with_gathered_windows_in_both_directions(case, dtype, instruction_set, generator):
    x, weights, grids = draw(case, dtype, generator)
    exact = [tensor.double().requires_grad_() for tensor in (x, weights)]
    expected = gather(exact[0], exact[1], *grids)
    direction = torch.randn(expected.shape, dtype=torch.float64, generator=generator)
    expected_gradients = torch.autograd.grad(expected, exact, direction)

    inputs = [x.requires_grad_(), weights.requires_grad_()]
    out = native.Native.apply(x, native.pack_weights(weights), weights.shape[2], *grids)
    gradients = torch.autograd.grad(out, inputs, direction.to(dtype))
    scale = x[0].numel() ** 0.5
    tolerance = {"rtol": 0, "atol": (1e-5 if dtype == torch.float32 else 1e-13) * scale * len(x)}
    torch.testing.assert_close(out.double(), expected, **tolerance)
    for actual, wanted in zip(gradients, expected_gradients, strict=True):
        torch.testing.assert_close(actual.double(), wanted, **tolerance)


@needs_kernels
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS, indirect=True)
@pytest.mark.parametrize("case", LAYERS)
def test_an_image_gives_the_same_bits_alone_in_a_batch_and_with_any_number_of_threads(case, instruction_set, generator):
    x, weights, grids = draw(case, torch.float32, generator)
    packed, out_channels = native.pack_weights(weights), weights.shape[2]
    together = native.Native.apply(x, packed, out_channels, *grids)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            alone = [native.Native.apply(image[None], packed, out_channels, *grids) for image in x]
            assert torch.equal(torch.cat(alone), together)
    finally:
        torch.set_num_threads(threads)


@needs_kernels
@pytest.mark.parametrize("instruction_set", INSTRUCTION_SETS, indirect=True)
@pytest.mark.parametrize("scale", [Fraction(1), Fraction(5, 6), Fraction(40, 41)], ids=str)
@pytest.mark.parametrize("hidden", [(5,), (16, 16), (3, 20, 4)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_generated_weights_are_the_internal_nets(scale, hidden, dtype, instruction_set):
    net = InternalNet(3, 19, (3, 2), hidden=hidden).to(dtype)
    grids = AxisGrid.make(12, None, scale, 3), AxisGrid.make(11, None, Fraction(2, 3), 2)
    layer = native.describe_layer(*grids, (3, 19), native.PackedNet.make(net, None, dtype))
    out = torch.full((grids[0].period * grids[1].period, 2 * 3 * 2 * 3 * 16), torch.nan, dtype=dtype)
    assert KERNELS is not None
    KERNELS.generate(layer, out)
    with torch.no_grad():
        expected = net.double().packed(phase_points(*grids, "offset", torch.empty(0, dtype=torch.float64))).flatten(1)
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=1e-6 if dtype == torch.float32 else 1e-14)


@needs_kernels
def test_packing_is_undone_by_unpacking(generator):
    _, weights, grids = draw("panels not full", torch.float32, generator)
    packed = native.pack_weights(weights)
    assert packed.shape[1:] == (2, 2, 4, 5, 16)
    assert torch.equal(native.unpack_weights(packed, 19, *grids), weights)
    assert torch.count_nonzero(packed[:, 1, ..., 3:]) == 0


@needs_kernels
@pytest.mark.parametrize("out_channels", [3, 16, 40])
def test_an_internal_net_packs_its_weights_as_packing_them_does(out_channels, generator):
    net = InternalNet(5, out_channels, (2, 3))
    grid = AxisGrid.make(9, None, Fraction(4, 5), 2), AxisGrid.make(9, None, Fraction(5, 7), 3)
    like = torch.zeros(1)
    packed, found = native.packed_weights(net, *grid, "offset", like)
    expected, _ = native.packed_weights(lambda points: net(points), *grid, "offset", like)
    assert found == out_channels
    torch.testing.assert_close(packed, expected)


@needs_kernels
def test_not_a_number_passes_through_the_rectifier():
    layer = CCConv2d(1, 16, 3)
    x = torch.ones(1, 1, 8, 8)
    x[..., 2, 2] = torch.nan
    out = layer.plan((8, 8), Fraction(3, 4), cache=None)(x, relu=True)
    expected = layer(x, Fraction(3, 4)).relu()
    assert torch.equal(out.isnan(), expected.isnan())
    assert out.isnan().any()


def test_without_kernels_the_others_run_and_say_why(monkeypatch):
    monkeypatch.setattr(library, "_load", lambda: "they were not built: install a C++ compiler")
    assert kernels() is None
    assert "native" not in available_backends()
    assert resolve_backend("auto") == "discrete"
    with pytest.raises(CcnetError, match=r"not built: install a C\+\+ compiler.*\"discrete\" works everywhere"):
        cc_conv2d(torch.zeros(1, 1, 4, 4), InternalNet(1, 1, (3, 3)), 3, kernel_input="offset", backend="native")
    layer = CCConv2d(2, 3, 3)
    x = torch.rand(2, 2, 9, 9)
    plan = layer.plan((9, 9), Fraction(2, 3))
    assert plan.path(2) == "gather"
    torch.testing.assert_close(plan(x), layer(x, Fraction(2, 3), backend="standard"))


def test_kernels_of_another_version_are_not_used(monkeypatch, caplog):
    monkeypatch.setattr(library, "_VERSION", -1)
    library._load.cache_clear()
    try:
        with caplog.at_level("INFO", logger="ccnet.native.library"):
            assert kernels() is None
        assert "slower pure torch paths" in caplog.text
        if any((ROOT / "ccnet/native").glob("_kernels*.so")):
            assert "another version" in str(why_missing())
    finally:
        library._load.cache_clear()


@pytest.mark.skipif(not hasattr(sys, "real_prefix") and shutil.which("true") is None, reason="needs a POSIX system")
def test_the_package_is_built_without_a_compiler(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "ccnet/native", tmp_path / "ccnet/native", ignore=shutil.ignore_patterns("*.so"))
    environment = {"PATH": str(tmp_path), "CXX": "no-such-compiler", "CC": "no-such-compiler"}
    build = subprocess.run(
        [sys.executable, "-W", "ignore", "setup.py", "build_ext", "--inplace"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert build.returncode == 0, build.stderr
    assert "no-such-compiler" in build.stdout + build.stderr
    assert not list(tmp_path.glob("ccnet/native/*.so"))
