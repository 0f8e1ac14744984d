"""`ccnet evaluate --report`: three files, one measurement; and data sets of one's own."""

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccnet import CcnetError, cli_evaluate
from ccnet.assessment import AssessmentOptions
from ccnet.checkpoint import read_config
from ccnet.data import FASHION_MNIST_CLASSES, load_dataset
from tests.ccnet.cli.calls import DATA, SAMPLE, assert_refused, parsed, run, said

QUICK = ("--limit", 5, "--sizes", "1,2", "--draws", 2)


@pytest.fixture(autouse=True)
def few_shifts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table of shifts on four pictures; how it is measured is tested elsewhere."""
    few = partial(AssessmentOptions, max_shifts=(2,), shift_samples=4)
    monkeypatch.setattr("ccnet.cli_evaluate.AssessmentOptions", few)


def test_the_report_is_written_beside_what_is_printed(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "report"
    printed = parsed("evaluate", "tiny-ccnet", *SAMPLE, *QUICK, "--report", folder)
    assert sorted(path.name for path in folder.iterdir()) == ["report.html", "report.json", "report.md"]
    document = json.loads((folder / "report.json").read_text())
    assert document["dataset"]["n"] == printed["n"] == 5
    assert [row["size"] for row in printed["ensembles"]] == [1, 2]
    assert [row["size"] for row in printed["views"]] == [1, 2]
    assert document["rows"][0]["mean_of_logits"]["accuracy"]["mean"] == printed["accuracy"]
    assert (folder / "report.md").read_text().startswith("# tiny-ccnet on fashion-mnist-sample\n")
    assert "<!doctype html>" in (folder / "report.html").read_text()
    without = parsed("evaluate", "tiny-ccnet", *SAMPLE, *QUICK)
    assert without["accuracy"] == pytest.approx(printed["accuracy"])
    assert "views" not in without


def test_a_report_replaces_an_older_one_and_leaves_other_files_alone(tmp_path: Path, folder: Path) -> None:
    copy = tmp_path / "net"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((folder / "tiny-convnet" / name).read_bytes())
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "report.md").write_text("old")
    assert "%" in said("evaluate", copy, *SAMPLE, "--limit", 5, "--no-views", "--report", tmp_path, "--write")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert (tmp_path / "report.md").read_text() != "old"
    assert read_config(copy)["metrics"]["n"] == 5


def test_without_matplotlib_no_pass_is_made_for_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setattr(cli_evaluate, "assess", None)
    refused = run("evaluate", "tiny-ccnet", *SAMPLE, "--report", tmp_path / "report")
    assert_refused(refused, "pip install 'ccnet[figures]'")


def test_what_takes_no_plots_is_written_though_these_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoilt(_document: object) -> str:
        raise CcnetError("no page of this")

    monkeypatch.setattr(cli_evaluate, "html", spoilt)
    assert run("evaluate", "tiny-ccnet", *SAMPLE, *QUICK, "--report", tmp_path).exit_code == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.json", "report.md"]


def test_a_report_that_cannot_be_written_is_told_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert_refused(run("evaluate", "tiny-ccnet", *SAMPLE, "--report", tmp_path / "file"), "file")
    assert_refused(run("evaluate", "tiny-ccnet", *SAMPLE, "--report", tmp_path / "file" / "below"), "file")


def test_a_data_set_of_ones_own_is_an_npz_file_or_a_folder(tmp_path: Path) -> None:
    sample = load_dataset("fashion-mnist-sample", "test", DATA).first(6)
    turned = FASHION_MNIST_CLASSES[::-1]
    labels = 9 - sample.labels
    np.savez(tmp_path / "mine.npz", images=sample.images[..., 0], labels=labels, classes=turned)
    for index, (image, label) in enumerate(zip(sample.images, sample.labels, strict=True)):
        place = tmp_path / "set" / FASHION_MNIST_CLASSES[label].replace("/", "_")
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(place / f"{index}.png")
    expected = parsed("evaluate", "tiny-convnet", *SAMPLE, "--limit", 6)
    for name in ("mine.npz", "set"):
        found = parsed("evaluate", "tiny-convnet", "--dataset", tmp_path / name)
        assert (found["n"], found["dataset"]) == (6, name.removesuffix(".npz"))
        assert found["accuracy"] == expected["accuracy"]
        assert found["nll"] == pytest.approx(expected["nll"])


def test_data_sets_that_are_not_there_are_refused(tmp_path: Path) -> None:
    assert_refused(run("evaluate", "tiny-convnet", "--dataset", tmp_path / "none"), "No such file")
    assert_refused(run("evaluate", "tiny-convnet", "--dataset", "none.npz"), "cannot be read")
    np.savez(tmp_path / "cats.npz", images=np.zeros((2, 4, 4), np.uint8), labels=[0, 1], classes=["cat", "Bag"])
    assert_refused(run("evaluate", "tiny-convnet", "--dataset", tmp_path / "cats.npz"), "class 'cat' of cats")
