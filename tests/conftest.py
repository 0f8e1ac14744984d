"""What every test may ask for: seeded randomness, and the real data set where the machine has it."""

import os
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]

# Where Debian's package dataset-fashion-mnist puts its four idx files.
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def root() -> Path:
    """The top folder of the repository."""
    return ROOT


@pytest.fixture
def generator() -> torch.Generator:
    """A CPU generator with the same seed in every test; `CCNET_TEST_SEED` tries another one."""
    return torch.Generator().manual_seed(int(os.environ.get("CCNET_TEST_SEED", "20061120")))


@pytest.fixture(scope="session")
def fashion_mnist_dir() -> Path:
    """The folder of the full Fashion-MNIST: `CCNET_FASHION_MNIST`, else Debian's place; skips where neither is there.

    Tests that do with a few hundred images use the sample in `tests/data`, which is always there.
    """
    given = os.environ.get("CCNET_FASHION_MNIST")
    folder = Path(given) if given else DEBIAN_FASHION_MNIST
    if not (folder / "t10k-images-idx3-ubyte.gz").is_file():
        if given:
            pytest.fail(f"CCNET_FASHION_MNIST={given} holds no t10k-images-idx3-ubyte.gz")
        pytest.skip("needs the full Fashion-MNIST: apt-get install dataset-fashion-mnist, or set CCNET_FASHION_MNIST")
    return folder
