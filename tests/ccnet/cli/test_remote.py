"""`ccnet classify --url` as a user meets it: what is asked, what is printed, one line for what is wrong."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ccnet.cli_remote import GROUP_BYTES, GROUP_IMAGES
from tests.ccnet.cli import calls
from tests.ccnet.cli.calls import assert_refused
from tests.ccnet.scripted_service import CLASSIFICATION, Scripted, answer, refusal, serving
from tests.service.pictures import grey

run = partial(calls.run, "classify")


def answer_for(images: int) -> Scripted:
    results: Any = [CLASSIFICATION["results"][0] | {"index": index} for index in range(images)]
    return answer(CLASSIFICATION | {"results": results})


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{index}.png" for index in range(GROUP_IMAGES + 2)]
    for value, path in enumerate(paths):
        path.write_bytes(grey(value))
    return paths


def test_the_json_is_that_of_the_verb_without_a_service(pictures):
    with serving(answer_for(1)) as service:
        result = run(pictures[0], "--url", service.url, "-k", 2, "--seed", 5, "--top", 1, "-c", "fake", "--json")
    assert result.exit_code == 0, result.output
    best = {"label": "boot", "probability": 0.75}
    assert json.loads(result.stdout) == {
        "model": "fake",
        "ensemble_size": 2,
        "seed": 5,
        "results": [{"picture": str(pictures[0]), **best, "agreement": 1.0, "top": [best]}],
    }
    assert service.asked[0].path == "/v1/classify?ensemble_size=2&seed=5&top_k=1&model=fake"


def test_the_table_is_that_of_the_verb_without_a_service(pictures):
    with serving(answer_for(1)) as service:
        shown = run(pictures[0], "--url", service.url).stdout
    assert "fake, 2 members, seed 5" in shown
    assert "75.0%" in shown
    assert service.asked[0].path == "/v1/classify?top_k=3", "what is left open is the service's to choose"


def test_many_pictures_go_in_groups_under_the_seed_and_model_of_the_first(pictures):
    with serving(answer_for(GROUP_IMAGES), answer_for(2)) as service:
        result = run(*pictures, "--url", service.url, "--json")
    assert [one["picture"] for one in json.loads(result.stdout)["results"]] == [str(path) for path in pictures]
    first, second = service.asked
    assert (first.body.count(b"\x89PNG"), second.body.count(b"\x89PNG")) == (GROUP_IMAGES, 2)
    assert second.path == "/v1/classify?ensemble_size=2&seed=5&top_k=3&model=fake"


def test_large_pictures_go_in_smaller_groups(tmp_path):
    paths = [tmp_path / f"{index}.png" for index in range(3)]
    for path in paths:
        path.write_bytes(grey(1) + bytes(GROUP_BYTES // 2))
    with serving(answer_for(1)) as service:
        assert run(*paths, "--url", service.url).exit_code == 0
    assert len(service.asked) == 3


def test_the_key_comes_from_the_variable_that_is_named(pictures, monkeypatch):
    monkeypatch.setenv("SOME_KEY", "sesame-open-1234")
    with serving(answer_for(1)) as service:
        assert run(pictures[0], "--url", service.url, "--api-key-env", "SOME_KEY").exit_code == 0
        assert run(pictures[0], "--url", service.url).exit_code == 0
    assert service.asked[0].headers["authorization"] == "Bearer sesame-open-1234"
    assert "authorization" not in service.asked[1].headers


def test_options_that_would_be_ignored_are_refused(pictures, monkeypatch):
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with serving(answer_for(1)) as service:
        here = ("--url", service.url)
        assert_refused(run(pictures[0], *here, "--device", "cpu"), "--device cpu", "leave one of the two out")
        assert_refused(run(pictures[0], *here, "--api-key-env", "NO_SUCH_KEY"), "NO_SUCH_KEY", "no such environment")
        assert_refused(run(pictures[0], "--api-key-env", "NO_SUCH_KEY"), "without --url")
        assert service.asked == []


def test_what_is_wrong_is_one_line(pictures, tmp_path):
    with serving(refusal(401, "No valid API key", "no key was given")) as service:
        assert_refused(run(pictures[0], "--url", service.url), "401 No valid API key", "--api-key-env")
        wrong = tmp_path / "wrong.png"
        wrong.write_bytes(b"GIF89a")
        assert_refused(run(*pictures, wrong, "--url", service.url), "wrong.png", "only these three")
        assert len(service.asked) == 1, "every picture is looked at before the first is sent"
    assert_refused(run(pictures[0], "--url", "nowhere"), "'nowhere' was given; give the address of a service")
