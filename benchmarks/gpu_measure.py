"""What `benchmarks.gpu` measures with: times from device events, tile sizes tried one by one, and a chain of conv2d.

Times are those of CUDA graphs replayed back to back, so that gaps between launches do not count twice, with inputs of
random numbers (a matrix product of zeros is faster).
"""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

from ccnet.gpu import EnsembleProgram, TileSizes
from ccnet.gpu.tiling import candidate_tiles
from ccnet.models import FULLY_CONNECTED, TABLE_3
from ccnet.prefixes import PrefixTree

Convolutions = list[tuple[int, int, int, int]]  # (layer number from 0, output height, output width, images)


@dataclass(frozen=True)
class Time:
    """Milliseconds a call: the median of several rounds, and half the distance between their quartiles."""

    median_ms: float
    spread_ms: float


def summarised(milliseconds: list[float]) -> Time:
    low, middle, high = statistics.quantiles(milliseconds, n=4)
    return Time(round(middle, 5), round((high - low) / 2, 5))


def timed(call: Callable[[], object], *, rounds: int = 20, least_ms: float = 5.0) -> Time:
    """Device time of a call; a round repeats it for `least_ms` at least."""
    call()
    torch.cuda.synchronize()
    calls = max(1, min(200, int(least_ms / max(_round_ms(call, 3), 1e-4))))
    return summarised([_round_ms(call, calls) for _ in range(rounds)])


def _round_ms(call: Callable[[], object], calls: int) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(calls):
        call()
    end.record()
    end.synchronize()
    milliseconds: float = start.elapsed_time(end)
    return milliseconds / calls


def latency(call: Callable[[], object]) -> Time:
    """Milliseconds by the host's clock from a call until its result is on the device."""
    values = []
    for _ in range(200):
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        values.append((time.perf_counter() - start) * 1e3)
    return summarised(values)


def graphed(call: Callable[[], object], repeats: int = 1) -> Callable[[], None]:
    """A call as a CUDA graph that holds it `repeats` times."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for _ in range(repeats)]

    def replay() -> None:
        assert kept  # the graph's outputs live as long as the graph
        graph.replay()

    return replay


def layer_inputs(program: EnsembleProgram, x: Tensor, bucket: int) -> list[Tensor]:
    """What every layer reads in a pass over x."""
    maps = [program.source(x, bucket)]
    for j in range(len(program.layers)):
        maps.append(program.run_layer(j, maps[-1], bucket))
    return maps[:-1]


def time_layer(program: EnsembleProgram, j: int, x: Tensor, bucket: int, repeats: int = 10) -> Time:
    """Device time of one layer; repeats reuse its buffers, so small layers are read from the cache."""
    with torch.no_grad():
        measured = timed(graphed(lambda: program.run_layer(j, x, bucket), repeats), rounds=8)
    return Time(round(measured.median_ms / repeats, 5), round(measured.spread_ms / repeats, 5))


def tune(program: EnsembleProgram, x: Tensor, bucket: int) -> list[dict[str, object]]:
    """Time the candidates of every layer, keep the fastest that agrees with the default, and tell all of it."""
    rows: list[dict[str, object]] = []
    inputs = layer_inputs(program, x, bucket)
    best = list(program.tile_sizes(bucket))
    for j, layer in enumerate(program.layers):
        in_channels, out_channels = layer.weights.shape[-2:]
        sizes = candidate_tiles(program.rows_per_slot(j, bucket), in_channels, out_channels, program.precision)
        expected = program.run_layer(j, inputs[j], bucket).float()
        times: dict[TileSizes, float] = {}
        for size in sizes:
            row: dict[str, object] = {"bucket": bucket, "layer": j + 1, "tile": str(size)}
            try:
                program.set_tile_sizes(bucket, [*best[:j], size, *best[j + 1 :]])
                actual = program.run_layer(j, inputs[j], bucket).float()
                error = float((actual - expected).norm() / expected.norm())
                measured = time_layer(program, j, inputs[j], bucket)
                row |= {"ms": measured.median_ms, "spread_ms": measured.spread_ms, "error": error}
                if error < 1e-2:  # NaN is not
                    times[size] = measured.median_ms
            except Exception as problem:  # a size may not fit into shared memory: told, and not chosen
                row |= {"problem": f"{type(problem).__name__}: {problem}"[:200]}
            rows.append(row)
        best[j] = min(times, key=times.__getitem__, default=sizes[0])
        rows.append({"bucket": bucket, "layer": j + 1, "chosen": str(best[j]), "default": str(sizes[0])})
        program.set_tile_sizes(bucket, best)
    return rows


def layer_multiply_adds(program: EnsembleProgram) -> list[int]:
    """Multiply-adds of every layer for one image, all members, padding of channels and rows left out."""
    counts = []
    for j, layer in enumerate(program.layers):
        _, height, width, in_channels, out_channels = layer.weights.shape
        in_channels = program.in_channels if j == 0 else in_channels
        counts.append(layer.tables.out_pixels * height * width * in_channels * out_channels)
    return counts


class ConvolutionChain:
    """Ordinary convolutions and fully connected layers with the channels and kernels of CCNet, for comparison.

    Every layer reads an input of its own that is just large enough for its output (no padding), so that each
    convolution has exactly the wanted number of outputs.

    Args:
        convolutions: the sizes of each.
        head: sizes of the fully connected layers, from their inputs to the classes.
        rows: rows of the fully connected layers: images times members.
    """

    def __init__(
        self,
        convolutions: Convolutions,
        head: tuple[int, ...],
        rows: int,
        *,
        channels: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        widths = [channels, *(out for out, _, _ in TABLE_3)]
        self.multiply_adds = rows * sum(a * b for a, b in pairwise(head))
        self._convolutions: list[tuple[Tensor, Tensor, Tensor]] = []
        for j, height, width, images in convolutions:
            out_channels, kernel, _ = TABLE_3[j]
            x = torch.randn(images, widths[j], height + kernel - 1, width + kernel - 1, device=device, dtype=dtype)
            weight = torch.randn(out_channels, widths[j], kernel, kernel, device=device, dtype=dtype) * 0.05
            bias = torch.randn(out_channels, device=device, dtype=dtype)
            last = torch.channels_last
            self._convolutions.append((x.to(memory_format=last), weight.to(memory_format=last), bias))
            self.multiply_adds += images * height * width * out_channels * widths[j] * kernel**2
        self._linear = [nn.Linear(a, b, device=device, dtype=dtype) for a, b in pairwise(head)]
        self._rows = torch.randn(rows, head[0], device=device, dtype=dtype)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Run all of it."""
        for x, weight, bias in self._convolutions:
            torch.nn.functional.conv2d(x, weight, bias).relu_()
        rows = self._rows
        for layer in self._linear[:-1]:
            rows = layer(rows).relu_()
        out: Tensor = self._linear[-1](rows)
        return out


def node_by_node(program: EnsembleProgram, images: int) -> Convolutions:
    """A convolution for each distinct map of an ensemble: exactly the program's multiply-adds, in many launches."""
    return [
        (j, node.vertical.out_size, node.horizontal.out_size, images)
        for j, level in enumerate(_tree(program).levels)
        for node in level
    ]


def as_one_batch(program: EnsembleProgram, images: int) -> Convolutions:
    """A convolution a layer with all maps of a level as one batch of about their mean area: few launches."""
    result = []
    for j, level in enumerate(_tree(program).levels):
        height = round(statistics.mean(node.vertical.out_size for node in level))
        area = statistics.mean(node.vertical.out_size * node.horizontal.out_size for node in level)
        result.append((j, height, max(1, round(area / height)), len(level) * images))
    return result


def head_sizes(program: EnsembleProgram, classes: int) -> tuple[int, ...]:
    """Sizes of the fully connected layers, from their inputs to the classes."""
    height, width = program.in_size
    return TABLE_3[-1][0] * (height // 4) * (width // 4), FULLY_CONNECTED, FULLY_CONNECTED, classes


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """TF32 for torch's own convolutions and products while inside."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = on
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


def _tree(program: EnsembleProgram) -> PrefixTree:
    kernels = [(size, size) for _, size, _ in TABLE_3]
    return PrefixTree.make(program.sequences, kernels, program.in_size)
