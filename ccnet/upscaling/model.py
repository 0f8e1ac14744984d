"""`CCUpscaler`: a small network that enlarges grey pictures by any factor from 1 to 4, another along each axis.

A few plain 3x3 convolutions look at the picture at its own size. The last layer is a CC layer: it puts their features
on the wanted grid, at whatever factor is asked for, with one set of weights (arXiv 2006.11120, Sec. 5, "Potential use
in image-processing tasks"). What comes out is added to the bicubic picture, itself a CC layer with a known kernel.

Notable choices
- The network knows the factor: (1/s_v, 1/s_h) enters the first layer as a bias. What a picture lost when it was reduced
  depends on by how much it was.
- The residual is multiplied by 1 - 1/(s_v s_h), the share of output pixels that the input has not. At factor 1 that is
  zero, so that a picture that is not enlarged stays as it is, exactly.
- No convolution pads. The picture's edge is repeated once, in front of the first, as far as the network can see; a tile
  with as many pixels around it gives what the whole picture gives.
- Leaky ReLUs, and a last layer that starts small and not at zero: from zero the first layers get hardly a gradient,
  which Adam blows up to full steps, and in the first trials every one of the last map's ReLUs died.
"""

import math
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet.errors import CcnetError
from ccnet.grid import ScalePair, whole_number
from ccnet.layer import CCConv2d
from ccnet.types import KernelInput
from ccnet.upscaling import cubic
from ccnet.upscaling.axes import Axes, apply_kernel, cut, whole_axes

GREY_MIDDLE = 0.5  # taken off the picture in front of the first convolution
SLOPE = 0.1  # of the leaky ReLUs
LAST_LAYER_GAIN = 0.1  # of the last layer's initial weights: an untrained network is nearly bicubic interpolation


class CCUpscaler(nn.Module):
    """Plain convolutions, a CC layer, and bicubic interpolation beside them.

    Args:
        width: channels of the convolutions.
        depth: 3x3 convolutions in front of the CC layer, each followed by a leaky ReLU.
        kernel_size: neighbours of the CC layer along each axis.
        kernel_input: of the CC layer, "offset" (A.1) or "distance".
        hidden: hidden widths of its Internal-Net (Table 2).

    Example:
        >>> CCUpscaler()(torch.rand(1, 1, 20, 30), scale=(Fraction(237, 100), Fraction(8, 5))).shape
        torch.Size([1, 1, 48, 48])
    """

    def __init__(
        self,
        width: int = 24,
        depth: int = 4,
        kernel_size: int = 4,
        *,
        kernel_input: KernelInput = "offset",
        hidden: tuple[int, ...] = (16, 16),
    ) -> None:
        super().__init__()
        width, depth = whole_number("width", width), whole_number("depth", depth)
        self.config: dict[str, Any] = {
            "width": width, "depth": depth, "kernel_size": kernel_size, "kernel_input": kernel_input,
            "hidden": list(hidden),
        }  # fmt: skip
        self.first = nn.Conv2d(1, width, 3)
        self.factor = nn.Linear(2, width, bias=False)
        self.body = nn.ModuleList(nn.Conv2d(width, width, 3) for _ in range(depth - 1))
        self.last = CCConv2d(width, 1, kernel_size, kernel_input=kernel_input, hidden=hidden)
        # How far an output sees, input px on either side: a pixel a convolution, and half the CC layer's window.
        self.reach = max(depth + (self.last.kernel_size[0] + 1) // 2, cubic.REACH)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He et al.'s initialisation of the convolutions, for maps that keep their variance; a small last layer."""
        for layer in self._convolutions():
            nn.init.kaiming_normal_(layer.weight, a=SLOPE, nonlinearity="leaky_relu")
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
        self.last.kernel.reset_parameters()
        with torch.no_grad():
            for parameter in chain(self.last.kernel.last.parameters(), self.last.parameters(recurse=False)):
                parameter.mul_(LAST_LAYER_GAIN)

    def forward(self, x: Tensor, scale: ScalePair = 1, out_size: int | tuple[int, int] | None = None) -> Tensor:
        """Enlarge grey pictures.

        Args:
            x: [N, 1, H, W], 0 black to 1 white.
            scale: output px per input px, 1 to 4, a number or a pair (vertical, horizontal).
            out_size: px, a number, a pair or None for ceil(scale * size).

        Returns:
            [N, 1, H', W'], not clipped.

        Raises:
            CcnetError: pictures of another shape, a scale out of range, or an output size that contradicts it.
        """
        if x.dim() != 4 or x.shape[1] != 1 or not x.is_floating_point():
            raise CcnetError(f"an upscaler takes grey floating point [N, 1, H, W]; got {x.dtype} {[*x.shape]}")
        axes = whole_axes((x.shape[2], x.shape[3]), scale, out_size, self.reach)
        cut_out = cut(x, axes)
        return cubic.bicubic_tile(cut_out, axes) + self.residual(cut_out, axes)

    def residual(self, x: Tensor, axes: Axes) -> Tensor:
        """What is added to the bicubic picture.

        Args:
            x: grey [N, 1, rows, columns]: the inputs of `axes`, `reach` px around where their outputs look.
            axes: (vertical, horizontal).

        Returns:
            [N, 1, rows, columns] of the outputs of `axes`.
        """
        inverse = torch.tensor([float(1 / axis.scale) for axis in axes], dtype=x.dtype, device=x.device)
        share = 1 - math.prod(1 / axis.scale for axis in axes)
        if not share:
            return x.new_zeros(len(x), 1, *(len(axis.outputs) for axis in axes))
        features = F.leaky_relu(self.first(x - GREY_MIDDLE) + self.factor(inverse)[:, None, None], SLOPE)
        for layer in self.body:
            features = F.leaky_relu(layer(features), SLOPE)
        margin = 1 + len(self.body)
        out = apply_kernel(
            features,
            self.last.kernel,
            self.last.kernel_size,
            (axes[0].narrowed(margin), axes[1].narrowed(margin)),
            kernel_input=self.last.kernel_input,
            backend=self.last.backend,
        )
        assert self.last.bias is not None
        return float(share) * (out + self.last.bias)

    def _convolutions(self) -> list[nn.Conv2d]:
        return [layer for layer in (self.first, *self.body) if isinstance(layer, nn.Conv2d)]
