"""Evaluation jobs over HTTP: asked, queued, run, cancelled, reported; with foreseeable numbers."""

import asyncio
import functools
import io
import json
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.requests import ClientDisconnect

from ccnet.errors import CcnetError
from service.evaluations.state import UPLOADS
from service.evaluations.worker import MOST_PLAN_BYTES
from tests.service.conftest import running, service_behind
from tests.service.pictures import grey
from tests.service.test_bad_input import assert_problem

PATH = "/v1/evaluations"
FINAL = {"succeeded", "failed", "cancelled"}


@pytest.fixture
async def client(make_evaluating, assessor) -> AsyncIterator[httpx.AsyncClient]:
    async with running(make_evaluating()) as client:
        yield client
        assessor.gate.set()


@functools.cache  # the time of its making stands in an archive
def archive(images: int = 3, **classes: int) -> bytes:
    """A .zip of grey pictures in folders of classes."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, count in (classes or {"boot": images}).items():
            for number in range(count):
                file.writestr(f"{name}/{number:03}.png", grey(10 * number % 256))
    return stream.getvalue()


def arrays(**given: Any) -> bytes:
    """An .npz."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **given)
    return stream.getvalue()


def form(dataset: bytes, filename: str = "shoes.zip", **options: Any) -> list[tuple[str, Any]]:
    return [("options", (None, json.dumps(options))), ("dataset", (filename, dataset))]


async def post(client: httpx.AsyncClient, dataset: bytes | None = None, *, key: str | None = None, **options: Any):
    headers = {} if key is None else {"Idempotency-Key": key}
    return await client.post(PATH, files=form(archive() if dataset is None else dataset, **options), headers=headers)


async def finished(client: httpx.AsyncClient, job_id: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (job := (await client.get(f"{PATH}/{job_id}")).json())["status"] not in FINAL:
            await asyncio.sleep(0.005)
    return job


async def standing(client: httpx.AsyncClient, job_id: str, status: str) -> dict[str, Any]:
    async with asyncio.timeout(30):
        while (job := (await client.get(f"{PATH}/{job_id}")).json())["status"] != status:
            await asyncio.sleep(0.005)
    return job


def kept_files(tmp_path: Path) -> list[Path]:
    return list((tmp_path / "jobs" / UPLOADS).iterdir())


async def test_a_job_is_taken_runs_and_leaves_its_result_and_reports(client, tmp_path):
    response = await post(client, model="fake", ensemble_sizes=[4, 1], seed=7)
    assert response.status_code == 202, response.text
    job = response.json()
    assert response.headers["Location"] == f"{PATH}/{job['id']}"
    assert (job["model"], job["dataset"]) == ("fake", {"name": "shoes", "images": 3, "uploaded": True})
    assert job["progress"] == {"done": 0, "total": 3, "passes": 3}
    done = await finished(client, job["id"])
    assert (done["status"], done["error"]) == ("succeeded", None)
    assert done["result"] == {"dataset": "shoes", "sizes": [1, 4], "seed": 7, "passes": 3}
    assert done["progress"] == {"done": 3, "total": 3, "passes": 3}
    assert done["created"] <= done["started"] <= done["finished"]
    assert kept_files(tmp_path) == []
    report = f"{PATH}/{job['id']}/report"
    assert (await client.get(report)).json() == done["result"]
    for name, kind, text in (("markdown", "text/markdown", "# shoes"), ("html", "text/html", "<h1>shoes</h1>")):
        answer = await client.get(report, params={"format": name})
        assert (answer.headers["Content-Type"], answer.text) == (f"{kind}; charset=utf-8", text)
    assert "script-src" not in answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


async def test_pictures_come_to_the_assessor_as_they_were_sent_classes_in_turn(client, assessor):
    job = (await post(client, archive(boot=1, sandal=2, sneaker=1))).json()
    await finished(client, job["id"])
    (dataset,) = assessor.seen
    assert [dataset.classes[label] for label in dataset.labels] == ["boot", "sandal", "sneaker", "sandal"]
    assert [int(image[0, 0, 0]) for image in dataset.images] == [0, 0, 0, 10]


async def test_an_npz_may_be_sent_and_a_limit_counts(client, assessor):
    images = np.arange(5 * 4 * 4, dtype=np.uint8).reshape(5, 4, 4)
    sent = arrays(images=images, labels=np.array([2, 1, 0, 1, 2]), classes=np.array(["boot", "sandal", "sneaker"]))
    job = (await client.post(PATH, files=form(sent, "my set (1).npz", limit=2))).json()
    assert job["dataset"] == {"name": "my-set-1", "images": 2, "uploaded": True}
    assert (await finished(client, job["id"]))["result"]["passes"] == 2
    assert np.array_equal(assessor.seen[0].images[..., 0], images)


async def test_a_built_in_data_set_is_named_in_json(client, monkeypatch):
    monkeypatch.setattr("service.evaluations.ordering.test_split", lambda *_: _shoes())
    monkeypatch.setattr("service.evaluations.worker.test_split", lambda *_: _shoes())
    response = await client.post(PATH, json={"dataset": "fashion-mnist", "model": "plain", "equivariance": None})
    assert response.status_code == 202, response.text
    assert response.json()["dataset"] == {"name": "shoes", "images": 2, "uploaded": False}
    assert (await finished(client, response.json()["id"]))["status"] == "succeeded"


def _shoes() -> Any:
    from ccnet.data import LabelledPictures

    picture = np.zeros((4, 4, 1), dtype=np.uint8)
    return LabelledPictures("shoes", "test", (picture,) * 2, np.array([0, 1]), ("boot", "sandal"), "a test")


async def test_one_job_runs_at_a_time_and_the_others_in_order(client, assessor):
    assessor.gate.clear()
    ids = [(await post(client)).json()["id"] for _ in range(3)]
    running_one = await standing(client, ids[0], "running")
    assert await asyncio.to_thread(assessor.began.wait, 30)
    assert running_one["started"] is not None
    listed = (await client.get(PATH)).json()["evaluations"]
    assert [(job["id"], job["status"]) for job in listed] == list(
        zip(reversed(ids), ("queued", "queued", "running"), strict=True)
    )
    metrics = (await client.get("/metrics")).text
    assert 'ccnet_evaluations{status="queued"} 2.0' in metrics
    assert 'ccnet_evaluations{status="running"} 1.0' in metrics
    assert "ccnet_evaluation_progress 0.3333" in metrics
    assessor.gate.set()
    done = [await finished(client, job_id) for job_id in ids]
    assert [job["status"] for job in done] == ["succeeded"] * 3
    assert sorted(ids, key=lambda job_id: done[ids.index(job_id)]["finished"]) == ids
    metrics = (await client.get("/metrics")).text
    assert 'ccnet_evaluations_ended_total{status="succeeded"} 3.0' in metrics
    assert "ccnet_background_passes_total 9.0" in metrics
    assert "ccnet_evaluation_progress NaN" in metrics


async def test_jobs_are_listed_in_pages_and_by_status(client, assessor):
    ids = [(await post(client)).json()["id"] for _ in range(5)]
    for job_id in ids:
        await finished(client, job_id)
    seen, before = [], None
    while True:
        page = (await client.get(PATH, params={"limit": 2} | ({"before": before} if before else {}))).json()
        seen += [job["id"] for job in page["evaluations"]]
        before = page["next"]
        if before is None:
            break
    assert seen == ids[::-1]
    assert (await client.get(PATH, params={"status": "failed"})).json()["evaluations"] == []
    assert len((await client.get(PATH, params={"status": "succeeded"})).json()["evaluations"]) == 5
    assert_problem(await client.get(PATH, params={"status": "gone"}), 422, "status: 'gone'")
    assert_problem(await client.get(PATH, params={"limit": 0}), 422, "limit")
    assert_problem(await client.get(PATH, params={"before": "abc"}), 404, "no evaluation 'abc'")


async def test_a_queued_job_is_cancelled_and_then_removed_and_then_unknown(client, assessor, tmp_path):
    assessor.gate.clear()
    first, second = [(await post(client)).json()["id"] for _ in range(2)]
    await standing(client, first, "running")
    cancelled = await client.delete(f"{PATH}/{second}")
    assert (cancelled.status_code, cancelled.json()["status"]) == (200, "cancelled")
    assert len(kept_files(tmp_path)) == 1
    assert (await client.delete(f"{PATH}/{second}")).status_code == 204
    assert_problem(await client.delete(f"{PATH}/{second}"), 404, "no evaluation")
    assert_problem(await client.get(f"{PATH}/{second}"), 404, "no evaluation")
    assessor.gate.set()
    assert (await finished(client, first))["status"] == "succeeded"


async def test_a_running_job_is_cancelled_at_once_and_stops_after_the_turn_that_runs(client, assessor, tmp_path):
    assessor.gate.clear()
    job = (await post(client, archive(100))).json()
    assert await asyncio.to_thread(assessor.began.wait, 30)
    assert (await client.delete(f"{PATH}/{job['id']}")).json()["status"] == "cancelled"
    assert kept_files(tmp_path) == []
    after = (await post(client)).json()
    assessor.gate.set()
    assert (await finished(client, after["id"]))["status"] == "succeeded"
    assert (await finished(client, job["id"]))["status"] == "cancelled"
    passes = service_behind(client).metrics.registry.get_sample_value("ccnet_background_passes_total")
    assert passes is not None
    assert passes <= 2 + 3
    assert_problem(await client.get(f"{PATH}/{job['id']}/report"), 409, "is cancelled")


async def test_of_two_clients_that_delete_a_running_job_one_cancels_and_one_removes(client, assessor):
    assessor.gate.clear()
    job = (await post(client, archive(50))).json()
    assert await asyncio.to_thread(assessor.began.wait, 30)
    answers = await asyncio.gather(*(client.delete(f"{PATH}/{job['id']}") for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) in ([200, 204], [200, 404])
    assessor.gate.set()
    after = (await post(client)).json()
    assert (await finished(client, after["id"]))["status"] == "succeeded"


async def test_the_same_key_gives_the_same_job_and_another_question_is_a_conflict(client):
    first = await post(client, key="a", seed=1)
    again = await post(client, key="a", seed=1)  # with another boundary
    assert (first.status_code, again.status_code) == (202, 200)
    assert first.json()["id"] == again.json()["id"] == again.headers["Location"].split("/")[-1]
    assert_problem(await post(client, key="a", seed=2), 409, "'a' was used for evaluation", first.json()["id"])
    assert_problem(await post(client, archive(4), key="a", seed=1), 409)
    together = await asyncio.gather(*(post(client, key="b") for _ in range(3)))
    assert len({answer.json()["id"] for answer in together}) == 1
    assert_problem(await post(client, key="a b"), 422, "Idempotency-Key")


async def test_no_more_jobs_wait_than_may_and_a_known_key_is_answered_all_the_same(make_evaluating, assessor, tmp_path):
    async with running(make_evaluating(max_waiting_evaluations=1)) as client:
        assessor.gate.clear()
        first = (await post(client, key="first")).json()
        await standing(client, first["id"], "running")
        assert (await post(client, key="second")).status_code == 202
        refused = await post(client)
        assert_problem(refused, 429, "1 evaluations wait")
        assert refused.headers["Retry-After"] == "60"
        assert_problem(await post(client, key="third"), 429)
        assert (await post(client, key="second")).status_code == 200
        assert len(kept_files(tmp_path)) == 2
        assessor.gate.set()


async def test_what_a_job_fails_of_is_told_without_what_is_no_client_s_matter(client, assessor):
    assessor.error = CcnetError("the logits are not finite")
    job = (await post(client)).json()
    assert (await finished(client, job["id"]))["error"] == "the logits are not finite"
    assessor.error = OSError(5, "/secret/path")
    job = (await post(client)).json()
    failed = await finished(client, job["id"])
    assert failed["status"] == "failed"
    assert "secret" not in failed["error"]
    assessor.error = None
    assert (await finished(client, (await post(client)).json()["id"]))["status"] == "succeeded"


async def test_the_cost_is_bounded_before_any_work(make_evaluating, assessor, tmp_path):
    assessor.cost = 100
    async with running(make_evaluating(max_evaluation_passes=299)) as client:
        assert_problem(await post(client), 413, "3 images with these options cost 300 passes")
        assert (await post(client, limit=2)).status_code == 202


async def test_a_data_set_is_named_or_sent_and_not_both(client):
    given = [("options", (None, b'{"dataset": "fashion-mnist"}')), ("dataset", ("a.zip", archive()))]
    assert_problem(await client.post(PATH, files=given), 422, "both a name and a file")


@pytest.mark.parametrize(
    ("options", "status", "words"),
    [
        ({"model": "nobody"}, 404, ["'nobody'"]),
        ({"ensemble_sizes": []}, 422, ["ensemble_sizes"]),
        ({"ensemble_sizes": [1, 99]}, 422, ["ensemble_sizes.1: '99'"]),
        ({"ensemble_sizes": [1, 1]}, 422, ["once"]),
        ({"ensemble_sizes": ["1"]}, 422, ["ensemble_sizes.0"]),
        ({"draws": True}, 422, ["draws"]),
        ({"draws": 0}, 422, ["draws"]),
        ({"limit": 0}, 422, ["limit"]),
        ({"sizes": [1]}, 422, ["sizes"]),
        ({"equivariance": {"max_shift": [99]}}, 422, ["equivariance.max_shift.0"]),
    ],
)
async def test_options_are_checked(client, tmp_path, options, status, words):
    assert_problem(await post(client, **options), status, *words)
    assert kept_files(tmp_path) == []


FORM = "multipart/form-data; boundary=b"
PART = b'--b\r\nContent-Disposition: form-data; name="%b"\r\n\r\n{}\r\n--b--\r\n'


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[1]", "application/json", 400),
        (b"{", "application/json", 400),
        (b"{}", "application/json", 422),
        (b'{"dataset": "imagenet"}', "application/json", 422),
        (b" " * 70_000, "application/json", 413),
        (b"x", "text/plain", 415),
        (b"x", "", 415),
        (b"x", "multipart/form-data", 400),
        (b"--b\r\n", FORM, 400),
        (PART % b"other", FORM, 400),
        (PART % b"options", FORM, 400),
        (b"--b\r\nContent-Disposition: " + b"x" * 9000, FORM, 400),
    ],
)
async def test_bodies_of_no_known_form_are_refused_and_nothing_is_left(client, tmp_path, body, kind, status):
    response = await client.post(PATH, content=body, headers={"Content-Type": kind})
    assert_problem(response, status)
    assert kept_files(tmp_path) == []


async def test_an_upload_over_the_limit_is_refused_while_it_comes(make_evaluating, tmp_path):
    async with running(make_evaluating(max_evaluation_bytes=1000)) as client:
        head = b'--b\r\nContent-Disposition: form-data; name="dataset"\r\n\r\n'

        async def long() -> AsyncIterator[bytes]:
            yield head
            for _ in range(20):
                yield bytes(100_000)

        headers = {"Content-Type": FORM}
        assert_problem(await client.post(PATH, content=long(), headers=headers), 413, "1,000 bytes")
        announced = headers | {"Content-Length": "999999999"}
        assert_problem(await client.post(PATH, content=b"", headers=announced), 413, "was announced")
        assert kept_files(tmp_path) == []


async def test_a_body_that_breaks_off_leaves_nothing(client, tmp_path):
    async def broken() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="dataset"\r\n\r\n' + bytes(3_000_000)
        assert len(kept_files(tmp_path)) == 1
        raise ClientDisconnect

    response = await client.post(PATH, content=broken(), headers={"Content-Type": FORM})
    assert response.status_code == 499
    assert kept_files(tmp_path) == []


async def test_a_class_that_the_model_does_not_know_is_refused(client, tmp_path):
    assert_problem(await post(client, archive(boot=1, glove=1)), 422, "glove", "boot")
    assert kept_files(tmp_path) == []


async def test_finished_jobs_are_forgotten_but_for_the_newest(make_evaluating):
    async with running(make_evaluating(kept_evaluations=2)) as client:
        ids = []
        for _ in range(4):
            ids.append((await post(client)).json()["id"])
            await finished(client, ids[-1])
        async with asyncio.timeout(30):
            while len((await client.get(PATH)).json()["evaluations"]) > 2:
                await asyncio.sleep(0.005)
        assert [job["id"] for job in (await client.get(PATH)).json()["evaluations"]] == ids[:1:-1]


@pytest.mark.parametrize(("given", "kept"), [(2**20, 2**20), (2**40, MOST_PLAN_BYTES)])
async def test_weights_of_a_job_are_kept_apart_and_within_what_the_settings_say(make_evaluating, assessor, given, kept):
    async with running(make_evaluating(plan_cache_bytes=given)) as client:
        await finished(client, (await post(client)).json()["id"])
        assert assessor.plans.max_bytes == kept
        assert assessor.plans is not service_behind(client).engine.plans


async def test_a_key_is_demanded_as_elsewhere(make_evaluating):
    async with running(make_evaluating(api_keys="the-key-of-this-test")) as client:
        for method, path in (("POST", PATH), ("GET", PATH), ("GET", f"{PATH}/x"), ("DELETE", f"{PATH}/x")):
            assert_problem(await client.request(method, path), 401)


async def test_the_description_is_complete(client):
    document = (await client.get("/openapi.json")).json()
    operations = {path: list(found) for path, found in document["paths"].items() if path.startswith(PATH)}
    assert operations == {PATH: ["post", "get"], f"{PATH}/{{id}}": ["get", "delete"], f"{PATH}/{{id}}/report": ["get"]}
    posted = document["paths"][PATH]["post"]
    assert set(posted["requestBody"]["content"]) == {"application/json", "multipart/form-data"}
    assert {int(status) for status in posted["responses"]} >= {200, 202, 400, 404, 409, 413, 415, 422, 429, 503}
    schema = posted["requestBody"]["content"]["application/json"]["schema"]
    assert "ensemble_sizes" in schema["properties"]
    assert "$ref" not in json.dumps(schema)
