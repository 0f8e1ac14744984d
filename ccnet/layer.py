"""The CC layer: `cc_conv2d` for any kernel function, `CCConv2d` with a learned one."""

from torch import Tensor, nn

from ccnet.backends import get_backend
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid, ScalePair, exact_scales
from ccnet.internal_net import InternalNet
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
            callable, so that a known function (bicubic, Gaussian) can be plugged in.
        kernel_size: neighbours along each axis, an int or (K_h, K_w); may exceed the input.
        scale: output px per input px, an int, float, Fraction or pair (vertical, horizontal).
        out_size: output px, an int, a pair or None for ceil(scale * size).
        kernel_input: what the kernel's points are: the "distance" to one neighbour or the "offset" in the window.
        bias: [C_out] or None.
        backend: "auto" or one of `available_backends()`.

    Returns:
        [N, C_out, H', W'].

    Raises:
        CcnetError: an argument that is not as described; the message says what is allowed.

    Source: arXiv 2006.11120, Eq. 1-3.
    """
    if x.dim() != 4 or not x.is_floating_point():
        raise CcnetError(f"x is a floating point tensor [N, C_in, H, W]; got {x.dtype} {list(x.shape)}")
    if kernel_input not in ("distance", "offset"):
        raise CcnetError(f'kernel_input is "distance" or "offset"; got {kernel_input!r}')
    apply = get_backend(backend)
    kernel_height, kernel_width = int_pair("kernel_size", kernel_size)
    scale_h, scale_w = exact_scales(scale)
    out_height, out_width = (None, None) if out_size is None else int_pair("out_size", out_size)
    vertical = AxisGrid.make(x.shape[2], out_height, scale_h, kernel_height)
    horizontal = AxisGrid.make(x.shape[3], out_width, scale_w, kernel_width)
    checked = _checked(kernel, kernel_input, (x.shape[1], kernel_height, kernel_width))
    out = apply(x, checked, vertical, horizontal, kernel_input)
    return out if bias is None else out + bias.to(out.dtype).view(-1, 1, 1)


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
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if channels < 1:
                raise CcnetError(f"{name} must be at least 1; got {channels}")
        get_backend(backend)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size = int_pair("kernel_size", kernel_size)
        self.kernel_input: KernelInput = kernel_input
        self.backend = backend
        self.kernel = InternalNet(
            in_channels, out_channels, self.kernel_size, kernel_input=kernel_input, hidden=tuple(hidden)
        )
        self.bias: nn.Parameter | None = None
        if bias:
            bound = (in_channels * self.kernel_size[0] * self.kernel_size[1]) ** -0.5  # as nn.Conv2d
            self.bias = nn.Parameter(nn.init.uniform_(self.kernel.last.bias.new_empty(out_channels), -bound, bound))

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
            CcnetError: x has another number of channels than the layer, or an argument is not as described.
        """
        if x.dim() != 4 or x.shape[1] != self.in_channels:
            raise CcnetError(f"this layer takes [N, {self.in_channels}, H, W]; got {list(x.shape)}")
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

    def extra_repr(self) -> str:
        """What `print(layer)` shows."""
        return (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, "
            f"kernel_input={self.kernel_input!r}, bias={self.bias is not None}, backend={self.backend!r}"
        )


def _checked(kernel: Kernel, kernel_input: KernelInput, sizes: tuple[int, int, int]) -> Kernel:
    """The kernel, with a clear error when it returns weights of another shape than the layer's."""
    in_channels, kernel_height, kernel_width = sizes
    taps = () if kernel_input == "distance" else (kernel_height, kernel_width)

    def evaluate(points: Tensor) -> Tensor:
        weights = kernel(points)
        expected = f"[{len(points)}, C_out, {', '.join(str(n) for n in (in_channels, *taps))}]"
        if weights.dim() < 3 or (weights.shape[0], *weights.shape[2:]) != (len(points), in_channels, *taps):
            raise CcnetError(
                f"the kernel must map points {list(points.shape)} to {expected}; got {list(weights.shape)}"
            )
        return weights

    return evaluate


def int_pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """One size for both axes, or a pair (vertical, horizontal), each at least 1."""
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or any(isinstance(v, bool) or not isinstance(v, int) or v < 1 for v in pair):
        raise CcnetError(f"{name} is a whole number or a pair (vertical, horizontal), each at least 1; got {value!r}")
    return pair[0], pair[1]
