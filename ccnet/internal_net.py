"""The Internal-Net K_theta: a small network from sub-pixel coordinates to convolution weights (Table 2).

Two inputs, two models:

`"distance"`: K_theta(d) for the distance d = g - m to one neighbour: one continuous function over the whole support,
    C_out * C_in outputs (Sec. 3.1, block 3).
`"offset"`: K_theta(g - window centre) for all K_h * K_w neighbours at once: C_out * C_in * K_h * K_w outputs, each a
    function of the sub-pixel offset alone (Sec. 5, "No need to keep the Neighbors distances"; A.1).

At initialisation the generated weights have the variance 1 / (3 C_in K_h K_w) of a `torch.nn.Conv2d`'s (A.2): the
biases of the last layer are drawn from a normal distribution that carries most of it, the last layer's weights the
rest, so that the weights do vary with the coordinate from the first step on.
"""

import math
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from ccnet.errors import CcnetError
from ccnet.grid import whole_number
from ccnet.native.library import PANEL
from ccnet.types import KernelInput

# Share of the generated weights' variance that comes from the coordinate and not from the last layer's bias. The paper
# initialises the biases alone (share 0), which starts every phase with the same filter.
LEAKY_SLOPE = 0.01  # the paper says LeakyReLU and not its slope; this is torch's default
VARYING_SHARE = 0.1


class InternalNet(nn.Module):
    """K_theta of Table 2: 1x1 convolutions 16, 16, C_final with LeakyReLU between them, as linear layers over points.

    Args:
        in_channels: C_in of the CC layer.
        out_channels: C_out of the CC layer.
        kernel_size: (K_h, K_w).
        kernel_input: "distance" or "offset".
        hidden: widths of the hidden layers.

    Source: arXiv 2006.11120, A.1 and Table 2; initialisation A.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: tuple[int, int],
        *,
        kernel_input: KernelInput = "offset",
        hidden: tuple[int, ...] = (16, 16),
    ) -> None:
        super().__init__()
        if kernel_input not in ("distance", "offset"):
            raise CcnetError(f'kernel_input is "distance" or "offset"; got {kernel_input!r}')
        if not isinstance(hidden, (tuple, list)) or not hidden:
            raise CcnetError(f"hidden names one or more layer widths, such as (16, 16); got {hidden!r}")
        self.in_channels = whole_number("in_channels", in_channels)
        self.out_channels = whole_number("out_channels", out_channels)
        self.kernel_size = (whole_number("kernel height", kernel_size[0]), whole_number("kernel width", kernel_size[1]))
        self.kernel_input = kernel_input
        widths = (2, *(whole_number("a hidden width", width) for width in hidden))
        taps = math.prod(self.kernel_size) if kernel_input == "offset" else 1
        self.hidden = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.last = nn.Linear(widths[-1], self.out_channels * self.in_channels * taps)
        self.reset_parameters()

    # How often `.to()` and its like may have put other values into the same parameters; see `ccnet.stamps.Stamp`.
    moves = 0

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "InternalNet":
        self.moves += 1
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self

    def forward(self, points: Tensor) -> Tensor:
        """Weights at M points.

        Args:
            points: [M, 2], (vertical, horizontal) distances or offsets in input px, of any floating point dtype.

        Returns:
            [M, C_out, C_in] ("distance") or [M, C_out, C_in, K_h, K_w] ("offset"), in the parameters' dtype.

        Raises:
            CcnetError: points of another shape.
        """
        if points.dim() != 2 or points.shape[1] != 2:
            raise CcnetError(f"points are [M, 2], (vertical, horizontal); got {list(points.shape)}")
        weights = self.features(points) @ self._with_bias().mT
        if self.kernel_input == "distance":
            return weights.view(len(points), self.out_channels, self.in_channels)
        # The last layer's rows are stored in the order (K_h, C_out, K_w, C_in) in which the discrete backend's matrix
        # products read them: reordering a few parameters once replaces a copy of every generated weight.
        kernel_height, kernel_width = self.kernel_size
        weights = weights.view(len(points), kernel_height, self.out_channels, kernel_width, self.in_channels)
        return weights.permute(0, 2, 4, 1, 3)  # [M, C_out, C_in, K_h, K_w], a view

    def features(self, points: Tensor) -> Tensor:
        """Hidden values at M points, [M, hidden[-1] + 1], the last one 1, by which the bias of the last layer enters.

        Weights are linear in them; adding the bias separately would write all the weights twice.
        """
        return nn.functional.pad(self._features(points.to(self.last.weight.dtype)), (0, 1), value=1.0)

    def packed_basis(self) -> Tensor:
        """What turns `features` into packed weights ("offset" only), [hidden[-1] + 1, panels * K_h * K_w * C_in * 16].

        The few parameters are reordered so that none of the many weights have to be; see `packed`.
        """
        kernel_height, kernel_width = self.kernel_size
        basis = self._with_bias().view(kernel_height, self.out_channels, kernel_width, self.in_channels, -1)
        basis = nn.functional.pad(basis, (0, 0, 0, 0, 0, 0, 0, -self.out_channels % PANEL))
        ordered: Tensor = basis.unflatten(1, (-1, PANEL)).permute(5, 1, 0, 3, 4, 2)
        return ordered.flatten(1)

    def packed(self, points: Tensor) -> Tensor:
        """Weights at M points in the order of the native kernels ("offset" only).

        Returns:
            [M, panels, K_h, K_w, C_in, 16]: output channel o is number o % 16 of panel o // 16; zeros behind the last.
        """
        weights = self.features(points) @ self.packed_basis()
        return weights.view(len(points), -1, *self.kernel_size, self.in_channels, PANEL)

    def is_plain(self) -> bool:
        """Whether a call of the module computes `forward` as it stands here: no subclass's, no hooks around it."""
        return type(self).forward is InternalNet.forward and not (self._forward_hooks or self._forward_pre_hooks)

    def is_ordinary(self) -> bool:
        """Whether moreover its features follow from its parameters alone: hidden layers and methods are the usual ones.

        What is computed without calling the hidden layers must know that nobody has added to them.
        """
        usual = ("features", "_features", "packed_basis", "_with_bias")
        return (
            self.is_plain()
            and all(getattr(type(self), name) is getattr(InternalNet, name) for name in usual)
            and all(
                type(layer).forward is nn.Linear.forward
                and layer.bias is not None
                and not (layer._forward_hooks or layer._forward_pre_hooks)
                for layer in self.hidden
            )
        )

    @property
    def negative_slope(self) -> float:
        """Of the leaky ReLU behind every hidden layer."""
        return LEAKY_SLOPE

    def _with_bias(self) -> Tensor:
        """The last layer's weights and, as one more column, its bias."""
        return torch.cat([self.last.weight, self.last.bias[:, None]], dim=1)

    def reset_parameters(self) -> None:
        """Draw all parameters anew; the generated weights then have a Conv2d's variance (A.2)."""
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            layer.reset_parameters()
        if self.last.weight.is_meta:  # shapes alone: whoever builds so brings weights
            return
        fan_in = self.in_channels * math.prod(self.kernel_size)
        variance = 1 / (3 * fan_in)  # of nn.Conv2d's default, U(-1/sqrt(fan_in), 1/sqrt(fan_in))
        with torch.no_grad():
            features = self._features(self._reference_points())
            energy = features.square().sum(dim=1).mean()  # E[|h|^2]: Var[A h] = Var[A] E[|h|^2]
            nn.init.normal_(self.last.weight, std=math.sqrt(VARYING_SHARE * variance / max(float(energy), 1e-12)))
            nn.init.normal_(self.last.bias, std=math.sqrt((1 - VARYING_SHARE) * variance))

    def _features(self, points: Tensor) -> Tensor:
        """The hidden values h(point), [M, hidden[-1]]."""
        for layer in self.hidden:
            points = nn.functional.leaky_relu(layer(points), LEAKY_SLOPE)
        return points

    def _reference_points(self) -> Tensor:
        """A 16 x 16 raster over all coordinates that the network can meet, [256, 2]."""
        support = self.kernel_size if self.kernel_input == "distance" else (1, 1)
        axes = [(torch.arange(16) + 0.5) / 16 * size - size / 2 for size in support]
        points = torch.cartesian_prod(*axes)
        return points.to(self.last.weight)
