"""The weights of a layer's slots, generated once for all members and laid out as the kernel reads them."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from ccnet.layer import CCConv2d
from ccnet.types import points_dtype

# Bytes of generated weights that are held in the parameters' dtype at a time, beside the finished ones.
CHUNK_BYTES = 2**28


@torch.no_grad()
def slot_weights(
    layer: CCConv2d, slots: Sequence[tuple[Fraction, Fraction]], dtype: torch.dtype, *, padded_channels: int
) -> Tensor:
    """[slots, K_h, K_w, C_in, C_out] of a layer at the sub-pixel offsets of its slots.

    Slots that different members share are generated once. Input channels are padded with zeros to `padded_channels`,
    because a matrix product wants 16 at least.
    """
    kernel_height, kernel_width = layer.kernel_size
    out_channels, parameter = layer.out_channels, layer.kernel.last.weight
    points = torch.tensor([[float(a), float(b)] for a, b in slots], dtype=torch.float64)
    weights = torch.zeros(
        len(slots), kernel_height, kernel_width, padded_channels, out_channels, dtype=dtype, device=parameter.device
    )
    per_slot = kernel_height * kernel_width * layer.in_channels * out_channels * parameter.element_size()
    count = max(1, CHUNK_BYTES // per_slot)
    for begin in range(0, len(slots), count):
        generated = _generate(layer, points[begin : begin + count])
        weights[begin : begin + count, :, :, : layer.in_channels] = generated.permute(0, 3, 4, 2, 1)
    return weights


def _generate(layer: CCConv2d, offsets: Tensor) -> Tensor:
    """[M, C_out, C_in, K_h, K_w] at M (vertical, horizontal) offsets in float64."""
    parameter = layer.kernel.last.weight
    device, dtype = parameter.device, points_dtype(parameter)
    if layer.kernel_input == "offset":
        weights: Tensor = layer.kernel(offsets.to(device, dtype))
        return weights
    # d = g - m of every tap: the offset from the window's centre, and the tap's place in the window.
    taps = [torch.arange(size, dtype=torch.float64) for size in layer.kernel_size]
    centre = torch.tensor([(size - 1) / 2 for size in layer.kernel_size], dtype=torch.float64)
    distances = (offsets + centre)[:, None] - torch.cartesian_prod(*taps)  # [M, K, 2]
    weights = layer.kernel(distances.flatten(0, 1).to(device, dtype))  # [M K, C_out, C_in]
    return weights.view(len(offsets), *layer.kernel_size, *weights.shape[1:]).permute(0, 3, 4, 1, 2)
