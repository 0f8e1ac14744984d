"""Time of one training step (forward, backward, optimiser) of CCNet beside ConvNet's, batch 64, on this CPU.

The two networks take turns in one run, so that both see the same machine; every step of CCNet has a fresh scale
sequence, as in training. Reports medians, half the interquartile range, and the ratio.

    python -m benchmarks.training_step [--steps 30] [--threads 2]
"""

import argparse
import time
from typing import Any

import torch
from torch import nn

from benchmarks.report import median_and_spread, report
from ccnet import CCNet, ConvNet, sample_scale_sequences
from ccnet.allocator import keep_freed_memory

BATCH = 64
WARM_UP = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    keep_freed_memory()  # as `ccnet.training.train` does
    networks: dict[str, nn.Module] = {"ccnet": CCNet(1), "convnet": ConvNet(1)}
    optimizers = {
        name: torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True) for name, network in networks.items()
    }
    x, labels = torch.randn(BATCH, 1, 32, 32), torch.randint(10, (BATCH,))
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for sequence in sample_scale_sequences(arguments.steps + WARM_UP, seed=0):
        for name, network in networks.items():
            start = time.perf_counter()
            logits = network(x, sequence) if name == "ccnet" else network(x)
            optimizers[name].zero_grad(set_to_none=True)
            nn.functional.cross_entropy(logits, labels).backward()
            optimizers[name].step()
            seconds[name].append(time.perf_counter() - start)
    rows: list[dict[str, Any]] = []
    for name, values in seconds.items():
        median, spread = median_and_spread(values[WARM_UP:])
        rows.append({"network": name, "median_s": round(median, 4), "spread_s": round(spread, 4)})
        print(f"{name:8} {median * 1e3:7.1f} ms  +- {spread * 1e3:.1f}")
    ratio = rows[0]["median_s"] / rows[1]["median_s"]
    print(f"ratio    {ratio:7.2f}")
    rows.append({"ratio": round(ratio, 3), "batch": BATCH, "steps": arguments.steps})
    report("training_step", rows, save=arguments.save)


if __name__ == "__main__":
    main()
