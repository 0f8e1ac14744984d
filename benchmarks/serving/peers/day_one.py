"""The paper's layer and network as one would write them in a day: plain torch, the weights generated at every pass.

With a scale p/q the projected grid repeats: output pixels n, n + p, n + 2p, ... see their neighbours at the same
distances, so they share one kernel, and their windows lie q input pixels apart. So a layer samples the Internal-Net at
the p offsets of an axis, p_v p_h for both, and runs one strided `conv2d` for each of these phases, whose outputs go to
every p-th row and column. That is right and not slow; what it leaves out is everything else that this library does.

It takes only the weights and the sequences from `ccnet`; a test compares its logits with `ccnet`'s.

Source: arXiv 2006.11120, Eq. 1-4, A.1, Tables 2 and 3.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, pad, relu

from ccnet import CCConv2d, CCNet, ScaleSequence


@cache
def phases(in_size: int, out_size: int, scale: Fraction, kernel_size: int) -> tuple[tuple[int, float], ...]:
    """Along one axis, the first input pixel of the window of each phase's first output, and its offset (Eq. 2).

    The offset is where the output falls, seen from the centre of its window, in input px; the window may begin before
    the first pixel.
    """
    found = []
    for n in range(min(scale.numerator, out_size)):
        projected = n / scale + Fraction(in_size - 1, 2) - (out_size - 1) / (2 * scale)
        start = math.ceil(projected - Fraction(kernel_size, 2))
        found.append((start, float(projected - start - Fraction(kernel_size - 1, 2))))
    return tuple(found)


class DayOneLayer(nn.Module):
    """A CC layer whose Internal-Net sees offsets (A.1), with the weights of a trained `CCConv2d`."""

    def __init__(self, layer: CCConv2d) -> None:
        super().__init__()
        height, width = self.kernel_size = layer.kernel_size
        self.kernel_shape = (layer.out_channels, layer.in_channels, height, width)
        self.hidden = layer.kernel.hidden
        # Stored in the order (K_h, C_out, K_w, C_in); conv2d wants (C_out, C_in, K_h, K_w).
        order = torch.arange(math.prod(self.kernel_shape)).view(height, layer.out_channels, width, layer.in_channels)
        order = order.permute(1, 3, 0, 2).flatten()
        self.last_weight = nn.Parameter(layer.kernel.last.weight.detach()[order])
        self.last_bias = nn.Parameter(layer.kernel.last.bias.detach()[order])
        self.bias = layer.bias

    def kernels(self, offsets: Tensor) -> Tensor:
        """K_theta at offsets [P, 2] -> [P, C_out, C_in, K_h, K_w] (Table 2)."""
        for layer in self.hidden:
            offsets = leaky_relu(layer(offsets))
        return nn.functional.linear(offsets, self.last_weight, self.last_bias).view(-1, *self.kernel_shape)

    def forward(self, x: Tensor, scale: tuple[Fraction, Fraction], out_size: tuple[int, int]) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W']."""
        rows, columns = (
            phases(x.shape[2 + axis], out_size[axis], scale[axis], self.kernel_size[axis]) for axis in (0, 1)
        )
        offsets = [(vertical, horizontal) for _, vertical in rows for _, horizontal in columns]
        kernels = iter(self.kernels(torch.tensor(offsets)))
        margin_v, margin_h = (size // 2 + 1 for size in self.kernel_size)  # no window reaches further out
        x = pad(x, (margin_h, margin_h, margin_v, margin_v))
        out = x.new_empty(len(x), self.kernel_shape[0], *out_size)
        steps = (scale[0].denominator, scale[1].denominator)
        for n_v, (top, _) in enumerate(rows):
            for n_h, (left, _) in enumerate(columns):
                part = out[:, :, n_v :: len(rows), n_h :: len(columns)]
                height, width = (
                    (count - 1) * step + size
                    for count, step, size in zip(part.shape[2:], steps, self.kernel_size, strict=True)
                )
                begin_v, begin_h = top + margin_v, left + margin_h
                seen = x[:, :, begin_v : begin_v + height, begin_h : begin_h + width]
                part.copy_(conv2d(seen, next(kernels), self.bias, stride=steps))
        return out


class DayOneNet(nn.Module):
    """CCNET of Table 3, with the weights of a trained `CCNet`."""

    def __init__(self, model: CCNet) -> None:
        super().__init__()
        self.in_size, self.classes = model.in_size, model.classes
        self.layers = nn.ModuleList(DayOneLayer(layer) for layer in model.layers if isinstance(layer, CCConv2d))
        self.head = model.head

    def forward(self, x: Tensor, sequence: ScaleSequence) -> Tensor:
        """Images [N, C, H, W] -> logits [N, classes]."""
        for layer, scale, size in zip(self.layers, sequence.scales, sequence.shapes(self.in_size), strict=True):
            x = relu(layer(x, scale, size))
        logits: Tensor = self.head(x)
        return logits


def mean_logits(model: DayOneNet, x: Tensor, sizes: Sequence[int], members: Sequence[ScaleSequence]) -> Tensor:
    """Logits [N, classes] of images [N, C, H, W], each the mean over as many of the members as it wants.

    Every member runs over the images that want it.
    """
    wanted = torch.tensor(sizes)
    total = torch.zeros(len(x), model.classes)
    for number, member in enumerate(members[: max(sizes)]):
        chosen = wanted > number
        total[chosen] += model(x[chosen], member)
    return total / wanted[:, None]
