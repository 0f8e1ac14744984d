"""The CC layer as a set of discrete convolutions (Sec. 5, "Efficient implementation using discrete convolutions").

The identity: for s = p/q the projected grid obeys g_{n+p} = g_n + q (Eq. 2), so output pixels n and n + p see their
neighbours at the same distances and share their weights, W[n + p] = W[n]. The outputs of one phase (a, b) are
therefore an ordinary convolution with stride (q_h, q_w), starting at that phase's first window; the phases' results
interleave. Weights are generated once a period: at most min(p, output size) phases an axis.

Three ways to apply the phases, chosen by `choose_path` and never silently: ask it to see which one runs.
"""

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from ccnet.backends.gathering import gather
from ccnet.backends.phases import phase_weights
from ccnet.backends.row_products import RowProducts
from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput

Path = Literal["convolution", "gather", "rows"]

# Below this many images a row product is too narrow for a CPU's matrix units, and gathering wins.
ROWS_MIN_IMAGES = 16
# Output columns that row products take in one call at least, where the map is as wide as that.
ROWS_MIN_COLUMNS = 6


def apply(x: Tensor, kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput) -> Tensor:
    """CC{x}, [N, C_in, H, W] -> [N, C_out, H', W']; arguments as in `ccnet.backends.standard.apply`.

    Source: arXiv 2006.11120, Sec. 5.
    """
    weights = phase_weights(kernel, vertical, horizontal, kernel_input, like=x)
    return apply_weights(x, weights, vertical, horizontal)


def apply_weights(
    x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid, bias: Tensor | None = None
) -> Tensor:
    """The same from generated weights [P_h, P_w, C_out, C_in, K_h, K_w], with a bias [C_out] or without."""
    path = choose_path(len(x), x.device, vertical, horizontal)
    if path == "convolution":
        return _convolution(x, weights[0, 0], vertical, horizontal, bias)
    out = _rows(x, weights, vertical, horizontal) if path == "rows" else gather(x, weights, vertical, horizontal)
    return out if bias is None else out + bias.view(-1, 1, 1)


def choose_path(images: int, device: torch.device, vertical: AxisGrid, horizontal: AxisGrid) -> Path:
    """Which way a batch takes: "convolution" (one phase), "rows" (many images on a CPU) or "gather".

    A convolution would fill the way to a window that lies wholly outside the input with zeros, which an output size
    far above scale * size can make as long as it likes; the other two look at the input alone.
    """
    if all(
        axis.period == 1 and max(axis.pad_before, axis.pad_after) < axis.kernel_size for axis in (vertical, horizontal)
    ):
        return "convolution"
    if device.type == "cpu" and images >= ROWS_MIN_IMAGES:
        return "rows"
    return "gather"


def is_plain_convolution(vertical: AxisGrid, horizontal: AxisGrid) -> bool:
    """Whether the layer is one `conv2d` that pads alike on both sides: no copy of the input is made."""
    return all(axis.period == 1 and _even_padding(axis) is not None for axis in (vertical, horizontal))


def _even_padding(axis: AxisGrid) -> int | None:
    """The padding on both sides with which `conv2d` gives exactly this axis; None when there is none."""
    padding = -axis.starts[0]
    if not 0 <= padding < axis.kernel_size or (axis.out_size > 1 and axis.step > axis.in_size):
        return None
    outputs = (axis.in_size + 2 * padding - axis.kernel_size) // _stride(axis) + 1
    return padding if outputs == axis.out_size else None


def _stride(axis: AxisGrid) -> int:
    """A single output has no stride, and its step may be beyond what conv2d takes."""
    return axis.step if axis.out_size > 1 else max(1, axis.in_size)


def _convolution(x: Tensor, weight: Tensor, vertical: AxisGrid, horizontal: AxisGrid, bias: Tensor | None) -> Tensor:
    """One phase: a strided `conv2d`, over exactly the pixels that the windows cover where its own padding cannot."""
    x = _images_outermost(x)
    innermost = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    # Only without gradients: some of torch's convolutions refuse filters of another layout in backward.
    as_images = innermost and not weight.requires_grad
    weight = weight.contiguous(memory_format=torch.channels_last if as_images else torch.contiguous_format)
    stride = (_stride(vertical), _stride(horizontal))
    even = (_even_padding(vertical), _even_padding(horizontal))
    if even[0] is not None and even[1] is not None:
        return torch.nn.functional.conv2d(x, weight, bias, stride=stride, padding=(even[0], even[1]))
    padding = [
        -horizontal.starts[0],
        horizontal.starts[-1] + horizontal.kernel_size - horizontal.in_size,
        -vertical.starts[0],
        vertical.starts[-1] + vertical.kernel_size - vertical.in_size,
    ]  # zero padded or, where negative, cropped
    return torch.nn.functional.conv2d(torch.nn.functional.pad(x, padding), weight, bias, stride=stride)


def _rows(x: Tensor, weights: Tensor, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """Batched matrix products in place; see `ccnet.backends.row_products`.

    A few phases are too small a batch for two cores, so a few periods are taken as one, with their filters repeated.
    """
    periods = min(-(-ROWS_MIN_COLUMNS // horizontal.period), horizontal.out_size // horizontal.period)
    if periods > 1:
        horizontal = replace(horizontal, offsets=horizontal.offsets * periods, step=horizontal.step * periods)
        in_memory_order = weights.permute(0, 1, 4, 2, 5, 3)
        weights = in_memory_order.repeat(1, periods, 1, 1, 1, 1).permute(0, 1, 3, 5, 2, 4)
    out: Tensor = RowProducts.apply(x, weights, vertical, horizontal)  # type: ignore[no-untyped-call]  # torch's
    return out


def _images_outermost(x: Tensor) -> Tensor:
    """x in a memory format that conv2d takes without an inner copy a call."""
    return x if x.stride(0) >= x.stride(1) else x.contiguous()
