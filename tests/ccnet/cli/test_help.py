"""Every verb explains itself."""

import pytest

from ccnet import __version__
from tests.ccnet.cli.calls import VERBS, run, said


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_and_its_options(verb: str) -> None:
    text = said(verb, "--help")
    assert f"ccnet {verb}" in text
    assert said(verb, "-h") == text


def test_the_verbs_are_those() -> None:
    text = said("--help")
    for verb in VERBS:
        assert f" {verb} " in text


def test_the_version() -> None:
    assert said("--version") == f"{__version__}\n"


def test_without_a_verb_help_is_shown_with_status_2() -> None:
    result = run()
    assert result.exit_code == 2
    assert "classify" in result.output
