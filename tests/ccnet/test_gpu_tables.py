"""The GPU kernel's tables against loops over pixels and taps, the prefix tree, and what is refused without a GPU."""

import itertools
import random
import subprocess
import sys
from fractions import Fraction

import pytest
import torch

from ccnet import CCConv2d, CCNet, CcnetError, ScaleSequence, SequenceError, sample_scale_sequences
from ccnet.backends.phases import phase_weights
from ccnet.gpu import EnsembleProgram, weights
from ccnet.gpu.program import bucket_of, require_kernel
from ccnet.gpu.tables import LayerTables
from ccnet.gpu.tiling import LEAST, candidate_tiles, default_tile
from ccnet.gpu.weights import slot_weights
from ccnet.grid import AxisGrid
from ccnet.prefixes import Node, PrefixTree
from tests.ccnet.literal import literal_grid, literal_neighbours

F = Fraction


def node(parent: int, in_size, scale, kernel, out=(None, None)) -> Node:
    axes = [AxisGrid.make(i, o, s, k) for i, o, s, k in zip(in_size, out, scale, kernel, strict=True)]
    return Node(parent, axes[0], axes[1])


NODES = {  # kernel size -> (input sizes of the level before, nodes)
    (3, 3): (
        [(6, 5), (4, 7)],
        [
            node(1, (4, 7), (F(4, 5), F(189, 250)), (3, 3)),
            node(0, (6, 5), (F(2, 3), F(4, 5)), (3, 3)),
            node(0, (6, 5), (F(7, 4), 0.731), (3, 3)),
            node(1, (4, 7), (F(1), F(1, 2)), (3, 3)),
        ],
    ),
    (4, 5): ([(2, 3)], [node(0, (2, 3), (F(3, 2), F(5, 6)), (4, 5)), node(0, (2, 3), (F(1, 3), F(2)), (4, 5))]),
    (3, 4): ([(4, 5)], [node(0, (4, 5), (F(1, 10**30), F(3, 10**12)), (3, 4), (3, 5))]),
}


def literal_tables(in_sizes, nodes):
    """Of every output pixel: its offsets, and the input pixel of every tap or None outside, by loops over n and m."""
    in_begins = [sum(h * w for h, w in in_sizes[:i]) for i in range(len(in_sizes))]
    for item in nodes:
        (height, width), begin = in_sizes[item.parent], in_begins[item.parent]
        axes = (item.vertical, item.horizontal)
        grids = [literal_grid(axis.in_size, axis.out_size, axis.scale) for axis in axes]
        for g in itertools.product(*grids):
            near = [literal_neighbours(g_axis, axis.kernel_size) for g_axis, axis in zip(g, axes, strict=True)]
            offsets = tuple(g_axis - F(m[0] + m[-1], 2) for g_axis, m in zip(g, near, strict=True))
            taps = [
                begin + i * width + j if 0 <= i < height and 0 <= j < width else None
                for i, j in itertools.product(*near)
            ]
            yield offsets, taps


@pytest.mark.parametrize("kernel", NODES, ids=str)
def test_tables_say_of_every_pixel_and_tap_what_a_loop_says(kernel):
    in_sizes, nodes = NODES[kernel]
    tables = LayerTables.make(nodes, in_sizes)
    expected = list(literal_tables(in_sizes, nodes))
    assert sorted(tables.targets.tolist()) == list(range(len(expected))), "every output pixel is written once"
    assert tables.in_pixels == sum(h * w for h, w in in_sizes)
    assert tables.out_pixels == len(expected)
    begins = tables.slot_begins.tolist()
    assert begins[-1] == len(expected)
    for slot, pixels in enumerate(itertools.pairwise(begins)):
        for i in range(*pixels):
            offsets, taps = expected[int(tables.targets[i])]
            assert tables.slots[slot] == offsets
            assert [neighbour(tables, i, u, v) for u in range(kernel[0]) for v in range(kernel[1])] == taps


def neighbour(tables: LayerTables, i: int, u: int, v: int) -> int | None:
    inside = int(tables.rows_inside[i]) >> u & int(tables.columns_inside[i]) >> v & 1
    return int(tables.corners[i]) + u * int(tables.widths[i]) + v if inside else None


def test_weights_of_equal_offsets_are_one_slot_whatever_the_member():
    in_sizes = [(10, 10), (15, 10)]
    one = node(0, (10, 10), (F(4, 5), F(4, 5)), (3, 3))
    other = node(1, (15, 10), (F(4, 5), F(1, 2)), (3, 3))
    alone = [set(LayerTables.make([item], in_sizes).slots) for item in (one, other)]
    both = LayerTables.make([one, other], in_sizes)
    assert len(alone[0]) == 16
    assert set(both.slots) == alone[0] | alone[1]
    assert len(both.slots) == len(alone[0] | alone[1])
    shared = LayerTables.make([one, node(0, (10, 10), (F(4, 5), F(4, 5)), (3, 3))], in_sizes)
    assert len(shared.slots) == 16


@pytest.mark.parametrize("images", [1, 4])
@pytest.mark.parametrize("rows", [16, 64])
def test_tiles_cover_every_row_once_and_never_two_slots(images, rows):
    in_sizes, nodes = NODES[3, 3]
    tables = LayerTables.make(nodes, in_sizes)
    covered = []
    for slot, first, end in tables.tiles(images, rows).tolist():
        own = [int(b) * images for b in tables.slot_begins[slot : slot + 2]]
        assert own[0] <= first < end == own[1]
        covered += [(slot, row) for row in range(first, min(first + rows, end))]
    slots = range(len(tables.slots))
    assert covered == [
        (s, row) for s in slots for row in range(tables.slot_begins[s] * images, tables.slot_begins[s + 1] * images)
    ]


def test_what_a_32_bit_index_cannot_count_is_refused():
    tables = LayerTables.make(NODES[3, 3][1], NODES[3, 3][0])
    with pytest.raises(CcnetError, match=r"at most 2147483647.*fewer members or images"):
        tables.tiles(2**28, 16)
    with pytest.raises(CcnetError, match=r"31 taps.*32x1"):
        LayerTables.make([node(0, (3, 3), (1, 1), (32, 1))], [(3, 3)])


@pytest.mark.parametrize("kernel_input", ["distance", "offset"])
def test_slot_weights_are_the_phase_weights_padded_and_in_the_order_of_the_kernel(kernel_input, monkeypatch):
    monkeypatch.setattr(weights, "CHUNK_BYTES", 40_000)  # a few slots at a time
    torch.manual_seed(0)
    layer = CCConv2d(2, 16, (3, 4), kernel_input=kernel_input).double()
    item = node(0, (9, 7), (F(4, 5), F(2, 3)), (3, 4))
    tables = LayerTables.make([item], [(9, 7)])
    made = slot_weights(layer, tables.slots, torch.float64, padded_channels=16)
    expected = phase_weights(layer.kernel, item.vertical, item.horizontal, kernel_input, like=torch.zeros(1).double())
    assert made.shape == (8, 3, 4, 16, 16)
    assert not made[:, :, :, 2:].any()
    for a, b in itertools.product(range(4), range(2)):
        slot = tables.slots.index((item.vertical.offsets[a], item.horizontal.offsets[b]))
        torch.testing.assert_close(made[slot, :, :, :2].permute(3, 2, 0, 1), expected[a, b], rtol=0, atol=1e-12)
    assert not made.requires_grad


def test_members_share_a_node_exactly_while_their_scales_agree():
    texts = ["1 1/2 1/2 1", "1 1/2 3/4 2/3", "1 3/4 1/2 2/3", "1 1/2 3/4 2/3", "1 1/2 1/2 1 x 1 1 1/2 1/2"]
    sequences = [ScaleSequence.parse(text) for text in texts]
    tree = PrefixTree.make(sequences, [(3, 3), (4, 4), (3, 3), (3, 3)], (8, 8))
    assert [len(level) for level in tree.levels] == [1, 3, 4, 4]
    assert tree.leaves == (0, 1, 2, 1, 3)
    for member, sequence in enumerate(sequences):
        index, path = tree.leaves[member], []
        for level in reversed(tree.levels):
            path.append((level[index].vertical.scale, level[index].horizontal.scale))
            index = level[index].parent
        assert tuple(reversed(path)) == sequence.scales
        assert index == 0


def test_every_node_has_the_size_of_eq_4():
    sequences = sample_scale_sequences(8, seed=1)
    tree = PrefixTree.make(sequences, [(3, 3)] * 8, (32, 32))
    for member, sequence in enumerate(sequences):
        index, sizes = tree.leaves[member], []
        for level in reversed(tree.levels):
            sizes.append((level[index].vertical.out_size, level[index].horizontal.out_size))
            index = level[index].parent
        assert tuple(reversed(sizes)) == sequence.shapes((32, 32))


def test_a_tree_of_no_members_or_of_wrong_ones_is_refused():
    with pytest.raises(CcnetError, match="at least one sequence"):
        PrefixTree.make([], [(3, 3)], (8, 8))
    with pytest.raises(SequenceError, match="has 4 layers"):
        PrefixTree.make([ScaleSequence.parse("1 1/4")], [(3, 3)] * 4, (8, 8))


@pytest.mark.parametrize("precision", ["ieee", "tf32", "bf16"])
@pytest.mark.parametrize(("in_channels", "out_channels"), [(16, 32), (32, 32), (32, 64), (64, 64)])
def test_every_tile_divides_its_layer_and_fits_into_shared_memory(precision, in_channels, out_channels):
    numbers = random.Random(0)
    for rows_per_slot in (0.5, 1, 3.7, 17, 64, 1024, numbers.uniform(1, 1e6)):
        candidates = candidate_tiles(rows_per_slot, in_channels, out_channels, precision)
        assert candidates[0] == default_tile(rows_per_slot, in_channels, out_channels, precision)
        for size in candidates:
            assert out_channels % size.channels == 0
            assert in_channels % size.depth == 0
            assert min(size.rows, size.channels, size.depth) >= LEAST
            assert all(n & (n - 1) == 0 for n in (size.rows, size.channels, size.depth, size.warps))
            step_bytes = (size.rows + size.channels) * size.depth * (2 if precision == "bf16" else 4)
            assert step_bytes * size.stages <= 227 * 1024


def test_buckets_are_powers_of_two():
    assert [bucket_of(n) for n in (1, 2, 3, 4, 5, 64, 65)] == [1, 2, 4, 4, 8, 64, 128]


def test_importing_the_package_does_not_import_triton():
    code = "import sys; sys.modules['triton'] = None; import ccnet.gpu; assert 'ccnet.gpu.kernel' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_program_without_triton_says_how_to_get_it():
    code = (
        "import sys; sys.modules['triton'] = None\n"
        "from ccnet import CCNet, CcnetError, sample_scale_sequences\n"
        "from ccnet.gpu import EnsembleProgram\n"
        "try:\n    EnsembleProgram(CCNet(1), sample_scale_sequences(1, seed=0))\n"
        "except CcnetError as error:\n    print(error)\n"
    )
    finished = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "needs Triton" in finished.stdout
    assert "pip install triton" in finished.stdout


def test_a_program_on_a_cpu_without_the_interpreter_says_so():
    pytest.importorskip("triton", reason="Triton is not installed")
    with pytest.raises(CcnetError, match=r"runs on CUDA devices.*is on cpu.*TRITON_INTERPRET=1"):
        require_kernel(torch.device("cpu"))
    with pytest.raises(CcnetError, match="runs on CUDA devices"):
        EnsembleProgram(CCNet(1), sample_scale_sequences(1, seed=0))


def test_an_unknown_precision_names_those_there_are():
    with pytest.raises(CcnetError, match=r"ieee, tf32, bf16; got 'half'"):
        EnsembleProgram(CCNet(1), sample_scale_sequences(1, seed=0), precision="half")  # type: ignore[arg-type]
