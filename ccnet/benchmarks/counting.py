"""What a pass costs, counted from its grids: multiply-adds, prepared weights, and multiply-adds of generating them.

    pass          H' W' C_out C_in K_h K_w a layer and image, taps outside the map included, and the fully connected
                  layers
    prepared      P_h P_w C_out C_in K_h K_w values a layer
    generation    (16 + 1) multiply-adds a prepared value: the last layer of an Internal-Net and its bias

Layer 1 has one phase whatever the sequence; its few weights are left out of prepared and generated ones, as the fully
connected layers' are.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

from ccnet.grid import AxisGrid
from ccnet.models import FULLY_CONNECTED, TABLE_3
from ccnet.sequences import ScaleSequence

HIDDEN = 16  # of the last hidden layer of an Internal-Net (Table 2)


@dataclass(frozen=True)
class LayerCost:
    """One layer of a pass.

    Attributes:
        in_size, out_size: (height, width) in px.
        channels: (C_in, C_out).
        kernel: K, of both axes.
        phases: P_h P_w.
    """

    in_size: tuple[int, int]
    out_size: tuple[int, int]
    channels: tuple[int, int]
    kernel: int
    phases: int

    @property
    def filter_values(self) -> int:
        """C_out C_in K K."""
        return math.prod(self.channels) * self.kernel**2

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return math.prod(self.out_size) * self.filter_values

    @property
    def prepared_values(self) -> int:
        """Weights of all phases."""
        return self.phases * self.filter_values


@dataclass(frozen=True)
class PassCost:
    """One pass of CCNet.

    Attributes:
        layers: the CC layers.
        head: sizes of the fully connected layers, from their inputs to the classes.
    """

    layers: tuple[LayerCost, ...]
    head: tuple[int, ...]

    @property
    def multiply_adds(self) -> int:
        """For one image."""
        return sum(layer.multiply_adds for layer in self.layers) + sum(a * b for a, b in pairwise(self.head))

    @property
    def prepared_bytes(self) -> int:
        """Weights of layers 2 to 8, fp32."""
        return 4 * sum(layer.prepared_values for layer in self.layers[1:])

    @property
    def generation_multiply_adds(self) -> int:
        """Of the weights of layers 2 to 8."""
        return (HIDDEN + 1) * sum(layer.prepared_values for layer in self.layers[1:])


def pass_cost(
    sequence: ScaleSequence, in_size: tuple[int, int] = (32, 32), in_channels: int = 3, classes: int = 10
) -> PassCost:
    """Count one pass of CCNet (Table 3).

    Raises:
        SequenceError: a sequence that the network cannot run.
    """
    sequence.require_valid(in_size=in_size)
    sizes = (in_size, *sequence.shapes(in_size))
    channels = (in_channels, *(out for out, _, _ in TABLE_3))
    layers = []
    for j, ((out, kernel, _), scales) in enumerate(zip(TABLE_3, sequence.scales, strict=True)):
        axes = (AxisGrid.make(sizes[j][axis], sizes[j + 1][axis], scales[axis], kernel) for axis in (0, 1))
        phases = math.prod(axis.period for axis in axes)
        layers.append(LayerCost(sizes[j], sizes[j + 1], (channels[j], out), kernel, phases))
    features = math.prod(sizes[-1]) * channels[-1]
    return PassCost(tuple(layers), (features, FULLY_CONNECTED, FULLY_CONNECTED, classes))
