"""An ensemble as a program for a GPU: everything that does not depend on the images is made once, at construction.

A pass is one launch a layer for all members (`ccnet.gpu.kernel`) over their prefix tree, and then the fully connected
layers as matrix products with all members' rows together. Batches are padded with zeros to a bucket of 1, 2, 4, 8, ...
images, so that tile tables and graphs are made once a bucket; larger batches are cut.
"""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import ModuleType
from typing import get_args

import torch
from torch import Tensor, nn

from ccnet.errors import CcnetError
from ccnet.gpu.graphs import RecordedPass, Recorder
from ccnet.gpu.tables import LayerTables
from ccnet.gpu.tiling import LEAST, Precision, TileSizes, default_tile
from ccnet.gpu.weights import slot_weights
from ccnet.grid import whole_number
from ccnet.layer import CCConv2d
from ccnet.models import CCNet
from ccnet.prefixes import PrefixTree
from ccnet.sequences import ScaleSequence

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProgramDescription:
    """What a program is and what it has done, for people and tests.

    Attributes:
        device, precision: where and how it computes.
        interpreted: whether the kernel runs in Triton's interpreter.
        graph: whether passes are replayed from CUDA graphs.
        members: k.
        nodes: distinct maps of every layer (fewer than k where members share a prefix).
        slots: distinct sets of weights of every layer.
        nbytes: bytes that the program holds, buffers of passes left out.
        recorded: the buckets, in images, of which a graph exists.
        tiles: for each bucket that was run, the tile sizes of every layer.
    """

    device: str
    precision: Precision
    interpreted: bool
    graph: bool
    members: int
    nodes: tuple[int, ...]
    slots: tuple[int, ...]
    nbytes: int
    recorded: tuple[int, ...]
    tiles: dict[int, tuple[TileSizes, ...]]


@dataclass(frozen=True)
class Layer:
    """One layer of all members: tables, weights [slots, K_h, K_w, C_in, C_out] and bias [C_out], on the device."""

    tables: LayerTables
    weights: Tensor
    bias: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of all of them."""
        return self.tables.nbytes + self.weights.nbytes + self.bias.nbytes


class EnsembleProgram:
    """Logits of k members for any number of images, from a snapshot of a CCNet's weights.

    Args:
        model: a CCNet on a CUDA device (on the CPU under Triton's interpreter). Later changes of it are not seen.
        sequences: the k members; equal prefixes of scales are computed once, equal members too.
        precision: "ieee" multiplies float32 exactly, "tf32" with 10 bits of mantissa, "bf16" keeps weights and maps in
            bfloat16. Sums are float32 always. With "ieee" and "tf32" the fully connected layers are torch's float32
            products and follow `torch.backends.cuda.matmul`; this class changes no such setting.
        graph: whether passes are recorded as CUDA graphs and replayed, one graph a bucket of images.
        max_images: images of one pass, rounded up to a power of two; larger batches are cut.

    Raises:
        CcnetError: no Triton, a model that is on no CUDA device, no members, or an unknown precision.

    Source: arXiv 2006.11120, Sec. 4 "Scale Ensembles".
    """

    def __init__(
        self,
        model: CCNet,
        sequences: Sequence[ScaleSequence],
        *,
        precision: Precision = "ieee",
        graph: bool = False,
        max_images: int = 256,
    ) -> None:
        if precision not in get_args(Precision):
            raise CcnetError(f"precision is one of {', '.join(get_args(Precision))}; got {precision!r}")
        self.device: torch.device = next(model.parameters()).device
        self._kernel = require_kernel(self.device)
        if graph and self.device.type != "cuda":
            raise CcnetError(f"graph=True records CUDA graphs, and the model is on {self.device}: leave it off there")
        self.precision: Precision = precision
        self.graph = graph
        self.sequences = tuple(sequences)
        self.max_images = bucket_of(whole_number("max_images", max_images))
        self.in_channels, self.in_size = model.in_channels, model.in_size
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        layers = [layer for layer in model.layers if isinstance(layer, CCConv2d)]
        tree = PrefixTree.make(self.sequences, [layer.kernel_size for layer in layers], model.in_size)
        self.nodes = tuple(len(level) for level in tree.levels)
        with _computing(self.device):
            self.layers = self._layers(layers, tree)
            self._head = self._fully_connected(model.head)
            self._settle()
        every = tree.leaves == tuple(range(self.nodes[-1]))
        self._leaves = None if every else torch.tensor(tree.leaves, device=self.device)
        self._sizes: dict[int, list[TileSizes]] = {}  # of each bucket, one a layer
        self._tiles: dict[tuple[int, int, int], Tensor] = {}  # of (layer, bucket, rows)
        self._recorded: dict[int, RecordedPass] = {}
        self._lock = threading.Lock()
        self._recorder = Recorder(self.device) if graph else None
        self._last_replay: torch.cuda.Event | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Member logits of images.

        Args:
            x: [N, C, H, W], preprocessed, of any floating dtype, on any device.

        Returns:
            [k, N, classes], float32, on the program's device, one row a member in the order of `sequences`.

        Safe to call from several threads and streams. Without a graph, every thread has buffers of its own.

        Raises:
            CcnetError: images of another size or number of channels than the network's.
        """
        if x.dim() != 4 or tuple(x.shape[1:]) != (self.in_channels, *self.in_size) or not x.is_floating_point():
            height, width = self.in_size
            raise CcnetError(
                f"this program takes floating point images [N, {self.in_channels}, {height}, {width}]; "
                f"got {x.dtype} {list(x.shape)}"
            )
        with _computing(self.device):
            chunks = x.split(self.max_images) if len(x) else (x,)
            return torch.cat([self._pass(chunk) for chunk in chunks], dim=1) if len(chunks) > 1 else self._pass(x)

    @property
    def nbytes(self) -> int:
        """Bytes of weights and tables; a pass holds two layers' maps on top, a recorded graph all of its pool."""
        return sum(layer.nbytes for layer in self.layers) + sum(part.nbytes for pair in self._head for part in pair)

    def describe(self) -> ProgramDescription:
        """What the program is, and the buckets and tile sizes used so far."""
        return ProgramDescription(
            device=str(self.device),
            precision=self.precision,
            interpreted=bool(self._kernel.INTERPRETED),
            graph=self.graph,
            members=len(self.sequences),
            nodes=self.nodes,
            slots=tuple(len(layer.tables.slots) for layer in self.layers),
            nbytes=self.nbytes,
            recorded=tuple(sorted(self._recorded)),
            tiles={bucket: tuple(sizes) for bucket, sizes in sorted(self._sizes.items())},
        )

    def tile_sizes(self, bucket: int) -> list[TileSizes]:
        """How each layer is cut for a bucket of images: what was set, else `default_tile`."""
        if bucket not in self._sizes:
            self._sizes[bucket] = [
                default_tile(
                    self.rows_per_slot(j, bucket), layer.weights.shape[-2], layer.weights.shape[-1], self.precision
                )
                for j, layer in enumerate(self.layers)
            ]
        return self._sizes[bucket]

    def set_tile_sizes(self, bucket: int, sizes: Sequence[TileSizes]) -> None:
        """Cut the layers otherwise from now on (see `candidate_tiles`); a graph of the bucket is recorded anew."""
        if len(sizes) != len(self.layers):
            raise CcnetError(f"one tile size a layer, {len(self.layers)}; got {len(sizes)}")
        with self._lock:
            self._sizes[bucket] = list(sizes)
            self._recorded.pop(bucket, None)

    def rows_per_slot(self, layer: int, bucket: int) -> float:
        """Output rows (pixels times images) that share a set of weights, on average."""
        tables = self.layers[layer].tables
        return tables.out_pixels * bucket / len(tables.slots)

    def run_layer(self, j: int, x: Tensor, bucket: int) -> Tensor:
        """Layer j of all members: [in pixels, N, C_in] -> [out pixels, N, C_out]; the last layer [nodes, N, 64 px, C].

        N is the bucket. Not under the lock: for passes, and for timing one layer.
        """
        layer, size = self.layers[j], self.tile_sizes(bucket)[j]
        last = j == len(self.layers) - 1
        key = (j, bucket, size.rows)
        if key not in self._tiles:
            self._tiles[key] = layer.tables.tiles(bucket, size.rows).to(self.device)
            self._settle()
        y = x.new_empty(layer.tables.out_pixels, bucket, layer.weights.shape[-1])
        map_pixels = layer.tables.out_pixels // self.nodes[-1] if last else 0
        self._kernel.apply_layer(
            x, layer.weights, layer.bias, layer.tables, self._tiles[key], y, size,
            image_bits=bucket.bit_length() - 1, map_pixels=map_pixels, tf32=self.precision == "tf32",
        )  # fmt: skip
        return y.view(self.nodes[-1], bucket, map_pixels, -1) if last else y

    def source(self, x: Tensor, bucket: int) -> Tensor:
        """Images as the first layer reads them: [H W, bucket, C], channels and images padded with zeros."""
        height, width = self.in_size
        padded = torch.zeros(
            height * width, bucket, self.layers[0].weights.shape[-2], dtype=self._dtype, device=self.device
        )
        self._fill(padded, x)
        return padded

    def _pass(self, x: Tensor) -> Tensor:
        """[N, C, H, W] with at most `max_images` images -> [k, N, classes]."""
        bucket = bucket_of(max(1, len(x)))
        if not self.graph:
            return self._run(self.source(x, bucket))[:, : len(x)]
        with self._lock:
            return self._replay(x, bucket)

    def _replay(self, x: Tensor, bucket: int) -> Tensor:
        """The same from a graph; only under the lock."""
        if bucket not in self._recorded:
            assert self._recorder is not None
            self._recorded[bucket] = self._recorder.record(self._run, self.source(x, bucket))
        recorded, stream = self._recorded[bucket], torch.cuda.current_stream(self.device)
        if self._last_replay is not None:
            stream.wait_event(self._last_replay)  # another stream may still copy its result out
        self._fill(recorded.source, x)
        recorded.graph.replay()
        logits = recorded.result[:, : len(x)].clone()
        self._last_replay = stream.record_event()
        return logits

    def _fill(self, source: Tensor, x: Tensor) -> None:
        """Copy images into the first layer's input; what it held of other images is overwritten."""
        source[:, : len(x), : self.in_channels].copy_(x.permute(2, 3, 0, 1).flatten(0, 1))
        if len(x) < source.shape[1]:
            source[:, len(x) :].zero_()

    def _run(self, source: Tensor) -> Tensor:
        """[H W, bucket, C] -> [k, bucket, classes]: the same launches every time, so that they can be recorded."""
        bucket = source.shape[1]
        maps = source
        for j in range(len(self.layers)):
            maps = self.run_layer(j, maps, bucket)
        rows = maps.flatten(2).flatten(0, 1)  # [leaves N, 64 px C], a view
        for weight, bias in self._head[:-1]:
            rows = torch.addmm(bias, rows, weight).relu_()
        weight, bias = self._head[-1]
        logits = torch.addmm(bias, rows.float(), weight).view(self.nodes[-1], bucket, -1)
        return logits if self._leaves is None else logits.index_select(0, self._leaves)

    def _settle(self) -> None:
        """Wait until what was just made is there, because another thread's stream may use it next."""
        if self.device.type == "cuda":
            torch.cuda.current_stream(self.device).synchronize()

    def _layers(self, layers: Sequence[CCConv2d], tree: PrefixTree) -> list[Layer]:
        """Tables and weights of every layer, on the device."""
        made = []
        in_sizes = [self.in_size]
        for layer, nodes in zip(layers, tree.levels, strict=True):
            tables = LayerTables.make(nodes, in_sizes)
            padded = -(-layer.in_channels // LEAST) * LEAST
            weights = slot_weights(layer, tables.slots, self._dtype, padded_channels=padded)
            bias = torch.zeros(layer.out_channels, device=self.device)
            if layer.bias is not None:
                bias.copy_(layer.bias)
            made.append(Layer(tables.to(self.device), weights, bias))
            in_sizes = [(node.vertical.out_size, node.horizontal.out_size) for node in nodes]
        return made

    def _fully_connected(self, head: nn.Sequential) -> list[tuple[Tensor, Tensor]]:
        """(weight [in, out], bias [out]) of the fully connected layers; the last one, the logits', in float32.

        The first layer's inputs are reordered: the network flattens [C, px], the kernel writes [px, C].
        """
        layers = [layer for layer in head if isinstance(layer, nn.Linear)]
        pairs = []
        for i, layer in enumerate(layers):
            weight = layer.weight
            if i == 0:
                channels = self.layers[-1].weights.shape[-1]
                weight = weight.unflatten(1, (channels, -1)).transpose(1, 2).flatten(1)
            dtype = torch.float32 if i == len(layers) - 1 else self._dtype
            pairs.append((weight.T.to(dtype, copy=True).contiguous(), layer.bias.to(dtype, copy=True)))
        return pairs


@lru_cache(maxsize=8)
def supports(device: torch.device) -> bool:
    """Whether programs run on a device: a CUDA device, with Triton. A CUDA device without is told in the log, once."""
    if device.type != "cuda":
        return False
    try:
        require_kernel(device)
    except CcnetError as error:
        logger.warning("ensembles on %s run layer by layer, without the faster program: %s", device, error)
        return False
    return True


def bucket_of(images: int) -> int:
    """The smallest power of two that holds a number of images."""
    return 1 << (images - 1).bit_length()


def require_kernel(device: torch.device) -> ModuleType:
    """The module `ccnet.gpu.kernel`, if it can run on a device.

    Raises:
        CcnetError: Triton is not installed, or the device is no CUDA device and Triton does not interpret.
    """
    try:
        from ccnet.gpu import kernel
    except ImportError as error:
        raise CcnetError(
            f"the GPU program needs Triton, which could not be imported ({error}); builds of torch for CUDA bring it, "
            "elsewhere: pip install triton. Without it, use ScaleEnsemble on any device"
        ) from error
    if device.type != "cuda" and not kernel.INTERPRETED:
        raise CcnetError(
            f"the GPU program runs on CUDA devices, and the model is on {device}: move it with .to('cuda'), or use "
            "ScaleEnsemble. (For tests, TRITON_INTERPRET=1 set before Triton is imported runs it on the CPU.)"
        )
    return kernel


@contextmanager
def _computing(device: torch.device) -> Iterator[None]:
    """Without gradients or autocast, whatever the caller has on; and with the device current, where Triton launches.

    Buffers that outlive a call are no inference tensors, so that calls with and without inference mode can take turns.
    """
    with (
        torch.inference_mode(False),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        torch.cuda.device(device if device.type == "cuda" else -1),  # -1: nothing changes
    ):
        yield
