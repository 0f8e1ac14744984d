"""The CC layer as the paper writes it: the four blocks of Sec. 3.1, literally. This file is the specification.

Every tensor has the paper's name and shape. The product of Eq. 3 is formed in full, [N, C_out, C_in, K, H', W'], which
makes this the slowest and hungriest backend and the one that all others are tested against.
"""

import torch
from torch import Tensor

from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput, points_dtype


def apply(x: Tensor, kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput) -> Tensor:
    """I' = CC{I}.

    Args:
        x: I, [N, C_in, H, W].
        kernel: K_theta, points [M, 2] -> [M, C_out, C_in] ("distance") or [M, C_out, C_in, K_h, K_w] ("offset").
        vertical, horizontal: the projected grid of each axis.
        kernel_input: what the kernel's points are.

    Returns:
        I', [N, C_out, H', W'].

    Source: arXiv 2006.11120, Sec. 3.1, Eq. 1-3.
    """
    g = projected_grid(vertical, horizontal, like=x)  # block 1
    neighbours = extract_neighbours(x, vertical, horizontal)  # block 2
    weights = calculate_weights(kernel, g, vertical, horizontal, kernel_input)  # block 3
    return (neighbours * weights).sum(dim=(2, 3))  # block 4: I' = sum over c_in and k of N (x) W, Eq. 3


def projected_grid(vertical: AxisGrid, horizontal: AxisGrid, *, like: Tensor) -> Tensor:
    """Block 1: where every output pixel falls in its window, g_n minus the window's centre, [2, H', W']."""
    axes = [
        torch.tensor([float(axis.offsets[n % axis.period]) for n in range(axis.out_size)], dtype=torch.float64)
        for axis in (vertical, horizontal)
    ]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).to(points_dtype(like)).to(like.device)


def extract_neighbours(x: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """Block 2: all K = K_h K_w neighbours of every output pixel, N of shape [N, 1, C_in, K, H', W'].

    A neighbour outside the input is 0: it is looked up in a row or column of zeros behind the last one.
    """
    padded = torch.nn.functional.pad(x, (0, 1, 0, 1))
    rows, columns = (
        torch.tensor([axis.neighbours(n) for n in range(axis.out_size)], device=x.device)  # [H', K_h], [W', K_w]
        for axis in (vertical, horizontal)
    )
    taps = _taps(vertical, horizontal)
    return torch.stack([padded[:, :, rows[:, u, None], columns[None, :, v]] for u, v in taps], dim=2)[:, None]


def calculate_weights(
    kernel: Kernel, g: Tensor, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput
) -> Tensor:
    """Block 3: W [1, C_out, C_in, K, H', W'], from distances D [K, 2, H', W'] or from the offsets alone (A.1)."""
    out_size = g.shape[1:]
    if kernel_input == "offset":
        weights = kernel(g.permute(1, 2, 0).reshape(-1, 2))  # [H' W', C_out, C_in, K_h, K_w]
        return weights.reshape(*out_size, *weights.shape[1:3], -1).permute(2, 3, 4, 0, 1)[None]
    centre = torch.tensor([(axis.kernel_size - 1) / 2 for axis in (vertical, horizontal)]).to(g)
    taps = torch.tensor(_taps(vertical, horizontal)).to(g)
    distances = g[None] + (centre - taps)[:, :, None, None]  # D[n, m] = g_n - m
    weights = kernel(distances.permute(0, 2, 3, 1).reshape(-1, 2))  # [K H' W', C_out, C_in]
    return weights.reshape(len(taps), *out_size, *weights.shape[1:]).permute(3, 4, 0, 1, 2)[None]


def _taps(vertical: AxisGrid, horizontal: AxisGrid) -> list[tuple[int, int]]:
    """The K neighbours of a window, in the order of the K axis of N, D and W."""
    return [(u, v) for u in range(vertical.kernel_size) for v in range(horizontal.kernel_size)]
