"""Checkpoints that come, change, break and go while the service answers: real, untrained networks in a real folder."""

import asyncio
import logging
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch

from ccnet.checkpoint import CONFIG_FILE, WEIGHTS_FILE, load_checkpoint, save_checkpoint
from ccnet.data import FASHION_MNIST_CLASSES
from ccnet.ensemble import ScaleEnsemble
from ccnet.models import CCNet
from ccnet.preprocessing import Preprocessing
from service.app import create_app
from service.reloading import Reloader
from service.settings import Settings
from tests.service.conftest import lively, running, service_behind
from tests.service.fakes import FakeModel
from tests.service.pictures import encoded, grey

PREPROCESSING = Preprocessing(1, (28, 28), (32, 32), (0.219,), (0.332,))
PICTURE = np.random.default_rng(1).integers(0, 256, (28, 28), dtype=np.uint8)
OPTIONS: dict[str, str | int] = {"ensemble_size": 2, "seed": 5, "include": "logits"}
NOT_FOUND_AGAIN = 400  # looks after which a test gives up


def write(folder: Path, seed: int, name: str | None = None) -> None:
    """A CCNet of these random weights, put in place in one step."""
    torch.manual_seed(seed)
    network = lively(CCNet(1, 10))
    save_checkpoint(network, folder, labels=FASHION_MNIST_CLASSES, preprocessing=PREPROCESSING, name=name)


def logits_in(folder: Path) -> np.ndarray:
    """What the library says of PICTURE with the weights in a folder."""
    checkpoint = load_checkpoint(folder)
    ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler)  # type: ignore[arg-type]
    return ensemble(checkpoint.preprocess([PICTURE[..., None]]), size=2, seed=5).logits.numpy()


async def logits_of(client: httpx.AsyncClient, **options: str | int) -> np.ndarray:
    response = await client.post("/v1/classify", params=OPTIONS | options, files={"images": encoded(PICTURE)})
    assert response.status_code == 200, response.text
    return np.array([result["logits"] for result in response.json()["results"]])


async def names(client: httpx.AsyncClient) -> list[str]:
    return [model["name"] for model in (await client.get("/v1/models")).json()["models"]]


async def reloads(client: httpx.AsyncClient) -> tuple[float, float]:
    """(done, refused)."""
    value = service_behind(client).metrics.registry.get_sample_value
    done, refused = (value("ccnet_reloads_total", {"result": result}) for result in ("done", "refused"))
    assert done is not None
    assert refused is not None
    return done, refused


@pytest.fixture
def folder(checkpoints, tmp_path) -> Path:
    """A copy of the two checkpoints that a test may change."""
    return Path(shutil.copytree(checkpoints, tmp_path / "checkpoints"))


@asynccontextmanager
async def serving(folder: Path, **settings: object) -> AsyncIterator[tuple[httpx.AsyncClient, Reloader]]:
    """A client, and a reloader that looks when the test says so."""
    values = {"checkpoints": folder, "device": "cpu", "seed_pool": 1, "ensemble_size": 1, "reload_s": 0}
    app = create_app(Settings(**(values | settings)))  # type: ignore[arg-type]
    async with running(app) as client:
        service = service_behind(client)
        yield client, Reloader(service.settings, service.engine, service.metrics)


async def look_twice(reloader: Reloader) -> None:
    await reloader.look()
    await reloader.look()


async def test_nothing_is_loaded_again_while_nothing_changes(folder):
    async with serving(folder) as (client, reloader):
        await look_twice(reloader)
        assert await reloads(client) == (0, 0)


async def test_a_changed_checkpoint_is_swapped_under_load_and_no_request_fails(folder):
    old = logits_in(folder / "tiny-ccnet")
    async with serving(folder, reload_s=0.05) as (client, _):
        swapped = asyncio.Event()
        kinds: list[str] = []

        async def ask_on() -> None:
            while not swapped.is_set():
                answer = await logits_of(client)
                is_old, is_new = np.allclose(answer, old, atol=1e-4), np.allclose(answer, new, atol=1e-4)
                assert is_old != is_new, "neither the old model's answer nor the new one's"
                kinds.append("old" if is_old else "new")

        write(folder / "tiny-ccnet", seed=2)
        new = logits_in(folder / "tiny-ccnet")
        assert np.abs(new - old).max() > 0.1  # or the two could not be told apart
        asking = [asyncio.create_task(ask_on()) for _ in range(4)]
        for _ in range(NOT_FOUND_AGAIN):
            await asyncio.sleep(0.05)
            if kinds.count("new") > 8:
                break
        swapped.set()
        await asyncio.gather(*asking)
        assert set(kinds) == {"old", "new"}
        np.testing.assert_allclose(await logits_of(client), new, atol=1e-4)
        assert await reloads(client) == (1, 0)


async def test_what_was_prepared_for_the_old_weights_leaves_and_is_prepared_for_the_new_ones(folder):
    async with serving(folder) as (client, reloader):
        plans = service_behind(client).engine.plans
        full = plans.stats
        assert full.plans > 0
        write(folder / "tiny-ccnet", seed=3)
        await look_twice(reloader)
        assert (plans.stats.plans, plans.stats.nbytes) == (full.plans, full.nbytes)
        misses = plans.stats.misses
        await logits_of(client, ensemble_size=1, seed=0)
        assert plans.stats.misses == misses


async def test_a_checkpoint_waits_until_its_files_are_still(folder):
    async with serving(folder) as (client, reloader):
        write(folder / "other", seed=4)
        for _ in range(3):
            (folder / "other" / "README.md").write_text(os.urandom(8).hex(), encoding="utf-8")
            await reloader.look()
            assert "other" not in await names(client)
        await reloader.look()
        assert await names(client) == ["other", "tiny-ccnet", "tiny-convnet"]
        np.testing.assert_allclose(await logits_of(client, model="other"), logits_in(folder / "other"), atol=1e-4)


async def test_a_newcomer_does_not_become_the_model_of_requests_that_name_none(folder):
    async with serving(folder) as (client, reloader):
        write(folder / "a-first-name", seed=4)
        await look_twice(reloader)
        models = (await client.get("/v1/models")).json()["models"]
        assert [(model["name"], model["default"]) for model in models][:2] == [
            ("a-first-name", False),
            ("tiny-ccnet", True),
        ]


def cut_off(folder: Path) -> None:
    weights = (folder / WEIGHTS_FILE).read_bytes()
    (folder / WEIGHTS_FILE).write_bytes(weights[: len(weights) // 2])


def no_config(folder: Path) -> None:
    (folder / CONFIG_FILE).unlink()


def no_json(folder: Path) -> None:
    (folder / CONFIG_FILE).write_text("{", encoding="utf-8")


def no_distribution(folder: Path) -> None:
    config = (folder / CONFIG_FILE).read_text(encoding="utf-8")
    assert '"scale_distribution": null' in config
    broken = config.replace('"scale_distribution": null', '"scale_distribution": {"std": -1}')
    (folder / CONFIG_FILE).write_text(broken, encoding="utf-8")


@pytest.mark.parametrize("damage", [cut_off, no_config, no_json, no_distribution])
async def test_a_bad_checkpoint_is_refused_once_and_the_old_one_stays(folder, caplog, damage: Callable[[Path], None]):
    old = logits_in(folder / "tiny-ccnet")
    async with serving(folder) as (client, reloader):
        damage(folder / "tiny-ccnet")
        with caplog.at_level(logging.ERROR, logger="ccnet.service"):
            for _ in range(3):
                await look_twice(reloader)
        assert len([record for record in caplog.records if "refused" in record.message]) == 1
        assert await reloads(client) == (0, 1)
        np.testing.assert_allclose(await logits_of(client), old, atol=1e-4)
        write(folder / "tiny-ccnet", seed=6)
        await look_twice(reloader)
        assert await reloads(client) == (1, 1)
        np.testing.assert_allclose(await logits_of(client), logits_in(folder / "tiny-ccnet"), atol=1e-4)


async def test_two_checkpoints_of_one_name_are_not_served(folder):
    async with serving(folder) as (client, reloader):
        write(folder / "twin", seed=7, name="tiny-ccnet")
        await look_twice(reloader)
        assert await reloads(client) == (0, 1)
        shutil.rmtree(folder / "tiny-ccnet")  # now the twin is the only one, and must change to be looked at again
        (folder / "twin" / "README.md").write_text("the only one", encoding="utf-8")
        await look_twice(reloader)
        assert await reloads(client) == (1, 1)
        np.testing.assert_allclose(await logits_of(client), logits_in(folder / "twin"), atol=1e-4)


async def test_a_folder_that_goes_takes_its_model_and_its_series_along(folder):
    async with serving(folder) as (client, reloader):
        assert 'model="tiny-ccnet"' in (await client.get("/metrics")).text
        shutil.move(folder / "tiny-ccnet", folder.parent / "aside")
        await look_twice(reloader)
        assert await names(client) == ["tiny-convnet"]
        assert 'model="tiny-ccnet"' not in (await client.get("/metrics")).text
        refused = await client.post("/v1/classify?model=tiny-ccnet", files={"images": grey(1)})
        assert refused.status_code == 404
        assert (await client.post("/v1/classify", files={"images": grey(1)})).json()["model"] == "tiny-convnet"
        assert service_behind(client).engine.plans.stats.nbytes == 0
        shutil.move(folder.parent / "aside", folder / "tiny-ccnet")
        await look_twice(reloader)
        assert await names(client) == ["tiny-ccnet", "tiny-convnet"]


@pytest.mark.parametrize("named", [True, False], ids=["set by CCNET_MODEL", "the last one"])
async def test_a_model_without_which_requests_would_find_none_stays(folder, caplog, named):
    if not named:
        shutil.rmtree(folder / "tiny-convnet")
    async with serving(folder, model="tiny-ccnet" if named else None) as (client, reloader):
        old = await logits_of(client)
        shutil.rmtree(folder / "tiny-ccnet")
        with caplog.at_level(logging.WARNING, logger="ccnet.service"):
            for _ in range(3):
                await look_twice(reloader)
        assert len([record for record in caplog.records if "is still served" in record.message]) == 1
        np.testing.assert_array_equal(await logits_of(client), old)


async def test_without_the_folder_everything_stays_and_the_log_says_so_once(folder, caplog):
    async with serving(folder, reload_s=0.01) as (client, _):
        with caplog.at_level(logging.ERROR, logger="ccnet.service"):
            shutil.move(folder, folder.parent / "unmounted")
            for _ in range(NOT_FOUND_AGAIN):
                await asyncio.sleep(0.05)
                if caplog.records:
                    break
            await asyncio.sleep(0.2)
        assert len([record for record in caplog.records if "is not there" in record.message]) == 1
        assert await names(client) == ["tiny-ccnet", "tiny-convnet"]


COPIER = """
import shutil, sys, time
source, target = sys.argv[1:]
shutil.copy(source + "/config.json", target)
with open(source + "/model.safetensors", "rb") as stream, open(target + "/model.safetensors", "wb") as copy:
    copy.write(stream.read(100_000)); copy.flush()
    print("half", flush=True)
    time.sleep(600)
"""


async def test_a_copy_that_is_killed_half_way_leaves_the_old_weights(folder, tmp_path):
    old = logits_in(folder / "tiny-ccnet")
    write(tmp_path / "tiny-ccnet", seed=8)
    async with serving(folder) as (client, reloader):
        command = [sys.executable, "-c", COPIER, str(tmp_path / "tiny-ccnet"), str(folder / "tiny-ccnet")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as copier:
            assert copier.stdout is not None
            assert await asyncio.to_thread(copier.stdout.readline) == "half\n"
            copier.send_signal(signal.SIGKILL)
        await look_twice(reloader)
        assert await reloads(client) == (0, 1)
        np.testing.assert_allclose(await logits_of(client), old, atol=1e-4)


async def test_requests_that_were_admitted_finish_on_the_model_they_came_with(make_app, fake):
    async with running(make_app()) as client:
        engine = service_behind(client).engine

        async def ask(value: int) -> int:
            response = await client.post(
                "/v1/classify?ensemble_size=1&model=fake&seed=1", files={"images": grey(value)}
            )
            return response.status_code

        fake.entered.clear()
        fake.gate.clear()
        first = asyncio.create_task(ask(1))
        assert await asyncio.to_thread(fake.entered.wait, 30)
        waiting = asyncio.create_task(ask(2))  # admitted before the swap, run after it
        while engine._batcher.queue_passes < 1:
            await asyncio.sleep(0.01)
        new = FakeModel()
        engine.adopt(new)
        late = asyncio.create_task(ask(3))
        while engine._batcher.queue_passes < 2:
            await asyncio.sleep(0.01)
        fake.gate.set()
        assert await asyncio.gather(first, waiting, late) == [200, 200, 200]
        assert (fake.passes, new.passes) == ([(1, 1), (1, 1)], [(1, 1)])
