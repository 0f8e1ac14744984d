"""`ccnet paper`: what there is, what is refused, and a stop that loses nothing."""

import sys
from pathlib import Path
from typing import Any

import pytest

from ccnet import CcnetError
from ccnet.paper import run, table_4
from ccnet.paper.catalogue import ITEMS
from tests.ccnet.cli.calls import assert_refused, parsed, said
from tests.ccnet.cli.calls import run as call


def test_the_list_says_what_there_is_and_what_is_kept(tmp_path: Path) -> None:
    said("paper", "table_4", "--quick", "--out", tmp_path)
    listed = parsed("paper", "--list", "--out", tmp_path)
    assert [entry["name"] for entry in listed] == [item.name for item in ITEMS]
    kept = {entry["name"]: entry["kept"] for entry in listed}
    assert kept["table_4"][0].startswith("quick 20")
    assert not any(place.startswith(("quick", "full")) for place in kept["table_1"])
    assert (tmp_path / "quick" / "table_4.png").read_bytes().startswith(b"\x89PNG")
    assert "kept results" in said("paper", "--list")


def test_an_unknown_name_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    assert_refused(call("paper", "table_9", "--out", tmp_path), "no item table_9", "table_1", "ensembles")


def test_a_quick_run_is_not_published(tmp_path: Path) -> None:
    assert_refused(call("paper", "table_4", "--quick", "--publish", "--out", tmp_path), "quick", "--publish")
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_nothing_is_begun(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(run, "run_item", None)
    assert_refused(call("paper", "table_4", "--quick", "--out", tmp_path), "pip install 'ccnet[figures]'")


def test_what_cannot_be_drawn_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(_document: object) -> None:
        raise CcnetError("no picture of this")

    monkeypatch.setattr(table_4, "plot", spoilt)
    result = call("paper", "table_4", "--quick", "--out", tmp_path)
    assert (result.exit_code, result.stderr.splitlines()[-1]) == (2, "ccnet: no picture of this")
    assert (tmp_path / "quick" / "table_4.json").is_file()


def test_a_stop_says_that_the_same_command_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "run_item", stopped)
    result = call("paper", "table_4", "--quick", "--out", tmp_path)
    assert result.exit_code == 130
    assert f"are kept in {tmp_path}, the same command goes on" in result.stderr
