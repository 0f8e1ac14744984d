"""Index tables of one layer for all members of an ensemble: which output pixels share weights, and where they look.

The maps of all nodes of a level lie one after the other in one ragged buffer of rows [pixels, N, C]: pixel outermost,
then the image, channels last. Row `pixel * N + image` is what the kernel reads and writes, so no table depends on the
number of images N, and for N at least the height of a tile the rows of a tile are neighbours in memory.

A *slot* is a set of weights. Weights depend on the sub-pixel offsets of an output pixel alone (Sec. 5), so all output
pixels with the same pair of offsets share a slot: those of one phase of one node, but also those of other nodes that
meet the same offsets (4/5 and 4/5, or 1/2 and 1/2, somewhere in two sequences). Output pixels are sorted by slot, and a
*tile* is a run of rows of one slot: one matrix product with one matrix of weights.

For output pixel number i (in the order of the slots) the neighbour at tap (u, v) is the input pixel
`corners[i] + u * widths[i] + v` of the ragged buffer, and it counts only if bit u of `rows_inside[i]` and bit v of
`columns_inside[i]` are set; everything else is zero padding.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import torch
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.prefixes import Node

MAX_TAPS = 31  # neighbours along an axis: the bits of an int32 without its sign
_LARGEST = 2**31 - 1


@dataclass(frozen=True)
class LayerTables:
    """Where every output pixel of a layer, of all nodes, reads and writes. Tensors are int32 on the CPU or a device.

    Attributes:
        slots: the distinct (vertical, horizontal) sub-pixel offsets, in input px; slot s holds the weights of the s-th.
        slot_begins: [slots + 1], first output pixel (in the order below) of every slot, and their number at the end.
        targets: [pixels], output pixel of the ragged output buffer; every one occurs once.
        corners: [pixels], input pixel of the ragged input buffer at tap (0, 0); may lie outside the node's map.
        widths: [pixels], px from one row of the node's input map to the next.
        rows_inside: [pixels], bit u: whether vertical tap u lies inside the map.
        columns_inside: [pixels], bit v: whether horizontal tap v does.
        in_pixels, out_pixels: pixels of the two ragged buffers for one image.
    """

    slots: tuple[tuple[Fraction, Fraction], ...]
    slot_begins: Tensor
    targets: Tensor
    corners: Tensor
    widths: Tensor
    rows_inside: Tensor
    columns_inside: Tensor
    in_pixels: int
    out_pixels: int

    @staticmethod
    def make(nodes: Sequence[Node], in_sizes: Sequence[tuple[int, int]]) -> "LayerTables":
        """The tables of one layer.

        Args:
            nodes: the layer's nodes.
            in_sizes: (height, width) in px of the maps of the level before, in the order of its nodes.

        Raises:
            CcnetError: a kernel of more than 31 taps along an axis, or maps too large for 32 bit indices.
        """
        _require_taps(nodes[0])
        in_begins, in_pixels = _begins([height * width for height, width in in_sizes])
        out_begins, out_pixels = _begins([node.vertical.out_size * node.horizontal.out_size for node in nodes])
        require_index("pixels", max(in_pixels, out_pixels))
        vertical_offsets: dict[Fraction, int] = {}
        horizontal_offsets: dict[Fraction, int] = {}
        parts = [
            _pixels(
                _Axis.make(node.vertical, vertical_offsets),
                _Axis.make(node.horizontal, horizontal_offsets),
                node.horizontal.in_size,
                in_begins[node.parent],
                out_begin,
            )
            for node, out_begin in zip(nodes, out_begins, strict=True)
        ]
        table = torch.cat(parts, dim=1)  # [6, pixels]
        codes, slot_of, counts = torch.unique(table[0], return_inverse=True, return_counts=True)
        targets, corners, widths, rows_inside, columns_inside = table[1:, slot_of.argsort(stable=True)].int()
        vertical_of, horizontal_of = list(vertical_offsets), list(horizontal_offsets)
        return LayerTables(
            tuple((vertical_of[code >> 32], horizontal_of[code & 0xFFFFFFFF]) for code in codes.tolist()),
            torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int(),
            targets,
            corners,
            widths,
            rows_inside,
            columns_inside,
            in_pixels,
            out_pixels,
        )

    def tiles(self, images: int, rows: int) -> Tensor:
        """The tiles of a pass over N images, [tiles, 3] int32: slot, first row, end of the slot's rows.

        A row is an (output pixel, image) pair, numbered `pixel * N + image` in the order of the slots; a tile takes
        `rows` of them at most, and never rows of two slots.
        """
        require_index("pixels times images", max(self.in_pixels, self.out_pixels) * images)
        begins = self.slot_begins.to("cpu", torch.int64) * images
        counts = -(-(begins[1:] - begins[:-1]) // rows)  # tiles of each slot
        slots = torch.arange(len(counts)).repeat_interleave(counts)
        position = torch.arange(len(slots)) - (counts.cumsum(0) - counts)[slots]  # in its slot
        return torch.stack([slots, begins[slots] + position * rows, begins[slots + 1]], dim=1).int()

    def to(self, device: torch.device) -> "LayerTables":
        """The same with the tables that the kernel reads on a device."""
        return replace(
            self,
            targets=self.targets.to(device),
            corners=self.corners.to(device),
            widths=self.widths.to(device),
            rows_inside=self.rows_inside.to(device),
            columns_inside=self.columns_inside.to(device),
        )

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        tables = (self.targets, self.corners, self.widths, self.rows_inside, self.columns_inside, self.slot_begins)
        return sum(table.nbytes for table in tables)


@dataclass(frozen=True)
class _Axis:
    """One axis of a node, a number an output pixel: window start, taps inside as bits, number of its offset."""

    starts: Tensor
    inside: Tensor
    offsets: Tensor

    @staticmethod
    def make(axis: AxisGrid, numbers: dict[Fraction, int]) -> "_Axis":
        # A window wholly outside may lie further off than any integer type reaches; just outside is as good.
        starts = torch.tensor([min(max(start, -axis.kernel_size), axis.in_size) for start in axis.starts])
        taps = torch.arange(axis.kernel_size)
        neighbours = starts[:, None] + taps
        inside = (((neighbours >= 0) & (neighbours < axis.in_size)).long() << taps).sum(dim=1)
        of_phase = [numbers.setdefault(offset, len(numbers)) for offset in axis.offsets]
        offsets = torch.tensor(of_phase).repeat(-(-axis.out_size // axis.period))[: axis.out_size]
        return _Axis(starts, inside, offsets)


def _pixels(rows: _Axis, columns: _Axis, width: int, in_begin: int, out_begin: int) -> Tensor:
    """A node's output pixels, [6, H' W']: slot as two numbers in one int64, target, corner, width, taps inside."""
    corner = in_begin + rows.starts[:, None] * width + columns.starts
    grid = corner.shape
    pixels = [
        (rows.offsets[:, None] << 32 | columns.offsets).expand(grid),
        out_begin + torch.arange(corner.numel()).view(grid),
        corner,
        torch.full(grid, width),
        rows.inside[:, None].expand(grid),
        columns.inside.expand(grid),
    ]
    return torch.stack(pixels).flatten(1)


def require_index(name: str, value: int) -> None:
    """Refuse what a 32 bit index cannot count."""
    if value > _LARGEST:
        raise CcnetError(f"{name} of one layer are at most {_LARGEST}; got {value}. Use fewer members or images")


def _require_taps(node: Node) -> None:
    taps = (node.vertical.kernel_size, node.horizontal.kernel_size)
    if max(taps) > MAX_TAPS:
        raise CcnetError(f"a kernel has at most {MAX_TAPS} taps along an axis here; got {taps[0]}x{taps[1]}")


def _begins(sizes: Sequence[int]) -> tuple[list[int], int]:
    """Where each of several arrays begins when they lie one after the other, and where they end."""
    begins, end = [], 0
    for size in sizes:
        begins.append(end)
        end += size
    return begins, end
