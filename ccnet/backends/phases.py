"""A kernel's weights for every phase of a layer."""

import torch
from torch import Tensor

from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput, points_dtype


def phase_weights(
    kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput, like: Tensor
) -> Tensor:
    """The filters of all phases: one kernel evaluation a period instead of one an output pixel.

    Args:
        kernel: K_theta.
        vertical, horizontal: the axes' grids.
        kernel_input: what the kernel's points are.
        like: the input, which the points follow in dtype (float32 at least) and device.

    Returns:
        [P_h, P_w, C_out, C_in, K_h, K_w]; filter [a, b] serves the output pixels (a + i P_h, b + j P_w).

    Source: arXiv 2006.11120, Sec. 5.
    """
    phases = (vertical.period, horizontal.period)
    taps = (vertical.kernel_size, horizontal.kernel_size)
    weights = kernel(phase_points(vertical, horizontal, kernel_input, like))
    if kernel_input == "distance":
        weights = weights.reshape(phases[0], taps[0], phases[1], taps[1], *weights.shape[1:])
        return weights.permute(0, 2, 4, 5, 1, 3)
    return weights.reshape(*phases, *weights.shape[1:])


def phase_points(vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput, like: Tensor) -> Tensor:
    """The kernel's points of all phases, [M, 2], rows first.

    With "offset" one point a phase, M = P_h P_w; with "distance" one a neighbour of each, M = P_h K_h P_w K_w.
    """
    if kernel_input == "distance":
        rows = [float(d) for a in range(vertical.period) for d in vertical.distances(a)]  # P_h K_h
        columns = [float(d) for b in range(horizontal.period) for d in horizontal.distances(b)]  # P_w K_w
    else:
        rows = [float(o) for o in vertical.offsets]
        columns = [float(o) for o in horizontal.offsets]
    return _points(rows, columns, like)


def _points(rows: list[float], columns: list[float], like: Tensor) -> Tensor:
    """Every (row, column) coordinate pair, rows first, [M, 2]."""
    axes = [torch.tensor(axis, dtype=torch.float64, device="cpu") for axis in (rows, columns)]
    return torch.cartesian_prod(*axes).to(points_dtype(like)).to(like.device)
