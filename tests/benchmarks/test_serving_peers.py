"""The peers that the service is measured against compute the same, and the search for a goodput finds it."""

import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from benchmarks.serving.goodput import Attempt, Hopeless, highest_met
from benchmarks.serving.load import open_loop
from benchmarks.serving.peers import day_one, prepared
from benchmarks.serving.pictures import Body
from benchmarks.serving.requirements import require
from ccnet import CCNet, ScaleEnsemble, ScaleSequence, load_checkpoint


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(prepared.CHECKPOINT)


@pytest.fixture
def images(generator):
    return torch.rand(3, 1, 32, 32, generator=generator)


@torch.inference_mode()
def test_the_layer_of_a_day_gives_the_logits_of_the_shipped_checkpoint(checkpoint, images):
    ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler)
    expected = ensemble(images, size=3, seed=0)
    model = day_one.DayOneNet(checkpoint.model)
    for member, logits in zip(expected.sequences, expected.member_logits, strict=True):
        torch.testing.assert_close(model(images, member), logits, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize(
    "text",
    [
        "1 1/4 1 1 1 1 1 1 x 1 1 1 1 1 1 1 1/4",
        "1 5/7 7/9 3/5 3/4 1 1 1 x 1 1/2 1 1 1 1 1 1/2",
    ],
)
def test_the_layer_of_a_day_follows_any_sequence(text, images):
    model, sequence = CCNet(1).eval(), ScaleSequence.parse(text)
    torch.testing.assert_close(day_one.DayOneNet(model)(images, sequence), model(images, sequence), atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("sizes", [[2, 3, 1], [2, 2, 2]])
@pytest.mark.parametrize("peer", ["day one", "ensemble"])
def test_each_image_gets_the_mean_of_as_many_members_as_it_wants(checkpoint, images, peer, sizes):
    ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler)
    members = ensemble.sample(3, 1)
    if peer == "ensemble":
        logits = prepared.mean_logits(ensemble, images, sizes, members)
    else:
        logits = day_one.mean_logits(day_one.DayOneNet(checkpoint.model), images, sizes, members)
    alone = [ensemble(images[[n]], sequences=members[:size]).logits[0] for n, size in enumerate(sizes)]
    torch.testing.assert_close(logits, torch.stack(alone), atol=1e-4, rtol=0)


def server(capacity: float):
    """A server that answers up to so many requests a second in time; also the rates that it was tried at."""
    tried: list[float] = []

    def attempt(rate: float) -> Attempt:
        tried.append(rate)
        return Attempt(rate, 100, 0, 0.1, 0.4 if rate <= capacity else 0.6)

    return attempt, tried


@pytest.mark.parametrize("first", [1.0, 37.0, 400.0])
def test_the_search_finds_the_highest_rate_that_is_met(first):
    attempt, tried = server(capacity=37.0)
    found = highest_met(attempt, first, 0.05)
    assert found.met
    assert 37.0 / 1.05 <= found.rate <= 37.0
    assert len(tried) < 20


def test_a_server_that_is_never_in_time_has_no_goodput():
    attempt, tried = server(capacity=0.0)
    found = highest_met(attempt, 8.0, 0.05)
    assert not found.met
    assert found.goodput == 0
    assert found.rate == min(tried) == 8.0 / 64


@pytest.mark.parametrize(
    "attempt", [Attempt(9.0, 100, 1, 0.1, 0.4), Attempt(9.0, 100, 0, 0.1, 0.51), Attempt(9.0, 0, 0, math.nan, math.nan)]
)
def test_a_rate_is_not_met_with_failures_late_answers_or_nobody_asking(attempt):
    assert not attempt.met


@pytest.mark.parametrize(("status", "late_s"), [(503, 0.0), (200, 0.6)])
def test_a_try_that_cannot_be_met_any_more_sends_no_more_requests(status, late_s):
    class Answers(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(late_s)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        load = open_loop(
            lambda _: url, lambda _: Body(b"x", "image/png"), rate=20.0, seconds=30.0, seed=0, tells=Hopeless(600.0)
        )
        server.shutdown()
    assert 0 < len(load.answers) < 100
    assert load.seconds < 10
    assert load.count(status) == len(load.answers)


def test_a_package_that_is_missing_is_named_with_the_way_to_get_it():
    require("json")
    with pytest.raises(SystemExit, match=r"needs? no_such_package.*pip install 'ccnet\[bench\]'"):
        require("no_such_package")
