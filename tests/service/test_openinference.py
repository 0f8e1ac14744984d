"""`/v2` over ASGI: paths, errors in the form of the protocol, keys, limits, pressure, and broken bodies."""

import asyncio
import gzip
import json
import random
import struct
import zlib
from typing import Any

import httpx
import numpy as np
import pytest

from service.context import Phase
from service.errors import REFUSALS
from tests.service.conftest import running, service_behind
from tests.service.fakes import POISON
from tests.service.pictures import grey, huge_png
from tests.service.test_openinference_parsing import mutated

HEADER = "Inference-Header-Content-Length"
INFER = "/v2/models/fake/infer"
CODED: dict[str, Any] = {"gzip": gzip.compress, "deflate": zlib.compress}


def question(*greys: int, **more: Any) -> dict:
    """Small grey pictures, whose mean the model of the tests looks at."""
    data = np.repeat(np.array(greys), 4).tolist()
    return {"inputs": [{"name": "images", "datatype": "UINT8", "shape": [len(greys), 2, 2, 1], "data": data}]} | more


def files(*given: bytes) -> tuple[bytes, dict[str, str]]:
    """The body and headers of a request with encoded files."""
    raw = b"".join(struct.pack("<I", len(file)) + file for file in given)
    tensor = {
        "name": "images",
        "datatype": "BYTES",
        "shape": [len(given)],
        "parameters": {"binary_data_size": len(raw)},
    }
    text = json.dumps({"inputs": [tensor]}).encode()
    return text + raw, {HEADER: str(len(text))}


def assert_error(response: httpx.Response, status: int, text: str) -> None:
    """In the form of the protocol, and no other."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    assert set(response.json()) == {"error"}
    assert text in response.json()["error"]


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
async def test_the_server_answers_with_and_without_a_slash(client, path):
    response = await client.get(path)
    assert response.status_code == 200
    assert response.json()["name"] == "ccnet"


async def test_what_is_not_there_or_not_allowed_is_an_error_of_the_protocol(client):
    assert_error(await client.get("/v2/nothing"), 404, "nothing at this path")
    assert_error(await client.get("/v2/models/fake/"), 404, "nothing at this path")
    assert_error(await client.get("/v2/models/none"), 404, "'none' was asked for; loaded are fake, plain")
    assert_error(await client.get("/v2/models/fake/versions/01/ready"), 404, "version '01'")
    assert_error(await client.get(INFER), 405, "GET is not allowed")
    assert_error(await client.post("/v2"), 405, "POST is not allowed")
    assert_error(await client.get("/v2?verbose=1"), 422, "takes none")
    assert_error(await client.get("/v2?a=1&a=2"), 422, "a:")
    assert "error" not in (await client.get("/v2x")).json()


async def test_the_path_of_statistics_is_no_model(client):
    assert [model["name"] for model in (await client.get("/v2/models/stats")).json()["model_stats"]] == [
        "fake",
        "plain",
    ]
    assert_error(await client.get("/v2/models/stats/ready"), 404, "'stats' was asked for")


async def test_the_index_takes_its_option_and_no_other(client):
    for content in (b"", b"{}", b'{"ready": true}'):
        index = (await client.post("/v2/repository/index", content=content)).json()
        assert [(model["name"], model["state"]) for model in index] == [("fake", "READY"), ("plain", "READY")]
    for content in (b'{"ready": 1}', b'{"all": true}', b"x"):
        assert_error(await client.post("/v2/repository/index", content=content), 400, "")


async def test_probes_follow_the_life_of_the_service(make_app, fake):
    async with running(make_app()) as client:
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        assert (await client.get("/v2/models/fake/ready")).json() == {"name": "fake", "ready": True}
        service_behind(client).phase = Phase.DRAINING
        assert (await client.get("/v2/health/live")).status_code == 200
        for path in ("/v2/health/ready", "/v2/models/fake/ready"):
            assert_error(await client.get(path), 503, "draining")
        service_behind(client).open = False
        assert_error(await client.post(INFER, json=question(1)), 503, "draining")


async def test_keys_guard_everything_but_the_probes(make_app):
    async with running(make_app(api_keys="a-long-enough-key")) as client:
        assert (await client.get("/v2/health/live")).status_code == 200
        assert (await client.get("/v2/health/ready")).status_code == 200
        for path in ("/v2", "/v2/models/stats", "/v2/models/fake", "/v2/models/fake/ready"):
            assert_error(await client.get(path), 401, "no key was given")
            assert (await client.get(path, headers={"X-API-Key": "a-long-enough-key"})).status_code == 200

        async def body():
            raise AssertionError("the body was read")
            yield b""

        assert_error(await client.post(INFER, content=body()), 401, "no key was given")


async def test_a_failure_of_the_model_says_nothing_and_takes_no_other_request_with_it(client, fake):
    fake.gate.clear()
    asked = [asyncio.ensure_future(client.post(INFER, json=question(value))) for value in (1, POISON, 2, 3)]
    await asyncio.sleep(0.05)
    fake.gate.set()
    responses = await asyncio.gather(*asked)
    assert [response.status_code for response in responses] == [200, 500, 200, 200]
    assert_error(responses[1], 500, responses[1].headers["X-Request-ID"])
    assert "secret" not in responses[1].text
    (stats,) = (await client.get("/v2/models/fake/stats")).json()["model_stats"]
    assert stats["inference_stats"]["success"]["count"] == 3
    assert stats["inference_stats"]["fail"]["count"] == 1


async def test_requests_of_both_interfaces_share_a_batch_and_its_statistics(client, fake):
    fake.gate.clear()
    fake.entered.clear()
    first = asyncio.ensure_future(client.post(INFER, json=question(1)))
    while not fake.entered.is_set():
        await asyncio.sleep(0.001)
    fake.passes.clear()
    asked = [asyncio.ensure_future(client.post(INFER, json=question(9, 10, parameters={"seed": 4})))]
    asked.append(asyncio.ensure_future(client.post("/v1/classify?seed=4", files={"images": grey(9)})))
    while service_behind(client).metrics.registry.get_sample_value("ccnet_queue_passes") != 12:
        await asyncio.sleep(0.001)
    fake.gate.set()
    assert {response.status_code for response in await asyncio.gather(first, *asked)} == {200}
    assert (3, 4) in fake.passes
    (stats,) = (await client.get("/v2/models/fake/stats")).json()["model_stats"]
    assert (stats["inference_count"], stats["execution_count"]) == (4, 2)
    assert [batch["batch_size"] for batch in stats["batch_stats"]] == [1, 3]


async def test_files_get_the_limits_and_refusals_of_v1(client):
    body, headers = files(grey(5), grey(200))
    assert (await client.post(INFER, content=body, headers=headers)).status_code == 200
    body, headers = files(grey(5), b"GIF89a...")
    assert_error(await client.post(INFER, content=body, headers=headers), 415, "image 1")
    body, headers = files(grey(5)[:-20])
    assert_error(await client.post(INFER, content=body, headers=headers), 400, "image 0")
    body, headers = files(huge_png())
    assert_error(await client.post(INFER, content=body, headers=headers), 413, "pixels")


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
async def test_a_body_is_bounded_as_it_comes_and_as_it_is_inflated(make_app, coding):
    async with running(make_app(max_body_bytes=2**20)) as client:

        async def ask(body: bytes, **headers: str) -> httpx.Response:
            return await client.post(INFER, content=body, headers={"Content-Encoding": coding} | headers)

        text = json.dumps(question(7)).encode()
        assert (await ask(CODED[coding](text))).status_code == 200
        fitting = text + b" " * (2**20 - len(text))
        assert (await ask(CODED[coding](fitting))).status_code == 200
        assert_error(await ask(CODED[coding](fitting + b" ")), 413, "when inflated")
        assert_error(await ask(CODED[coding](bytes(2**26))), 413, "when inflated")
        assert_error(await ask(random.Random(1).randbytes(2**20 + 1)), 413, "1,048,576 bytes")
        assert_error(await ask(CODED[coding](text)[:-3]), 400, "ends before its last byte")
        twice = CODED[coding](CODED[coding](text))
        assert_error(await ask(twice), 400, "not JSON")
        for codings in (f"{coding}, {coding}", "br", f"identity, {coding}"):
            assert_error(await ask(text, **{"Content-Encoding": codings}), 415, "one of gzip and deflate")
        assert service_behind(client).holding.held == 0


async def test_inflated_bytes_count_as_held(make_app):
    async with running(make_app(max_body_bytes=2**20, max_held_bytes=2**20)) as client:
        body = gzip.compress(json.dumps(question(7)).encode() + b" " * (2**20 - 1000))
        response = await client.post(INFER, content=body, headers={"Content-Encoding": "gzip"})
        assert_error(response, 429, "are being worked on")
        assert response.headers["Retry-After"] == "1"
        assert service_behind(client).holding.held == 0


@pytest.mark.parametrize("coding", ["gzip", "deflate", "identity"])
async def test_answers_are_compressed_only_when_asked_and_worth_it(client, coding):
    large = question(*range(1, 60), parameters={"seed": 1})
    response = await client.post(INFER, json=large, headers={"Accept-Encoding": coding})
    assert response.status_code == 200
    assert response.headers.get("Content-Encoding", "identity") == coding
    assert response.headers["Vary"] == "Accept-Encoding"
    assert int(response.headers["Content-Length"]) < (3000 if coding != "identity" else 10**6)
    assert response.json()["outputs"][0]["shape"] == [59, 3]
    small = await client.post(INFER, json=question(1), headers={"Accept-Encoding": coding})
    assert "Content-Encoding" not in small.headers


async def test_under_pressure_fewer_members_answer_and_say_so(client, fake):
    fake.takes_s = 0.4  # for a batch, which holds 4 of the 16 members of 60 images
    body = question(*[3] * 60, parameters={"ensemble_size": 16, "seed": 1, "min_size": 1, "timeout": 700_000})
    response = await client.post(INFER, json=body)
    assert response.status_code == 200, response.text
    parameters = response.json()["parameters"]
    assert parameters["asked_ensemble_size"] == 16
    assert 1 <= parameters["ensemble_size"] < 16


async def test_what_costs_too_much_or_finds_no_room_is_refused_before_files_are_decoded(make_app, fake):
    async with running(make_app(max_request_passes=8)) as client:
        body, headers = files(*[b"no picture"] * 3)
        assert_error(await client.post(INFER, content=body, headers=headers), 413, "3 images x 4 members")


async def test_a_deadline_is_kept(client, fake):
    fake.takes_s = 0.3
    response = await client.post(INFER, json=question(1, parameters={"timeout": 100_000}))
    assert_error(response, 504, "allow more with timeout (microseconds)")


async def test_mutated_bodies_never_break_the_service(client):
    rng = random.Random(9)
    statuses = set()
    for _ in range(700):
        body, header = mutated(rng)
        headers = {} if header is None else {HEADER: header}
        response = await client.post(INFER, content=body, headers=headers)
        statuses.add(response.status_code)
        if response.status_code != 200:
            assert set(response.json()) == {"error"}
    assert 400 in statuses
    assert max(statuses) < 500
    assert (await client.post(INFER, json=question(1))).status_code == 200
    assert service_behind(client).holding.held == 0


async def test_the_description_shows_every_path_with_its_parameters_and_errors(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    described = {path: methods for path, methods in paths.items() if path.startswith("/v2")}
    assert len(described) == 17
    for path, methods in described.items():
        (operation,) = methods.values()
        named = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "path"}
        assert named == {name for name in ("name", "version") if f"{{{name}}}" in path}, path
        for status, response in operation["responses"].items():
            if status != "200":
                assert set(response["content"]) == {"application/json"}
                assert response["content"]["application/json"]["schema"]["required"] == ["error"]
    documented = {int(status) for status in paths["/v2/models/{name}/infer"]["post"]["responses"]}
    assert documented == {200} | {refusal.status for refusal in REFUSALS} - {409, 499}  # 409: evaluations alone


async def test_the_example_of_the_description_is_taken(client):
    paths = (await client.get("/openapi.json")).json()["paths"]
    example = paths["/v2/models/{name}/infer"]["post"]["requestBody"]["content"]["application/json"]["example"]
    response = await client.post(INFER, json=example)
    assert response.status_code == 200, response.text
    assert [output["name"] for output in response.json()["outputs"]] == ["labels"]
