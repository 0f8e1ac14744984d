"""The damaged requests of a benchmark: made of right ones, the same at any time; and what is wrong is seen as wrong."""

import json
import random

import pytest

from benchmarks.serving.conforming import Findings, read_event
from benchmarks.serving.hostile import Reply, what_is_wrong
from benchmarks.serving.mutants import UNTOUCHED, mutant
from benchmarks.serving.originals import original
from service.openinference.messages import parse_question
from service.openinference.pictures import check_form
from tests.service.fakes import FakeModel


def test_what_is_damaged_was_right_before():
    model, forms = FakeModel(), set()
    for number in range(300):
        draft = original(random.Random(number))
        body, length = draft.body()
        question = parse_question(body, None if length is None else str(length), model, 8)
        check_form(question.tensor, question.options.layout, model, 10_000)
        forms.add((question.tensor.datatype, length is None))
    assert forms == {("FP32", False), ("UINT8", False), ("UINT8", True), ("BYTES", False), ("BYTES", True)}


def test_a_number_always_gives_the_same_request_and_another_gives_another():
    requests = [mutant(5, number) for number in range(300)]
    assert requests == [mutant(5, number) for number in range(300)]
    assert len({request.data for request in requests}) == len(requests)
    assert 0 < sum(request.damage == UNTOUCHED for request in requests) < 30


@pytest.mark.parametrize(
    ("damage", "reply", "found"),
    [
        ("cut", Reply(0), "no answer"),
        ("cut", Reply(500, {}, b'{"error": "x"}'), "500"),
        ("cut", Reply(502, {}, b'{"error": "x"}'), "other 5xx"),
        ("cut", Reply(418, {}, b'{"error": "x"}'), "undocumented"),
        ("cut", Reply(400, {}, b'{"error": "x"'), "unreadable"),
        ("cut", Reply(200, {}, b'{"error": "x"}'), "unreadable"),
        ("cut", Reply(400, {}, b'{"error": "x"}'), ""),
        (UNTOUCHED, Reply(400, {}, b'{"error": "x"}'), "right one refused"),
        (UNTOUCHED, Reply(429, {}, b'{"error": "x"}'), ""),
        (UNTOUCHED, Reply(200, {"inference-header-content-length": "15"}, b'{"outputs": []}\xff\xff'), ""),
    ],
)
def test_a_wrong_answer_is_seen(damage, reply, found):
    assert what_is_wrong(damage, reply) == found


def test_a_failed_check_of_schemathesis_is_counted_with_its_request():
    failure = {"name": "not_a_server_error", "status": "failure", "failure_info": {"failure": {"operation": "GET /a"}}}
    interaction = {
        "request": {"method": "GET", "uri": "http://h/a", "headers": {}, "body": None},
        "response": {"status_code": 500},
    }
    recorder = {
        "label": "GET /a",
        "interactions": {"n": interaction},
        "checks": {"n": [failure, {"status": "success"}]},
    }
    findings = Findings()
    read_event(findings, json.dumps({"ScenarioFinished": {"recorder": recorder}}))
    assert (findings.cases, findings.statuses[500], findings.failures["not_a_server_error"]) == (1, 1, 1)
    assert "500 to GET http://h/a" in findings.examples["not_a_server_error", "GET /a"]
