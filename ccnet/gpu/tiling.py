"""How the kernel cuts a layer's matrix products into tiles, and which cut is expected to be fast where.

Two regimes, told apart by the rows that share a slot of weights (output pixels of a phase times images). With few rows
(one image) a pass is a walk through its weights: even with 16 rows, the least that a matrix unit takes, arithmetic
takes a tenth of the time that memory takes for the weights, so tiles are flat and the pipeline is deep. With many rows
the arithmetic and the neighbours' traffic count: a tile of M rows and 64 channels loads M + 64 values for 64 M
multiply-adds, so M grows.
"""

from dataclasses import dataclass
from typing import Literal

Precision = Literal["ieee", "tf32", "bf16"]

LEAST = 16  # rows, channels and depth of a matrix product on the device, at least


@dataclass(frozen=True)
class TileSizes:
    """One way to cut a layer.

    Attributes:
        rows: output rows (pixels times images) of a tile; a power of two, at least 16.
        channels: output channels of a tile; a power of two, at least 16, that divides C_out.
        depth: input channels of one step of the inner loop; a power of two, at least 16, that divides C_in (padded).
        warps: warps that share a tile.
        stages: steps of the inner loop that are in flight.
    """

    rows: int
    channels: int
    depth: int
    warps: int
    stages: int


def default_tile(rows_per_slot: float, in_channels: int, out_channels: int, precision: Precision) -> TileSizes:
    """The cut that counting bytes suggests.

    Args:
        rows_per_slot: output rows that share a slot, on average.
        in_channels, out_channels: of the layer, padded.
        precision: "ieee" multiplies outside the matrix units and holds a tile's operands in registers: small tiles.
    """
    channels = largest_power(out_channels, 64)
    depth = largest_power(in_channels, 64 if precision == "bf16" else 32)
    most = 32 if precision == "ieee" else 128
    rows = max(LEAST, min(most, 1 << max(0, round(rows_per_slot) - 1).bit_length()))
    return TileSizes(rows, channels, depth, warps=8 if rows == 128 and precision == "tf32" else 4, stages=4)


def candidate_tiles(
    rows_per_slot: float, in_channels: int, out_channels: int, precision: Precision
) -> tuple[TileSizes, ...]:
    """The default and a handful of others that are worth timing beside it."""
    default = default_tile(rows_per_slot, in_channels, out_channels, precision)
    depth, channels = default.depth, default.channels
    if default.rows <= 32:
        others = [
            TileSizes(16, channels, depth, 4, 6),
            TileSizes(16, channels, depth, 2, 4),
            TileSizes(16, max(LEAST, channels // 2), depth, 2, 4),
            TileSizes(16, max(LEAST, channels // 2), depth, 4, 6),
        ]
    else:
        others = [
            TileSizes(64, channels, depth, 4, 3),
            TileSizes(128, channels, depth, 4, 3),
            TileSizes(128, channels, depth, 8, 3),
            TileSizes(256, channels, depth, 8, 3),
        ]
    return tuple(dict.fromkeys([default, *others]))


def largest_power(value: int, most: int) -> int:
    """The largest power of two that divides a value, up to `most`."""
    return min(value & -value, most)
