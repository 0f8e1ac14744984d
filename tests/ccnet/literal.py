"""Eq. 1 as loops over n and m in float64: the oracle of every backend. Shares no code with `ccnet`."""

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
    return [m for m in range(math.floor(g) - kernel_size, math.ceil(g) + kernel_size + 1)
            if -Fraction(kernel_size, 2) < g - m <= Fraction(kernel_size, 2)]  # fmt: skip


def literal_cc_conv2d(
    x: Tensor,
    kernel: Callable[[Tensor], Tensor],
    kernel_size: tuple[int, int],
    scale: tuple[Fraction, Fraction],
    out_size: tuple[int, int],
    kernel_input: str,
) -> Tensor:
    """y[n] = sum over m of K(g_n - m) x[m], with x zero outside; one kernel call an output pixel and neighbour."""
    images, _, height, width = x.shape
    rows = literal_grid(height, out_size[0], scale[0])
    columns = literal_grid(width, out_size[1], scale[1])
    pixels = []
    for g_h, g_w in itertools.product(rows, columns):
        near_h, near_w = literal_neighbours(g_h, kernel_size[0]), literal_neighbours(g_w, kernel_size[1])
        assert len(near_h) == kernel_size[0] and len(near_w) == kernel_size[1]
        centre = (Fraction(near_h[0] + near_h[-1], 2), Fraction(near_w[0] + near_w[-1], 2))
        value: Tensor | float = 0.0
        for (u, i), (v, j) in itertools.product(enumerate(near_h), enumerate(near_w)):
            if kernel_input == "distance":
                point = torch.tensor([[float(g_h - i), float(g_w - j)]], dtype=x.dtype)
                weight = kernel(point)[0]
            else:
                point = torch.tensor([[float(g_h - centre[0]), float(g_w - centre[1])]], dtype=x.dtype)
                weight = kernel(point)[0, :, :, u, v]
            if 0 <= i < height and 0 <= j < width:
                value = value + x[:, :, i, j] @ weight.T
            else:
                value = value + 0.0 * weight.sum() * torch.ones(images, weight.shape[0], dtype=x.dtype)
        pixels.append(value)
    return torch.stack(pixels, dim=2).view(images, -1, *out_size)
