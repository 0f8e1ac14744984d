"""Shifting images and feature maps, written as plain loops over pixels: what the probes are compared with."""

import math

import torch
from torch import Tensor


def keys_literal(d: float, a: float) -> float:
    d = abs(d)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    if d < 2:
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return 0.0


def shift_map_back_literal(features: Tensor, dy: Tensor, dx: Tensor, a: float, outside: str) -> Tensor:
    """aligned[n, c, i, j] = sum over all pixels of an endless plane, pixel by pixel."""
    count, channels, height, width = features.shape

    def pixel(n: int, c: int, i: int, j: int) -> float:
        if outside == "circular":
            return float(features[n, c, i % height, j % width])
        if outside == "zero" and not (0 <= i < height and 0 <= j < width):
            return 0.0
        return float(features[n, c, min(max(i, 0), height - 1), min(max(j, 0), width - 1)])

    out = torch.zeros_like(features)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                y, x = i + float(dy[n]), j + float(dx[n])
                near = [
                    (m, k)
                    for m in range(math.floor(y) - 3, math.floor(y) + 5)
                    for k in range(math.floor(x) - 3, math.floor(x) + 5)
                ]
                for c in range(channels):
                    out[n, c, i, j] = sum(
                        keys_literal(y - m, a) * keys_literal(x - k, a) * pixel(n, c, m, k) for m, k in near
                    )
    return out


def shift_images_literal(batch: Tensor, dy: Tensor, dx: Tensor, border: str, fill: float) -> Tensor:
    count, _channels, height, width = batch.shape

    def source(i: int, size: int) -> int:
        if border == "circular":
            return i % size
        if i < 0:
            i = -i
        return i if i < size else 2 * (size - 1) - i

    out = torch.full_like(batch, fill)
    for n in range(count):
        for i in range(height):
            for j in range(width):
                y, x = i - int(dy[n]), j - int(dx[n])
                if border == "zero" and not (0 <= y < height and 0 <= x < width):
                    continue
                out[n, :, i, j] = batch[n, :, source(y, height), source(x, width)]
    return out
