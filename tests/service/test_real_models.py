"""The service around real, untrained networks: what comes over HTTP is what the library computes."""

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from benchmarks.serving import faulty
from ccnet.backends import available_backends, get_backend
from ccnet.checkpoint import Checkpoint, load_checkpoint
from ccnet.data import load_dataset
from ccnet.ensemble import ScaleEnsemble
from ccnet.equivariance import noise_images, similarity_map, table1
from ccnet.native import kernels
from ccnet.sequences import sample_scale_sequences
from service.app import create_app
from service.running import ProbeJob
from service.settings import Settings
from tests.service.bench import skip
from tests.service.conftest import running, service_behind
from tests.service.pictures import encoded

DATA = Path(__file__).parents[1] / "data"


@pytest.fixture(scope="module")
def ccnet(checkpoints) -> Checkpoint:
    return load_checkpoint(checkpoints / "tiny-ccnet")


@pytest.fixture(scope="module")
def convnet(checkpoints) -> Checkpoint:
    return load_checkpoint(checkpoints / "tiny-convnet")


@pytest.fixture(scope="module")
def shoes() -> np.ndarray:
    """uint8 [8, 28, 28, 1]."""
    return load_dataset("fashion-mnist-sample", "test", DATA).images[:8]


@pytest.fixture
async def client(checkpoints) -> AsyncIterator[httpx.AsyncClient]:
    async with running(
        create_app(Settings(checkpoints=checkpoints, device="cpu", data_dir=DATA, seed_pool=1))
    ) as client:
        yield client


async def classify(client: httpx.AsyncClient, images: np.ndarray, **options: Any) -> dict:
    files = [("images", encoded(image[..., 0])) for image in images]
    response = await client.post("/v1/classify", params=options, files=files)
    assert response.status_code == 200, response.text
    return response.json()


def logits_of(document: dict) -> np.ndarray:
    return np.array([result["logits"] for result in document["results"]])


async def test_an_ensemble_over_http_is_the_library_s(client, ccnet, shoes):
    document = await classify(client, shoes, ensemble_size=2, seed=5, include="members,logits")
    expected = ScaleEnsemble(ccnet.model)(ccnet.preprocess(shoes), size=2, seed=5)
    assert document["model"] == "tiny-ccnet"
    np.testing.assert_allclose(logits_of(document), expected.logits, atol=1e-4)
    assert np.ptp(logits_of(document), axis=0).max() > 0.1  # or nothing would be compared
    labels = [[ccnet.labels[c] for c in member.argmax(dim=1)] for member in expected.member_logits]
    assert [member["labels"] for member in document["members"]] == labels
    for member, sequence in zip(document["members"], expected.sequences, strict=True):
        assert member["sequence"]["vertical"] == [str(scale) for scale in sequence.vertical]
        assert member["sequence"]["horizontal"] == [str(scale) for scale in sequence.horizontal]
        assert [tuple(shape) for shape in member["sequence"]["shapes"]] == list(sequence.shapes((32, 32)))


async def test_a_convnet_answers_with_one_pass(client, convnet, shoes):
    document = await classify(client, shoes, model="tiny-convnet", include="logits,members")
    np.testing.assert_allclose(logits_of(document), convnet.model(convnet.preprocess(shoes)), atol=1e-4)
    assert document["ensemble_size"] == 1
    assert "members" not in document


async def test_the_same_seed_gives_the_same_answer_alone_and_among_others(client, shoes):
    wanted = {"ensemble_size": 2, "seed": 11, "include": "logits,members"}
    alone = await classify(client, shoes[:1], **wanted)
    others = [
        classify(client, shoes[1:3], ensemble_size=2, seed=11),  # the same members: shares the passes
        classify(client, shoes[3:4], ensemble_size=1, seed=11),
        classify(client, shoes[4:6], ensemble_size=2, seed=12, aggregate="median"),
        classify(client, shoes[6:], model="tiny-convnet"),
    ]
    together = (await asyncio.gather(*others, classify(client, shoes[:1], **wanted)))[-1]
    np.testing.assert_allclose(logits_of(alone), logits_of(together), atol=1e-4)
    assert [member["sequence"] for member in alone["members"]] == [m["sequence"] for m in together["members"]]


async def test_a_model_tells_what_its_config_says(client, ccnet):
    model = (await client.get("/v1/models/tiny-ccnet")).json()
    assert (model["architecture"], model["device"], model["default"]) == ("CCNet", "cpu", True)
    assert model["labels"] == list(ccnet.labels)
    assert model["config"] == ccnet.config
    assert model["parameters"] == sum(parameter.numel() for parameter in ccnet.model.parameters())


async def test_the_backend_that_is_shown_is_the_one_that_runs(client, ccnet):
    models = {model["name"]: model for model in (await client.get("/v1/models")).json()["models"]}
    backend = "native" if "native" in available_backends() else "discrete"
    assert {name: model["backend"] for name, model in models.items()} == {"tiny-ccnet": backend, "tiny-convnet": None}
    assert get_backend(ccnet.model.layers[0].backend) is get_backend(backend)
    native = kernels()
    assert models["tiny-ccnet"]["instruction_set"] == (native.instruction_set if native else None)
    assert models["tiny-convnet"]["instruction_set"] is None
    gauge = service_behind(client).metrics.registry.get_sample_value
    labels = {"model": "tiny-ccnet", "architecture": "CCNet", "device": "cpu"}
    assert gauge("ccnet_model_info", labels | {"backend": backend}) == 1


async def test_the_table_over_http_is_the_library_s(client, convnet):
    options = {"model": "tiny-convnet", "max_shift": "2,4", "samples": 6, "seed": 3, "border": "circular"}
    document = (await client.get("/v1/equivariance", params=options)).json()
    expected = table1(convnet.model, noise_images(6, (1, 32, 32), 3), (2, 4), seed=3, border="circular")
    assert (document["model"], document["input"], document["samples"]) == ("tiny-convnet", "noise", 6)
    for row, wanted in zip(document["rows"], expected, strict=True):
        assert row["max_shift"] == wanted.max_shift
        assert row["cosine_mean"] == pytest.approx(wanted.cosine_mean, abs=1e-6)
        assert row["ci95"] == pytest.approx(wanted.ci95, abs=1e-6)
        assert row["consistency"] == wanted.consistency
    assert document["protocol"]["border"] == "circular"
    gauge = {"model": "tiny-convnet", "input": "noise", "max_shift": "4"}
    registry = service_behind(client).metrics.registry
    assert registry.get_sample_value("ccnet_equivariance_cosine", gauge) == document["rows"][1]["cosine_mean"]


async def test_the_table_of_a_ccnet_names_its_sequences_and_every_choice(client):
    options = {"max_shift": "2", "samples": 2, "ensemble_size": 2, "input": "dataset"}
    document = (await client.get("/v1/equivariance", params=options)).json()
    assert (document["model"], document["input"]) == ("tiny-ccnet", "dataset")
    assert len(document["protocol"]["sequences"]) == 2
    for choice in ("border", "fill", "include_zero", "total_scale", "cubic_a", "outside", "cut", "cosine", "members"):
        assert choice in document["protocol"]
    assert -1 <= document["rows"][0]["cosine_mean"] <= 1


async def test_black_enters_pictures_and_0_enters_noise_and_the_answer_says_so(client, convnet, shoes):
    """The answers are the library's with that fill, and other ones with the other."""
    black = convnet.preprocessing.black
    pictures = convnet.preprocess(shoes)
    for source, images, fill, word in (("noise", noise_images(8, (1, 32, 32)), 0.0, "mean of the noise"),
                                       ("dataset", pictures, black, "black")):  # fmt: skip
        options = {"model": "tiny-convnet", "max_shift": "6", "samples": 8, "input": source}
        document = (await client.get("/v1/equivariance", params=options)).json()
        cosine = {value: table1(convnet.model, images, (6,), fill=value)[0].cosine_mean for value in (0.0, black)}
        assert document["rows"][0]["cosine_mean"] == pytest.approx(cosine[fill], abs=1e-6)
        assert abs(cosine[0.0] - cosine[black]) > 1e-5, "the fill must matter, or this shows nothing"
        assert document["protocol"]["fill"] == (list(black) if fill else 0.0)
        assert word in document["protocol"]["fill_means"]
    upload = {"images": encoded(shoes[0, ..., 0])}
    (probed,) = (await client.post("/v1/equivariance?max_shift=1&models=tiny-convnet", files=upload)).json()["models"]
    assert probed["protocol"]["fill"] == list(black)
    assert "black" in probed["protocol"]["fill_means"]


async def test_no_value_enters_under_another_border(client):
    options = {"model": "tiny-convnet", "max_shift": "1", "samples": 2, "border": "reflect"}
    protocol = (await client.get("/v1/equivariance", params=options)).json()["protocol"]
    assert protocol["fill_means"] == "nothing: no value enters under border reflect"


async def test_a_data_set_that_is_not_there_says_how_to_get_it(checkpoints, tmp_path):
    app = create_app(Settings(checkpoints=checkpoints, device="cpu", data_dir=tmp_path, seed_pool=0))
    async with running(app) as client:
        response = await client.get("/v1/equivariance", params={"input": "dataset", "samples": 2})
        assert response.status_code == 422
        assert "CCNET_DATA_DIR" in response.json()["detail"]


async def test_uploaded_images_are_probed_in_all_models_side_by_side(client, ccnet, convnet, shoes):
    files = [("images", encoded(image[..., 0])) for image in shoes[:2]]
    options = {"max_shift": "1", "seed": 4, "ensemble_size": 3}
    document = (await client.post("/v1/equivariance", params=options, files=files)).json()
    assert [model["model"] for model in document["models"]] == ["tiny-ccnet", "tiny-convnet"]
    assert (document["samples"], document["input"]) == (2, "upload")
    for probed, checkpoint in zip(document["models"], (ccnet, convnet), strict=True):
        images = checkpoint.preprocess(shoes[:2])
        choices: dict[str, Any] = {"seed": 4, "members": "each", "fill": checkpoint.preprocessing.black}
        if checkpoint is ccnet:
            choices["sequences"] = sample_scale_sequences(3, seed=4)
            assert probed["protocol"]["sequences"] == [str(sequence) for sequence in choices["sequences"]]
        (row,) = table1(checkpoint.model, images, (1,), **choices)
        similarity = similarity_map(checkpoint.model, images, 1, **choices)
        assert probed["rows"][0]["cosine_mean"] == pytest.approx(row.cosine_mean, abs=1e-6)
        np.testing.assert_allclose(probed["map"]["cosine"], np.array(similarity.cosine, dtype=float), atol=1e-6)
        assert probed["map"]["cosine"][1][1] == pytest.approx(1)
        assert probed["protocol"]["members"] == "each"
    measured = document["models"][0]["map"]
    assert measured["samples"] == 2 * 9
    chosen = await client.post("/v1/equivariance", params={"max_shift": "1", "models": "tiny-convnet"}, files=files)
    assert [model["model"] for model in chosen.json()["models"]] == ["tiny-convnet"]


async def test_a_probe_nobody_waits_for_stops(client, monkeypatch):
    """Its deadline passes before its first report of progress, which ends it; a classification gets its turn."""
    measuring, reports = threading.Event(), []
    go_on = ProbeJob._go_on

    def late(job: ProbeJob, done: int, total: int) -> None:
        reports.append(done)
        measuring.set()
        assert job.abandoned.wait(30), "the deadline did not come"
        go_on(job, done, total)

    monkeypatch.setattr(ProbeJob, "_go_on", late)
    options = {"samples": 20, "max_shift": "2", "timeout_ms": 600_000}
    probe = asyncio.create_task(client.get("/v1/equivariance", params=options))
    assert await asyncio.to_thread(measuring.wait, 30)
    skip(700)
    assert (await probe).status_code == 504
    await classify(client, np.zeros((1, 28, 28, 1), dtype=np.uint8), model="tiny-convnet")
    assert len(reports) == 1
    assert service_behind(client).metrics.registry.get_sample_value("ccnet_queue_passes") == 0


async def test_the_fault_that_the_benchmark_injects_fails_one_picture_and_not_those_beside_it(
    client, shoes, monkeypatch
):
    monkeypatch.setattr(ScaleEnsemble, "member_logits", faulty.failing)
    poison = encoded(np.full((28, 28), faulty.POISON, dtype=np.uint8))
    sound = encoded(shoes[0, ..., 0])
    answers = await asyncio.gather(
        *(
            client.post("/v1/classify", content=picture, headers={"Content-Type": "image/png"})
            for picture in (sound, poison, sound)
        )
    )
    assert [answer.status_code for answer in answers] == [200, 500, 200]
