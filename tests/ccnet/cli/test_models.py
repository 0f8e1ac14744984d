"""`ccnet models`: the checkpoints at hand, damaged ones included."""

from pathlib import Path

import pytest

from tests.ccnet.cli.calls import assert_refused, parsed, run, said


def test_the_checkpoints_at_hand_are_listed() -> None:
    assert [model["name"] for model in parsed("models")] == ["tiny-ccnet", "tiny-convnet"]
    text = said("models")
    assert "tiny-ccnet" in text
    assert "ConvNet" in text


def test_a_damaged_one_does_not_hide_the_others(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "good").symlink_to(folder / "tiny-convnet")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text("{")
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
    bad, good = parsed("models")
    assert bad["name"] == "bad"
    assert "model.safetensors" in bad["error"]
    assert good["name"] == "tiny-convnet"
    assert "damaged" in said("models")


def test_without_any_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
    assert_refused(run("models"), "no checkpoint in", "ccnet train")
    assert parsed("models") == []
