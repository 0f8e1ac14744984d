"""The CC layer in bounded memory (Sec. 5, "Saving memory by keeping only K_theta").

The identity: an output pixel depends on its own neighbours and weights alone (Eq. 1), so the output can be computed
chunk by chunk, and neither weights nor neighbours need to outlive their chunk: the backward pass computes them again.
A chunk is a square of output pixels whose weights and neighbours stay under `CHUNK_VALUES` numbers. Any scale works,
float ones included, for about one more forward pass of arithmetic in training.
"""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ccnet.backends.standard import calculate_weights, extract_neighbours, projected_grid
from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput, points_dtype

# Numbers (not bytes) that weights and neighbours of one chunk may hold together: 32 MiB in fp32.
CHUNK_VALUES = 8 * 2**20


def apply(x: Tensor, kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput) -> Tensor:
    """CC{x}, [N, C_in, H, W] -> [N, C_out, H', W']; arguments as in `ccnet.backends.standard.apply`.

    Source: arXiv 2006.11120, Sec. 5 and B.1 ("clear memory").
    """

    def block(region: Tensor, rows: AxisGrid, columns: AxisGrid) -> Tensor:
        g = projected_grid(rows, columns, like=region)
        neighbours = extract_neighbours(region, rows, columns)[:, 0]  # [N, C_in, K, h, w]
        weights = calculate_weights(kernel, g, rows, columns, kernel_input)[0]  # [C_out, C_in, K, h, w]
        return torch.einsum("nckhw,ockhw->nohw", neighbours, weights)

    with torch.no_grad():
        out_channels = kernel(x.new_zeros(1, 2, dtype=points_dtype(x))).shape[1]
    side = chunk_side(x, out_channels, vertical, horizontal)
    out_rows = []
    for i in range(0, vertical.out_size, side):
        top, rows = _part(vertical, i, side)
        blocks = []
        for j in range(0, horizontal.out_size, side):
            left, columns = _part(horizontal, j, side)
            region = x[:, :, top : top + rows.in_size, left : left + columns.in_size]
            blocks.append(checkpoint(block, region, rows, columns, use_reentrant=False, preserve_rng_state=False))
        out_rows.append(torch.cat(blocks, dim=3))
    return torch.cat(out_rows, dim=2)


def chunk_side(x: Tensor, out_channels: int, vertical: AxisGrid, horizontal: AxisGrid) -> int:
    """Side of a chunk in output px, at least 1."""
    images, in_channels = x.shape[:2]
    values_per_pixel = (images + out_channels) * in_channels * vertical.kernel_size * horizontal.kernel_size
    return max(1, math.isqrt(CHUNK_VALUES // max(1, values_per_pixel)))


def _part(axis: AxisGrid, first: int, count: int) -> tuple[int, AxisGrid]:
    """Output pixels first .. first + count - 1 as a grid of its own, and the input px where its input begins."""
    starts = axis.starts[first : first + count]
    offsets = tuple(axis.offsets[n % axis.period] for n in range(first, first + min(len(starts), axis.period)))
    begin = min(max(starts[0], 0), axis.in_size - 1)
    end = max(min(starts[-1] + axis.kernel_size, axis.in_size), begin + 1)
    part = replace(
        axis,
        in_size=end - begin,
        out_size=len(starts),
        starts=tuple(start - begin for start in starts),
        offsets=offsets,
    )
    return begin, part
