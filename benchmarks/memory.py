"""Peak memory and time of one CC layer under every backend as the input grows (the layer of Table 5).

Batch 50, 32 -> 32 channels, 3x3 kernel, scale 2/3, fp32. Each case runs in a process of its own; the figure is the
growth of the peak resident memory from just before the layer runs, the output included.

    python -m benchmarks.memory [--sizes 32,64,96,128] [--training]
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from fractions import Fraction

import torch

from benchmarks.report import report
from ccnet import CCConv2d, available_backends

BATCH, CHANNELS, KERNEL, SCALE = 50, 32, 3, Fraction(2, 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", default="32,64,96,128")
    parser.add_argument("--training", action="store_true", help="forward and backward instead of forward")
    parser.add_argument("--one", nargs=2, metavar=("BACKEND", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(measure(arguments.one[0], int(arguments.one[1]), arguments.training)))
        return
    rows = []
    for size in (int(word) for word in arguments.sizes.split(",")):
        for backend in available_backends():
            command = [sys.executable, "-m", "benchmarks.memory", "--one", backend, str(size)]
            command += ["--training"] if arguments.training else []
            row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            rows.append(row)
            print(f"{size:4} {backend:9} {row['peak_mib']:9.0f} MiB  {row['seconds']:7.2f} s", flush=True)
    report("memory", rows, save=arguments.save)


def measure(backend: str, size: int, training: bool) -> dict[str, object]:
    """Peak memory above the input's and seconds of one call, in this process."""
    torch.manual_seed(0)
    layer = CCConv2d(CHANNELS, CHANNELS, KERNEL, kernel_input="distance", backend=backend)
    layer(torch.randn(1, CHANNELS, 4, 4), SCALE)  # load what is loaded once
    x = torch.randn(BATCH, CHANNELS, size, size, requires_grad=training)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with torch.set_grad_enabled(training):
        out = layer(x, SCALE)
        if training:
            out.sum().backward()
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {"backend": backend, "size": size, "training": training, "peak_mib": peak / 1024, "seconds": seconds}


if __name__ == "__main__":
    main()
