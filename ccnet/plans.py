"""Prepared plans: everything of a pass that does not depend on the images, made once and kept within a bound.

In inference a layer's weights follow from its parameters, its input size and its scale alone. A `LayerPlan` holds them
in the layout that its path wants, and says which path that is; a `PlanCache` (`ccnet.plan_cache`) keeps plans, the
least recently used ones leaving first when their bytes exceed its budget.

Most scale sequences are met once. The native kernels can generate a few phases' weights in a core's cache just before
they apply them, which costs about what reading 42 MB of kept weights costs, and far less than writing them to fresh
memory. So a plan's first use keeps nothing, its second use keeps the weights where there is room, and later ones find
them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ccnet.backends import discrete, native, resolve_backend
from ccnet.backends.discrete import Path as DiscretePath
from ccnet.backends.native import PackedNet, describe_layer
from ccnet.backends.phases import phase_weights
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.internal_net import InternalNet
from ccnet.native.library import Call, Layer, Program

Path = Literal["native"] | DiscretePath


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """A CC layer prepared for one input size and scale.

    Attributes:
        vertical, horizontal: the axes' grids.
        channels: (C_in, C_out).
        dtype: of inputs, weights and outputs.
        device: where they are.
        weights: the phases' weights: packed for the native kernels, else [P_h, P_w, C_out, C_in, K_h, K_w]; None where
            the native kernels generate them in every pass.
        bias: [C_out], for the native kernels filled up to whole panels; None without one.
        native: what the native kernels are told; None on other paths.
    """

    vertical: AxisGrid
    horizontal: AxisGrid
    channels: tuple[int, int]
    dtype: torch.dtype
    device: torch.device
    weights: Tensor | None
    bias: Tensor | None
    native: Layer | None

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return sum(tensor.nbytes for tensor in (self.weights, self.bias) if tensor is not None)

    @property
    def generates(self) -> bool:
        """Whether every pass generates the weights anew."""
        return self.weights is None

    def path(self, images: int) -> Path:
        """Which way a batch of this many images takes."""
        if self.weights is None or self.native is not None:
            return "native"
        return discrete.choose_path(images, self.weights.device, self.vertical, self.horizontal)

    @property
    def values(self) -> int:
        """Numbers in the output of one image."""
        return self.channels[1] * self.vertical.out_size * self.horizontal.out_size

    def require_input(self, x: Tensor) -> None:
        """Refuse what the plan was not made for; the kernels would read beyond its end.

        Raises:
            CcnetError: saying what the plan takes.
        """
        shape = (self.channels[0], self.vertical.in_size, self.horizontal.in_size)
        if tuple(x.shape[1:]) != shape or x.dtype != self.dtype or x.device.type != self.device.type:
            raise CcnetError(
                f"this plan takes {self.dtype} [N, {shape[0]}, {shape[1]}, {shape[2]}] on {self.device}; "
                f"got {x.dtype} {list(x.shape)} on {x.device}"
            )

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W'], without gradients, negative values set to 0 with `relu`.

        Raises:
            CcnetError: x of another size, number of channels, dtype or device than the plan's.
        """
        self.require_input(x)
        if self.native is None:
            assert self.weights is not None
            with torch.no_grad():
                out = discrete.apply_weights(x, self.weights, self.vertical, self.horizontal, self.bias)
                return out.relu_() if relu else out
        shape = (x.shape[0], self.channels[1], self.vertical.out_size, self.horizontal.out_size)
        out = torch.empty(shape, dtype=x.dtype, device="cpu", memory_format=torch.channels_last)
        if x.shape[0]:
            buffers = native.channels_innermost(x), out
            native.require_kernels(x.device).run(Call(self._programs[relu], buffers, x.shape[0]))
        return out

    @cached_property
    def _programs(self) -> tuple[Program, Program]:
        """The layer by itself, without and with a ReLU behind."""
        assert self.native is not None
        plain, relu = (Program.of(self.native, relu=relu) for relu in (False, True))
        return plain, relu


def plan_layer(
    kernel: InternalNet,
    bias: Tensor | None,
    vertical: AxisGrid,
    horizontal: AxisGrid,
    *,
    backend: str = "auto",
    always_native: bool = False,
    generate: bool = False,
    packed_net: Callable[[], PackedNet] | None = None,
) -> LayerPlan:
    """Prepare a layer for two grids.

    Args:
        kernel, bias: of the layer.
        vertical, horizontal: the axes' grids.
        backend: "auto", "discrete" or "native".
        always_native: with the native kernels, use them for plain convolutions too: an image then gives the same bits
            in every batch.
        generate: leave it to the passes to generate the weights, where `can_generate`.
        packed_net: what the native kernels generate weights from, made before; None makes it anew.

    Raises:
        CcnetError: a backend that has no plans, or native kernels that are not there.
    """
    like = kernel.last.weight
    # Ordinary tensors, whatever mode the caller is in: they outlive the call.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        channels = (kernel.in_channels, kernel.out_channels)
        is_native = uses_native(kernel, backend)

        def plan(weights: Tensor | None, bias: Tensor | None, layer: Layer | None) -> LayerPlan:
            return LayerPlan(vertical, horizontal, channels, like.dtype, like.device, weights, bias, layer)

        if not is_native or (not always_native and native.choose_path(vertical, horizontal) == "convolution"):
            weights = phase_weights(kernel, vertical, horizontal, kernel.kernel_input, like=like).to(like.dtype)
            if weights.shape[:2] == (1, 1):  # as `conv2d` likes it beside channels_last images
                weights = weights[0, 0].contiguous(memory_format=torch.channels_last)[None, None]
            return plan(weights, None if bias is None else bias.detach().clone(), None)
        if kernel.kernel_input == "distance" or not kernel.is_ordinary():
            weights = native.packed_weights(kernel, vertical, horizontal, kernel.kernel_input, like)[0]
            bias = native.pack_bias(bias, like.dtype)
            return plan(weights, bias, describe_layer(vertical, horizontal, channels, weights, bias))
        net = PackedNet.make(kernel, bias, like.dtype) if packed_net is None else packed_net()
        generating = describe_layer(vertical, horizontal, channels, net)
        if generate:
            return plan(None, net.bias, generating)
        weights = torch.empty(vertical.period * horizontal.period, net.basis.shape[1], dtype=like.dtype, device="cpu")
        native.require_kernels(like.device).generate(generating, weights)
        return plan(weights, net.bias, describe_layer(vertical, horizontal, channels, weights, net.bias))


def uses_native(kernel: InternalNet, backend: str) -> bool:
    """Whether plans of a layer are for the native kernels.

    Raises:
        CcnetError: a backend that has no plans, or native kernels that are not there.
    """
    weight = kernel.last.weight
    backend = resolve_backend(backend, weight.device)
    if backend not in ("discrete", "native"):
        raise CcnetError(f'plans are for the backends "discrete" and "native"; got {backend!r}')
    if backend == "discrete" or weight.dtype not in (torch.float32, torch.float64):
        return False
    native.require_kernels(weight.device)
    return True


def can_generate(kernel: InternalNet, backend: str) -> bool:
    """Whether passes can generate a layer's weights themselves."""
    return kernel.kernel_input == "offset" and kernel.is_ordinary() and uses_native(kernel, backend)
