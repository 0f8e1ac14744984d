"""Running services for the tests: one around foreseeable models, and checkpoints of real, untrained networks."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import httpx
import pytest
import torch
from asgi_lifespan import LifespanManager
from fastapi import FastAPI

from ccnet.checkpoint import save_checkpoint
from ccnet.data import FASHION_MNIST_CLASSES
from ccnet.layer import CCConv2d
from ccnet.models import CCNet, ConvNet
from ccnet.preprocessing import Preprocessing
from service.app import create_app
from service.context import Phase, Service
from service.settings import Settings
from tests.service.assessors import FakeAssessor
from tests.service.bench import Bench, benches
from tests.service.fakes import FakeModel
from tests.service.processes import Process


@pytest.fixture(autouse=True, scope="session")
def no_state_of_the_user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Jobs of services that live longer than a test are not kept where whoever runs the tests keeps theirs."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Settings of whoever runs the tests must not change them, nor jobs of one test another."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    import os

    for name in list(os.environ):
        if name.startswith("CCNET_") and not name.startswith("CCNET_TEST"):
            monkeypatch.delenv(name)


@pytest.fixture
def fake() -> FakeModel:
    return FakeModel()


@pytest.fixture
def plain() -> FakeModel:
    """A model without scale sequences."""
    return FakeModel("plain", takes_sequences=False)


@contextlib.asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """The application, started and ready, and a client for it."""
    async with LifespanManager(app, startup_timeout=60, shutdown_timeout=60):
        service = app.state.service
        while service.phase is Phase.STARTING:
            await asyncio.sleep(0.005)
        assert service.phase is Phase.READY
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=60) as client:
            yield client


def service_behind(client: httpx.AsyncClient) -> Service:
    """The service that a client of `running` talks to."""
    transport = client._transport
    assert isinstance(transport, httpx.ASGITransport)
    return cast(Any, transport.app).state.service


@pytest.fixture
def make_app(fake: FakeModel, plain: FakeModel) -> Callable[..., FastAPI]:
    """An application around the two foreseeable models, with the given settings."""

    def make(**settings: Any) -> FastAPI:
        return create_app(Settings(**settings), load=lambda *_: {model.name: model for model in (fake, plain)})

    return make


@pytest.fixture
def assessor() -> FakeAssessor:
    return FakeAssessor()


@pytest.fixture
def make_evaluating(assessor, fake, plain, tmp_path) -> Callable[..., Any]:
    """An application that keeps its jobs under tmp_path / "jobs"."""

    def make(**settings: Any) -> Any:
        given = {"state_dir": tmp_path / "jobs", "data_dir": Path("tests/data")} | settings
        load = lambda *_: {model.name: model for model in (fake, plain)}  # noqa: E731
        return create_app(Settings(**given), load=load, assessor=assessor)

    return make


@pytest.fixture
async def client(make_app: Callable[..., FastAPI]) -> AsyncIterator[httpx.AsyncClient]:
    async with running(make_app()) as client:
        yield client


def lively(network: CCNet | ConvNet) -> CCNet | ConvNet:
    """An untrained network whose maps and logits differ visibly from image to image and member to member.

    As torch makes them, the signal shrinks from layer to layer until only the biases are left.
    """
    with torch.no_grad():
        for layer in network.layers:
            assert isinstance(layer, CCConv2d | torch.nn.Conv2d)
            assert layer.bias is not None
            layer.bias.zero_()
            weights = layer.kernel.last.parameters() if isinstance(layer, CCConv2d) else [layer.weight]
            for parameter in weights:
                parameter.mul_(2.4)
        linear = [layer for layer in network.head if isinstance(layer, torch.nn.Linear)]
        for layer in linear:
            layer.weight.mul_(2.0)
        linear[-1].weight.mul_(10.0)
    return network


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a CCNet and a ConvNet, real ones as `ccnet train` writes them, but untrained."""
    folder = tmp_path_factory.mktemp("checkpoints")
    torch.manual_seed(20061120)
    preprocessing = Preprocessing(1, (28, 28), (32, 32), (0.219,), (0.332,))
    for name, network in (("tiny-ccnet", CCNet(1, 10)), ("tiny-convnet", ConvNet(1, 10))):
        save_checkpoint(
            lively(network),
            folder / name,
            labels=FASHION_MNIST_CLASSES,
            preprocessing=preprocessing,
            data={"dataset": "fashion-mnist-sample", "train_images": 0, "test_images": 0},
        )
    return folder


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """What starts processes of the service, and ends those that a test leaves."""
    processes: list[Process] = []

    def starter(under: Sequence[str] = (), module: str = "service", **settings: object) -> Process:
        process = Process(under, module, **({"port": 0, "device": "cpu"} | settings))
        processes.append(process)
        return process

    yield starter
    for process in processes:
        if process.popen.poll() is None:
            process.popen.kill()
        process.leave()
        if process.popen.stderr is not None:
            process.popen.stderr.close()


@pytest.fixture
async def make_bench() -> AsyncIterator[Callable[..., Bench]]:
    """What makes batchers to look into."""
    async with benches() as make:
        yield make


@pytest.fixture
async def bench(make_bench: Callable[..., Bench]) -> Bench:
    return make_bench()
