"""Eq. 1 as a loop over n and m in float64: the oracle of every backend. Shares no code with `ccnet`."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor


def literal_grid(in_size: int, out_size: int, scale: Fraction) -> list[Fraction]:
    """Eq. 2, term by term."""
    return [
        Fraction(n) / scale + Fraction(1, 2) * (in_size - 1) - 1 / (2 * scale) * (out_size - 1) for n in range(out_size)
    ]


def literal_neighbours(g: Fraction, kernel_size: int) -> list[int]:
    """The K integers m nearest to g: those with -K/2 < g - m <= K/2."""
    candidates = range(math.floor(g) - kernel_size, math.ceil(g) + kernel_size + 1)
    return [m for m in candidates if -Fraction(kernel_size, 2) < g - m <= Fraction(kernel_size, 2)]


def literal_cc_conv2d(
    x: Tensor,
    kernel: Callable[[Tensor], Tensor],
    kernel_size: tuple[int, int],
    scale: tuple[Fraction, Fraction],
    out_size: tuple[int, int],
    kernel_input: str,
) -> Tensor:
    """y[n] = sum over m of K(g_n - m) x[m], with x zero outside; the kernel sees one point for each pair of n and m."""
    height, width = x.shape[2:]
    terms, points, taps = [], [], []
    grid = itertools.product(literal_grid(height, out_size[0], scale[0]), literal_grid(width, out_size[1], scale[1]))
    for n, (g_h, g_w) in enumerate(grid):
        near_h, near_w = literal_neighbours(g_h, kernel_size[0]), literal_neighbours(g_w, kernel_size[1])
        assert (len(near_h), len(near_w)) == kernel_size
        centre = (Fraction(near_h[0] + near_h[-1], 2), Fraction(near_w[0] + near_w[-1], 2))
        for (u, i), (v, j) in itertools.product(enumerate(near_h), enumerate(near_w)):
            origin = (i, j) if kernel_input == "distance" else centre
            terms.append((n, i, j))
            points.append([float(g_h - origin[0]), float(g_w - origin[1])])
            taps.append((u, v))
    weights = kernel(torch.tensor(points, dtype=x.dtype)).unbind()
    pixels = [row.unbind(2) for row in x.unbind(2)]  # pixels[i][j] is x[m], [N, C_in]
    nothing = 0 * x.sum() + 0 * weights[0].sum()  # keeps a gradient where every neighbour lies outside
    y = [nothing.expand(x.shape[0], weights[0].shape[0])] * math.prod(out_size)
    for (n, i, j), (u, v), weight in zip(terms, taps, weights, strict=True):
        if 0 <= i < height and 0 <= j < width:
            y[n] = y[n] + pixels[i][j] @ (weight if kernel_input == "distance" else weight[:, :, u, v]).T
    return torch.stack(y, dim=2).unflatten(2, out_size)
