"""The clients against a server that answers what the tests tell it to: answers, errors, retries, deadlines, keys."""

import asyncio
import email.utils
import json
import logging
import operator
import pickle
import subprocess
import sys
import time

import pytest

from ccnet import AsyncClient, CcnetError, Client, ConnectionFailed, ServiceError
from ccnet.client import Classification, ImageResult, Timing, TopClass
from tests.ccnet.scripted_service import CLASSIFICATION, KINDS, Scripted, answer, call, refusal, serving
from tests.service.pictures import grey

OK = answer(CLASSIFICATION)
KEY = "sesame-open-1234"


@pytest.fixture(params=KINDS)
def kind(request):
    """Every behaviour is that of both clients."""
    return request.param


def classified(client):
    return client.classify(grey(9))


def test_an_answer_becomes_frozen_dataclasses(kind):
    with serving(OK) as service:
        found = call(kind, service.url, classified)
    top = TopClass("boot", 2, 0.75)
    assert found == Classification(
        "r-1", "fake", 2, 5, (ImageResult(0, "boot", 2, 0.75, (top,), 1.0, 0.5),), Timing(1.0, 0.5, 2.0, 4.0)
    )
    assert found.labels == ("boot",)
    with pytest.raises(AttributeError):
        found.seed = 6


def test_options_that_are_not_given_are_not_sent_and_others_arrive_as_text(kind):
    with serving(OK) as service:
        call(kind, service.url + "/behind/", classified)
        call(
            kind,
            service.url,
            lambda client: client.classify(
                [grey(1), grey(2)], 3, 7, 2, "a&b", "median", ("members", "logits"), timeout_ms=500, min_size=1
            ),
        )
    first, second = service.asked
    assert (first.method, first.path) == ("POST", "/behind/v1/classify")
    assert second.path == (
        "/v1/classify?ensemble_size=3&seed=7&top_k=2&model=a%26b&aggregate=median&include=members%2Clogits"
        "&timeout_ms=500&min_size=1"
    )
    assert first.headers["content-type"].startswith("multipart/form-data; boundary=")
    assert (grey(9) in first.body, second.body.index(grey(1)) < second.body.index(grey(2))) == (True, True)


def test_keys_that_an_older_client_does_not_know_are_left_out(kind):
    with serving(answer(CLASSIFICATION | {"carbon_g": 3})) as service:
        assert call(kind, service.url, classified).seed == 5


@pytest.mark.parametrize("status", [429, 503])
def test_a_service_that_has_no_room_now_is_asked_again(kind, status):
    with serving(refusal(status), refusal(status), OK) as service:
        assert call(kind, service.url, classified).seed == 5
    assert len(service.asked) == 3
    assert service.asked[0].path == service.asked[2].path
    assert grey(9) in service.asked[2].body


def test_retry_after_is_waited_for(kind):
    with serving(refusal(429, Retry_After="1"), OK) as service:
        call(kind, service.url, classified)
    first, second = service.asked
    assert second.at - first.at >= 1


def test_retry_after_may_be_a_date(kind):
    now = time.time()
    headers = {name: email.utils.formatdate(now + s, usegmt=True) for name, s in (("Date", 0), ("Retry-After", 1))}
    with serving(refusal(503, **headers), OK) as service:
        call(kind, service.url, classified)
    first, second = service.asked
    assert second.at - first.at >= 1


def test_retries_end_and_the_last_refusal_is_raised_with_all_that_it_says(kind):
    with serving(refusal(429, Retry_After="0")) as service, pytest.raises(ServiceError) as caught:
        call(kind, service.url, classified, retries=2)
    assert len(service.asked) == 3
    error = caught.value
    assert (error.status, error.title, error.detail) == (429, "Queue full", "too much waits")
    assert (error.request_id, error.retry_after_s) == ("r-9", 0.0)
    assert str(error) == "429 Queue full: too much waits (request r-9)"
    assert isinstance(error, CcnetError)


def test_a_pause_that_would_pass_the_deadline_is_not_begun(kind):
    with serving(refusal(429, Retry_After="100"), OK) as service, pytest.raises(ServiceError) as caught:
        call(kind, service.url, classified)
    assert caught.value.retry_after_s == 100
    assert len(service.asked) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500, 504])
def test_no_other_refusal_is_tried_again(kind, status):
    with serving(refusal(status, "Some title"), OK) as service, pytest.raises(ServiceError, match=f"{status} Some"):
        call(kind, service.url, classified)
    assert len(service.asked) == 1


def test_a_request_that_is_too_large_is_explained(kind):
    with serving(refusal(413, "Too large", "9 bytes, at most 8")) as service, pytest.raises(ServiceError) as caught:
        call(kind, service.url, classified)
    assert "9 bytes, at most 8; the service bounds what one request may hold" in str(caught.value)


@pytest.mark.parametrize("hangs_up", [0, 10])
def test_a_connection_that_breaks_before_the_answer_is_complete_is_tried_again(kind, hangs_up):
    broken = Scripted(200, OK.body, OK.headers, hangs_up)
    with serving(broken, broken, OK) as service:
        assert call(kind, service.url, classified).seed == 5
    assert len(service.asked) == 3


def test_where_nothing_listens_the_error_names_the_address(kind):
    with serving() as gone:
        pass
    with pytest.raises(ConnectionFailed, match=rf"{gone.url}/v1/models: cannot connect .*attempt 3"):
        call(kind, gone.url, lambda client: client.models(), retries=2)


@pytest.mark.parametrize("pieces", [0.02, 60])
def test_an_answer_that_does_not_end_is_given_up_at_the_deadline(kind, pieces):
    slow = Scripted(200, b"x" * 10_000, {}, pieces=pieces)
    with serving(slow) as service, pytest.raises(ConnectionFailed, match=r"no whole answer within 0\.3 s"):
        call(kind, service.url, classified, timeout_s=0.3)
    assert len(service.asked) == 1


def test_redirects_are_named_and_not_followed(kind):
    with serving(OK) as elsewhere, serving(Scripted(307, b"", {"Location": elsewhere.url})) as service:
        with pytest.raises(ServiceError, match=elsewhere.url) as caught:
            call(kind, service.url, classified, api_key=KEY)
        assert caught.value.status == 307
    assert elsewhere.asked == []


def test_errors_of_something_before_the_service_are_named_as_such(kind):
    page = Scripted(502, b"<h1>Bad\n gateway</h1>", {"Content-Type": "text/html", "X-Request-ID": "r-3"})
    with serving(page) as service, pytest.raises(ServiceError) as caught:
        call(kind, service.url, classified)
    assert (caught.value.status, caught.value.title, caught.value.request_id) == (502, "Bad Gateway", "r-3")
    assert "no answer of a ccnet service" in caught.value.detail


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>", "Expecting value"),
        (b"[" * 100_000, "recursion"),
        (b"[]", "no object"),
        (b"{}", "no 'request_id'"),
        (json.dumps(CLASSIFICATION | {"seed": "5"}).encode(), "the answer.seed is '5'"),
        (json.dumps(CLASSIFICATION | {"seed": True}).encode(), "the answer.seed is True"),
        (json.dumps(CLASSIFICATION | {"results": [{"index": 0}]}).encode(), r"results\[0\] has no 'label'"),
        (
            json.dumps(
                CLASSIFICATION
                | {"members": [{"sequence": {"vertical": ["1/0"], "horizontal": ["1"]}, "labels": []}]}
            ).encode(),
            "no fraction",
        ),
    ],
)  # fmt: skip
def test_an_answer_of_another_form_is_refused(kind, body, words):
    with serving(Scripted(200, body)) as service, pytest.raises(ServiceError, match=words) as caught:
        call(kind, service.url, classified)
    assert caught.value.title == "Unreadable answer"


def test_the_key_is_sent_and_shown_nowhere(kind, caplog):
    caplog.set_level(logging.DEBUG)
    shown = []

    def use(client):
        shown.append(repr(client) + str(client) + repr(vars(client)) + repr(client._http.headers))
        return client.classify(grey(9))

    with serving(refusal(401, "No valid API key"), OK) as service:
        with pytest.raises(ServiceError) as caught:
            call(kind, service.url, use, api_key=KEY)
        call(kind, service.url, classified)
    first, second = service.asked
    assert first.headers["authorization"] == f"Bearer {KEY}"
    assert "authorization" not in second.headers
    assert service.url in shown[0]
    assert KEY not in shown[0] + str(caught.value) + repr(caught.value) + caplog.text


@pytest.mark.parametrize("key", ["", "two words", "line\nbreak", "schlüssel-geheim", "tab\tkey"])
def test_a_key_that_no_header_can_hold_is_refused_without_showing_it(kind, key):
    with pytest.raises(CcnetError, match="api_key") as caught:
        call(kind, "http://127.0.0.1:1", classified, api_key=key)
    assert not key or key not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["", "127.0.0.1:8000", "ftp://host", "http://", "http://host:x", "http://host/?a=1", None]
)
def test_an_address_that_is_none_is_refused(kind, url):
    with pytest.raises(CcnetError, match="give the address of a service"):
        call(kind, url, classified)


def test_an_address_with_a_password_is_refused_without_showing_it(kind):
    with pytest.raises(CcnetError, match="api_key=") as caught:
        call(kind, "http://user:geheim@host:99999999", classified)
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("settings", [{"timeout_s": 0}, {"timeout_s": float("nan")}, {"retries": -1}, {"retries": 1.5}])
def test_settings_out_of_range_are_refused(kind, settings):
    (name,) = settings
    with pytest.raises(CcnetError, match=f"{name}=.* was given; allowed is"):
        call(kind, "http://127.0.0.1:1", classified, **settings)


def test_wrong_images_are_refused_before_anything_is_sent(kind):
    with serving(OK) as service:
        wrong: list[object] = [[], b"", b"GIF89a", "no-such-file.png"]
        for images in wrong:
            use = operator.methodcaller("classify", images)
            with pytest.raises(CcnetError):
                call(kind, service.url, use)
    assert service.asked == []


def test_probes_say_no_where_nothing_answers_and_are_tried_once(kind):
    with serving(refusal(503, "Not ready", "the service is starting"), answer({"status": "ready"})) as service:
        assert call(kind, service.url, lambda client: client.is_ready()) is False
        assert call(kind, service.url, lambda client: client.is_ready()) is True
        assert call(kind, service.url, lambda client: client.is_live()) is True
    assert [asked.path for asked in service.asked] == ["/health/ready", "/health/ready", "/health/live"]
    assert call(kind, service.url, lambda client: client.is_live()) is False
    with serving(refusal(404)) as stranger, pytest.raises(ServiceError, match="404"):
        call(kind, stranger.url, lambda client: client.is_live())


def test_waiting_ends_when_the_service_is_ready(kind):
    starting = refusal(503, "Not ready", "the service is starting")
    gateway = Scripted(502, b"")
    with serving(gateway, starting, starting, starting, starting, answer({"status": "ready"})) as service:
        assert call(kind, service.url, lambda client: client.wait_until_ready(30), retries=0) is None
    assert len(service.asked) == 6


def test_waiting_ends_at_its_deadline_with_the_last_reason(kind):
    with serving(refusal(503, "Not ready", "the service is starting")) as service:
        with pytest.raises(ServiceError, match="the service is starting"):
            call(kind, service.url, lambda client: client.wait_until_ready(0.4))
        assert len(service.asked) > 1
    with pytest.raises(ConnectionFailed, match="cannot connect"):
        call(kind, service.url, lambda client: client.wait_until_ready(0.4))


def test_errors_survive_the_way_between_processes():
    error = pickle.loads(pickle.dumps(ServiceError(429, "Queue full", "wait", "r-1", 2.0)))
    assert (str(error), error.status, error.retry_after_s) == ("429 Queue full: wait (request r-1)", 429, 2.0)


def test_without_httpx_the_library_works_and_a_client_says_what_to_install():
    code = """
import sys
sys.modules["httpx"] = None
import ccnet
for made in (ccnet.Client, ccnet.AsyncClient):
    try:
        made("http://127.0.0.1:8000")
    except ccnet.CcnetError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("'httpx': pip install 'ccnet[client]'") == 2


def test_importing_the_library_does_not_import_httpx():
    code = "import sys, ccnet; assert ccnet.Client; sys.exit('httpx' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_calls_of_one_asynchronous_client_run_side_by_side():
    async def run(url):
        async with AsyncClient(url) as client:
            return await asyncio.gather(*(client.classify(grey(9)) for _ in range(8)))

    with serving(OK) as service:
        assert len(asyncio.run(run(service.url))) == len(service.asked) == 8


def test_leaving_the_with_statement_closes_the_connections():
    with serving(OK) as service, Client(service.url) as client:
        client.classify(grey(9))
        assert not client._http.is_closed
    assert client._http.is_closed
