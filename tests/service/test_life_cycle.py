"""A real process: it starts, answers, drains and leaves with the right status."""

import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.service.pictures import grey
from tests.service.processes import PATIENCE_S


def test_it_starts_answers_and_after_sigterm_finishes_what_it_took(start, checkpoints):
    process = start(checkpoints=checkpoints)
    url = process.url
    process.wait_for("ready")
    picture = {"images": grey(9)}
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as client, ThreadPoolExecutor(12) as pool:
        assert client.get("/health/ready").status_code == 200
        first = client.post("/v1/classify?seed=1&ensemble_size=2", files=picture).json()

        def ask(members: int, images: int = 1) -> httpx.Response:
            path = f"{url}/v1/classify?seed=1&ensemble_size={members}"
            return httpx.post(path, files=[("images", picture["images"])] * images, timeout=PATIENCE_S)

        slow = [pool.submit(ask, 32, 30) for _ in range(4)]
        quick = [pool.submit(ask, 2) for _ in range(8)]
        while 'ccnet_stage_duration_seconds_count{stage="decode"} 13.0' not in client.get("/metrics").text:
            refused = [each.result().text for each in (*slow, *quick) if each.done() and each.result().is_error]
            assert not refused
            time.sleep(0.01)
        assert not all(request.done() for request in slow), "nothing was left to finish"
        process.popen.send_signal(signal.SIGTERM)
        responses = [future.result(PATIENCE_S) for future in (*slow, *quick)]
    assert [response.status_code for response in responses] == [200] * 12
    for response in responses[4:]:
        (result,), (expected,) = response.json()["results"], first["results"]
        assert result["label"] == expected["label"]
        assert result["probability"] == pytest.approx(expected["probability"], abs=1e-4)
    assert process.leave() == 0
    assert process.wait_for("stopped")["all_answered"] is True


def test_large_bodies_are_refused_and_readiness_goes_before_the_listening_socket(start, checkpoints):
    process = start(checkpoints=checkpoints, max_body_bytes=1000, drain_delay_s=600)
    url = process.url
    process.wait_for("ready")
    headers = {"Content-Type": "image/png"}

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield bytes(100)

    for content in (bytes(2000), chunks(), bytes(100_000_000)):  # the last is still being sent when it is refused
        response = httpx.post(f"{url}/v1/classify", content=content, headers=headers, timeout=PATIENCE_S)
        assert response.status_code == 413
        assert response.headers["Content-Type"] == "application/problem+json"
    process.popen.send_signal(signal.SIGTERM)
    give_up = time.monotonic() + PATIENCE_S
    while (ready := httpx.get(f"{url}/health/ready", timeout=PATIENCE_S)).status_code == 200:
        assert time.monotonic() < give_up
    assert ready.status_code == 503
    still = httpx.post(f"{url}/v1/classify?model=tiny-convnet", files={"images": grey(9)}, timeout=PATIENCE_S)
    assert still.status_code == 200
    process.popen.send_signal(signal.SIGINT)  # at once
    assert process.leave() == 0


def test_what_cannot_be_answered_while_it_stops_is_refused_and_not_cut_off(start, checkpoints):
    process = start(checkpoints=checkpoints, drain_timeout_s=0.1, inference_threads=1, seed_pool=1, prepared_members=1)
    url = process.url
    process.wait_for("ready")
    with ThreadPoolExecutor(4) as pool:

        def ask(seed: int) -> httpx.Response:
            path = f"{url}/v1/classify?ensemble_size=32&seed={seed}"  # whose weights are made now
            return httpx.post(path, files=[("images", grey(9, 64))] * 30, timeout=PATIENCE_S)

        slow = [pool.submit(ask, seed) for seed in range(4)]
        while "ccnet_requests_in_flight 4.0" not in httpx.get(f"{url}/metrics", timeout=PATIENCE_S).text:
            assert not any(request.done() for request in slow)
            time.sleep(0.01)
        process.popen.send_signal(signal.SIGTERM)
        responses = [request.result(PATIENCE_S) for request in slow]
    assert {response.status_code for response in responses} <= {200, 503}
    refused = [response for response in responses if response.status_code == 503]
    assert refused
    assert {response.headers["Content-Type"] for response in refused} == {"application/problem+json"}
    assert process.wait_for("stopped")["all_answered"] is False
    assert process.leave() == 0


def test_it_starts_where_it_may_not_raise_its_priority(start, checkpoints):
    before = os.getpriority(os.PRIO_PROCESS, 0)
    process = start(under=["nice", "-n", "15"], checkpoints=checkpoints)
    url = process.url
    process.wait_for("ready")
    assert httpx.post(f"{url}/v1/classify", files={"images": grey(9)}, timeout=PATIENCE_S).status_code == 200
    priorities = {
        os.getpriority(os.PRIO_PROCESS, int(thread)) for thread in os.listdir(f"/proc/{process.popen.pid}/task")
    }
    assert priorities == {min(19, before + 15)}


def test_without_a_checkpoint_it_says_so_and_fails(start, tmp_path):
    process = start(checkpoints=tmp_path)
    assert process.leave() == 1
    assert "no checkpoint folder" in process.wait_for("cannot start")["message"]


def test_a_wrong_setting_is_named_and_fails_at_once(start):
    process = start(port="many")
    assert process.leave() == 2
    assert process.wait_for("CCNET_PORT")["message"].startswith("CCNET_PORT: 'many' was given")
