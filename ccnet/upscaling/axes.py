"""Which outputs of an axis are made of which inputs: a whole axis, or one tile's share of it.

Beyond its edges a picture goes on with its outermost pixels. Zeros, as the layers of a classifier see them, would
darken the rim of everything that is enlarged. `cut` repeats the edge as it takes pixels out, so that a whole picture
and any tile of one are the same case: inputs that may lie outside.
"""

import math
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from ccnet.backends import get_backend
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid, ScalePair, exact_scales
from ccnet.layer import int_pair
from ccnet.types import Kernel, KernelInput

Axes = tuple["Axis", "Axis"]

LARGEST_SCALE = 4  # output px per input px along an axis; below 1 an antialiasing filter is needed, which this is not


@dataclass(frozen=True)
class Axis:
    """Some outputs of one axis of a picture, and the inputs that are at hand for them.

    Attributes:
        in_size, out_size: px of the whole picture along the axis.
        scale: s, exact.
        outputs: output px, 0 to `out_size`.
        inputs: input px; may begin before 0 and end behind `in_size`, where the edge is repeated.
    """

    in_size: int
    out_size: int
    scale: Fraction
    outputs: range
    inputs: range

    def grid(self, kernel_size: int) -> AxisGrid:
        """The grid (Eq. 2) of these outputs over these inputs."""
        whole = AxisGrid.make(self.in_size, self.out_size, self.scale, kernel_size)
        return whole.part(self.outputs, self.inputs)

    def tile(self, outputs: range, reach: int) -> "Axis":
        """The same axis with these outputs and all inputs within `reach` px of where they look."""
        first, last = (self._position(n) for n in (outputs.start, outputs.stop - 1))
        return replace(self, outputs=outputs, inputs=range(math.floor(first) - reach, math.ceil(last) + reach + 1))

    def narrowed(self, margin: int) -> "Axis":
        """The same outputs, with `margin` inputs fewer at each end: what convolutions without padding leave."""
        return replace(self, inputs=range(self.inputs.start + margin, self.inputs.stop - margin))

    def _position(self, n: int) -> Fraction:
        """g_n of Eq. 2."""
        return n / self.scale + Fraction(self.in_size - 1, 2) - (self.out_size - 1) / (2 * self.scale)


def whole_axes(in_size: tuple[int, int], scale: ScalePair, out_size: int | tuple[int, int] | None, reach: int) -> Axes:
    """Both axes of a picture, with all outputs.

    Args:
        in_size: (height, width), px.
        scale: output px per input px, 1 to `LARGEST_SCALE`, a number or a pair (vertical, horizontal).
        out_size: px, a number, a pair, or None for ceil(scale * in_size).
        reach: inputs that are needed on either side of where an output looks, px.

    Raises:
        CcnetError: a scale out of range, or an output size that is not the input's times the scale, to a pixel of the
            input.
    """
    scales = exact_scales(scale)
    if not all(1 <= s <= LARGEST_SCALE for s in scales):
        raise CcnetError(
            f"pictures are enlarged by 1 to {LARGEST_SCALE} along each axis; got a scale of {float(scales[0]):g} "
            f"(vertical) and {float(scales[1]):g} (horizontal). Enlarge twice for more; to reduce a picture, use a "
            "filter against aliasing, such as Pillow's resize"
        )
    natural = tuple(math.ceil(s * size) for s, size in zip(scales, in_size, strict=True))
    wanted = natural if out_size is None else int_pair("out_size", out_size)
    axes = []
    for size, out, s in zip(in_size, wanted, scales, strict=True):
        if not s * (size - 1) < out < s * size + 1:  # an input may itself have been rounded up
            raise CcnetError(
                f"out_size {wanted} is not the picture's {tuple(in_size)} times the scale, which is {natural}; leave "
                "one of them out"
            )
        axes.append(Axis(size, out, s, range(out), range(size)).tile(range(out), reach))
    return axes[0], axes[1]


def cut(x: Tensor, axes: Axes) -> Tensor:
    """The inputs of both axes out of a picture [..., H, W], whose edges are repeated where they lie outside."""
    for dim, axis in ((-2, axes[0]), (-1, axes[1])):
        index = torch.arange(axis.inputs.start, axis.inputs.stop, device=x.device).clamp_(0, axis.in_size - 1)
        x = x.index_select(dim, index)
    return x


def apply_kernel(
    x: Tensor,
    kernel: Kernel,
    kernel_size: tuple[int, int],
    axes: Axes,
    *,
    kernel_input: KernelInput = "distance",
    backend: str = "auto",
) -> Tensor:
    """`cc_conv2d` for a tile: the outputs of both axes from x, which holds their inputs.

    Args:
        x: [N, C_in, rows, columns], as many as `axes` have inputs.
        kernel, kernel_size, kernel_input, backend: as in `cc_conv2d`.
        axes: (vertical, horizontal).

    Returns:
        [N, C_out, rows, columns], as many as `axes` have outputs.
    """
    vertical, horizontal = axes[0].grid(kernel_size[0]), axes[1].grid(kernel_size[1])
    return get_backend(backend, x.device)(x, kernel, vertical, horizontal, kernel_input)
