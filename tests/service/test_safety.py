"""What keeps strangers out and secrets in: keys, headers of every answer, bounds of a head, and what errors tell."""

import asyncio
import hashlib
import logging
import re
import subprocess
import sys
import threading

import httpx
import pytest
from pydantic import SecretStr, ValidationError

from service.app import create_metrics_app
from service.auth import short_keys
from service.settings import Settings
from tests.service.conftest import running, service_behind
from tests.service.fakes import POISON
from tests.service.pictures import grey
from tests.service.test_protocol import answer, connected, port  # noqa: F401  # a fixture

PNG = {"Content-Type": "image/png"}
KEY = "a-key-that-nobody-guesses"
HASH = "sha256:" + hashlib.sha256(KEY.encode()).hexdigest()
GUARDS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
}


async def test_a_key_may_be_given_as_its_hash_beside_others(make_app):
    async with running(make_app(api_keys=f"plain-one, {HASH.upper().replace('SHA', 'sha')}, another")) as client:
        for key, status in ((KEY, 200), ("plain-one", 200), ("another", 200), (HASH, 401), (KEY[:-1], 401), ("é", 401)):
            response = await client.get("/v1/models", headers={b"X-API-Key": key.encode()})
            assert response.status_code == status, key


async def test_a_key_may_hold_any_letters(make_app):
    async with running(make_app(api_keys="schlüssel-für-alle")) as client:
        response = await client.get("/v1/models", headers={b"X-API-Key": "schlüssel-für-alle".encode()})
        assert response.status_code == 200


@pytest.mark.parametrize("entry", ["sha256:", "sha256:abc", HASH[:-1], HASH + "0", "sha256:" + "g" * 64])
def test_a_hash_that_is_none_is_refused_and_not_taken_for_a_key(entry):
    with pytest.raises(ValidationError, match="64 hex digits") as caught:
        Settings(api_keys=(SecretStr("first"), SecretStr(entry)))
    assert "key 2" in str(caught.value)


def test_the_process_tells_a_wrong_setting_without_telling_keys():
    for wrong in (
        {"CCNET_API_KEYS": "very-secret,sha256:1"},
        {"CCNET_API_KEYS": "very-secret", "CCNET_MAX_BODY_BYTES": "9" * 12},
    ):
        done = subprocess.run([sys.executable, "-m", "service"], env=wrong, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert "very-secret" not in done.stderr
        assert done.stderr.startswith("CCNET_")


def test_the_documented_command_makes_the_hash_of_a_key(root):
    text = (root / "SECURITY.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^    (printf .*)$", text, re.MULTILINE)
    done = subprocess.run(
        ["sh", "-c", command], env={"PATH": "/usr/bin:/bin", "KEY": KEY}, capture_output=True, text=True
    )
    assert done.stdout.strip() == HASH


async def test_short_keys_are_warned_of_but_not_shown(make_app, caplog):
    assert short_keys(Settings(api_keys=(SecretStr("short"), SecretStr("x" * 16), SecretStr(HASH)))) == 1
    with caplog.at_level(logging.INFO):
        async with running(make_app(api_keys="short-one")):
            pass
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["can be guessed" in record.message for record in warnings] == [True]
    assert "short-one" not in caplog.text
    assert all("short-one" not in str(getattr(record, "fields", "")) for record in caplog.records)


async def test_metrics_may_ask_for_a_key_while_health_never_does(make_app):
    async with running(make_app(api_keys=HASH, metrics_key=True)) as client:
        assert (await client.get("/metrics")).status_code == 401
        assert (await client.get("/metrics", headers={"Authorization": f"Bearer {KEY}"})).status_code == 200
        for path in ("/health/live", "/health/ready"):
            assert (await client.get(path)).status_code == 200


def test_metrics_cannot_ask_for_a_key_where_there_is_none():
    with pytest.raises(ValidationError, match="CCNET_API_KEYS"):
        Settings(metrics_key=True)


async def test_metrics_on_a_port_of_their_own_are_there_alone(make_app):
    async with running(make_app(metrics_port=0)) as client:
        assert (await client.get("/metrics")).status_code == 404
        assert "/metrics" not in (await client.get("/openapi.json")).json()["paths"]
        transport = httpx.ASGITransport(app=create_metrics_app(service_behind(client)))
        async with httpx.AsyncClient(transport=transport, base_url="http://metrics") as beside:
            response = await beside.get("/metrics")
            assert "ccnet_queue_passes 0.0" in response.text
            assert {name: response.headers[name] for name in GUARDS} == GUARDS
            assert (await beside.get("/v1/models")).status_code == 404
            assert (await beside.get("/docs")).status_code == 404


ANSWERS = [
    ("GET", "/", 200),
    ("GET", "/docs", 200),
    ("GET", "/web/app.js", 200),
    ("GET", "/openapi.json", 200),
    ("GET", "/health/live", 200),
    ("GET", "/metrics", 200),
    ("GET", "/v1/models", 200),
    ("GET", "/v1/models/none", 404),
    ("GET", "/v1/models?x=1", 422),
    ("GET", "/v1/classify", 405),
    ("POST", "/v1/classify", 400),
    ("GET", "/nowhere", 404),
    ("HEAD", "/v1/models", 200),
]


@pytest.mark.parametrize(("method", "path", "status"), ANSWERS)
async def test_every_answer_carries_the_headers_that_guard_browsers(client, method, path, status):
    response = await client.request(method, path)
    assert response.status_code == status
    for name, value in GUARDS.items():
        assert response.headers[name] == value
    assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in response.headers["Content-Security-Policy"]
    may_be_kept = path in ("/", "/docs", "/web/app.js", "/openapi.json")
    assert response.headers.get("Cache-Control") == (None if may_be_kept else "no-store")


async def test_a_refusal_of_the_parser_carries_them_too(port):  # noqa: F811
    async with connected(port) as (reader, writer):
        writer.write(b"no http at all\r\n\r\n")
        head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 30)).decode().lower()
    for name, value in GUARDS.items():
        assert f"{name}: {value}".lower() in head
    assert "cache-control: no-store" in head
    assert "x-request-id: " in head


async def test_a_head_may_have_so_many_headers_and_no_more(port):  # noqa: F811
    for count, status in ((100, 200), (101, 431), (400, 431)):
        async with connected(port) as (reader, writer):
            headers = b"".join(b"a:%d\r\n" % number for number in range(count))
            writer.write(b"GET /early HTTP/1.1\r\n" + headers + b"\r\n")
            assert (await answer(reader))[0] == status


async def test_a_failure_tells_the_client_nothing_but_its_id(client):
    response = await client.post("/v1/classify", content=grey(POISON), headers=PNG | {"X-Request-ID": "poisoned"})
    assert response.status_code == 500
    assert response.json()["request_id"] == response.headers["X-Request-ID"] == "poisoned"
    for secret in ("RuntimeError", "Traceback", "must not be looked at", "/secret", ".py"):
        assert secret not in response.text
    for name, value in GUARDS.items():
        assert response.headers[name] == value


@pytest.mark.parametrize("depth", [33, 2000, 200_000])
async def test_json_of_any_depth_is_refused_and_nothing_breaks(client, depth):
    body = b'{"images": ' + b"[" * depth + b"]" * depth + b"}"
    response = await client.post("/v1/classify", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code in (400, 413)
    assert (await client.post("/v1/classify", content=grey(1), headers=PNG)).status_code == 200


async def test_decoding_that_outlasts_its_deadline_frees_the_request_and_then_its_place(make_app, fake, monkeypatch):
    gate, entered = threading.Event(), threading.Event()
    prepare = fake.prepare

    def slow(pictures):
        entered.set()
        assert gate.wait(30)
        return prepare(pictures)

    monkeypatch.setattr(fake, "prepare", slow)
    async with running(make_app(worker_threads=1, max_waiting_images=2)) as client:
        late = await client.post("/v1/classify?timeout_ms=50", content=grey(1, 100), headers=PNG)
        assert (late.status_code, entered.is_set(), gate.is_set()) == (504, True, False)
        workers = service_behind(client).workers
        assert workers._images == 1  # the thread goes on
        again = await client.post("/v1/classify?timeout_ms=50", content=grey(1, 100), headers=PNG)
        assert again.status_code == 504
        assert workers._images == 1  # what had not begun left its place at once
        gate.set()
        assert (await client.post("/v1/classify", content=grey(1, 100), headers=PNG)).status_code == 200
        assert workers._images == 0


async def test_the_line_of_a_request_says_what_it_cost_and_why_it_was_refused(client, caplog):
    with caplog.at_level(logging.INFO, logger="ccnet.service"):
        files = [("images", grey(1)), ("images", grey(2))]
        await client.post("/v1/classify?ensemble_size=3", files=files)
        await client.post("/v1/classify", content=b"no picture", headers=PNG)
        await client.get("/health/live")
        await client.get("/v1/equivariance?samples=2&max_shift=1&model=plain")
    done, refused, live, probed = [record.fields for record in caplog.records if record.message == "request"]
    assert (done["model"], done["images"], done["ensemble_size"], done["passes"]) == ("fake", 2, 3, 6)
    assert 0 <= done["queue_ms"] <= done["ms"]
    assert 0 <= done["inference_ms"] <= done["ms"]
    assert "reason" not in done
    assert (refused["status"], refused["reason"]) == (415, "unsupported_image")
    assert set(live) == {"method", "path", "route", "status", "ms"}
    assert probed["reason"] == "option"
