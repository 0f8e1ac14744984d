"""Polyphase convolution as one batch of matrix products over gathered neighbours, for GPUs and small batches.

All neighbours of all output pixels are copied side by side, phase by phase; the output pixels of one phase then share
their weights, so that each phase is a matrix product and all of them are one batch. Made of differentiable operations
alone, it has gradients of any order.
"""

import torch
from torch import Tensor

from ccnet.grid import AxisGrid


def gather(x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """y [N, C_out, H', W'] from x [N, C_in, H, W] and phase weights [P_h, P_w, C_out, C_in, K_h, K_w].

    Output sizes are rounded up to whole periods and cut at the end.
    """
    phases_h, phases_w, out_channels = weights.shape[:3]
    rows, rounds_h = _windows(vertical)
    columns, rounds_w = _windows(horizontal)
    images, in_channels = x.shape[:2]
    kernel_height, kernel_width = vertical.kernel_size, horizontal.kernel_size
    # A row and a column of zeros behind the last ones: there look the neighbours outside the input.
    pixels = torch.nn.functional.pad(x.permute(0, 2, 3, 1), (0, 0, 0, 1, 0, 1)).flatten(1, 2)  # [N, (H + 1)(W + 1), C]
    row_of = torch.tensor(rows, device=x.device).view(rounds_h, phases_h, 1, 1, kernel_height, 1)
    column_of = torch.tensor(columns, device=x.device).view(1, 1, rounds_w, phases_w, 1, kernel_width)
    pixel = row_of * (horizontal.in_size + 1) + column_of
    pixel = pixel.permute(1, 3, 0, 2, 4, 5)  # [P_h, P_w, rounds_h, rounds_w, K_h, K_w]
    neighbours = pixels.index_select(1, pixel.flatten())  # [N, P_h P_w rounds K_h K_w, C_in]
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


def _windows(axis: AxisGrid) -> tuple[list[int], int]:
    """The input px of every neighbour of every output pixel, and the number of whole periods they are rounded up to.

    The outputs beyond the end only fill the last period; they look at pixel 0 and are cut off afterwards.
    """
    rounds = -(-axis.out_size // axis.period)
    windows = [m for n in range(axis.out_size) for m in axis.neighbours(n)]
    return windows + [0] * ((rounds * axis.period - axis.out_size) * axis.kernel_size), rounds
