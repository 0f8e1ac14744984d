"""Ensembles on a GPU: correctness, then the two targets, how time grows with members and images, layers, and memory.

Needs a CUDA device and Triton; says so and exits with status 2 elsewhere. Every section is independent: one that fails
is reported as such, and sections that begin after `--seconds` are left out and named. The numbers so far are written to
`--output` after every section.

    python -m benchmarks.gpu [--seconds 480] [--output FILE] [--save]
"""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu_measure import (
    ConvolutionChain,
    Time,
    as_one_batch,
    graphed,
    head_sizes,
    latency,
    layer_inputs,
    layer_multiply_adds,
    node_by_node,
    tf32,
    time_layer,
    timed,
    tune,
)
from benchmarks.report import report, where
from ccnet import CCNet, CcnetError, sample_scale_sequences
from ccnet.gpu import EnsembleProgram, Precision

Rows = list[dict[str, Any]]
TOLERANCE: dict[Precision, float] = {"ieee": 1e-4, "tf32": 5e-3, "bf16": 3e-2}  # relative error of the logits
CHANNELS = 3


class Benchmark:
    """The sections, and what they share: a network, the device and its measured ceilings."""

    copied, side = 2**29, 8192  # values (2 GiB) and side of what the ceilings are measured with

    def __init__(self, device: torch.device, in_size: tuple[int, int] = (32, 32)) -> None:
        torch.manual_seed(0)
        self.device, self.in_size = device, in_size
        self.model = CCNet(CHANNELS, in_size=in_size).eval().to(device)
        self.bytes_per_ms = 0.0  # read plus written by a large copy
        self.multiply_adds_per_ms = 0.0  # of a large bf16 product
        self.tuned: dict[tuple[str, int, int], Any] = {}  # (precision, k, images) -> tile sizes

    def images(self, count: int) -> Tensor:
        """Random images."""
        return torch.randn(count, CHANNELS, *self.in_size, device=self.device)

    def program(self, k: int, precision: Precision, *, graph: bool = True) -> EnsembleProgram:
        """An ensemble of k seeded members."""
        members = sample_scale_sequences(k, seed=0, in_size=self.in_size)
        return EnsembleProgram(self.model, members, precision=precision, graph=graph)

    def correctness(self) -> Rows:
        """Logits beside the `standard` backend in float64; a graph beside launches; threads are left to the tests."""
        members, x = sample_scale_sequences(3, seed=11, in_size=self.in_size), self.images(3)
        exact = CCNet(**self.model.config, backend="standard").double().eval().to(self.device)
        exact.load_state_dict(self.model.state_dict())
        with torch.inference_mode():
            expected = torch.stack([exact(x.double(), sequence) for sequence in members])
        rows: Rows = []
        for precision, tolerance in TOLERANCE.items():
            eager = EnsembleProgram(self.model, members, precision=precision)
            recorded = EnsembleProgram(self.model, members, precision=precision, graph=True)
            logits, replayed = eager(x), recorded(x)
            error, of_graph = (float((y.double() - expected).norm() / expected.norm()) for y in (logits, replayed))
            right = error <= tolerance and of_graph <= tolerance
            equal = torch.equal(logits, replayed)
            rows.append(
                {"precision": precision, "error": error, "graph_error": of_graph, "equal": equal, "right": right}
            )
            print(f"  {precision:5} error {error:.1e}, of the graph {of_graph:.1e}, bit for bit the same {equal}")
        if not all(row["right"] for row in rows):
            raise AssertionError(f"wrong logits, so no time is worth telling: {rows}")
        return rows

    def ceilings(self) -> Rows:
        """Memory bandwidth and bf16 rate of this card, on random data."""
        source = torch.randn(self.copied, device=self.device)
        target = torch.empty_like(source)
        copy = timed(lambda: target.copy_(source), rounds=8)
        self.bytes_per_ms = 2 * source.nbytes / copy.median_ms
        a, b = (torch.randn(self.side, self.side, device=self.device, dtype=torch.bfloat16) for _ in range(2))
        product = timed(lambda: a @ b, rounds=8)
        self.multiply_adds_per_ms = self.side**3 / product.median_ms
        row = {"copy_tb_s": self.bytes_per_ms / 1e9, "bf16_tflop_s": 2 * self.multiply_adds_per_ms / 1e9}
        print(f"  copy {row['copy_tb_s']:.2f} TB/s, bf16 {row['bf16_tflop_s']:.0f} TFLOP/s")
        return [row]

    def ensemble_of_32(self, precision: Precision) -> Rows:
        """Target: k = 32, one image, at most 1 ms."""
        start = time.perf_counter()
        program = self.program(32, precision)
        torch.cuda.synchronize()
        first_s = time.perf_counter() - start
        start = time.perf_counter()
        program = self.program(32, precision)
        torch.cuda.synchronize()
        again_s = time.perf_counter() - start
        x = self.images(1)
        start = time.perf_counter()
        program(x)
        torch.cuda.synchronize()
        record_s = time.perf_counter() - start
        default, tuned, tuning = self._default_and_tuned(program, x)
        row = {
            **self._described(program, 1),
            "target_ms": 1.0, "default": vars(default), "tuned": vars(tuned),
            "latency": vars(latency(lambda: program(x))),
            "construction_first_s": first_s, "construction_s": again_s, "compile_and_record_s": record_s,
        }  # fmt: skip
        print(
            f"  k = 32, batch 1, {precision}: {default.median_ms:.3f} ms, tuned {tuned.median_ms:.3f}, "
            f"with the host {row['latency']['median_ms']:.3f}; floor {row['floor_ms']:.3f}; made in {again_s:.2f} s"
        )
        return [row, *tuning]

    def ensemble_of_8(self, precision: Precision) -> Rows:
        """Target: k = 8, 256 images, at most 1.5 times a chain of conv2d of equal multiply-adds."""
        program, x = self.program(8, precision), self.images(256)
        default, tuned, tuning = self._default_and_tuned(program, x)
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        chains: dict[str, Any] = {}
        needed = self._described(program, 256)["multiply_adds"]
        for name, convolutions in (("node by node", node_by_node), ("one batch", as_one_batch)):
            with tf32(precision == "tf32"):
                chain = ConvolutionChain(
                    convolutions(program, 256), head_sizes(program, self.model.classes), 8 * 256,
                    channels=CHANNELS, dtype=dtype, device=self.device,
                )  # fmt: skip
                measured = timed(graphed(chain))
            scaled = measured.median_ms * needed / chain.multiply_adds
            chains[name] = {**vars(measured), "multiply_adds": chain.multiply_adds, "scaled_ms": scaled}
        row = {
            **self._described(program, 256),
            "target_ratio": 1.5, "default": vars(default), "tuned": vars(tuned), "chains": chains,
            "ratio": {name: tuned.median_ms / chain["scaled_ms"] for name, chain in chains.items()},
        }  # fmt: skip
        times = ", ".join(f"{name} {chain['scaled_ms']:.3f}" for name, chain in chains.items())
        print(
            f"  k = 8, batch 256, {precision}: {default.median_ms:.3f} ms, tuned {tuned.median_ms:.3f}; "
            f"chains {times}; floor {row['floor_ms']:.3f}"
        )
        return [row, *tuning]

    def growth(self) -> Rows:
        """k = 1 to 32 at batch 1 and 64, bf16, default tiles."""
        rows: Rows = []
        for k in (1, 2, 4, 8, 16, 32):
            program = self.program(k, "bf16")
            for images in (1, 64):
                x = self.images(images)
                measured = timed(lambda program=program, x=x: program(x), rounds=12)  # type: ignore[misc]
                rows.append({**self._described(program, images), **vars(measured)})
                print(f"  k = {k:2}, batch {images:3}: {measured.median_ms:8.3f} ms, floor {rows[-1]['floor_ms']:.3f}")
        return rows

    def layers(self, k: int, images: int, precision: Precision) -> Rows:
        """Every layer by itself, with the tile sizes that tuning chose if it ran."""
        program, x, rows = self.program(k, precision, graph=False), self.images(images), []
        if (precision, k, images) in self.tuned:
            program.set_tile_sizes(images, self.tuned[precision, k, images])
        inputs, counts = layer_inputs(program, x, images), layer_multiply_adds(program)
        for j, layer in enumerate(program.layers):
            measured = time_layer(program, j, inputs[j], images)
            row = {
                "layer": j + 1, "k": k, "images": images, "precision": precision, **vars(measured),
                "tile": str(program.tile_sizes(images)[j]), "slots": len(layer.tables.slots),
                "weight_mb": layer.weights.nbytes / 1e6,
                "weights_tb_s": layer.weights.nbytes / measured.median_ms / 1e9,
                "tflop_s": 2 * counts[j] * images / measured.median_ms / 1e9,
            }  # fmt: skip
            rows.append(row)
            print(
                f"  layer {j + 1}: {measured.median_ms:7.4f} ms  {row['weights_tb_s']:5.2f} TB/s of weights "
                f"{row['tflop_s']:6.1f} TFLOP/s  {row['tile']}"
            )
        return rows

    def memory(self) -> Rows:
        """Device memory of a program, of a pass and of a recorded graph."""
        rows: Rows = []
        for k, images in ((8, 256), (32, 1)):
            for graph in (False, True):
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
                before = torch.cuda.memory_allocated()
                program = self.program(k, "bf16", graph=graph)
                made = torch.cuda.memory_allocated() - before
                program(self.images(images))
                peak = torch.cuda.max_memory_allocated() - before
                rows.append(
                    {"k": k, "images": images, "graph": graph, "nbytes": program.nbytes, "made": made, "peak": peak}
                )
                print(f"  k = {k}, batch {images}, graph {graph}: {made / 1e6:.0f} MB, peak {peak / 1e6:.0f} MB")
        return rows

    def _default_and_tuned(self, program: EnsembleProgram, x: Tensor) -> tuple[Time, Time, Rows]:
        """Device time of a call with the default tiles, and after tuning; what tuning saw."""
        bucket = len(x)
        default = timed(lambda: program(x))
        kept = list(program.tile_sizes(bucket))
        tuning = tune(program, x, bucket)
        tuned = timed(lambda: program(x))
        if tuned.median_ms > default.median_ms:  # layers that are fastest alone need not be so in a row
            program.set_tile_sizes(bucket, kept)
        self.tuned[program.precision, len(program.sequences), bucket] = list(program.tile_sizes(bucket))
        return default, tuned, tuning

    def _described(self, program: EnsembleProgram, images: int) -> dict[str, Any]:
        """What was run, and the least time it can take: weights once and maps twice, or arithmetic in bf16."""
        maps = sum(layer.tables.out_pixels * layer.weights.shape[-1] for layer in program.layers)
        moved = program.nbytes + 2 * maps * images * program.layers[0].weights.element_size()
        head = len(program.sequences) * sum(a * b for a, b in pairwise(head_sizes(program, self.model.classes)))
        count = images * (sum(layer_multiply_adds(program)) + head)
        floors = (moved / self.bytes_per_ms, count / self.multiply_adds_per_ms) if self.bytes_per_ms else (0.0, 0.0)
        return {
            "k": len(program.sequences), "images": images, "precision": program.precision, "nodes": program.nodes,
            "slots": program.describe().slots, "nbytes": program.nbytes, "multiply_adds": count, "bytes_moved": moved,
            "floor_bytes_ms": floors[0], "floor_arithmetic_ms": floors[1], "floor_ms": max(floors),
        }  # fmt: skip


def main() -> int:
    """Run the sections; 0 when all of them passed, 1 when one failed, 2 without a GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=480, help="start no section after so long")
    parser.add_argument("--output", type=Path, help="where to write the numbers so far, after every section")
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("this benchmark needs a CUDA device, and torch sees none here", file=sys.stderr)
        return 2
    try:
        benchmark = Benchmark(torch.device("cuda", torch.cuda.current_device()))
        benchmark.program(1, "ieee", graph=False)
    except CcnetError as error:
        print(error, file=sys.stderr)
        return 2
    torch.backends.cudnn.benchmark = True  # the reference's best algorithms
    sections: list[tuple[str, Callable[[], Rows]]] = [
        ("correctness", benchmark.correctness),
        ("ceilings", benchmark.ceilings),
        ("k = 32, batch 1, bf16", lambda: benchmark.ensemble_of_32("bf16")),
        ("k = 8, batch 256, bf16", lambda: benchmark.ensemble_of_8("bf16")),
        ("k = 32, batch 1, tf32", lambda: benchmark.ensemble_of_32("tf32")),
        ("layers, k = 32, batch 1, bf16", lambda: benchmark.layers(32, 1, "bf16")),
        ("layers, k = 8, batch 256, bf16", lambda: benchmark.layers(8, 256, "bf16")),
        ("growth", benchmark.growth),
        ("memory", benchmark.memory),
        ("k = 8, batch 256, tf32", lambda: benchmark.ensemble_of_8("tf32")),
    ]
    return run(sections, benchmark.device, arguments.seconds, arguments.output, arguments.save)


def run(
    sections: list[tuple[str, Callable[[], Rows]]],
    device: torch.device,
    seconds: float,
    output: Path | None,
    save: bool,
) -> int:
    """Run sections one after the other; wrong logits end it, any other failure is told and passed over."""
    rows: Rows = []
    status, begin = 0, time.perf_counter()
    for name, section in sections:
        if time.perf_counter() - begin > seconds:
            rows.append({"section": name, "left_out": f"after {seconds:.0f} s"})
            print(f"== {name}: left out, {seconds:.0f} s are over", flush=True)
            continue
        print(f"== {name}", flush=True)
        start = time.perf_counter()
        try:
            rows += [{"section": name, **row} for row in section()]
        except Exception as problem:
            traceback.print_exc()
            rows.append({"section": name, "problem": f"{type(problem).__name__}: {problem}"[:500]})
            status = 1
        rows.append({"section": name, "seconds": round(time.perf_counter() - start, 1)})
        if output is not None:
            output.write_text(json.dumps({"rows": rows, **where(device)}, indent=1), encoding="utf-8")
        if status and name == "correctness":
            break
    report("gpu", rows, save=save, device=device)
    return status


if __name__ == "__main__":
    sys.exit(main())
