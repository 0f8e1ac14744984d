"""The passes of a service without the service: `python -m benchmarks.serving.bare` prints images a second as JSON.

A loop over `ScaleEnsemble`, its weights prepared, in batches as large as the service makes them: what the machine can
do at most with this library.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from benchmarks.serving.pictures import png_files
from ccnet import ScaleEnsemble, load_checkpoint
from ccnet.pictures import decode_picture

ROOT = Path(__file__).resolve().parents[2]
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
    members = ensemble.sample(options.members, 0)
    ensemble.prepare(members)
    files = png_files()

    def classify(numbers: range) -> torch.Tensor:
        images = checkpoint.preprocess(
            [decode_picture(files[n % len(files)], max_pixels=10**6, name="") for n in numbers]
        )
        return ensemble(images, sequences=members).logits

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
    for _ in range(3):
        ensemble(images, sequences=members)
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < options.seconds:
        ensemble(images, sequences=members)
        done += options.batch
    json.dump({"images_per_s": done / (time.perf_counter() - started)}, sys.stdout)


if __name__ == "__main__":
    main()
