"""Peak memory of the layers of Tables 5 and 6 under every backend, and of `conv2d` of stride 1 on the same input.

Batch 50, 32 to 32 channels, 3x3, fp32. Each case runs once in a process of its own; the figure is the peak of the
resident memory above what it was just before the call, the output included, the input not. `standard` is left out
where its product of Eq. 3 would not fit into the memory that is free.
"""

import contextlib
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ccnet import CCConv2d, available_backends
from ccnet.benchmarks.references import channels_last, reference_layer
from ccnet.benchmarks.report import Result, Row, Settings, Target

BATCH, CHANNELS, KERNEL = 50, 32, 3
SIZES, LAYERS, LAYERS_SIZE = (32, 64, 96, 128), (1, 2, 4, 8, 16, 32), 64
SLOW_LAYERS = 4  # chains up to which `chunked` is measured: it is slow, and grows by a map a layer like the others
STANDARD_COPIES = 3  # of the product of Eq. 3 that forward and backward keep at once
FREE_SHARE = 0.8
TARGET = Target("peak memory of discrete vs conv2d, 128x128", 1.5, paper="1.75")


@dataclass(frozen=True)
class Case:
    """What one process measures.

    Attributes:
        what: "conv2d" or a backend.
        size: of the square input, px.
        layers: one after the other.
        scale: of each, as text.
        training: forward and backward, or forward alone.
        batch: images.
        threads, seed: of the run.
    """

    what: str
    size: int
    layers: int
    scale: str
    training: bool
    batch: int
    threads: int
    seed: int

    @property
    def name(self) -> str:
        """The case without its `what`."""
        passes = "forward + backward" if self.training else "forward"
        layers = "" if self.scale != "1" else f", {self.layers} layers of s = 1"
        return f"{self.size}x{self.size}{layers}, {passes}"


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    sizes = (16, 24) if settings.quick else SIZES
    for training in (False, True):
        for size in sizes:
            target = TARGET if size == sizes[-1] else None
            measure_backends(result, settings, Case("", size, 1, "2/3", training, *_common(settings)), target)
    for layers in (2,) if settings.quick else LAYERS:
        size = 16 if settings.quick else LAYERS_SIZE
        measure_backends(result, settings, Case("", size, layers, "1", True, *_common(settings)))


def _common(settings: Settings) -> tuple[int, int, int]:
    return (4 if settings.quick else BATCH), settings.threads, settings.seed


def measure_backends(result: Result, settings: Settings, case: Case, target: Target | None = None) -> None:
    """All alternatives for one case."""
    peaks: dict[str, float] = {}
    for what in ("conv2d", *available_backends()):
        this = Case(**{**asdict(case), "what": what})
        if (problem := too_much(this)) is not None:
            result.notes.append(f"{case.name}: {what} left out, {problem}")
            continue
        measured = measure_apart(this)
        peaks[what] = measured["peak_mib"]
        result.add(Row(case.name, what, peaks[what], "MiB"))
        result.add(Row(case.name, f"{what}, one cold call", measured["seconds"], "s"))
    for what in ("discrete", "native"):
        if what in peaks:
            row = Row(f"{case.name}, {what}", f"{what} / conv2d", peaks[what] / peaks["conv2d"], "x")
            result.add(Row(case.name, row.what, row.value, "x"))
            if target is not None:
                result.targets.append(target.judge(row))


def too_much(case: Case) -> str | None:
    """Why a case is left out, or None."""
    out_pixels = (case.size * Fraction(case.scale)) ** 2
    product = float(out_pixels) * case.batch * CHANNELS**2 * KERNEL**2 * 4
    needed = case.layers * product * (STANDARD_COPIES if case.training else 1)
    if case.what == "standard" and needed > FREE_SHARE * free_bytes():
        return f"it needs about {needed / 2**30:.0f} GiB"
    if case.what in ("standard", "chunked") and case.layers > SLOW_LAYERS:
        return "it takes too long"
    return None


def free_bytes() -> float:
    """Memory that can be had without swapping."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable"))
        return 1024.0 * int(found.split()[1])
    except (OSError, StopIteration, ValueError):
        return 4 * 2.0**30


def measure_apart(case: Case) -> dict[str, float]:
    """What `measure_here` says in a process of its own, where no memory was used and freed before."""
    command = [sys.executable, "-m", "ccnet.benchmarks.memory", json.dumps(asdict(case))]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    measured: dict[str, float] = json.loads(finished.stdout)
    return measured


def measure_here(case: Case) -> dict[str, Any]:
    """Peak MiB above the input's and seconds of one call, in this process."""
    torch.set_num_threads(case.threads)
    torch.manual_seed(case.seed)
    run = _layers(case)
    run(torch.randn(1, CHANNELS, 4, 4)).sum().backward()  # loads what is loaded once
    x = channels_last(torch.randn(case.batch, CHANNELS, case.size, case.size)).requires_grad_(case.training)
    before = _reset_peak()
    start = time.perf_counter()
    with torch.set_grad_enabled(case.training):
        out = run(x)
        if case.training:
            out.backward(torch.ones_like(out))
    seconds = time.perf_counter() - start
    return {"peak_mib": (_peak_kib() - before) / 1024, "seconds": seconds}


def _layers(case: Case) -> Callable[[Tensor], Tensor]:
    if case.what == "conv2d":
        return nn.Sequential(*(reference_layer(CHANNELS, CHANNELS, KERNEL) for _ in range(case.layers)))
    layers = [CCConv2d(CHANNELS, CHANNELS, KERNEL, backend=case.what) for _ in range(case.layers)]

    def run(x: Tensor) -> Tensor:
        for layer in layers:
            x = layer(x, Fraction(case.scale))
        return x

    return run


def _reset_peak() -> int:
    """Make the peak what is resident now, where the system can; KiB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _peak_kib()


def _peak_kib() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.stdout.write(json.dumps(measure_here(Case(**json.loads(sys.argv[1])))) + "\n")
