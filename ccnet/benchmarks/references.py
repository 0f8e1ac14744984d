"""What CC layers are measured against: `conv2d` in channels_last, a chain of it with a pass's arithmetic, and memory.

The chain has the channels, kernels and fully connected layers of CCNet (Table 3). A kernel of 3 padded by 1 keeps a
map's size and a kernel of 4 padded by 1 takes one pixel off it, so each convolution reads a map made for it, as large
as the CC layer's output or one pixel larger: it then has exactly the CC layer's number of outputs.
"""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ccnet.benchmarks.counting import LayerCost, PassCost
from ccnet.benchmarks.measure import Rounds, take_turns

PADDING = 1


def channels_last(x: Tensor) -> Tensor:
    """The same values with the channels innermost, as the reference likes them best."""
    return x.contiguous(memory_format=torch.channels_last)


def reference_layer(in_channels: int, out_channels: int, kernel: int) -> nn.Conv2d:
    """An ordinary convolution of stride 1, in channels_last."""
    layer = nn.Conv2d(in_channels, out_channels, kernel, padding=PADDING)
    return layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]  # torch's stub


def reference_input(layer: LayerCost, images: int) -> Tensor:
    """Random images of the size from which `reference_layer` makes the CC layer's number of outputs."""
    height, width = (size + layer.kernel - 1 - 2 * PADDING for size in layer.out_size)
    return channels_last(torch.randn(images, layer.channels[0], height, width))


class ConvolutionChain:
    """Ordinary convolutions with ReLU and the fully connected layers, with a pass's multiply-adds.

    Args:
        cost: of the pass.
        images: of a batch.

    Attributes:
        multiply_adds: of one image, counted from the sizes of its own outputs.
    """

    def __init__(self, cost: PassCost, images: int) -> None:
        self._inputs = [reference_input(layer, images) for layer in cost.layers]
        self._layers = [reference_layer(*layer.channels, layer.kernel).requires_grad_(False) for layer in cost.layers]
        linear = [nn.Linear(a, b).requires_grad_(False) for a, b in pairwise(cost.head)]
        self._head = nn.Sequential(linear[0], nn.ReLU(), linear[1], nn.ReLU(), linear[2])
        self._features = torch.randn(images, cost.head[0])
        self.multiply_adds = sum(a * b for a, b in pairwise(cost.head))
        for x, layer in zip(self._inputs, self._layers, strict=True):
            self.multiply_adds += layer(x)[0].numel() * layer.weight[0].numel()

    @torch.inference_mode()
    def __call__(self) -> Tensor:
        """Run all of it; [N, classes]."""
        for x, layer in zip(self._inputs, self._layers, strict=True):
            layer(x).relu_()
        logits: Tensor = self._head(self._features)
        return logits


class MemoryReader:
    """Reads a buffer as fast as torch does, to know the memory's bandwidth.

    Args:
        nbytes: of the buffer.
        rounds: how long to try the readers.
    """

    def __init__(self, nbytes: int, rounds: Rounds) -> None:
        width = 1024
        self._matrix = torch.rand(max(1, nbytes // (4 * width)), width)
        self._vector = torch.rand(width)
        readers: dict[str, Callable[[], Tensor]] = {"sum": self._matrix.sum, "matrix-vector product": self._product}
        times = take_turns(readers, rounds)
        self.name = min(times, key=lambda name: times[name].median)
        self._read = readers[self.name]

    @property
    def nbytes(self) -> int:
        """Bytes read by a call."""
        return self._matrix.nbytes

    def __call__(self) -> Tensor:
        """Read all of it."""
        return self._read()

    def _product(self) -> Tensor:
        return self._matrix @ self._vector
