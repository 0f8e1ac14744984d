"""A kernel's weights for every phase of a layer."""

import torch
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput


def phase_weights(
    kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput, like: Tensor
) -> Tensor:
    """The filters of all phases: one kernel evaluation a period instead of one an output pixel.

    Args:
        kernel: K_theta.
        vertical, horizontal: the axes' grids.
        kernel_input: what the kernel's points are.
        like: a tensor whose dtype and device the points take.

    Returns:
        [P_h, P_w, C_out, C_in, K_h, K_w]; filter [a, b] serves the output pixels (a + i P_h, b + j P_w).

    Raises:
        CcnetError: the kernel returns another shape than `kernel_input` asks for.

    Source: arXiv 2006.11120, Sec. 5.
    """
    phases = (vertical.period, horizontal.period)
    taps = (vertical.kernel_size, horizontal.kernel_size)
    if kernel_input == "distance":
        rows = [float(d) for a in range(phases[0]) for d in vertical.distances(a)]  # P_h K_h
        columns = [float(d) for b in range(phases[1]) for d in horizontal.distances(b)]  # P_w K_w
        weights = _evaluate(kernel, rows, columns, like, trailing=0)
        weights = weights.unflatten(0, (phases[0], taps[0], phases[1], taps[1]))
        return weights.permute(0, 2, 4, 5, 1, 3)
    rows = [float(o) for o in vertical.offsets]
    columns = [float(o) for o in horizontal.offsets]
    weights = _evaluate(kernel, rows, columns, like, trailing=2)
    if weights.shape[3:] != taps:
        raise CcnetError(f"the kernel must return taps {taps} in its last two axes; it returned {tuple(weights.shape)}")
    return weights.unflatten(0, phases)


def _evaluate(kernel: Kernel, rows: list[float], columns: list[float], like: Tensor, trailing: int) -> Tensor:
    """The kernel at every (row, column) coordinate pair, rows first."""
    points = torch.cartesian_prod(
        torch.tensor(rows, dtype=torch.float64), torch.tensor(columns, dtype=torch.float64)
    ).to(device=like.device, dtype=like.dtype)
    weights = kernel(points)
    if weights.dim() != 3 + trailing or weights.shape[0] != points.shape[0]:
        form = "[M, C_out, C_in]" if trailing == 0 else "[M, C_out, C_in, K_h, K_w]"
        raise CcnetError(f"the kernel must map {points.shape[0]} points to {form}; it returned {tuple(weights.shape)}")
    return weights
