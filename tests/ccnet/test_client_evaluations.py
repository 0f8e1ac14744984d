"""Evaluation jobs through the clients, against a server that answers what the tests tell it to."""

import functools
import json
import operator
import re
from datetime import UTC, datetime
from typing import Any

import pytest

from ccnet import CcnetError, ConnectionFailed, ServiceError
from ccnet.client import Evaluation, EvaluationData, EvaluationPage, EvaluationProgress, NotFinished
from ccnet.client.evaluations import LAST_QUESTION_S, Watch
from tests.ccnet.scripted_service import KINDS, Scripted, answer, call, refusal, serving

JOB: dict[str, Any] = {
    "request_id": "r-1",
    "id": "ab12",
    "status": "running",
    "model": "fake",
    "dataset": {"name": "shoes", "images": 3, "uploaded": True},
    "options": {"seed": 0},
    "progress": {"done": 1, "total": 4, "passes": 4},
    "eta_s": 1.5,
    "created": "2026-11-23T16:32:59.767237Z",
    "started": None,
    "finished": None,
    "error": None,
    "result": None,
}
RUNNING = Evaluation(
    "ab12", "running", "fake", EvaluationData("shoes", 3, True), {"seed": 0}, EvaluationProgress(1, 4, 4),
    datetime(2026, 11, 23, 16, 32, 59, 767237, UTC), eta_s=1.5,
)  # fmt: skip
TAKEN = answer(JOB, 202)
DONE = answer(JOB | {"status": "succeeded", "result": {"rows": []}})


@pytest.fixture(params=KINDS)
def kind(request):
    """Every behaviour is that of both clients."""
    return request.param


@pytest.fixture
def archive(tmp_path):
    """A file; what is in it is the service's to judge."""
    path = tmp_path / "shoes.zip"
    path.write_bytes(bytes(range(256)) * 1000)
    return path


def test_a_built_in_data_set_is_named_and_options_that_are_not_given_are_not_sent(kind):
    with serving(TAKEN) as service:
        assert call(kind, service.url, lambda client: client.evaluate("fashion-mnist")) == RUNNING
    (asked,) = service.asked
    assert (asked.method, asked.path) == ("POST", "/v1/evaluations")
    assert asked.headers["content-type"] == "application/json"
    assert json.loads(asked.body) == {"dataset": "fashion-mnist"}


def test_options_arrive_as_numbers_and_one_number_stands_for_a_list_of_one(kind):
    with serving(TAKEN) as service:
        call(
            kind,
            service.url,
            lambda client: client.evaluate(
                "cifar-10", "fake", 4, 5, 6, 7, views=False, max_shift=(2, 4), shift_samples=9, key="mine"
            ),
        )
        call(kind, service.url, lambda client: client.evaluate("cifar-10", max_shift=()))
    first, second = service.asked
    assert json.loads(first.body) == {
        "dataset": "cifar-10", "model": "fake", "ensemble_sizes": [4], "draws": 5, "seed": 6, "limit": 7,
        "views": False, "equivariance": {"max_shift": [2, 4], "samples": 9},
    }  # fmt: skip
    assert first.headers["idempotency-key"] == "mine"
    assert json.loads(second.body) == {"dataset": "cifar-10", "equivariance": None}


def test_a_file_is_sent_as_it_is_beside_the_options(kind, archive):
    for given in (archive, str(archive)):
        with serving(TAKEN) as service:
            call(kind, service.url, operator.methodcaller("evaluate", given, seed=3))
        (asked,) = service.asked
        assert asked.headers["content-type"].startswith("multipart/form-data; boundary=")
        assert b'name="dataset"; filename="shoes.zip"' in asked.body
        assert archive.read_bytes() in asked.body
        assert b'{"seed": 3}' in asked.body
        assert str(archive.parent).encode() not in asked.body


def test_another_attempt_sends_the_whole_file_again_under_the_same_key(kind, archive):
    broken = Scripted(202, TAKEN.body, TAKEN.headers, hangs_up=0)
    with serving(refusal(429, Retry_After="0"), broken, TAKEN) as service:
        assert call(kind, service.url, lambda client: client.evaluate(archive)).id == "ab12"
    assert [archive.read_bytes() in asked.body for asked in service.asked] == [True] * 3
    keys = {asked.headers["idempotency-key"] for asked in service.asked}
    assert len(keys) == 1
    assert all(re.fullmatch(r"[0-9a-f]{32}", key) for key in keys)


def test_every_call_without_a_key_gets_one_of_its_own(kind):
    with serving(TAKEN) as service:
        for _ in range(2):
            call(kind, service.url, lambda client: client.evaluate("fashion-mnist"))
    first, second = service.asked
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


@pytest.mark.parametrize(
    ("dataset", "options", "words"),
    [
        ("no-such-file.zip", {}, r"no-such-file\.zip cannot be read: No such file"),
        ("README.md/x.npz", {}, "cannot be read: Not a directory"),
        ("fashion-mnist", {"ensemble_sizes": [1.5]}, r"ensemble_sizes=\[1\.5\] was given; allowed is one whole"),
        ("fashion-mnist", {"max_shift": "2,4"}, "max_shift='2,4' was given"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_sent(kind, root, monkeypatch, dataset, options, words):
    monkeypatch.chdir(root)
    with serving(TAKEN) as service, pytest.raises(CcnetError, match=words):
        call(kind, service.url, lambda client: client.evaluate(dataset, **options))
    assert service.asked == []


def test_a_path_of_another_kind_of_file_is_no_name(kind, tmp_path):
    with serving(TAKEN) as service, pytest.raises(CcnetError, match=r"set\.tar was given; .*\.zip .*\.npz"):
        call(kind, service.url, lambda client: client.evaluate(tmp_path / "set.tar"))
    assert service.asked == []


def test_jobs_are_asked_for_by_themselves_or_by_their_ids_and_listed_in_pages(kind):
    with serving(answer(JOB), DONE, answer({"evaluations": [JOB], "next": "ab12"})) as service:
        assert call(kind, service.url, lambda client: client.evaluation(RUNNING)) == RUNNING
        assert call(kind, service.url, lambda client: client.evaluation("a/b")).result == {"rows": []}
        page = call(kind, service.url, lambda client: client.evaluations(1, before="cd", status="running"))
    assert page == EvaluationPage((RUNNING,), "ab12")
    assert [asked.path for asked in service.asked] == [
        "/v1/evaluations/ab12", "/v1/evaluations/a%2Fb", "/v1/evaluations?limit=1&before=cd&status=running",
    ]  # fmt: skip


def test_a_report_is_text(kind):
    page = Scripted(200, "<h1>± 1</h1>".encode(), {"Content-Type": "text/html; charset=utf-8"})
    with serving(page, refusal(409, "Conflict", "evaluation ab12 is running")) as service:
        assert call(kind, service.url, lambda client: client.report(RUNNING, "html")) == "<h1>± 1</h1>"
        with pytest.raises(ServiceError, match=r"409 .* is running"):
            call(kind, service.url, lambda client: client.report("ab12"))
    assert [asked.path.rsplit("/", 1)[1] for asked in service.asked] == ["report?format=html", "report?format=markdown"]


def test_deleting_cancels_or_removes(kind):
    with serving(answer(JOB | {"status": "cancelled"}), Scripted(204)) as service:
        cancelled = call(kind, service.url, lambda client: client.delete_evaluation(RUNNING))
        assert (cancelled.status, cancelled.is_finished) == ("cancelled", True)
        assert call(kind, service.url, lambda client: client.delete_evaluation("ab12")) is None
    assert [(asked.method, asked.path) for asked in service.asked] == [("DELETE", "/v1/evaluations/ab12")] * 2


def test_a_deletion_that_may_have_arrived_is_not_tried_again_and_a_refused_one_is(kind):
    broken = Scripted(200, DONE.body, DONE.headers, hangs_up=0)
    with serving(refusal(503, Retry_After="0"), broken, Scripted(204)) as service, pytest.raises(ConnectionFailed):
        call(kind, service.url, lambda client: client.delete_evaluation("ab12"))
    assert len(service.asked) == 2


def note(seen: list[str], found: Evaluation) -> None:
    seen.append(found.status)


def test_waiting_ends_with_the_job_however_it_ends_and_tells_how_far_it_is(kind):
    queued = answer(JOB | {"status": "queued"})
    for status in ("succeeded", "failed", "cancelled"):
        seen: list[str] = []
        with serving(queued, TAKEN, answer(JOB | {"status": status, "error": "why"})) as service:
            told = functools.partial(note, seen)
            done = call(kind, service.url, operator.methodcaller("wait", RUNNING, on_progress=told))
        assert (done.status, done.error) == (status, "why")
        assert seen == ["queued", "running", status]
        assert [asked.path for asked in service.asked] == ["/v1/evaluations/ab12"] * 3


def test_waiting_outlives_a_service_that_is_restarted(kind):
    broken = Scripted(200, DONE.body, DONE.headers, hangs_up=0)
    starting = refusal(503, "Not ready", "the service is starting")
    with serving(TAKEN, broken, starting, starting, Scripted(502), DONE) as service:
        assert call(kind, service.url, lambda client: client.wait("ab12"), retries=0).status == "succeeded"
    assert len(service.asked) == 6


def test_waiting_ends_when_time_is_up_or_the_job_is_gone(kind):
    with serving(TAKEN) as service, pytest.raises(NotFinished, match=r"ab12 is running after 0\.1 s, 1 of 4 passes"):
        call(kind, service.url, lambda client: client.wait("ab12", timeout_s=0.1))
    with serving(TAKEN, refusal(404, "Unknown evaluation")) as service, pytest.raises(ServiceError, match="404"):
        call(kind, service.url, lambda client: client.wait("ab12"))
    with serving(TAKEN) as service, pytest.raises(CcnetError, match="timeout_s=0 was given"):
        call(kind, service.url, lambda client: client.wait("ab12", timeout_s=0))
    assert service.asked == []


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_pauses_grow_to_the_longest_and_the_last_ends_with_the_time_that_there_is():
    clock = Clock()
    watch = Watch(60.0, 30.0, clock=clock, chance=lambda: 1.0)
    pauses = []
    while clock.now < 160:
        pause_s = watch.pause_after(RUNNING)
        assert pause_s is not None
        pauses.append(pause_s)
        clock.now += pause_s
    with pytest.raises(NotFinished):
        watch.pause_after(RUNNING)
    assert pauses[:4] == pytest.approx([0.25, 0.375, 0.5625, 0.84375])
    assert max(pauses) == 10
    assert sum(pauses) == pytest.approx(60)
    assert watch.patience.timeout_s == LAST_QUESTION_S
    assert len(pauses) < 20


def test_chance_decides_over_the_second_half_of_a_pause():
    assert Watch(60.0, 30.0, chance=lambda: 0.0).pause_after(RUNNING) == pytest.approx(0.125)


@pytest.mark.parametrize("moment", ["yesterday", 5, None])
def test_an_answer_without_a_moment_is_refused(kind, moment):
    with (
        serving(answer(JOB | {"created": moment})) as service,
        pytest.raises(ServiceError, match=r"answer\.created is"),
    ):
        call(kind, service.url, lambda client: client.evaluation("ab12"))
