"""The clients and a real service on a real socket: what one sends the other takes, and both mean the same."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from fastapi import FastAPI
from PIL import Image

from ccnet import CCNet, CcnetError, ScaleEnsemble, ServiceError, load_checkpoint, sample_scale_sequences
from service.app import create_app
from service.settings import Settings
from tests.ccnet.scripted_service import KINDS, call
from tests.service.pictures import encoded, grey
from tests.service.test_evaluations import archive

PATIENCE_S = 60
RNG = np.random.default_rng(11)


@contextlib.contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application behind uvicorn, on a free port, in a thread; its address, as soon as it listens."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, access_log=False))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.005)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)


@pytest.fixture(params=KINDS)
def ask(request) -> Callable[..., Any]:
    """`ask(url, name, ...)` calls a method of a client, of each kind, once the service is ready."""

    def asked(url: str, name: str, *arguments: Any, settings: dict[str, Any] | None = None, **options: Any) -> Any:
        call("sync", url, lambda client: client.wait_until_ready(PATIENCE_S))
        given = {"timeout_s": PATIENCE_S} | (settings or {})
        return call(request.param, url, lambda client: getattr(client, name)(*arguments, **options), **given)

    return asked


@pytest.fixture
def url(make_app) -> Iterator[str]:
    with listening(make_app()) as url:
        yield url


@pytest.fixture(scope="module")
def real_url(checkpoints) -> Iterator[str]:
    settings = Settings(checkpoints=checkpoints, device="cpu", seed_pool=0)
    with listening(create_app(settings)) as url:
        yield url


def test_every_kind_of_image_gets_the_answer_that_the_library_gives(ask, real_url, checkpoints, tmp_path):
    pixels = RNG.integers(0, 256, (28, 28), dtype=np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(encoded(pixels))
    with path.open("rb") as file, Image.open(path) as picture:
        images = [path, path.read_bytes(), file, picture, pixels, pixels[..., None], np.stack([pixels] * 2)[..., None]]
        answer = ask(real_url, "classify", images, 3, seed=5, include=["members", "logits"])
    loaded = load_checkpoint(checkpoints / "tiny-ccnet")
    assert isinstance(loaded.model, CCNet)
    x = loaded.preprocess([pixels[..., None]])
    # The sequences of the answer are those of the library, and go into its ensemble as they are.
    expected = ScaleEnsemble(loaded.model)(x, sequences=[member.sequence for member in answer.members])
    assert (answer.model, answer.ensemble_size, answer.seed, len(answer.results)) == ("tiny-ccnet", 3, 5, 8)
    for result in answer.results:
        np.testing.assert_allclose(result.logits, expected.logits[0].tolist(), atol=1e-4)
        assert result.label == loaded.labels[int(expected.logits.argmax())] == result.top[0].label
    assert ask(real_url, "sequences", 3, 5).sequences == tuple(member.sequence for member in answer.members)


def test_models_and_probes_are_read_whole(ask, real_url):
    models = ask(real_url, "models")
    assert [(model.name, model.takes_sequences) for model in models] == [("tiny-ccnet", True), ("tiny-convnet", False)]
    assert models[0].input_size == (32, 32)
    assert models[0].config is None
    assert ask(real_url, "model", "tiny-ccnet").config["name"] == "tiny-ccnet"
    table = ask(real_url, "equivariance", "tiny-convnet", input="noise", max_shift=(2, 4), samples=3, seed=1)
    assert [row.max_shift for row in table.rows] == [2, 4]
    assert (table.model, table.samples, table.rows[0].samples) == ("tiny-convnet", 3, 3)
    images = RNG.integers(0, 256, (2, 28, 28, 1), dtype=np.uint8)
    comparison = ask(real_url, "compare", images, models=["tiny-convnet", "tiny-ccnet"], max_shift=2, ensemble_size=2)
    assert [probe.model for probe in comparison.models] == ["tiny-convnet", "tiny-ccnet"]
    assert comparison.samples == 2
    assert len(comparison.models[1].map.cosine) == 5
    assert comparison.models[1].map.cosine[2][2] == pytest.approx(1, abs=1e-5)


def test_an_answer_says_what_the_plain_interface_says(ask, url):
    answer = ask(url, "classify", [grey(1), grey(2)], 2, seed=3, top_k=2, aggregate="median")
    plain = httpx.post(
        f"{url}/v1/classify?ensemble_size=2&seed=3&top_k=2&aggregate=median",
        files=[("images", grey(1)), ("images", grey(2))],
    ).json()
    assert [result.probability for result in answer.results] == [result["probability"] for result in plain["results"]]
    assert [[top.label for top in result.top] for result in answer.results] == [
        [top["label"] for top in result["top"]] for result in plain["results"]
    ]
    assert (answer.members, answer.results[0].logits, answer.asked_ensemble_size) == (None, None, None)


def test_sequences_are_drawn_as_the_library_draws_them(ask, url):
    drawn = ask(url, "sequences", ensemble_size=2, seed=9, model="fake")
    assert drawn.sequences == tuple(sample_scale_sequences(2, seed=9))


def test_a_key_opens_the_service(ask, make_app):
    with listening(make_app(api_keys="one, two")) as url:
        assert ask(url, "models", settings={"api_key": "two"})
        for key in (None, "three"):
            with pytest.raises(ServiceError, match="No valid API key") as caught:
                ask(url, "models", settings={"api_key": key})
            assert caught.value.status == 401


@pytest.mark.parametrize(
    ("status", "options", "words"),
    [
        (404, {"model": "nobody"}, "'nobody' was asked for; loaded are fake, plain"),
        (422, {"ensemble_size": 65}, "ensemble_size: '65' was given; allowed is a whole number from 1 to 64"),
        (422, {"include": "secrets"}, "include: 'secrets' was given; allowed is members, logits or both"),
    ],
)
def test_refusals_come_in_the_words_of_the_service(ask, url, status, options, words):
    with pytest.raises(ServiceError) as caught:
        ask(url, "classify", grey(1), **options)
    assert caught.value.status == status
    assert words in caught.value.detail
    assert caught.value.request_id


def test_a_body_or_a_number_of_images_over_the_limit_is_explained(ask, make_app):
    with listening(make_app(max_body_bytes=50_000, max_images_per_request=2)) as url:
        noise = RNG.integers(0, 256, (2000, 2000, 3), dtype=np.uint8)
        # While it still sends, the asynchronous client may miss the refusal; then it says what may be the reason.
        with pytest.raises(CcnetError, match=r"at most 50,000 bytes are allowed.*bounds what one|is over its limit"):
            ask(url, "classify", noise)
        with pytest.raises(ServiceError, match=r"413 .*3 images were given; one request may hold at most 2"):
            ask(url, "classify", [grey(1)] * 3)


def test_an_evaluation_is_begun_waited_for_reported_and_removed(ask, make_evaluating, tmp_path):
    path = tmp_path / "my shoes.zip"
    path.write_bytes(archive(boot=2, sandal=1))
    with listening(make_evaluating()) as url:
        job = ask(url, "evaluate", path, ensemble_sizes=(1, 4), seed=7, max_shift=(), key="one")
        assert ask(url, "evaluate", path, ensemble_sizes=(1, 4), seed=7, max_shift=(), key="one").id == job.id
        assert (job.dataset.name, job.dataset.images, job.dataset.uploaded) == ("my-shoes", 3, True)
        assert (job.options["ensemble_sizes"], job.options["equivariance"]) == ([1, 4], None)
        seen: list[str] = []
        done = ask(url, "wait", job, on_progress=lambda found: seen.append(found.status))
        assert (done.status, done.is_finished, seen[-1]) == ("succeeded", True, "succeeded")
        assert done.result == {"dataset": "my-shoes", "sizes": [1, 4], "seed": 7, "passes": 3}
        assert done.created <= done.started <= done.finished
        assert ask(url, "report", done) == "# my-shoes"
        assert json.loads(ask(url, "report", done.id, "json")) == done.result
        assert [one.id for one in ask(url, "evaluations", status="succeeded").evaluations] == [job.id]
        assert ask(url, "delete_evaluation", done) is None
        with pytest.raises(ServiceError, match="no evaluation"):
            ask(url, "evaluation", done)


def test_a_running_evaluation_is_cancelled_and_its_report_refused(ask, make_evaluating, assessor, tmp_path):
    path = tmp_path / "set.zip"
    path.write_bytes(archive(boot=50))
    with listening(make_evaluating()) as url:
        assessor.gate.clear()
        try:
            job = ask(url, "evaluate", path)
            assert assessor.began.wait(PATIENCE_S)
            cancelled = ask(url, "delete_evaluation", job)
            assert (cancelled.id, cancelled.status) == (job.id, "cancelled")
            with pytest.raises(ServiceError, match=r"409 .*cancelled"):
                ask(url, "report", job)
        finally:
            assessor.gate.set()


def test_a_full_queue_is_waited_for(ask, make_app, fake):
    with listening(make_app(max_queue_passes=8, max_request_passes=8)) as url, ThreadPoolExecutor(3) as pool:
        call("sync", url, lambda client: client.wait_until_ready(PATIENCE_S))
        fake.entered.clear()
        fake.gate.clear()
        try:
            running = pool.submit(ask, url, "classify", grey(1), 8, seed=1)
            assert fake.entered.wait(PATIENCE_S)
            queued = pool.submit(ask, url, "classify", grey(1), 8, seed=1)
            wait_for(lambda: sample(url, "ccnet_queue_passes") == 8)
            with pytest.raises(ServiceError) as caught:
                ask(url, "classify", grey(2), 8, seed=1, settings={"retries": 0})
            assert caught.value.status == 429
            assert caught.value.retry_after_s is not None
            waiting = pool.submit(ask, url, "classify", grey(2), 8, seed=1, settings={"retries": 30})
            wait_for(lambda: sample(url, 'ccnet_requests_rejected_total{reason="queue_full"}') > 1)
        finally:
            fake.gate.set()
        for future in (running, queued, waiting):
            assert future.result(PATIENCE_S).ensemble_size == 8


def wait_for(condition: Callable[[], bool]) -> None:
    """Until it holds."""
    give_up = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def sample(url: str, series: str) -> float:
    """What `/metrics` says of a series now."""
    lines = httpx.get(f"{url}/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith(f"{series} ")]
    return float(line.split()[-1])


def test_probes_tell_a_service_that_starts_from_one_that_is_ready(ask, fake, plain):
    loading = threading.Event()

    def load(*_: object) -> dict[str, Any]:
        assert loading.wait(PATIENCE_S)
        return {model.name: model for model in (fake, plain)}

    with listening(create_app(Settings(), load=load)) as url:
        assert call("sync", url, lambda client: (client.is_live(), client.is_ready())) == (True, False)
        with pytest.raises(ServiceError, match="starting"):
            call("sync", url, lambda client: client.models(), retries=1)
        loading.set()
        assert ask(url, "is_ready") is True
