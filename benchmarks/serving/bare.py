"""The passes of a service without the service: `python -m benchmarks.serving.bare` prints images a second as JSON.

A loop over `ScaleEnsemble`, its weights prepared, in batches at least as large as the service makes them, each with the
members of one of as many seeds as the service's pool has: what the machine can do at most with this library.
"""

import argparse
import json
import random
import sys
import time
from pathlib import Path

import torch

from benchmarks.serving.pictures import png_files
from ccnet import ScaleEnsemble, load_checkpoint
from ccnet.pictures import decode_picture

ROOT = Path(__file__).resolve().parents[2]
SEEDS = 2  # as the service's CCNET_SEED_POOL
CHECKPOINT = ROOT / "checkpoints" / "fashion-mnist-ccnet"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--batch", type=int, default=64, help="images of a pass")
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--latency", action="store_true", help="seconds of decoding and classifying one image")
    options = parser.parse_args()
    checkpoint = load_checkpoint(CHECKPOINT)
    ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler)  # type: ignore[arg-type]
    pool = [ensemble.sample(options.members, seed) for seed in range(SEEDS)]
    for members in pool:
        ensemble.prepare(members)
    files, dice = png_files(), random.Random(0)

    def classify(numbers: range) -> torch.Tensor:
        images = checkpoint.preprocess(
            [decode_picture(files[n % len(files)], max_pixels=10**6, name="") for n in numbers]
        )
        return ensemble(images, sequences=dice.choice(pool)).logits

    if options.latency:
        times = []
        for number in range(250):
            started = time.perf_counter()
            classify(range(number, number + 1))
            times.append(time.perf_counter() - started)
        json.dump({"seconds": times[50:]}, sys.stdout)
        return
    images = checkpoint.preprocess(
        [decode_picture(files[n % len(files)], max_pixels=10**6, name="") for n in range(options.batch)]
    )
    for members in [*pool, *pool]:
        ensemble(images, sequences=members)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < options.seconds:
        ensemble(images, sequences=dice.choice(pool))
        done += options.batch
    json.dump({"images_per_s": done / (time.perf_counter() - started)}, sys.stdout)


if __name__ == "__main__":
    main()
