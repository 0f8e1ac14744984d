"""The kernel compiled for a Hopper GPU, which needs none: what it loads with and multiplies with, and what it keeps."""

import subprocess
from pathlib import Path

import pytest

from ccnet.gpu.tiling import Precision, TileSizes, candidate_tiles, default_tile

triton = pytest.importorskip("triton", reason="Triton is not installed")

NVIDIA = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
pytestmark = pytest.mark.skipif(not (NVIDIA / "ptxas").exists(), reason="this build of Triton brings no ptxas")

SHARED_BYTES = 227 * 1024  # that a block can have on Hopper


def compiled(in_channels: int, out_channels: int, taps: int, size: TileSizes, precision: Precision):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ccnet.gpu import kernel

    names, element = kernel._layer.arg_names, "*bf16" if precision == "bf16" else "*fp32"
    constants = {
        "TAPS_HEIGHT": taps, "TAPS_WIDTH": taps, "IN_CHANNELS": in_channels, "OUT_CHANNELS": out_channels,
        "MAP_PIXELS": 0, "ROWS": size.rows, "CHANNELS": size.channels, "DEPTH": size.depth,
        "INPUT_PRECISION": "tf32" if precision == "tf32" else "ieee", "WIDEN": False,
    }  # fmt: skip
    kinds = {"x": element, "weights": element, "y": element, "bias": "*fp32", "image_bits": "i32"}
    signature = {name: "constexpr" if name in constants else kinds.get(name, "*i32") for name in names}
    aligned = {
        (i,): [["tt.divisibility", 16]] for i, name in enumerate(names) if signature[name].startswith("*")
    }  # as torch's allocations are
    source = ASTSource(kernel._layer, signature, {(names.index(n),): v for n, v in constants.items()}, aligned)
    options = {"num_warps": size.warps, "num_stages": size.stages, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize("rows_per_slot", [4, 1000], ids=["one image", "many images"])
def test_tiles_load_16_bytes_a_thread_ahead_of_time_and_multiply_in_matrix_units(rows_per_slot, precision, tmp_path):
    size = default_tile(rows_per_slot, 64, 64, precision)
    binary = compiled(64, 64, 3, size, precision)
    ptx = binary.asm["ptx"]
    assert "cp.async.cg.shared.global" in ptx  # .cg: 16 bytes at a time, to shared memory, while products run
    assert ("wgmma.mma_async" if size.rows >= 64 else "mma.sync.aligned") in ptx
    assert binary.metadata.shared <= SHARED_BYTES
    file = tmp_path / "kernel.cubin"
    file.write_bytes(binary.asm["cubin"])
    usage = subprocess.run(
        [NVIDIA / "cuobjdump", "-res-usage", file], capture_output=True, text=True, check=True
    ).stdout
    assert "STACK:0 " in usage, f"spilled to local memory: {usage}"


def test_exact_products_stay_out_of_the_matrix_units():
    ptx = compiled(64, 64, 3, default_tile(4, 64, 64, "ieee"), "ieee").asm["ptx"]
    assert "fma.rn.f32" in ptx
    assert "mma" not in ptx


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bf16", "tf32", "ieee"])
@pytest.mark.parametrize(("in_channels", "out_channels", "taps"), [(16, 32, 3), (32, 32, 4), (32, 64, 3), (64, 64, 4)])
def test_every_candidate_compiles_and_fits(in_channels, out_channels, taps, precision):
    for rows_per_slot in (4, 1000):
        for size in candidate_tiles(rows_per_slot, in_channels, out_channels, precision):
            assert compiled(in_channels, out_channels, taps, size, precision).metadata.shared <= SHARED_BYTES
