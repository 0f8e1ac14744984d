"""Bad input over HTTP: every refusal is a problem+json that says what was given and what is allowed."""

import asyncio
import base64

import httpx
import numpy as np
import pytest
from PIL import Image

from tests.service.conftest import running, service_behind
from tests.service.pictures import encoded, grey, huge_png

PNG = {"Content-Type": "image/png"}


def assert_problem(response: httpx.Response, status: int, *words: str) -> None:
    """The response is a complete problem of this status, whose detail holds the words."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "request_id"}
    assert document["status"] == status
    assert document["type"].startswith("urn:ccnet:problem:")
    assert document["request_id"] == response.headers["X-Request-ID"]
    for word in words:
        assert word in document["detail"]


@pytest.mark.parametrize("value", ["0", "-3", "text", "10000", "", "2.5", "1e1", "nan"])
async def test_an_ensemble_size_out_of_range_names_given_and_allowed(client, value):
    for method, path in (("POST", "/v1/classify"), ("GET", "/v1/sequences"), ("GET", "/v1/equivariance")):
        response = await client.request(method, path, params={"ensemble_size": value}, headers=PNG)
        assert_problem(response, 422, f"ensemble_size: {value!r} was given", "from 1 to 64")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seed": -1}, ["seed: '-1'", "from 0 to 9007199254740991"]),
        ({"seed": 2**53}, ["seed", "2^53 - 1"]),
        ({"top_k": 0}, ["top_k", "from 1 to 1000"]),
        ({"aggregate": "vote"}, ["aggregate: 'vote'", "mean, median or mean_probability"]),
        ({"include": "everything"}, ["include: 'everything'", "members, logits"]),
        ({"timeout_ms": 0}, ["timeout_ms", "milliseconds"]),
        ({"ensemblesize": 4}, ["ensemblesize: there is no such option; allowed are ensemble_size, seed, model, top_k"]),
        ({"x" * 500: 4}, ["no such option"]),
        ({"seed": [1, 2]}, ["seed: was given 2 times", "give an option once"]),
        ({"seed": [1, 1, 1]}, ["seed: was given 3 times"]),
        ({"model": "../../etc/passwd"}, ["model", "GET /v1/models"]),
        ({"seed": "x", "top_k": "y"}, ["seed: 'x'", "top_k: 'y'"]),
    ],
)
async def test_options_out_of_range_name_given_and_allowed(client, options, words):
    assert_problem(await client.post("/v1/classify", params=options, content=grey(1), headers=PNG), 422, *words)


async def test_a_long_wrong_value_is_not_repeated_in_full(client):
    response = await client.post("/v1/classify", params={"seed": "9" * 5000}, content=grey(1), headers=PNG)
    assert_problem(response, 422, "seed")
    assert len(response.json()["detail"]) < 400


@pytest.mark.parametrize("path", ["/v1/sequences", "/v1/equivariance", "/v1/models", "/v1/models/fake"])
async def test_an_unknown_or_repeated_option_is_refused_everywhere(client, path):
    unknown = await client.get(path, params={"sede": 1})
    assert_problem(
        unknown, 422, "sede: there is no such option", "this path takes none" if "models" in path else "seed"
    )
    assert_problem(await client.get(f"{path}?max_shift=2&max_shift=4"), 422, "max_shift: was given 2 times", "commas")


async def test_a_compressed_body_is_refused_with_its_reason(client):
    response = await client.post("/v1/classify", content=b"...", headers=PNG | {"Content-Encoding": "gzip"})
    assert_problem(response, 415, "'gzip'", "uncompressed")


async def test_bodies_are_refused_while_others_fill_what_may_be_held(make_app, fake):
    picture = grey(1, 64)
    async with running(make_app(max_body_bytes=len(picture), max_held_bytes=2 * len(picture) - 1)) as client:
        holding = service_behind(client).holding
        fake.gate.clear()
        fake.entered.clear()
        held = asyncio.create_task(client.post("/v1/classify", content=picture, headers=PNG))
        await asyncio.to_thread(fake.entered.wait, 10)
        assert holding.held == len(picture)
        refused = await client.post("/v1/classify", content=picture, headers=PNG)
        assert_problem(refused, 429, f"{len(picture)} bytes of requests are being worked on")
        assert refused.headers["Retry-After"] == "1"
        fake.gate.set()
        assert (await held).status_code == 200
        assert holding.held == 0
        assert (await client.post("/v1/classify", content=b"no picture", headers=PNG)).status_code == 415
        assert holding.held == 0


@pytest.mark.parametrize("path", ["/v1/classify", "/v1/sequences", "/v1/equivariance"])
async def test_an_unknown_model_names_those_that_are_loaded(client, path):
    method = "POST" if path == "/v1/classify" else "GET"
    response = await client.request(method, path, params={"model": "resnet"}, content=grey(1), headers=PNG)
    assert_problem(response, 404, "'resnet'", "fake, plain")
    assert_problem(await client.get("/v1/models/resnet"), 404, "'resnet'", "fake, plain")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        (b"", 400, ["empty"]),
        (b"This is a text file called shoe.png", 415, ["PNG, JPEG or WebP"]),
        (encoded(Image.new("L", (40, 40)))[:50], 400, ["truncated"]),
        (encoded(Image.new("RGB", (40, 40)), "GIF"), 415, ["PNG, JPEG or WebP"]),
    ],
    ids=["empty", "text", "truncated", "gif"],
)
async def test_what_is_no_whole_image_is_refused(client, body, status, words):
    assert_problem(await client.post("/v1/classify", content=body, headers=PNG), status, *words)
    if body:
        files = {"images": ("shoe.png", body, "image/png")}
        assert_problem(await client.post("/v1/classify", files=files), status, "image 0", *words)
        document = {"images": [base64.b64encode(body).decode()]}
        assert_problem(await client.post("/v1/classify", json=document), status, "image 0", *words)


@pytest.fixture(scope="session")
def bomb() -> bytes:
    return huge_png()


async def test_a_decompression_bomb_is_refused_before_it_is_decoded(client, bomb):
    for path in ("/v1/classify", "/v1/equivariance"):
        assert_problem(await client.post(path, content=bomb, headers=PNG), 413, "pixels", "16,777,216")


@pytest.mark.parametrize(
    "picture",
    [
        encoded(np.full((5, 5), 40_000, dtype=np.uint16)),
        encoded(Image.new("P", (5, 5))),
        encoded(Image.new("RGBA", (5, 5), (1, 2, 3, 4))),
        encoded(Image.new("RGB", (5, 5)), save_all=True, append_images=[Image.new("RGB", (5, 5), "red")]),
        encoded(Image.new("CMYK", (5, 5)), "JPEG"),
        encoded(Image.new("1", (1, 1))),
    ],
    ids=["16 bit", "palette", "RGBA", "animated", "CMYK", "one black pixel"],
)
async def test_unusual_but_whole_images_are_classified(client, picture):
    response = await client.post("/v1/classify", content=picture, headers=PNG)
    assert response.status_code == 200


async def test_limits_on_body_images_and_pixels_are_those_of_the_settings(make_app):
    settings = {"max_body_bytes": 2000, "max_images_per_request": 2, "max_image_pixels": 100}
    async with running(make_app(**settings)) as client:
        announced = await client.post("/v1/classify", content=bytes(2001), headers=PNG)
        assert_problem(announced, 413, "2,001 bytes was announced", "2,000")
        assert announced.headers["Connection"] == "close"

        async def chunks():
            for _ in range(3):
                yield bytes(1000)

        assert_problem(await client.post("/v1/classify", content=chunks(), headers=PNG), 413, "2,000")
        three = [("images", grey(1))] * 3
        assert_problem(await client.post("/v1/classify", files=three), 413, "images were given", "at most 2")
        assert_problem(await client.post("/v1/classify", content=grey(1, 11), headers=PNG), 413, "121", "100")
        assert (await client.post("/v1/classify", content=grey(1, 10), headers=PNG)).status_code == 200


@pytest.mark.parametrize("content_type", [None, "text/html", "application/x-www-form-urlencoded"])
async def test_another_content_type_is_refused_with_the_three_forms(client, content_type):
    headers = {} if content_type is None else {"Content-Type": content_type}
    response = await client.post("/v1/classify", content=grey(1), headers=headers)
    assert_problem(response, 415, "image/png, image/jpeg or image/webp", "multipart/form-data", "application/json")


async def test_errors_of_the_framework_are_problems_too(client):
    assert_problem(await client.get("/nowhere"), 404, "/docs")
    assert_problem(await client.get("/v1/classify/"), 404)
    wrong_method = await client.get("/v1/classify")
    assert_problem(wrong_method, 405, "GET")
    assert wrong_method.headers["Allow"] == "POST"
    assert (await client.delete("/v1/equivariance")).headers["Allow"] == "GET, HEAD, POST"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_shift": "0"}, ["max_shift: '0'", "from 1 to 16"]),
        ({"max_shift": "2,2"}, ["different"]),
        ({"max_shift": "2;4"}, ["max_shift"]),
        ({"max_shift": ",".join(map(str, range(1, 10)))}, ["up to 8"]),
        ({"samples": 1}, ["samples", "from 2 to 10000"]),
        ({"input": "cats"}, ["input: 'cats'", "noise or dataset"]),
        ({"border": "wrap"}, ["border: 'wrap'", "zero, circular or reflect"]),
        ({"model": "plain", "ensemble_size": 2}, ["plain takes no scale sequences"]),
        ({"input": "dataset"}, ["names none"]),
    ],
)
async def test_options_of_the_table_out_of_range_name_given_and_allowed(client, options, words):
    assert_problem(await client.get("/v1/equivariance", params=options), 422, *words)


@pytest.mark.parametrize(
    ("options", "words"), [({"format": "svg"}, ["format: 'svg'", "json or png"]), ({"models": ","}, [])]
)
async def test_options_of_the_upload_probe_are_checked(client, options, words):
    response = await client.post("/v1/equivariance", params=options, content=grey(1), headers=PNG)
    assert_problem(response, 422 if "format" in options else 404, *words)


async def test_a_probe_that_costs_too_much_is_refused_before_it_runs(make_app):
    async with running(make_app(max_probe_passes=100)) as client:
        response = await client.get("/v1/equivariance", params={"samples": 1000})
        assert_problem(response, 413, "1000 samples x 3 shifts", "6000 passes", "may cost 100")
        response = await client.post("/v1/equivariance", params={"max_shift": "2"}, content=grey(1), headers=PNG)
        # (image and shifted copy, then the image and 25 shifts) for each of 4 members and for the plain model
        words = ("1 images under every shift up to 2 px in 2 models with up to 4 members", "140 passes", "may cost 100")
        assert_problem(response, 413, *words)
        response = await client.post(
            "/v1/equivariance", params={"max_shift": "2", "ensemble_size": 1}, content=grey(1), headers=PNG
        )
        assert response.status_code != 413


async def test_several_members_of_uploads_need_a_model_that_has_some(client):
    options = {"models": "plain", "ensemble_size": 2}
    response = await client.post("/v1/equivariance", params=options, content=grey(1), headers=PNG)
    assert_problem(response, 422, "ensemble_size: 2", "plain takes no scale sequences")


async def test_a_client_that_hangs_up_withdraws_its_request(make_app, fake):
    """The ASGI interface by hand: a whole body, then a disconnect while the job waits."""
    app = make_app()
    async with running(app) as client:
        fake.gate.clear()
        fake.entered.clear()
        held = asyncio.create_task(client.post("/v1/classify", content=grey(1), headers=PNG))
        await asyncio.to_thread(fake.entered.wait, 10)
        messages = [{"type": "http.request", "body": grey(2), "more_body": False}]
        hung_up = asyncio.Event()

        async def receive():
            if messages:
                return messages.pop()
            await hung_up.wait()
            return {"type": "http.disconnect"}

        sent = []

        async def send(message):
            sent.append(message)

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/classify",
            "query_string": b"",
            "headers": [(b"content-type", b"image/png")],
        }
        request = asyncio.create_task(app(scope, receive, send))
        metrics = app.state.service.metrics.registry
        while metrics.get_sample_value("ccnet_queue_passes") != 4:
            await asyncio.sleep(0.005)
        hung_up.set()
        await request
        assert metrics.get_sample_value("ccnet_queue_passes") == 0
        assert sent[0]["status"] == 499
        fake.gate.set()
        assert (await held).status_code == 200
        assert fake.passes == [(1, 4)]
