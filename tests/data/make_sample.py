"""Write `fashion-mnist-sample.npz`: the first 50 test images of every class, in the order of the test set.

    python tests/data/make_sample.py [--data-dir FOLDER]

The data set is Fashion-MNIST (Zalando SE, MIT licence), as Debian's package `dataset-fashion-mnist` ships it.
"""

import argparse
from pathlib import Path

import numpy as np

from ccnet.data import SAMPLE_FILE, load_dataset

PER_CLASS = 50


def main() -> None:
    """Read the test set, keep the first images of every class, write them beside this file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-dir", type=Path, default=None)
    dataset = load_dataset("fashion-mnist", "test", parser.parse_args().data_dir)
    chosen = np.sort(
        np.concatenate([np.flatnonzero(dataset.labels == label)[:PER_CLASS] for label in range(len(dataset.classes))])
    )
    path = Path(__file__).parent / SAMPLE_FILE
    np.savez_compressed(
        path,
        images=dataset.images[chosen],
        labels=dataset.labels[chosen],
        classes=np.array(dataset.classes),
        indices=chosen,
    )
    print(f"{path}: {len(chosen)} images, {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
