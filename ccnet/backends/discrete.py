"""The CC layer as a set of discrete convolutions (Sec. 5, "Efficient implementation using discrete convolutions").

The identity: for s = p/q the projected grid obeys g_{n+p} = g_n + q (Eq. 2), so output pixels n and n + p see their
neighbours at the same distances and share their weights, W[n + p] = W[n]. The outputs of one phase (a, b) are
therefore an ordinary convolution with stride (q_h, q_w), starting at that phase's first window; the phases' results
interleave. Weights are generated once a period: at most min(p, output size) phases an axis.

Three ways to apply the phases, chosen by `choose_path` and never silently: ask it to see which one runs.
"""

from typing import Literal

import torch
from torch import Tensor

from ccnet.backends.phases import phase_weights
from ccnet.backends.row_products import RowProducts
from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput

Path = Literal["convolution", "gather", "rows"]

# Below this many images a row product is too narrow for a CPU's matrix units, and gathering wins.
ROWS_MIN_IMAGES = 16


def apply(x: Tensor, kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput) -> Tensor:
    """CC{x}, [N, C_in, H, W] -> [N, C_out, H', W']; arguments as in `ccnet.backends.standard.apply`.

    Source: arXiv 2006.11120, Sec. 5.
    """
    weights = phase_weights(kernel, vertical, horizontal, kernel_input, like=x)
    return apply_weights(x, weights, vertical, horizontal)


def apply_weights(x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """The same from generated weights [P_h, P_w, C_out, C_in, K_h, K_w]."""
    path = choose_path(x, vertical, horizontal)
    if path == "convolution":
        return _convolution(x, weights[0, 0], vertical, horizontal)
    if path == "rows":
        return _rows(x, weights, vertical, horizontal)
    return _gather(x, weights, vertical, horizontal)


def choose_path(x: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Path:
    """Which way this layer takes: "convolution" (one phase), "rows" (many images on a CPU) or "gather"."""
    if vertical.period == 1 and horizontal.period == 1:
        return "convolution"
    if x.device.type == "cpu" and x.shape[0] >= ROWS_MIN_IMAGES:
        return "rows"
    return "gather"


def _convolution(x: Tensor, weight: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """One phase: a strided `conv2d` over exactly the pixels that the windows cover (zero padded or cropped)."""
    padding = [
        -horizontal.starts[0],
        horizontal.starts[-1] + horizontal.kernel_size - horizontal.in_size,
        -vertical.starts[0],
        vertical.starts[-1] + vertical.kernel_size - vertical.in_size,
    ]  # negative: crop
    padded = torch.nn.functional.pad(_images_outermost(x), padding)
    return torch.nn.functional.conv2d(padded, weight, stride=(vertical.step, horizontal.step))


def _rows(x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """Batched matrix products in place; see `ccnet.backends.row_products`."""
    out: Tensor = RowProducts.apply(x, weights, vertical, horizontal)
    return out


def _gather(x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """All neighbours side by side, then one batch of matrix products, one a phase.

    Output sizes are rounded up to whole periods and cut at the end.
    """
    phases_h, phases_w, out_channels = weights.shape[:3]
    rows, rounds_h = _padded_windows(vertical)
    columns, rounds_w = _padded_windows(horizontal)
    images, in_channels = x.shape[:2]
    kernel_height, kernel_width = vertical.kernel_size, horizontal.kernel_size
    margins = (horizontal.pad_before, horizontal.pad_after, vertical.pad_before, vertical.pad_after)
    padded = torch.nn.functional.pad(x.permute(0, 2, 3, 1), (0, 0, *margins)).flatten(1, 2)  # [N, H W, C_in]
    width = horizontal.in_size + horizontal.pad_before + horizontal.pad_after
    row_of = torch.tensor(rows, device=x.device).view(rounds_h, phases_h, 1, 1, kernel_height, 1)
    column_of = torch.tensor(columns, device=x.device).view(1, 1, rounds_w, phases_w, 1, kernel_width)
    pixel = (row_of * width + column_of).permute(1, 3, 0, 2, 4, 5)  # [P_h, P_w, rounds_h, rounds_w, K_h, K_w]
    neighbours = padded.index_select(1, pixel.flatten())  # [N, P_h P_w rounds K_h K_w, C_in]
    neighbours = neighbours.view(
        images, phases_h * phases_w, rounds_h * rounds_w, kernel_height, kernel_width * in_channels
    )
    neighbours = neighbours.transpose(0, 1).flatten(1, 2)  # [P, N rounds, K_h, K_w C_in]
    # One product a vertical tap, so that filters are read as they were generated: [P, K_h, C_out, K_w C_in].
    filters = weights.permute(0, 1, 4, 2, 5, 3).flatten(0, 1).flatten(3)
    out = torch.bmm(neighbours[:, :, 0], filters[:, 0].mT)  # [P, N rounds, C_out]
    for u in range(1, kernel_height):
        out = torch.baddbmm(out, neighbours[:, :, u], filters[:, u].mT)
    out = out.view(phases_h, phases_w, images, rounds_h, rounds_w, out_channels).permute(2, 5, 3, 0, 4, 1)
    out = out.reshape(images, out_channels, rounds_h * phases_h, rounds_w * phases_w)
    return out[:, :, : vertical.out_size, : horizontal.out_size]


def _padded_windows(axis: AxisGrid) -> tuple[list[int], int]:
    """Padded-input index of every neighbour of every output pixel, outputs rounded up to whole periods.

    The outputs beyond the end only fill the last period; they look at pixel 0 and are cut off afterwards.
    """
    rounds = -(-axis.out_size // axis.period)
    windows = [[start + axis.pad_before + u for u in range(axis.kernel_size)] for start in axis.starts]
    windows += [[0] * axis.kernel_size] * (rounds * axis.period - axis.out_size)
    return [m for window in windows for m in window], rounds


def _images_outermost(x: Tensor) -> Tensor:
    """x in a memory format that conv2d takes without an inner copy a call."""
    return x if x.stride(0) >= x.stride(1) else x.contiguous()
