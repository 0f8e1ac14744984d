"""Untrained networks under the names that the items look for, and a context for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from ccnet import CCNet, ConvNet, save_checkpoint
from ccnet.data import FASHION_MNIST_CLASSES
from ccnet.paper.context import Context, Options
from ccnet.preprocessing import Preprocessing

DATA = Path(__file__).parents[2] / "data"
MakeContext = Callable[..., Context]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CCNet and a ConvNet; small Internal-Nets take less time."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(20061120)
    for kind, network in (("ccnet", CCNet(1, 10, hidden=(4,))), ("convnet", ConvNet(1, 10))):
        save_checkpoint(
            network,
            folder / f"fashion-mnist-{kind}",
            labels=FASHION_MNIST_CLASSES,
            preprocessing=Preprocessing(1, (28, 28), (32, 32), (0.219,), (0.332,)),
            scale_distribution={"std": 0.05, "method": "corrected"} if kind == "ccnet" else None,
            data={"dataset": "fashion-mnist-sample"},
        )
    return folder


@pytest.fixture
def options(checkpoints: Path) -> Options:
    """Of a quick run of one thread on the sample of the tests."""
    return Options(quick=True, threads=1, checkpoints=str(checkpoints), data_dir=str(DATA))


@pytest.fixture
def make_context(options: Options, tmp_path: Path) -> MakeContext:
    """A function that gives a new context with the same folder, as another run of the command would."""
    return lambda **changes: Context(options, tmp_path / "steps", shown=False, **{"commit": "abc", **changes})
