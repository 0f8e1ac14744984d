"""Triton's own client, unchanged, against a real server around real, untrained networks."""

import base64
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
import uvicorn
from tritonclient.utils import InferenceServerException

from ccnet.checkpoint import Checkpoint, load_checkpoint
from ccnet.data import load_dataset
from ccnet.sequences import sample_scale_sequences
from service.app import create_app
from service.context import Phase
from service.protocol import bounded_protocol
from service.settings import Settings
from tests.service.pictures import encoded

DATA = Path(__file__).parents[1] / "data"
MODEL, PLAIN = "tiny-ccnet", "tiny-convnet"
CODINGS = (None, "gzip", "deflate")
OPTIONS = {"ensemble_size": 3, "seed": 11}
PATIENCE_S = 60


@pytest.fixture(scope="module")
def address(checkpoints) -> Iterator[str]:
    """host:port of a server on a thread of its own."""
    settings = Settings(checkpoints=checkpoints, device="cpu", seed_pool=1, max_body_bytes=2**20, reload_s=0)
    app = create_app(settings)
    config = uvicorn.Config(app, port=0, log_config=None, ws="none", http=bounded_protocol(settings))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    give_up = time.monotonic() + PATIENCE_S
    while app.state.service.phase is not Phase.READY or not server.started:
        assert thread.is_alive()
        assert time.monotonic() < give_up
        time.sleep(0.01)
    host, port = server.servers[0].sockets[0].getsockname()
    yield f"{host}:{port}"
    server.should_exit = True
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.fixture
def client(address) -> Iterator[triton.InferenceServerClient]:
    client = triton.InferenceServerClient(address, connection_timeout=PATIENCE_S, network_timeout=PATIENCE_S)
    yield client
    client.close()


@pytest.fixture(scope="module")
def shoes() -> np.ndarray:
    """uint8 [5, 28, 28, 1]."""
    return load_dataset("fashion-mnist-sample", "test", DATA).images[:5]


@pytest.fixture(scope="module")
def checkpoint(checkpoints) -> Checkpoint:
    return load_checkpoint(checkpoints / MODEL)


def tensor(data: np.ndarray, *, binary: bool = True) -> list[triton.InferInput]:
    """The input, with the datatype of an array."""
    datatype = {"uint8": "UINT8", "float32": "FP32", "object": "BYTES"}[str(data.dtype)]
    return [triton.InferInput("images", list(data.shape), datatype).set_data_from_numpy(data, binary_data=binary)]


def files(shoes: np.ndarray) -> np.ndarray:
    return np.array([encoded(shoe[..., 0]) for shoe in shoes], dtype=object)


def classified(address: str, shoes: np.ndarray, **options: Any) -> list[dict]:
    """What /v1 says."""
    response = httpx.post(
        f"http://{address}/v1/classify",
        params={"include": "logits", "model": MODEL} | options,
        files=[("images", file) for file in files(shoes)],
        timeout=PATIENCE_S,
    )
    assert response.status_code == 200, response.text
    return response.json()["results"]


def assert_same_answer(result: triton.InferResult, results: list[dict]) -> None:
    expected = np.array([each["logits"] for each in results])
    logits, probabilities = result.as_numpy("logits"), result.as_numpy("probabilities")
    assert logits.dtype == probabilities.dtype == np.float32
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    for row, each in zip(probabilities, results, strict=True):
        assert row.sum() == pytest.approx(1, abs=1e-5)
        assert row.max() == pytest.approx(each["probability"], abs=1e-4)
        assert row.argmax() == each["class_index"]
    labels = [label.decode() if isinstance(label, bytes) else label for label in result.as_numpy("labels")]
    assert labels == [each["label"] for each in results]


def test_the_comparison_notices_another_answer(client, address, shoes):
    result = client.infer(MODEL, tensor(shoes), parameters=OPTIONS)
    with pytest.raises(AssertionError):
        assert_same_answer(result, classified(address, shoes, ensemble_size=3, seed=12))


def test_the_example_of_the_document_runs(address, capsys):
    text = (Path(__file__).parents[2] / "docs" / "open_inference.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"^```py\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    for published, here in (("127.0.0.1:8000", address), ("fashion-mnist-ccnet", MODEL)):
        assert example.count(published) == 1
        example = example.replace(published, here)
    exec(compile(example, "docs/open_inference.md", "exec"), {})
    assert capsys.readouterr().out.startswith("[b'")


def test_it_tells_what_it_is_and_whether_it_is_ready(client):
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(MODEL)
    assert client.is_model_ready(MODEL, "1")
    assert not client.is_model_ready(MODEL, "2")
    assert not client.is_model_ready("nothing")
    metadata = client.get_server_metadata()
    assert metadata["name"] == "ccnet"
    assert {"binary_tensor_data", "statistics", "classification"} <= set(metadata["extensions"])
    assert [(model["name"], model["state"]) for model in client.get_model_repository_index()] == [
        (MODEL, "READY"),
        (PLAIN, "READY"),
    ]


@pytest.mark.parametrize("version", ["", "1"])
def test_what_metadata_and_configuration_declare_is_taken_and_answered(client, version):
    metadata = client.get_model_metadata(MODEL, version)
    config = client.get_model_config(MODEL, version)
    (declared,) = metadata["inputs"]
    images = np.zeros([2 if size == -1 else size for size in declared["shape"]], dtype=np.float32)
    wanted = [triton.InferRequestedOutput(output["name"]) for output in metadata["outputs"]]
    result = client.infer(MODEL, tensor(images), version, outputs=wanted)
    for output, configured in zip(metadata["outputs"], config["output"], strict=True):
        answered = result.get_output(output["name"])
        assert answered["datatype"] == output["datatype"]
        assert answered["shape"] == [2, *output["shape"][1:]] == [2, *configured["dims"]]
        assert configured["data_type"] == {"FP32": "TYPE_FP32", "BYTES": "TYPE_STRING"}[output["datatype"]]
    assert config["name"] == metadata["name"] == MODEL
    assert config["input"] == [{"name": "images", "data_type": "TYPE_FP32", "dims": declared["shape"][1:]}]
    assert config["max_batch_size"] == 64


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("question_coding", CODINGS)
@pytest.mark.parametrize("answer_coding", CODINGS)
def test_every_form_of_a_request_gets_the_answer_of_v1(client, address, shoes, binary, question_coding, answer_coding):
    outputs = [triton.InferRequestedOutput(name, binary_data=binary) for name in ("labels", "probabilities", "logits")]
    result = client.infer(
        MODEL,
        tensor(shoes, binary=binary),
        outputs=outputs,
        request_id="mine",
        parameters=OPTIONS,
        request_compression_algorithm=question_coding,
        response_compression_algorithm=answer_coding,
    )
    assert_same_answer(result, classified(address, shoes, **OPTIONS))
    response = result.get_response()
    assert (response["model_name"], response["model_version"], response["id"]) == (MODEL, "1", "mine")
    assert response["parameters"] == OPTIONS
    assert [output["name"] for output in response["outputs"]] == ["labels", "probabilities", "logits"]
    for output in response["outputs"]:
        assert ("data" in output) is not binary
        assert ("binary_data_size" in output.get("parameters", {})) is binary


@pytest.mark.parametrize("binary", [True, False])
async def test_the_asyncio_client_gets_the_same(address, shoes, binary):
    async with triton_aio.InferenceServerClient(address) as client:
        assert await client.is_server_ready()
        assert (await client.get_model_metadata(MODEL))["name"] == MODEL
        assert (await client.get_inference_statistics(MODEL))["model_stats"][0]["name"] == MODEL
        for coding in CODINGS:
            result = await client.infer(
                MODEL,
                tensor(shoes, binary=binary),
                parameters=OPTIONS,
                request_compression_algorithm=coding,
                response_compression_algorithm=coding,
            )
            assert_same_answer(result, classified(address, shoes, **OPTIONS))
        with pytest.raises(InferenceServerException, match="'nothing' was asked for; loaded are"):
            await client.infer("nothing", tensor(shoes))


def test_many_requests_at_a_time_each_get_their_own_answer(client, address, shoes):
    with triton.InferenceServerClient(address, concurrency=8, network_timeout=PATIENCE_S) as client:
        asked = [
            client.async_infer(MODEL, tensor(shoes[index : index + 1]), parameters={"seed": seed})
            for index in range(5)
            for seed in (1, 2)
        ]
        results = [each.get_result() for each in asked]
    for position, result in enumerate(results):
        index, seed = position // 2, (1, 2)[position % 2]
        assert_same_answer(result, classified(address, shoes[index : index + 1], seed=seed))


@pytest.mark.parametrize("form", ["channels last", "channels first", "files", "files in columns", "text"])
def test_pixels_and_files_in_every_form_are_the_same_images(client, address, shoes, form):
    given = {
        "channels last": tensor(shoes),
        "channels first": tensor(np.ascontiguousarray(shoes.transpose(0, 3, 1, 2))),
        "files": tensor(files(shoes)),
        "files in columns": tensor(files(shoes)[:, None]),
        "text": tensor(np.array([base64.b64encode(file) for file in files(shoes)], dtype=object), binary=False),
    }[form]
    assert_same_answer(client.infer(MODEL, given, parameters=OPTIONS), classified(address, shoes, **OPTIONS))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("channels_last", [True, False])
def test_prepared_images_are_taken_as_they_are(client, address, shoes, checkpoint, binary, channels_last):
    images = checkpoint.preprocess(shoes).numpy()
    given = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if channels_last else images
    result = client.infer(MODEL, tensor(given, binary=binary), parameters=OPTIONS)
    assert_same_answer(result, classified(address, shoes, **OPTIONS))


def test_large_colour_pictures_are_prepared_as_their_files_are(client, address):
    pictures = np.random.default_rng(3).integers(0, 256, (2, 90, 70, 3), dtype=np.uint8)
    pixels = client.infer(MODEL, tensor(pictures), parameters=OPTIONS)
    as_files = np.array([encoded(picture) for picture in pictures], dtype=object)
    np.testing.assert_allclose(
        pixels.as_numpy("logits"),
        client.infer(MODEL, tensor(as_files), parameters=OPTIONS).as_numpy("logits"),
        atol=1e-4,
    )


def test_a_body_that_is_one_raw_tensor_is_prepared_images(address, shoes, checkpoint):
    raw = checkpoint.preprocess(shoes).numpy().tobytes()
    response = httpx.post(
        f"http://{address}/v2/models/{MODEL}/infer", content=raw, headers={"Inference-Header-Content-Length": "0"}
    )
    assert response.status_code == 200, response.text
    outputs = {output["name"]: output for output in response.json()["outputs"]}
    assert outputs["logits"]["shape"] == [5, 10]
    seed = response.json()["parameters"]["seed"]
    expected = [each["logits"] for each in classified(address, shoes, seed=seed)]
    np.testing.assert_allclose(np.reshape(outputs["logits"]["data"], (5, 10)), expected, atol=1e-4)


def test_given_sequences_are_the_members(client, address, shoes):
    sequences = sample_scale_sequences(3, seed=11)
    parameters = {"sequences": "; ".join(str(sequence) for sequence in sequences)}
    result = client.infer(MODEL, tensor(shoes), parameters=parameters)
    assert_same_answer(result, classified(address, shoes, **OPTIONS))
    assert result.get_response()["parameters"] == {"ensemble_size": 3}


@pytest.mark.parametrize("aggregate", ["mean", "median", "mean_probability"])
def test_members_are_aggregated_as_asked(client, address, shoes, aggregate):
    options = OPTIONS | {"aggregate": aggregate}
    assert_same_answer(client.infer(MODEL, tensor(shoes), parameters=options), classified(address, shoes, **options))


def test_a_model_without_sequences_answers_alone(client, address, shoes):
    result = client.infer(PLAIN, tensor(shoes))
    assert_same_answer(result, classified(address, shoes, model=PLAIN))
    assert result.get_response()["parameters"]["ensemble_size"] == 1


@pytest.mark.parametrize("binary", [True, False])
def test_the_best_classes_come_with_scores_and_labels(client, address, shoes, binary):
    wanted = [triton.InferRequestedOutput("probabilities", binary_data=binary, class_count=3)]
    best = client.infer(MODEL, tensor(shoes), outputs=wanted, parameters=OPTIONS).as_numpy("probabilities")
    assert best.shape == (5, 3)
    for row, each in zip(best, classified(address, shoes, top_k=3, **OPTIONS), strict=True):
        for text, top in zip(row, each["top"], strict=True):
            score, index, label = (text.decode() if isinstance(text, bytes) else text).split(":", 2)
            assert (int(index), label) == (top["class_index"], top["label"])
            assert float(score) == pytest.approx(top["probability"], abs=1e-4)


def test_agreement_and_entropy_are_those_of_v1(client, address, shoes):
    wanted = [triton.InferRequestedOutput(name) for name in ("agreement", "entropy")]
    result = client.infer(MODEL, tensor(shoes), outputs=wanted, parameters=OPTIONS)
    for name in ("agreement", "entropy"):
        expected = [each[name] for each in classified(address, shoes, **OPTIONS)]
        np.testing.assert_allclose(result.as_numpy(name), expected, atol=1e-3)
    assert result.as_numpy("logits") is None


def test_statistics_count_what_was_done(client, shoes):
    def stats() -> dict:
        (of_model,) = client.get_inference_statistics(PLAIN)["model_stats"]
        return of_model

    before = stats()
    for _ in range(3):
        client.infer(PLAIN, tensor(shoes))
    with pytest.raises(InferenceServerException):
        client.infer(PLAIN, tensor(np.array([b"no picture"], dtype=object)))
    after = stats()
    assert (after["name"], after["version"]) == (PLAIN, "1")
    assert after["inference_count"] - before["inference_count"] == 15
    assert after["execution_count"] - before["execution_count"] == 3
    assert abs(after["last_inference"] / 1000 - time.time()) < PATIENCE_S
    done = {
        kind: {unit: after["inference_stats"][kind][unit] - before["inference_stats"][kind][unit] for unit in counted}
        for kind, counted in after["inference_stats"].items()
    }
    assert {kind: each["count"] for kind, each in done.items()} == {
        "success": 3,
        "fail": 1,
        "queue": 3,
        "compute_input": 3,
        "compute_infer": 3,
        "compute_output": 3,
        "cache_hit": 0,
        "cache_miss": 0,
    }
    parts = sum(done[kind]["ns"] for kind in ("queue", "compute_input", "compute_infer", "compute_output"))
    assert 0 < parts <= done["success"]["ns"]
    assert [each["batch_size"] for each in after["batch_stats"]] == [5]
    assert {each["name"] for each in client.get_inference_statistics()["model_stats"]} == {MODEL, PLAIN}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"ensemble_size": 65}, "a whole number from 1 to 64"),
        ({"ensemble_size": 2.5}, "ensemble_size"),
        ({"sequences": "1 1 1"}, "8 layers"),
        ({"sequences": "1 1 1 1 1 1 1 1"}, "must multiply to exactly 1/4"),
        ({"sequences": "1 100 1/400 1 1 1 1 1"}, "scale above 1"),
        ({"sequences": "1 998/999 998/999 998/999 998/999 998/999 998/999 999^6"}, "fractions or decimals"),
        ({"sequences": "1 1/2 1/2 1 1 1 1 1", "seed": 3}, "nothing to draw"),
        ({"sequences": "1 1/2 1/2 1 1 1 1 1", "ensemble_size": 2}, "with 1 sequences"),
        ({"min_size": 5}, "at most the 4 members"),
        ({"aggregate": "sum"}, "mean, median, mean_probability"),
        ({"ensemble": 4}, "there is no such one; allowed are ensemble_size"),
        ({"layout": "NCHW"}, "with layout NCHW"),
    ],
)
def test_wrong_parameters_are_explained_to_the_client(client, shoes, parameters, message):
    with pytest.raises(InferenceServerException, match=message) as refusal:
        client.infer(MODEL, tensor(shoes), parameters=parameters)
    assert refusal.value.status() in ("400", "422")


def test_other_mistakes_are_explained_to_the_client(client, shoes):
    def refused(message: str, status: int, call: Any, *arguments: Any, **named: Any) -> None:
        with pytest.raises(InferenceServerException, match=message) as refusal:
            call(*arguments, **named)
        assert refusal.value.status() == str(status)

    refused("'nothing' was asked for; loaded are", 404, client.get_model_metadata, "nothing")
    refused("version '7'", 404, client.get_model_config, MODEL, "7")
    refused("loading and unloading over HTTP is not enabled", 400, client.load_model, MODEL)
    refused("loading and unloading over HTTP is not enabled", 400, client.unload_model, MODEL)
    refused("nothing at this path", 404, client.get_trace_settings)
    refused("a deadline|no answer within|the deadline", 504, client.infer, MODEL, tensor(shoes), timeout=1)
    refused("priority", 422, client.infer, MODEL, tensor(shoes), priority=1)
    refused("sequence_id", 422, client.infer, MODEL, tensor(shoes), sequence_id=3)
    wanted = [triton.InferRequestedOutput("labels", class_count=2)]
    refused("has no classes", 422, client.infer, MODEL, tensor(shoes), outputs=wanted)
    refused("could be", 400, client.infer, MODEL, tensor(np.zeros((1, 3, 9, 3), np.uint8)))
    refused("no PNG|not a PNG|PNG, JPEG or WebP", 415, client.infer, MODEL, tensor(np.array([b"text"], dtype=object)))
    refused("at most", 413, client.infer, MODEL, tensor(np.zeros((65, 2, 2, 1), np.uint8)))
    refused("1,048,576 bytes", 413, client.infer, MODEL, tensor(np.zeros((60, 150, 150, 1), np.uint8)))
    huge = tensor(np.full((1, 1, 32, 32), 3e38, np.float32))
    refused("no finite numbers", 400, client.infer, MODEL, huge)
    nothing = tensor(np.full((1, 1, 32, 32), np.nan, np.float32))
    refused("not finite", 400, client.infer, MODEL, nothing)


def test_an_ambiguous_layout_can_be_said(client):
    pictures = np.random.default_rng(1).integers(0, 256, (1, 3, 9, 3), dtype=np.uint8)
    answers = {
        layout: client.infer(MODEL, tensor(pictures), parameters=OPTIONS | {"layout": layout}).as_numpy("logits")
        for layout in ("NHWC", "NCHW")
    }
    turned = client.infer(
        MODEL,
        tensor(np.ascontiguousarray(pictures.transpose(0, 2, 3, 1))),
        parameters=OPTIONS | {"layout": "NHWC"},
    )
    np.testing.assert_allclose(answers["NCHW"], turned.as_numpy("logits"), atol=1e-5)
    assert np.abs(answers["NHWC"] - answers["NCHW"]).max() > 1e-3
