"""Test-time augmentation of the input: mirrored and moved views of a picture, what a scale ensemble is compared with.

The views come in one order, so that k of them cost k passes: the picture itself and its mirror image, then both of
these moved by a pixel, towards the corners first. The first six hold those of airbench (Jordan 2024), which leaves two
of them out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.grid import whole_number

_MOVES = ((0, 0), (1, 1), (-1, -1), (1, -1), (-1, 1), (0, 1), (0, -1), (1, 0), (-1, 0))
MAX_VIEWS = 2 * len(_MOVES)


@dataclass(frozen=True, slots=True)
class View:
    """One way to look at a picture.

    Attributes:
        mirrored: left and right changed over.
        down, right: whole pixels by which it is moved afterwards.
    """

    mirrored: bool = False
    down: int = 0
    right: int = 0

    def __call__(self, x: Tensor, fill: Sequence[float] = (0.0,)) -> Tensor:
        """Images [N, C, H, W] -> images of the same shape; `fill`, one value or one a channel, enters at the rim."""
        if self.mirrored:
            x = x.flip(-1)
        if not (self.down or self.right):
            return x
        height, width = x.shape[-2:]
        moved = torch.empty_like(x)
        moved[:] = torch.tensor(fill, dtype=x.dtype, device=x.device).view(-1, 1, 1)
        to, off = _overlap(self.down, height)
        across_to, across_off = _overlap(self.right, width)
        moved[..., to, across_to] = x[..., off, across_off]
        return moved


def _overlap(move: int, size: int) -> tuple[slice, slice]:
    """Where the pixels that stay in the picture go along an axis, and where they come from."""
    move = max(-size, min(move, size))
    return slice(max(move, 0), size + min(move, 0)), slice(max(-move, 0), size - max(move, 0))


def input_views(count: int) -> list[View]:
    """The first `count` views.

    Raises:
        CcnetError: fewer than 1 or more than `MAX_VIEWS`.
    """
    if whole_number("views", count) > MAX_VIEWS:
        raise CcnetError(f"{count} views of a picture; there are {MAX_VIEWS}")
    return [View(mirrored, *move) for move in _MOVES for mirrored in (False, True)][:count]
