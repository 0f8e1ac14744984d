"""Checkpoints of untrained networks, and pictures, for the tests of the command line."""

import os
from pathlib import Path

import pytest
import torch
from PIL import Image

from ccnet import CCNet, ConvNet, load_checkpoint, save_checkpoint
from ccnet.checkpoint import Checkpoint
from ccnet.data import FASHION_MNIST_CLASSES, load_dataset
from ccnet.preprocessing import Preprocessing
from tests.ccnet.cli.calls import DATA, DISTRIBUTION


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Checkpoints as `ccnet train` writes them, of untrained networks; small Internal-Nets take less time."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(20061120)
    for name, network in (("tiny-ccnet", CCNet(1, 10, hidden=(4,))), ("tiny-convnet", ConvNet(1, 10))):
        save_checkpoint(
            network,
            folder / name,
            labels=FASHION_MNIST_CLASSES,
            preprocessing=Preprocessing(1, (28, 28), (32, 32), (0.219,), (0.332,)),
            scale_distribution=DISTRIBUTION if isinstance(network, CCNet) else None,
            data={"dataset": "fashion-mnist-sample"},
        )
    return folder


@pytest.fixture(autouse=True)
def environment(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The checkpoints of the tests and no other setting of whoever runs them."""
    for name in list(os.environ):
        if name.startswith("CCNET_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(folder))


@pytest.fixture(scope="session")
def ccnet(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "tiny-ccnet")


@pytest.fixture(scope="session")
def convnet(folder: Path) -> Checkpoint:
    return load_checkpoint(folder / "tiny-convnet")


@pytest.fixture
def shoes(tmp_path: Path) -> list[Path]:
    """Two test images as files."""
    images = load_dataset("fashion-mnist-sample", "test", DATA).images[:2]
    paths = [tmp_path / f"shoe-{index}.png" for index in range(2)]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    return paths
