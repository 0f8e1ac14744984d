"""Evaluation jobs and real processes: what ends, however it does, is begun anew by the next and comes to the same."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.evaluations.jobs import Job, Status
from service.evaluations.state import DATABASE, UPLOADS
from service.evaluations.store import Store
from tests.service.pictures import grey
from tests.service.processes import PATIENCE_S, ROOT, Process

SAMPLE = ROOT / "tests" / "data" / "fashion-mnist-sample.npz"
OPTIONS = '{"limit": 40, "ensemble_sizes": [1, 2], "draws": 2, "views": false, "equivariance": null, "seed": 5}'
OF_THE_RUN = {"cost", "provenance", "verdict"}  # parts of a document that tell how long it took, or when


def post(url: str) -> str:
    """A job on the sample of Fashion-MNIST; its id."""
    files: list[Any] = [("options", (None, OPTIONS)), ("dataset", (SAMPLE.name, SAMPLE.read_bytes()))]
    response = httpx.post(f"{url}/v1/evaluations", files=files, timeout=PATIENCE_S)
    assert response.status_code == 202, response.text
    return str(response.json()["id"])


def reach(url: str, job_id: str, *statuses: str, passes: int = 0) -> dict[str, Any]:
    """The job, once it stands at one of these and has made so many passes."""
    give_up = time.monotonic() + PATIENCE_S
    while True:
        job: dict[str, Any] = httpx.get(f"{url}/v1/evaluations/{job_id}", timeout=PATIENCE_S).json()
        if job["status"] in statuses and job["progress"]["done"] >= passes:
            return job
        assert time.monotonic() < give_up, job
        time.sleep(0.02)


def kept(folder: Path, job_id: str) -> Job:
    """The job as it stands in the folder, which no process uses now."""
    store = Store(folder / DATABASE)
    job = store.get(job_id)
    store.close()
    assert job is not None
    return job


def answered_while_it_stops(process: Process, url: str) -> httpx.Response:
    """The answer of a request that was under way when SIGTERM came."""
    with ThreadPoolExecutor(1) as pool:
        path = f"{url}/v1/classify?seed=1&ensemble_size=16"
        live = pool.submit(httpx.post, path, files=[("images", grey(9))] * 30, timeout=PATIENCE_S)
        while "ccnet_requests_in_flight 1.0" not in httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text:
            assert not live.done(), "it was answered before the signal"
        process.popen.send_signal(signal.SIGTERM)
        return live.result(PATIENCE_S)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_job_survives_sigterm_and_kill_and_comes_to_the_document_of_one_that_nothing_befell(
    start, checkpoints, tmp_path
):
    folder = tmp_path / "jobs"
    settings = {
        "checkpoints": checkpoints,
        "state_dir": folder,
        "seed_pool": 1,
        "prepared_members": 1,
        "drain_timeout_s": 600,
    }

    process = start(module="tests.service.endless", **settings)
    url = process.url
    process.wait_for("ready")
    job_id = post(url)
    reach(url, job_id, "running", passes=1)
    assert answered_while_it_stops(process, url).status_code == 200
    assert process.leave() == 0  # though the thread of the job goes on for ever
    assert process.wait_for("stopped")["all_answered"] is True
    job = kept(folder, job_id)
    assert (job.status, job.crashes) == (Status.INTERRUPTED, 0)

    process = start(module="tests.service.endless", **settings)
    url = process.url
    process.wait_for("ready")
    reach(url, job_id, "running", passes=1)
    process.popen.kill()
    assert process.leave() == -signal.SIGKILL
    assert kept(folder, job_id).status is Status.RUNNING
    assert [path.name for path in (folder / UPLOADS).iterdir()] == [job_id]

    process = start(**settings)
    url = process.url
    process.wait_for("ready")
    done = reach(url, job_id, "succeeded", "failed")
    assert done["status"] == "succeeded", done["error"]
    other = reach(url, post(url), "succeeded", "failed")
    assert {name for name in done["result"] if done["result"][name] != other["result"][name]} <= OF_THE_RUN
    assert done["result"]["rows"][0]["kind"] == "sequences"
    assert kept(folder, job_id).crashes == 1
    assert list((folder / UPLOADS).iterdir()) == []
