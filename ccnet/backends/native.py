"""The discrete form by native kernels: what `discrete` computes, without a copy of windows, on a CPU.

The identity is `discrete`'s: outputs of one phase share their weights, W[n + p] = W[n]. The kernels take images with
their channels innermost, in which one row of a window, K_w neighbours of C_in channels, is contiguous and is read
where it lies; the weights are packed so that 16 output channels of one tap stand side by side. A layer of one phase
that pads alike on both sides is a plain convolution and goes to `conv2d`.

float32 and float64; smaller floating point types are computed in float32.
"""

import ctypes
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from ccnet.backends import discrete
from ccnet.backends.gathering import gather
from ccnet.backends.phases import phase_points, phase_weights
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.native import Kernels, kernels, why_missing
from ccnet.native.library import PANEL, Call, Layer, Net, Program
from ccnet.types import Kernel, KernelInput

Path = Literal["convolution", "native"]

# Up to this many images a layer without gradients generates weights as it applies them; for more it stores them first.
GENERATE_IMAGES = 64


def supports(device: torch.device) -> bool:
    """Whether there are native kernels for a device."""
    return device.type == "cpu" and kernels() is not None


def choose_path(vertical: AxisGrid, horizontal: AxisGrid) -> Path:
    """Which way a layer takes: "convolution" (`conv2d`) or "native"."""
    return "convolution" if discrete.is_plain_convolution(vertical, horizontal) else "native"


def apply(x: Tensor, kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput) -> Tensor:
    """CC{x}, [N, C_in, H, W] -> [N, C_out, H', W']; arguments as in `ccnet.backends.standard.apply`.

    Raises:
        CcnetError: no native kernels here, or x on another device than the CPU.

    Source: arXiv 2006.11120, Sec. 5.
    """
    require_kernels(x.device)
    if (
        torch._C._get_tracing_state() is not None or torch.compiler.is_compiling()
    ):  # neither sees what the kernels write
        return discrete.apply(x, kernel, vertical, horizontal, kernel_input)
    if choose_path(vertical, horizontal) == "convolution":
        return discrete.apply(x, kernel, vertical, horizontal, kernel_input)
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    net = _internal_net(kernel)
    few = not torch.is_grad_enabled() and 0 < len(x) <= GENERATE_IMAGES
    if few and net is not None and kernel_input == "offset" and net.is_ordinary():
        return _generate_and_apply(wide, net, vertical, horizontal).to(x.dtype)
    weights, out_channels = packed_weights(kernel, vertical, horizontal, kernel_input, like=wide)
    out: Tensor = Native.apply(wide, weights, out_channels, vertical, horizontal)  # type: ignore[no-untyped-call]
    return out.to(x.dtype)


@dataclass(frozen=True, eq=False)
class PackedNet:
    """What the kernels generate a layer's weights from: its Internal-Net ("offset") and its bias in their layout.

    Attributes:
        net: the hidden layers.
        basis: see `InternalNet.packed_basis`.
        bias: [panels * 16], or None.
    """

    net: Net
    basis: Tensor
    bias: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of the basis, beside which the rest is small."""
        return self.basis.nbytes

    @staticmethod
    @torch.no_grad()
    def make(kernel: Any, bias: Tensor | None, dtype: torch.dtype) -> "PackedNet":
        """Pack an `InternalNet` (see `is_ordinary`) and a bias [C_out]; all tensors are copies.

        Raises:
            CcnetError: Parameters on another device than the CPU.
        """
        devices = {parameter.device for parameter in kernel.parameters()} | (
            {bias.device} if bias is not None else set()
        )
        if any(device.type != "cpu" for device in devices):
            listed = ", ".join(sorted(map(str, devices)))
            raise CcnetError(
                f'backend "native" reads parameters on the CPU; these are on {listed}: move the layer there'
            )
        hidden = [
            tuple(tensor.detach().to(dtype, copy=True).contiguous() for tensor in (layer.weight, layer.bias))
            for layer in kernel.hidden
        ]
        basis = kernel.packed_basis().to(dtype).contiguous()
        return PackedNet(Net.of(hidden, kernel.negative_slope), basis, pack_bias(bias, dtype))


def pack_bias(bias: Tensor | None, dtype: torch.dtype) -> Tensor | None:
    """A copy filled up with zeros to whole panels; None stays None."""
    return None if bias is None else nn.functional.pad(bias.detach().to(dtype), (0, -len(bias) % PANEL))


def _generate_and_apply(x: Tensor, net: Any, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """The layer without gradients, its weights generated a few phases at a time and never written to memory."""
    shape = (len(x), net.out_channels, vertical.out_size, horizontal.out_size)
    out = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
    channels = (net.in_channels, net.out_channels)
    layer = describe_layer(vertical, horizontal, channels, PackedNet.make(net, None, x.dtype))
    require_kernels(x.device).run(Call(Program.of(layer), (channels_innermost(x), out), len(x)))
    return out


def _internal_net(kernel: Any) -> Any:
    """The `InternalNet` that a kernel is or checks, if its weights may be packed without calling it, else None."""
    net = getattr(kernel, "net", kernel)
    return net if hasattr(net, "packed") and net.is_plain() else None


def require_kernels(device: torch.device) -> Kernels:
    """The native kernels.

    Raises:
        CcnetError: there are none here, or not for this device.
    """
    found = kernels()
    if found is None:
        raise CcnetError(f'backend "native" needs the native kernels; {why_missing()}. "discrete" works everywhere')
    if device.type != "cpu":
        raise CcnetError(f'backend "native" computes on the CPU; got tensors on {device}: use "auto"')
    return found


def packed_weights(
    kernel: Kernel, vertical: AxisGrid, horizontal: AxisGrid, kernel_input: KernelInput, like: Tensor
) -> tuple[Tensor, int]:
    """The filters of all phases as the kernels read them, and C_out.

    Returns:
        [P, panels, K_h, K_w, C_in, 16], phases P_h P_w row by row; output channel o is in panel o / 16.
    """
    net = _internal_net(kernel)
    if net is not None and kernel_input == "offset":
        packed: Tensor = net.packed(phase_points(vertical, horizontal, kernel_input, like)).to(like.dtype)
        return packed, net.out_channels
    weights = phase_weights(kernel, vertical, horizontal, kernel_input, like=like).to(like.dtype)
    return pack_weights(weights), weights.shape[2]


def pack_weights(weights: Tensor) -> Tensor:
    """[P_h, P_w, C_out, C_in, K_h, K_w] -> [P, panels, K_h, K_w, C_in, 16], the last panel filled up with zeros."""
    out_channels = weights.shape[2]
    innermost = weights.flatten(0, 1).permute(0, 3, 4, 2, 1)  # [P, K_h, K_w, C_in, C_out]
    filled = torch.nn.functional.pad(innermost, (0, -out_channels % PANEL))
    panels: Tensor = filled.unflatten(4, (-1, PANEL))
    return panels.permute(0, 4, 1, 2, 3, 5).contiguous()


def unpack_weights(packed: Tensor, out_channels: int, vertical: AxisGrid, horizontal: AxisGrid) -> Tensor:
    """The inverse of `pack_weights`."""
    innermost = packed.permute(0, 2, 3, 4, 1, 5).flatten(4)[..., :out_channels]  # [P, K_h, K_w, C_in, C_out]
    by_phase = innermost.permute(0, 4, 3, 1, 2)
    return by_phase.reshape(vertical.period, horizontal.period, *by_phase.shape[1:])


def describe_layer(
    vertical: AxisGrid,
    horizontal: AxisGrid,
    channels: tuple[int, int],
    weights: Tensor | PackedNet,
    bias: Tensor | None = None,
) -> Layer:
    """A layer as the kernels want it; it keeps the tensors that it points into.

    Args:
        vertical, horizontal: the axes' grids.
        channels: (C_in, C_out).
        weights: packed, or what the kernels generate them from in every call; of the dtype of images.
        bias: [panels * 16] of that dtype, or None for the packed net's own.
    """
    axes = _describe_axis(vertical.key), _describe_axis(horizontal.key)
    layer = Layer(
        in_h=vertical.in_size, in_w=horizontal.in_size, c_in=channels[0],
        out_h=vertical.out_size, out_w=horizontal.out_size, c_out=channels[1],
        k_h=vertical.kernel_size, k_w=horizontal.kernel_size, p_h=vertical.period, p_w=horizontal.period,
        starts_h=axes[0].starts.data_ptr(), starts_w=axes[1].starts.data_ptr(),
        offsets_h=axes[0].offsets.data_ptr(), offsets_w=axes[1].offsets.data_ptr(),
    )  # fmt: skip
    if isinstance(weights, PackedNet):
        bias = weights.bias if bias is None else bias
        layer.net, layer.basis = ctypes.addressof(weights.net), weights.basis.data_ptr()
    else:
        layer.weights = weights.data_ptr()
    if bias is not None:
        layer.bias = bias.data_ptr()
    layer.keep = (axes, weights, bias)
    return layer


class _Axis(NamedTuple):
    """An axis as the kernels want it: [out_size] int32, [period] float64."""

    starts: Tensor
    offsets: Tensor


@lru_cache(maxsize=4096)
def _describe_axis(key: tuple[int, int, int, int, int, int]) -> _Axis:
    """The axis of a grid's `key`. Windows wholly outside the image are all alike, however far they are."""
    grid = AxisGrid.of_key(key)
    starts = [max(-grid.kernel_size, min(start, grid.in_size)) for start in grid.starts]
    with torch.inference_mode(False):
        return _Axis(
            torch.tensor(starts, dtype=torch.int32, device="cpu"),
            torch.tensor([float(offset) for offset in grid.offsets], dtype=torch.float64, device="cpu"),
        )


def channels_innermost(x: Tensor) -> Tensor:
    """[N, C, H, W] in memory as [N, H, W, C]: x itself where it is in torch's channels_last."""
    return x.contiguous(memory_format=torch.channels_last)


class Native(torch.autograd.Function):
    """y [N, C_out, H', W'], channels last, from x [N, C_in, H, W] and packed weights."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weights: Tensor, out_channels: int, vertical: AxisGrid, horizontal: AxisGrid
    ) -> Tensor:
        """Run the kernel."""
        pixels, weights = channels_innermost(x), weights.contiguous()
        ctx.save_for_backward(x, weights)
        ctx.grids = vertical, horizontal
        ctx.out_channels = out_channels
        images, in_channels = x.shape[:2]
        shape = (images, out_channels, vertical.out_size, horizontal.out_size)
        out = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
        if images:
            layer = describe_layer(vertical, horizontal, (in_channels, out_channels), weights)
            require_kernels(x.device).run(Call(Program.of(layer), (pixels, out), images))
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        """(dL/dx, dL/dweights) from dL/dy."""
        x, weights = ctx.saved_tensors
        vertical, horizontal = ctx.grids
        if torch.is_grad_enabled():  # create_graph=True: the gradients are to be differentiated in their turn
            return _differentiable_gradients(ctx, grads[0])
        pixels, grad_out = channels_innermost(x), channels_innermost(grads[0])
        grad_x = torch.empty_like(pixels, memory_format=torch.channels_last) if ctx.needs_input_grad[0] else None
        grad_weights = torch.empty_like(weights) if ctx.needs_input_grad[1] else None
        if len(x):
            layer = describe_layer(vertical, horizontal, (x.shape[1], ctx.out_channels), weights)
            require_kernels(x.device).gradients(layer, pixels, grad_out, grad_x, grad_weights, len(x))
        elif grad_weights is not None:
            grad_weights.zero_()
        return grad_x, grad_weights, None, None, None


def _differentiable_gradients(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
    """(dL/dx, dL/dweights) by `gather`, the same function made of operations that have gradients of any order."""
    x, weights = ctx.saved_tensors
    of_x, of_weights = ctx.needs_input_grad[:2]
    inputs = [tensor for tensor, needed in ((x, of_x), (weights, of_weights)) if needed]
    out = gather(x, unpack_weights(weights, ctx.out_channels, *ctx.grids), *ctx.grids)
    grads = torch.autograd.grad(out, inputs, grad_out, create_graph=True)
    return grads[0] if of_x else None, grads[-1] if of_weights else None, None, None, None
