"""Planned passes: the members of an ensemble over their prefix tree, from prepared layers to logits.

Members with equal prefixes of scales share their maps (`ccnet.prefixes`), so a level holds one node for each distinct
map, and a level's nodes are independent of each other. With the native kernels all levels and the fully connected
layers are one call, in which the threads share a level's nodes, phases and images among them: a single image of
several members keeps all cores busy. Elsewhere the nodes run one after the other in torch.
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

import torch
from torch import Tensor, nn

from ccnet.backends import native
from ccnet.backends.native import describe_layer, pack_weights, require_kernels
from ccnet.grid import AxisGrid
from ccnet.layer import CCConv2d
from ccnet.models import CCNet
from ccnet.native.library import PANEL, Call, Layer, Program, Step
from ccnet.plan_cache import PlanCache
from ccnet.plans import LayerPlan, Path
from ccnet.prefixes import PrefixTree
from ccnet.sequences import ScaleSequence
from ccnet.stamps import Stamp


@dataclass(frozen=True, eq=False)
class HeadPlan:
    """The fully connected layers for the native kernels, the first one as a convolution over the whole last map.

    Attributes:
        layers: what the kernels are told.
        tensors: packed weights and biases, which the layers point into.
        widths: outputs of each layer.
    """

    layers: tuple[Layer, ...]
    tensors: tuple[Tensor, ...]
    widths: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of weights and biases."""
        return sum(tensor.nbytes for tensor in self.tensors)


@dataclass(frozen=True, eq=False)
class NativePass:
    """A pass as one program of the native kernels, from the images to the logits of all leaves.

    Attributes:
        program: the steps; the levels of the tree write to two buffers in turn.
        map_values: numbers an image in each of these buffers.
        outputs: leaves, and classes of each.
    """

    program: Program
    map_values: tuple[int, int]
    outputs: tuple[int, int]

    IMAGES, LOGITS, MAPS = 0, 1, (2, 3)  # which buffer is which

    @staticmethod
    def make(tree: PrefixTree, plans: Sequence[Sequence[LayerPlan]], head: HeadPlan) -> "NativePass":
        """Of plans for the native kernels."""
        levels: list[list[Step]] = []
        widest = [0, 0]
        places = [(NativePass.IMAGES, 0)]  # of the maps of the level before
        for turn, (nodes, of_nodes) in enumerate(zip(tree.levels, plans, strict=True)):
            parents, places, used = places, [], 0
            for plan in of_nodes:
                places.append((NativePass.MAPS[turn % 2], used))
                used += plan.values
            widest[turn % 2] = max(widest[turn % 2], used)
            layers = [plan.native for plan in of_nodes if plan.native is not None]
            levels.append(
                [
                    Step(layer, parents[node.parent], place, relu=True)
                    for node, layer, place in zip(nodes, layers, places, strict=True)
                ]
            )
        leaves, source = len(tree.levels[-1]), places[0]  # leaves follow one another: a batch of all their images
        for layer, width in zip(head.layers[:-1], head.widths, strict=False):
            turn = len(levels) % 2
            target = (NativePass.MAPS[turn], 0)
            widest[turn] = max(widest[turn], leaves * width)
            levels.append([Step(layer, source, target, maps=leaves, relu=True)])
            source = target
        levels.append([Step(head.layers[-1], source, (NativePass.LOGITS, 0), maps=leaves)])
        return NativePass(Program(levels), (widest[0], widest[1]), (leaves, head.widths[-1]))


@dataclass(frozen=True, eq=False)
class PassPlan:
    """k members prepared for any number of images.

    Attributes:
        tree: the distinct maps.
        plans: of every node, level by level.
        head: the fully connected layers: prepared where the native kernels run, else the model's own.
        native: the whole pass for the native kernels; None where they do not run.
    """

    tree: PrefixTree
    plans: tuple[tuple[LayerPlan, ...], ...]
    head: HeadPlan | nn.Module
    native: NativePass | None

    @cached_property
    def nbytes(self) -> int:
        """Bytes of all distinct plans."""
        distinct = {id(plan): plan.nbytes for level in self.plans for plan in level}
        return sum(distinct.values()) + (self.head.nbytes if isinstance(self.head, HeadPlan) else 0)

    def paths(self, images: int) -> tuple[tuple[Path, ...], ...]:
        """Which way every node takes for a batch of this many images, level by level."""
        return tuple(tuple(plan.path(images) for plan in level) for level in self.plans)

    def __call__(self, x: Tensor) -> Tensor:
        """Member logits: images [N, C, H, W] -> [k, N, classes], one row a member, without gradients.

        Raises:
            CcnetError: images of another size, number of channels, dtype or device than the network's.
        """
        return run_together([(self, x)])[0]

    @torch.no_grad()
    def in_torch(self, x: Tensor) -> Tensor:
        """[leaves, N, classes], node by node; for a plan with the model's own head."""
        assert isinstance(self.head, nn.Module)
        maps = [x]
        for nodes, plans in zip(self.tree.levels, self.plans, strict=True):
            maps = [plan(maps[node.parent], relu=True) for node, plan in zip(nodes, plans, strict=True)]
        return torch.stack([self.head(leaf) for leaf in maps])


def run_together(passes: Sequence[tuple[PassPlan, Tensor]]) -> list[Tensor]:
    """Member logits of plans of one network, each over its own images: [k, N, classes] of each, without gradients.

    With the native kernels they are one call, in which the threads share the nodes of all plans level by level. Plans
    of a few images each so keep all cores busy, also where another program takes a part of one.

    Raises:
        CcnetError: images of another size, number of channels, dtype or device than the network's.
    """
    logits: list[Tensor] = []
    native_passes: list[tuple[NativePass, Tensor, Tensor]] = []
    for plan, x in passes:
        plan.plans[0][0].require_input(x)
        if plan.native is None:
            logits.append(plan.in_torch(x))
            continue
        leaves, classes = plan.native.outputs
        logits.append(torch.empty(leaves, x.shape[0], classes, dtype=x.dtype, device="cpu"))
        if x.shape[0]:
            native_passes.append((plan.native, x, logits[-1]))
    if native_passes:
        _run_native(native_passes)
    return [
        of_leaves if plan.tree.leaves == tuple(range(of_leaves.shape[0])) else of_leaves[list(plan.tree.leaves)]
        for (plan, _), of_leaves in zip(passes, logits, strict=True)
    ]


def _run_native(passes: Sequence[tuple[NativePass, Tensor, Tensor]]) -> None:
    """Fill the logits [leaves, N, classes] of each pass over its images [N, C, H, W]."""
    _, first, _ = passes[0]
    maps = []  # the two buffers of each pass lie in two of the thread's own, one behind the other
    for turn in range(2):
        sizes = [x.shape[0] * native_pass.map_values[turn] for native_pass, x, _ in passes]
        maps.append(_buffer(turn, sum(sizes), first.dtype)[: sum(sizes)].split(sizes))
    calls = [
        Call(native_pass.program, (native.channels_innermost(x), logits, even, odd), x.shape[0])
        for (native_pass, x, logits), even, odd in zip(passes, *maps, strict=True)
    ]
    require_kernels(first.device).run(*calls)


def plan_passes(
    model: CCNet,
    sequences: Sequence[ScaleSequence],
    cache: PlanCache | None = None,
    *,
    keep: bool = False,
    stamp: Stamp | None = None,
) -> PassPlan:
    """Prepare a CCNet's passes; plans that the cache holds are not made again.

    Args:
        model: the network, in inference.
        sequences: the members.
        cache: where the layers' plans are kept; None makes all of them anew.
        keep: keep weights at once and not from a plan's second use on (see `ccnet.plans`).
        stamp: the model's present one as `cache.stamp` gives it, for callers that plan several passes in a row.

    Raises:
        CcnetError: no members, or a backend that has no plans.
        SequenceError: a member that the network cannot run.
    """
    name = (id(model), "passes", tuple(sequences), tuple(layer.backend for layer in model.layers))
    found: PassPlan | None = None if cache is None else cache.get_bundle(name, model, stamp)
    if found is not None:
        return found
    stamp_of = Stamp if cache is None else cache.stamp
    whole = stamp_of(model) if stamp is None else stamp
    layers = [layer for layer in model.layers if isinstance(layer, CCConv2d)]
    tree = _tree(tuple(sequences), tuple(layer.kernel_size for layer in layers), model.in_size)
    stamps = [stamp_of(layer) for layer in layers]
    # A layer that another sequence happens to share is no reason to keep its weights: a new sequence should not wait.
    uses = [[sequences[member] for member in level] for level in tree.first_members()]
    plans = tuple(
        tuple(
            layer.plan_grids(
                node.vertical, node.horizontal, of_layer, cache=cache, keep=keep, always_native=True, use=use
            )
            for node, use in zip(nodes, wanted_for, strict=True)
        )
        for layer, of_layer, nodes, wanted_for in zip(layers, stamps, tree.levels, uses, strict=True)
    )
    dtypes = {plan.dtype for level in plans for plan in level} | {weight.dtype for weight in model.head.parameters()}
    is_native = all(plan.native is not None for level in plans for plan in level) and len(dtypes) == 1
    is_native = is_native and _is_packable(model.head)
    head_key = (id(model), "head")
    head: HeadPlan | nn.Module = model.head
    if is_native:
        head = (
            _plan_head(model) if cache is None else cache.get(head_key, stamp_of(model.head), lambda: _plan_head(model))
        )
    made = PassPlan(tree, plans, head, NativePass.make(tree, plans, head) if isinstance(head, HeadPlan) else None)
    if cache is not None and is_native and not any(plan.generates for level in plans for plan in level):
        parts = [
            layer.plan_key(node.vertical, node.horizontal, always_native=True)
            for layer, nodes in zip(layers, tree.levels, strict=True)
            for node in nodes
        ]
        cache.keep_bundle(name, whole, made, [*parts, head_key])
    return made


class _Buffers(threading.local):
    """A thread's buffers, by turn and dtype."""

    def __init__(self) -> None:
        self.kept: dict[tuple[int, torch.dtype], Tensor] = {}


_buffers = _Buffers()
KEPT_BUFFER_BYTES = 32 * 2**20  # of each of a thread's two buffers


def _buffer(turn: int, size: int, dtype: torch.dtype) -> Tensor:
    """An uninitialised tensor of `size` values at least, this thread's own until its next pass.

    Fresh memory costs a page fault every 4 KiB, which for a batch of 64 is as much as a third of the pass.
    """
    buffer = _buffers.kept.get((turn, dtype))
    if buffer is None or buffer.shape[0] < size:
        with torch.inference_mode(False):
            buffer = torch.empty(size, dtype=dtype, device="cpu")
        if buffer.nbytes <= KEPT_BUFFER_BYTES:
            _buffers.kept[turn, dtype] = buffer
    return buffer


@lru_cache(maxsize=256)
def _tree(
    sequences: tuple[ScaleSequence, ...], kernel_sizes: tuple[tuple[int, int], ...], in_size: tuple[int, int]
) -> PrefixTree:
    return PrefixTree.make(sequences, kernel_sizes, in_size)


def can_plan(model: CCNet) -> bool:
    """Whether planned passes compute what calling the model does: a backend with plans, and nobody's own additions.

    Subclasses with another `forward` and hooks on the network, its convolutions or its head are called by the model
    and not by plans.
    """
    usual = type(model).forward is CCNet.forward and type(model).features is CCNet.features
    modules = [model, model.head, *model.layers, *model.head]
    return (
        usual
        and model.backend in ("native", "discrete")
        and all(type(layer).forward is CCConv2d.forward for layer in model.layers)
        and not any(module._forward_hooks or module._forward_pre_hooks for module in modules)
    )


def _is_packable(head: nn.Module) -> bool:
    """Whether a head is what `_plan_head` packs: Flatten, then Linear layers with biases and a ReLU between them."""
    modules = list(head) if isinstance(head, nn.Sequential) else []
    kinds = [nn.Flatten, *([nn.Linear, nn.ReLU] * (len(modules) // 2))][: len(modules)]
    return (
        len(modules) >= 2
        and len(modules) % 2 == 0
        and all(type(module) is kind for module, kind in zip(modules, kinds, strict=True))
        and all(module.bias is not None for module in modules[1::2])
    )


def _plan_head(model: CCNet) -> HeadPlan:
    """Pack the fully connected layers.

    The network flattens [C, H, W]; as a convolution with a kernel of the last map's size the first layer reads the
    map as it lies.
    """
    linear = [layer for layer in model.head if isinstance(layer, nn.Linear)]
    height, width = (size // 4 for size in model.in_size)
    layers, tensors = [], []
    with torch.inference_mode(False), torch.no_grad():
        for j, layer in enumerate(linear):
            size = (height, width) if j == 0 else (1, 1)
            in_channels = layer.in_features // (size[0] * size[1])
            filters = layer.weight.detach().view(1, 1, layer.out_features, in_channels, *size)
            weights = pack_weights(filters)
            bias = nn.functional.pad(layer.bias.detach(), (0, -layer.out_features % PANEL))
            vertical, horizontal = (AxisGrid.make(n, 1, Fraction(1, n), n) for n in size)
            channels = (in_channels, layer.out_features)
            layers.append(describe_layer(vertical, horizontal, channels, weights, bias))
            tensors += [weights, bias]
    return HeadPlan(tuple(layers), tuple(tensors), tuple(layer.out_features for layer in linear))
