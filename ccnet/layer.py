"""The CC layer: `cc_conv2d` for any kernel function, `CCConv2d` with a learned one."""

from collections.abc import Hashable
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from ccnet.backends import get_backend
from ccnet.backends.native import PackedNet
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid, ScalePair, exact_scales, whole_number
from ccnet.internal_net import InternalNet
from ccnet.native.library import PANEL
from ccnet.plan_cache import PlanCache
from ccnet.plans import LayerPlan, can_generate, plan_layer
from ccnet.stamps import Stamp
from ccnet.types import Kernel, KernelInput


def cc_conv2d(
    x: Tensor,
    kernel: Kernel,
    kernel_size: int | tuple[int, int],
    *,
    scale: ScalePair = 1,
    out_size: int | tuple[int, int] | None = None,
    kernel_input: KernelInput = "distance",
    bias: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """Continuous convolution: y[n] = sum over neighbours m of K(g_n - m) x[m] (Eq. 1), zero outside x.

    Args:
        x: [N, C_in, H, W], floating point.
        kernel: K, points [M, 2] -> [M, C_out, C_in] ("distance") or [M, C_out, C_in, K_h, K_w] ("offset"); any
            function of the points alone, so that a known one (bicubic, Gaussian) can be plugged in. Points have the
            dtype of x, but at least float32; weights are taken to the dtype of x.
        kernel_size: neighbours along each axis, an int or (K_h, K_w); may exceed the input.
        scale: output px per input px, an int, float, Fraction or pair (vertical, horizontal).
        out_size: output px, an int, a pair or None for ceil(scale * size).
        kernel_input: what the kernel's points are: the "distance" to one neighbour or the "offset" in the window.
        bias: [C_out] or None.
        backend: "auto" or one of `available_backends()`.

    Returns:
        [N, C_out, H', W'] in the dtype of x; under autocast in autocast's, as from `conv2d`, while the kernel is
        evaluated as it is without.

    Raises:
        CcnetError: an argument that is not as described; the message says what is allowed.

    Source: arXiv 2006.11120, Eq. 1-3.
    """
    if not isinstance(x, Tensor) or x.dim() != 4 or not x.is_floating_point():
        raise CcnetError(f"x is a floating point tensor [N, C_in, H, W]; got {_described(x)}")
    if kernel_input not in ("distance", "offset"):
        raise CcnetError(f'kernel_input is "distance" or "offset"; got {kernel_input!r}')
    if not callable(kernel):
        raise CcnetError(f"kernel is a function of points [M, 2]; got a {type(kernel).__name__}")
    apply = get_backend(backend, x.device)
    kernel_height, kernel_width = int_pair("kernel_size", kernel_size)
    scale_h, scale_w = exact_scales(scale)
    out_height, out_width = (None, None) if out_size is None else int_pair("out_size", out_size)
    vertical = AxisGrid.make(x.shape[2], out_height, scale_h, kernel_height)
    horizontal = AxisGrid.make(x.shape[3], out_width, scale_w, kernel_width)
    autocast_dtype = _autocast_dtype(x)
    with nullcontext() if autocast_dtype is None else torch.autocast(x.device.type, enabled=False):
        x = x if autocast_dtype is None else x.to(autocast_dtype)
        checked = _Checked(kernel, kernel_input, (x.shape[1], kernel_height, kernel_width), x.dtype)
        out = apply(x, checked, vertical, horizontal, kernel_input)
    if bias is None:
        return out
    if bias.shape != out.shape[1:2]:
        raise CcnetError(f"bias has one value an output channel, [{out.shape[1]}]; got {_described(bias)}")
    bias = bias.to(out.dtype).view(-1, 1, 1)
    return out + bias if torch.is_grad_enabled() else out.add_(bias)  # `out` is nobody else's


class CCConv2d(nn.Module):
    """A convolution layer with a learned continuous kernel: any scale, any output size, chosen at every call.

    Args:
        in_channels, out_channels: C_in, C_out.
        kernel_size: neighbours along each axis, an int or (K_h, K_w).
        kernel_input: "offset" (A.1, what the paper's networks use) or "distance" (one function over the support).
        hidden: hidden widths of the Internal-Net.
        bias: whether to add a learned bias a channel, as Conv2d does.
        backend: "auto" or one of `available_backends()`.

    Example:
        >>> layer = CCConv2d(3, 8, kernel_size=4)
        >>> layer(torch.rand(1, 3, 32, 32), scale=Fraction(5, 7)).shape
        torch.Size([1, 8, 23, 23])

    Source: arXiv 2006.11120, Sec. 3.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *,
        kernel_input: KernelInput = "offset",
        hidden: tuple[int, ...] = (16, 16),
        bias: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        get_backend(backend)
        self.kernel_size = int_pair("kernel_size", kernel_size)
        self.kernel_input: KernelInput = kernel_input
        self.backend = backend
        self.kernel = InternalNet(in_channels, out_channels, self.kernel_size, kernel_input=kernel_input, hidden=hidden)
        self.in_channels, self.out_channels = self.kernel.in_channels, self.kernel.out_channels
        self.bias: nn.Parameter | None
        self.register_parameter("bias", None)
        if bias:
            bound = (self.in_channels * self.kernel_size[0] * self.kernel_size[1]) ** -0.5  # as nn.Conv2d
            self.bias = nn.Parameter(nn.init.uniform_(torch.empty(self.out_channels), -bound, bound))

    def forward(
        self,
        x: Tensor,
        scale: ScalePair = 1,
        out_size: int | tuple[int, int] | None = None,
        *,
        backend: str | None = None,
    ) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W']; arguments as in `cc_conv2d`.

        Raises:
            CcnetError: x has another number of channels or another dtype than the layer, or an argument is not as
                described.
        """
        if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[1] != self.in_channels:
            raise CcnetError(f"this layer takes [N, {self.in_channels}, H, W]; got {_described(x)}")
        dtype = self.kernel.last.weight.dtype
        if x.dtype != dtype and _autocast_dtype(x) is None:
            raise CcnetError(f"this layer's parameters are {dtype}; got x of {x.dtype}: move one of them with .to()")
        return cc_conv2d(
            x,
            self.kernel,
            self.kernel_size,
            scale=scale,
            out_size=out_size,
            kernel_input=self.kernel_input,
            bias=self.bias,
            backend=backend or self.backend,
        )

    def plan(
        self,
        in_size: int | tuple[int, int],
        scale: ScalePair = 1,
        out_size: int | tuple[int, int] | None = None,
        *,
        cache: PlanCache | None = None,
        keep: bool = False,
        always_native: bool = False,
    ) -> LayerPlan:
        """The layer prepared for one input size and scale: `layer.plan((h, w), s)(x)` is `layer(x, s)` for inference.

        Args:
            in_size: input px, an int or (height, width).
            scale, out_size: as in `cc_conv2d`.
            cache: where plans are kept; None makes a new one at every call.
            keep: keep the weights at once and not from the second use on (see `ccnet.plans`).
            always_native: see `ccnet.plans.plan_layer`.

        Raises:
            CcnetError: an argument that is not as described, or a backend that has no plans.
        """
        (height, width), (scale_h, scale_w) = int_pair("in_size", in_size), exact_scales(scale)
        out_height, out_width = (None, None) if out_size is None else int_pair("out_size", out_size)
        vertical = AxisGrid.make(height, out_height, scale_h, self.kernel_size[0])
        horizontal = AxisGrid.make(width, out_width, scale_w, self.kernel_size[1])
        stamp = Stamp(self) if cache is None else cache.stamp(self)
        return self.plan_grids(vertical, horizontal, stamp, cache=cache, keep=keep, always_native=always_native)

    def plan_grids(
        self,
        vertical: AxisGrid,
        horizontal: AxisGrid,
        stamp: Stamp,
        *,
        cache: PlanCache | None = None,
        keep: bool = False,
        always_native: bool = False,
        use: Hashable = None,
    ) -> LayerPlan:
        """The same for grids made before, and a stamp taken before, which many plans of a layer may share.

        `use` is what the plan is wanted for (see `PlanCache.get`).
        """
        key = self.plan_key(vertical, horizontal, always_native=always_native)
        found: LayerPlan | None = None if cache is None else cache.find(key, stamp)
        if found is not None:
            return found

        def pack() -> PackedNet:
            return PackedNet.make(self.kernel, self.bias, self.kernel.last.weight.dtype)

        def packed_net() -> PackedNet:
            return pack() if cache is None else cache.get((id(self), "packed net"), stamp, pack)

        def make(generate: bool) -> LayerPlan:
            return plan_layer(
                self.kernel, self.bias, vertical, horizontal,
                backend=self.backend, always_native=always_native, generate=generate, packed_net=packed_net,
            )  # fmt: skip

        if cache is None:
            return make(generate=False)
        once = None if keep or not can_generate(self.kernel, self.backend) else lambda: make(generate=True)
        panels = -(-self.out_channels // PANEL)
        filters = panels * PANEL * self.in_channels * self.kernel_size[0] * self.kernel_size[1]
        nbytes = vertical.period * horizontal.period * filters * self.kernel.last.weight.element_size()
        return cache.get(key, stamp, lambda: make(generate=False), once, nbytes, use)

    def plan_key(self, vertical: AxisGrid, horizontal: AxisGrid, *, always_native: bool = False) -> Hashable:
        """Under which key a cache keeps a plan of this layer."""
        return id(self), vertical.key, horizontal.key, self.backend, always_native

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"kernel_input={self.kernel_input!r}, bias={self.bias is not None}, backend={self.backend!r}"
        )


class _Checked:
    """A kernel whose weights come in `dtype`, with a clear error when they are of another shape than the layer's.

    Attributes:
        net: the kernel itself where it is an `InternalNet` of the layer's shape and nothing else happens in its call,
            so that its weights may be packed by other ways than calling it; else None.
    """

    def __init__(
        self, kernel: Kernel, kernel_input: KernelInput, sizes: tuple[int, int, int], dtype: torch.dtype
    ) -> None:
        in_channels, kernel_height, kernel_width = sizes
        self._kernel, self._dtype = kernel, dtype
        self._shape = (in_channels, *(() if kernel_input == "distance" else (kernel_height, kernel_width)))
        self.net: InternalNet | None = None
        if isinstance(kernel, InternalNet) and kernel.is_plain() and kernel.kernel_input == kernel_input:
            self.net = kernel if (kernel.in_channels, *kernel.kernel_size) == sizes else None

    def __call__(self, points: Tensor) -> Tensor:
        weights = self._kernel(points)
        shape = tuple(weights.shape) if isinstance(weights, Tensor) else ()
        if len(shape) < 3 or (shape[0], *shape[2:]) != (len(points), *self._shape):
            expected = f"[{len(points)}, C_out, {', '.join(str(n) for n in self._shape)}]"
            raise CcnetError(
                f"the kernel must map points {list(points.shape)} to a tensor {expected}; got {_described(weights)}"
            )
        return weights.to(self._dtype)


def _autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast wants x in, None where it is off or leaves x as it is (float64)."""
    device = x.device.type
    if x.dtype == torch.float64 or not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return None
    return torch.get_autocast_dtype(device)


def _described(value: object) -> str:
    """Dtype and shape of a tensor, the type of anything else; for messages."""
    return f"{value.dtype} {list(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"


def int_pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """One size for both axes, or a pair (vertical, horizontal), each at least 1."""
    pair = value if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2:
        raise CcnetError(f"{name} is a whole number or a pair (vertical, horizontal); got {value!r}")
    return whole_number(name, pair[0]), whole_number(name, pair[1])
