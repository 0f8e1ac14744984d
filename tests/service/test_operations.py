"""What operators rely on: health, metrics, request ids, the log, keys, and models that cannot be loaded."""

import asyncio
import json
import logging

import httpx
import pytest
from asgi_lifespan import LifespanManager
from prometheus_client.parser import text_string_to_metric_families

from service.app import create_app
from service.context import Phase
from service.errors import REFUSALS
from service.logs import REQUEST_ID, JsonFormatter
from service.settings import Settings
from tests.service.conftest import running, service_behind
from tests.service.pictures import grey

PNG = {"Content-Type": "image/png"}
CONTRACT = {
    "ccnet_request_duration_seconds": {"route", "method", "status", "le"},
    "ccnet_stage_duration_seconds": {"stage", "le"},
    "ccnet_batch_images": {"le"},
    "ccnet_batch_passes": {"le"},
    "ccnet_ensemble_size": {"le"},
    "ccnet_requests_in_flight": set(),
    "ccnet_queue_passes": set(),
    "ccnet_requests_rejected": {"reason"},
    "ccnet_plan_cache_events": {"event"},
    "ccnet_plan_cache_bytes": set(),
    "ccnet_plan_cache_plans": set(),
    "ccnet_reloads": {"result"},
    "ccnet_evaluations": {"status"},
    "ccnet_evaluations_ended": {"status"},
    "ccnet_evaluation_progress": set(),
    "ccnet_background_passes": set(),
    "ccnet_equivariance_cosine": {"model", "input", "max_shift"},
    "ccnet_model_info": {"model", "architecture", "device", "backend"},
}


OF_A_MODEL = ("", "/ready", "/config", "/stats", "/infer")
OPEN_INFERENCE = {
    "/v2",
    "/v2/",
    "/v2/health/live",
    "/v2/health/ready",
    "/v2/models/stats",
    *(f"/v2/models/{{name}}{path}" for path in OF_A_MODEL),
    *(f"/v2/models/{{name}}/versions/{{version}}{path}" for path in OF_A_MODEL),
    "/v2/repository/index",
    "/v2/repository/models/{name}/load",
    "/v2/repository/models/{name}/unload",
}


async def families(client: httpx.AsyncClient) -> dict:
    """The series of /metrics by name."""
    text = (await client.get("/metrics")).text
    return {family.name: family.samples for family in text_string_to_metric_families(text)}


async def test_requests_in_flight_are_those_that_are_being_answered(make_app, fake):
    async with running(make_app()) as client:
        fake.gate.clear()
        asked = [asyncio.create_task(client.post("/v1/classify", content=grey(1), headers=PNG)) for _ in range(3)]
        while service_behind(client).engine._batcher.running_s == 0:
            await asyncio.sleep(0.001)
        assert [sample.value for sample in (await families(client))["ccnet_requests_in_flight"]] == [3.0]
        fake.gate.set()
        await asyncio.gather(*asked)
        assert [sample.value for sample in (await families(client))["ccnet_requests_in_flight"]] == [0.0]


async def test_every_series_of_the_contract_is_there_from_the_start(client):
    series = await families(client)
    assert set(series) == set(CONTRACT)
    for name, labels in CONTRACT.items():
        assert series[name], name
        assert set().union(*(sample.labels for sample in series[name])) == labels
    stages = {sample.labels["stage"] for sample in series["ccnet_stage_duration_seconds"]}
    assert stages == {"decode", "queue", "prepare", "forward", "aggregate"}
    events = {(sample.labels["event"], sample.value) for sample in series["ccnet_plan_cache_events"]}
    assert events == {("hit", 0), ("miss", 0), ("evict", 0)}
    reasons = {sample.labels["reason"] for sample in series["ccnet_requests_rejected"]}
    assert reasons == {refusal.reason for refusal in REFUSALS}


async def test_a_classification_is_counted_at_every_stage(client):
    before = service_behind(client).metrics.registry
    await client.post("/v1/classify", params={"ensemble_size": 3}, files=[("images", grey(1)), ("images", grey(2))])
    value = before.get_sample_value
    route = {"route": "/v1/classify", "method": "POST", "status": "200"}
    assert value("ccnet_request_duration_seconds_count", route) == 1
    for stage in ("decode", "queue"):
        assert value("ccnet_stage_duration_seconds_count", {"stage": stage}) == 1
    assert value("ccnet_ensemble_size_sum") == 3
    assert value("ccnet_batch_passes_sum") == 6
    assert value("ccnet_batch_images_bucket", {"le": "2.0"}) == value("ccnet_batch_images_count")
    assert value("ccnet_queue_passes") == 0


async def test_nothing_a_user_sends_becomes_a_label(client):
    await client.request("BREW", "/v1/classify")
    await client.get("/nowhere/at/all")
    await client.get("/v1/models/made-up-name")
    await client.get("/web/no-such-file")
    labels = [sample.labels for sample in (await families(client))["ccnet_request_duration_seconds"]]
    assert {label["method"] for label in labels} <= {"GET", "POST", "DELETE", "other"}
    assert {label["route"] for label in labels} == {
        "/v1/classify",
        "/v1/equivariance",
        "/v1/sequences",
        "/v1/evaluations",
        "/v1/evaluations/{id}",
        "/v1/evaluations/{id}/report",
        "/v1/models",
        "/v1/models/{name}",
        "/health/live",
        "/health/ready",
        *OPEN_INFERENCE,
        "/metrics",
        "/",
        "/docs",
        "/openapi.json",
        "other",
    }


async def test_readiness_follows_the_life_of_the_service(make_app):
    app = make_app()
    service = app.state.service
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        for phase in (Phase.STARTING, Phase.DRAINING, Phase.FAILED):
            service.phase = phase
            ready = await client.get("/health/ready")
            assert ready.status_code == 503
            assert phase in ready.json()["detail"]
            assert (await client.get("/health/live")).status_code == 200
            refused = await client.post("/v1/classify", content=grey(1), headers=PNG)
            assert refused.status_code == 503
            assert refused.headers["Retry-After"] == "1"
        service.phase = Phase.READY
        assert (await client.get("/health/ready")).json() == {"status": "ready"}


async def test_models_that_cannot_be_loaded_leave_the_service_failed(tmp_path, caplog):
    told = asyncio.Event()
    app = create_app(Settings(checkpoints=tmp_path / "none"), on_failure=told.set)
    with caplog.at_level(logging.CRITICAL):
        async with LifespanManager(app):
            await asyncio.wait_for(told.wait(), 30)
            assert app.state.service.phase is Phase.FAILED
    assert "no checkpoint folder" in caplog.text
    assert "CCNET_CHECKPOINTS" in caplog.text


async def test_an_unforeseen_failure_of_loading_is_logged_with_its_trace(caplog):
    def load(*_):
        raise KeyError("surprise")

    told = asyncio.Event()
    app = create_app(Settings(), load=load, on_failure=told.set)
    async with LifespanManager(app):
        await asyncio.wait_for(told.wait(), 30)
    assert any(record.exc_info for record in caplog.records if record.levelno == logging.CRITICAL)


@pytest.mark.parametrize(
    "path", ["/", "/docs", "/health/live", "/health/ready", "/metrics", "/v1/models", "/web/app.js"]
)
async def test_head_is_answered_as_get_without_its_body(client, path):
    head, get = await client.head(path), await client.get(path)
    assert head.status_code == get.status_code == 200
    assert head.content == b""
    assert head.headers["Content-Type"] == get.headers["Content-Type"]
    if path != "/metrics":  # which counts the first request
        assert head.headers["Content-Length"] == get.headers["Content-Length"]


async def test_head_is_counted_and_logged_as_what_it_is(client, caplog):
    with caplog.at_level(logging.INFO, logger="ccnet.service"):
        await client.head("/health/live")
        assert (await client.head("/v1/classify")).status_code == 405
    lines = [record.fields for record in caplog.records if record.message == "request"]
    assert [(line["method"], line["route"]) for line in lines] == [("HEAD", "/health/live"), ("HEAD", "/v1/classify")]
    labels = {"route": "/health/live", "method": "HEAD", "status": "200"}
    registry = service_behind(client).metrics.registry
    assert registry.get_sample_value("ccnet_request_duration_seconds_count", labels) == 1


@pytest.mark.parametrize("given", ["abc-DEF_1.2", "x" * 128])
async def test_a_valid_request_id_is_kept(client, given):
    response = await client.get("/v1/sequences", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, 'quote"', "ümlaut".encode(), b"line\tbreak"])
async def test_an_unsafe_request_id_is_replaced(client, given):
    response = await client.get("/health/live", headers={"X-Request-ID": given})
    assert response.headers["X-Request-ID"] != given
    assert len(response.headers["X-Request-ID"]) == 32


async def test_every_request_is_one_line_in_the_log(client, caplog):
    with caplog.at_level(logging.INFO, logger="ccnet.service"):
        await client.post("/v1/classify", content=grey(1), headers=PNG | {"X-Request-ID": "mine"})
        await client.get("/nowhere")
    lines = [record.fields for record in caplog.records if record.message == "request"]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/v1/classify", 200),
        ("GET", None, 404),
    ]
    assert all(line["ms"] >= 0 for line in lines)


def test_a_log_line_is_one_json_object_whatever_is_in_it():
    record = logging.LogRecord("x", logging.ERROR, "f", 1, 'a "quoted"\nline', None, None)
    record.fields = {"path": "/\n{}", "ms": 1.5}
    token = REQUEST_ID.set("some-id")
    try:
        text = JsonFormatter().format(record)
    finally:
        REQUEST_ID.reset(token)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["path"], line["request_id"]) == ('a "quoted"\nline', "/\n{}", "some-id")


async def test_keys_guard_v1_and_leave_the_rest_open(make_app):
    async with running(make_app(api_keys="first-key, second-key")) as client:
        for path in ("/health/live", "/health/ready", "/v2/health/ready", "/metrics", "/docs", "/", "/openapi.json"):
            assert (await client.get(path)).status_code == 200
        for headers in ({}, {"X-API-Key": "third"}, {"Authorization": "Bearer first-ke"}, {"Authorization": "Basic x"}):
            response = await client.get("/v1/models", headers=headers)
            assert response.status_code == 401
            assert response.headers["WWW-Authenticate"] == "Bearer"
            assert response.headers["Content-Type"] == "application/problem+json"
            assert "first-key" not in response.text
        for headers in (
            {"X-API-Key": "first-key"},
            {"Authorization": "Bearer second-key"},
            {"Authorization": "bearer  first-key "},
        ):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200


async def test_a_request_without_a_key_is_refused_before_its_body_is_read(make_app):
    async with running(make_app(api_keys="key")) as client:

        async def body():
            raise AssertionError("the body was read")
            yield b""

        response = await client.post("/v1/classify", content=body(), headers=PNG)
        assert response.status_code == 401


async def test_models_are_listed_with_what_their_card_says(client):
    models = (await client.get("/v1/models")).json()["models"]
    assert [(model["name"], model["default"], model["takes_sequences"]) for model in models] == [
        ("fake", True, True),
        ("plain", False, False),
    ]
    assert "config" not in models[0]
    one = (await client.get("/v1/models/fake")).json()
    assert one == models[0] | {"config": {"name": "fake"}}
