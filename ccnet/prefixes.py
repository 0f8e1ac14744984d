"""What the members of an ensemble have in common: equal prefixes of their scale sequences, as a tree.

Two members whose scales agree in the first j layers have the same maps up to layer j, because a map's size follows
from the product of the scales so far (Eq. 4) and its values from the scales alone. Level j of the tree therefore holds
one node for each distinct prefix of j + 1 scales; level 0 (s = 1) is one node for every ensemble of a CCNet.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.sequences import ScaleSequence


@dataclass(frozen=True)
class Node:
    """The map that all members with one prefix of scales share.

    Attributes:
        parent: index of the node of the level before that it is computed from; 0, the images, at the first level.
        vertical, horizontal: the grids of its layer.
    """

    parent: int
    vertical: AxisGrid
    horizontal: AxisGrid


@dataclass(frozen=True)
class PrefixTree:
    """The distinct maps of an ensemble.

    Attributes:
        levels: the nodes of every layer.
        leaves: for each member, its node at the last level.
    """

    levels: tuple[tuple[Node, ...], ...]
    leaves: tuple[int, ...]

    def first_members(self) -> tuple[tuple[int, ...], ...]:
        """For every node, level by level, the first member that passes through it."""
        first = [[-1] * len(level) for level in self.levels]
        for member, node in reversed(list(enumerate(self.leaves))):
            for level in range(len(self.levels) - 1, -1, -1):
                first[level][node] = member
                node = self.levels[level][node].parent
        return tuple(map(tuple, first))

    @staticmethod
    def make(
        sequences: Sequence[ScaleSequence], kernel_sizes: Sequence[tuple[int, int]], in_size: tuple[int, int]
    ) -> "PrefixTree":
        """The tree of k members.

        Args:
            sequences: the members, each with one scale a layer.
            kernel_sizes: (K_h, K_w) of every layer.
            in_size: (height, width) of the images in px.

        Raises:
            CcnetError: no members.
            SequenceError: a member of another length than the network, another product, or one that empties a map.
        """
        if not sequences:
            raise CcnetError("an ensemble needs at least one sequence; got none")
        for sequence in sequences:
            sequence.require_valid(layers=len(kernel_sizes), in_size=in_size)
        shapes = [(in_size, *sequence.shapes(in_size)) for sequence in sequences]
        scales = [[(s.as_integer_ratio(), t.as_integer_ratio()) for s, t in sequence.scales] for sequence in sequences]
        node_of = [0] * len(sequences)  # of each member at the level before
        levels = []
        for j, kernel_size in enumerate(kernel_sizes):
            index: dict[tuple[object, ...], int] = {}
            nodes: list[Node] = []
            for member, sequence in enumerate(sequences):
                # The parent stands for the whole prefix before this layer.
                key = (node_of[member], scales[member][j])
                if key not in index:
                    index[key] = len(nodes)
                    (height, width), out = shapes[member][j], shapes[member][j + 1]
                    nodes.append(
                        Node(
                            node_of[member],
                            AxisGrid.make(height, out[0], sequence.vertical[j], kernel_size[0]),
                            AxisGrid.make(width, out[1], sequence.horizontal[j], kernel_size[1]),
                        )
                    )
                node_of[member] = index[key]
            levels.append(tuple(nodes))
        return PrefixTree(tuple(levels), tuple(node_of))
