"""The one Triton kernel: a layer of all members of an ensemble, as matrix products over neighbours read in place.

The identity: the output pixels of one slot share their weights (see `ccnet.gpu.tables`), so with the taps' input
channels side by side they are one matrix product, [rows, K_h K_w C_in] x [K_h K_w C_in, C_out]. The left matrix is
never stored: it is read neighbour by neighbour from where the input lies, and padding is a masked load. Every program
of the launch takes one tile, whatever member or phase it belongs to, so one launch covers the layer. Sums are kept in
float32; bias and ReLU happen before the only store.

Importing this module needs Triton. With TRITON_INTERPRET=1, set before Triton is imported, the kernel runs on the CPU.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from ccnet.gpu.tables import LayerTables
from ccnet.gpu.tiling import TileSizes


@triton.jit(do_not_specialize=["image_bits"])  # type: ignore[untyped-decorator]
def _layer(  # type: ignore[no-untyped-def]  # Triton reads annotations as types of its own
    x,  # [in pixels, N, C_in]
    weights,  # [slots, K_h, K_w, C_in, C_out]
    bias,  # [C_out], float32
    y,  # [out pixels, N, C_out], or [maps, N, pixels of a map, C_out]
    tiles,  # [tiles, 3]: slot, first row, end of the slot's rows
    targets,  # [out pixels], and so on: LayerTables
    corners,
    widths,
    rows_inside,
    columns_inside,
    image_bits,  # N = 2^image_bits
    TAPS_HEIGHT: tl.constexpr,
    TAPS_WIDTH: tl.constexpr,
    IN_CHANNELS: tl.constexpr,
    OUT_CHANNELS: tl.constexpr,
    MAP_PIXELS: tl.constexpr,  # 0: pixel outermost; else the pixels of each output map, which lies image by image
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
    DEPTH: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,  # multiply bfloat16 as float32: the interpreter's product takes the bits for whole numbers
):
    tile = tiles + 3 * tl.program_id(0)
    slot = tl.load(tile).to(tl.int64)
    row = tl.load(tile + 1) + tl.arange(0, ROWS)
    present = row < tl.load(tile + 2)
    images = 1 << image_bits
    pixel = row >> image_bits
    image = row & (images - 1)
    corner = tl.load(corners + pixel, mask=present, other=0)
    width = tl.load(widths + pixel, mask=present, other=0)
    rows_with_data = tl.load(rows_inside + pixel, mask=present, other=0)
    columns_with_data = tl.load(columns_inside + pixel, mask=present, other=0)
    channel = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    depth = tl.arange(0, DEPTH)
    filters = weights + slot * (TAPS_HEIGHT * TAPS_WIDTH * IN_CHANNELS * OUT_CHANNELS)
    sums = tl.zeros((ROWS, CHANNELS), dtype=tl.float32)
    # One flat loop over taps and blocks of input channels, because only an innermost loop is pipelined.
    for step in range(TAPS_HEIGHT * TAPS_WIDTH * (IN_CHANNELS // DEPTH)):
        tap = step // (IN_CHANNELS // DEPTH)
        first = (step % (IN_CHANNELS // DEPTH)) * DEPTH
        u = tap // TAPS_WIDTH
        v = tap % TAPS_WIDTH
        inside = ((rows_with_data >> u) & (columns_with_data >> v) & 1) != 0  # rows that are not present have no bits
        neighbour = ((corner + u * width + v) * images + image).to(tl.int64)
        left = tl.load(x + neighbour[:, None] * IN_CHANNELS + (first + depth)[None, :], mask=inside[:, None], other=0.0)
        right = tl.load(filters + (step * DEPTH + depth)[:, None] * OUT_CHANNELS + channel[None, :])
        if WIDEN:
            left = left.to(tl.float32)
            right = right.to(tl.float32)
        sums = tl.dot(left, right, sums, input_precision=INPUT_PRECISION)
    sums += tl.load(bias + channel)[None, :]
    sums = tl.where(sums < 0, 0.0, sums)  # and not maximum, which would turn NaN into 0
    target = tl.load(targets + pixel, mask=present, other=0)
    if MAP_PIXELS:
        out = ((target // MAP_PIXELS) * images + image) * MAP_PIXELS + target % MAP_PIXELS
    else:
        out = target * images + image
    out = out.to(tl.int64)
    tl.store(
        y + out[:, None] * OUT_CHANNELS + channel[None, :],
        sums.to(y.dtype.element_ty),
        mask=present[:, None],
    )


INTERPRETED = not isinstance(_layer, triton.JITFunction)


def apply_layer(
    x: Tensor,
    weights: Tensor,
    bias: Tensor,
    tables: LayerTables,
    tiles: Tensor,
    y: Tensor,
    size: TileSizes,
    *,
    image_bits: int,
    map_pixels: int = 0,
    tf32: bool = False,
) -> None:
    """relu(CC{x} + bias) of every node of a layer, in one launch on the current stream.

    Args:
        x: [in pixels, N, C_in], the nodes' input maps one after the other, contiguous.
        weights: [slots, K_h, K_w, C_in, C_out] in the dtype of x, contiguous.
        bias: [C_out], float32.
        tables: the layer's, on the device of x.
        tiles: `tables.tiles(N, size.rows)` on that device.
        y: where to write, contiguous: [out pixels, N, C_out], or [nodes, N, map_pixels, C_out] with `map_pixels`.
        size: how to cut the layer; `size.channels` divides C_out and `size.depth` divides C_in.
        image_bits: log2 of N.
        map_pixels: the pixels of a map, if all maps have the same size and each image's pixels should lie together.
        tf32: whether float32 inputs may be multiplied in TF32; without it they are multiplied exactly.
    """
    taps_height, taps_width, in_channels, out_channels = weights.shape[1:]
    assert out_channels % size.channels == 0
    assert in_channels % size.depth == 0
    assert all(tensor.is_contiguous() for tensor in (x, weights, y, tiles))
    assert x.shape[:2] == (tables.in_pixels, 1 << image_bits)
    grid = (len(tiles), out_channels // size.channels)
    _layer[grid](
        x, weights, bias, y, tiles,
        tables.targets, tables.corners, tables.widths, tables.rows_inside, tables.columns_inside, image_bits,
        TAPS_HEIGHT=taps_height, TAPS_WIDTH=taps_width, IN_CHANNELS=in_channels, OUT_CHANNELS=out_channels,
        MAP_PIXELS=map_pixels, ROWS=size.rows, CHANNELS=size.channels, DEPTH=size.depth,
        INPUT_PRECISION="tf32" if tf32 and x.dtype == torch.float32 else "ieee",
        WIDEN=INTERPRETED,
        num_warps=size.warps, num_stages=size.stages, enable_fp_fusion=True,
    )  # fmt: skip
