"""`ccnet evaluate`: measured as asked, and written to the card only when told."""

from pathlib import Path

import pytest

from ccnet import ConvNet, save_checkpoint
from ccnet.checkpoint import read_config
from ccnet.data import FASHION_MNIST_CLASSES
from ccnet.preprocessing import Preprocessing
from tests.ccnet.cli.calls import SAMPLE, assert_refused, parsed, run, said


def test_it_measures_as_asked_and_writes_the_card_when_told(folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("config.json", "model.safetensors"):
        (copy / name).write_bytes((folder / "tiny-ccnet" / name).read_bytes())
    options = (copy, *SAMPLE, "--limit", 6, "--sizes", "1,2", "--draws", 2, "--pool", 3)
    metrics = parsed("evaluate", *options)
    assert (metrics["n"], metrics["dataset"], len(metrics["sequences"])) == (6, "fashion-mnist-sample", 3)
    assert [row["size"] for row in metrics["ensembles"]] == [1, 2]
    assert "the nearer k is to 3, the more the std understates" in metrics["method"]
    assert read_config(copy)["metrics"] is None
    text = said("evaluate", *options, "--write")
    assert "tiny-ccnet on 6 images" in " ".join(text.split())
    written = read_config(copy)["metrics"]
    assert written["ensembles"] == metrics["ensembles"]
    assert metrics["method"] in (copy / "README.md").read_text()


def test_a_convnet_is_measured_with_one_pass_and_has_no_sizes() -> None:
    assert "ensembles" not in parsed("evaluate", "tiny-convnet", *SAMPLE, "--limit", 6)
    assert "%" in said("evaluate", "tiny-convnet", *SAMPLE, "--limit", 6)
    for options in (["--sizes", "1,2"], ["--pool", 20]):
        assert_refused(run("evaluate", "tiny-convnet", *SAMPLE, *options), "takes no scale sequences")


def test_views_of_the_picture_are_measured_when_asked_for() -> None:
    options = ("tiny-convnet", *SAMPLE, "--limit", 6, "--views", "--sizes", "1,2,6")
    assert [row["size"] for row in parsed("evaluate", *options)["views"]] == [1, 2, 6]
    assert "6 views" in said("evaluate", *options)
    assert_refused(run("evaluate", *options[:-1], "1,19"), "19 views", "18")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sizes", "a"], ["ensemble sizes", "'a'"]),
        (["--sizes", "0,2"], ["each 1 or more"]),
        (["--pool", 2], ["a pool of 2 sequences", "need 10"]),
        (["--draws", 0], ["--draws", "1 or more"]),
        (["--limit", "all"], ["'all' was given"]),
        (["--dataset", "imagenet"], ["unknown data set 'imagenet'"]),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(options: list[object], words: list[str]) -> None:
    assert_refused(run("evaluate", "tiny-ccnet", *SAMPLE, *options), *words)


def test_a_card_that_names_no_data_set_asks_for_one(tmp_path: Path) -> None:
    preprocessing = Preprocessing(1, (28, 28), (32, 32), (0.2,), (0.3,))
    save_checkpoint(ConvNet(1, 10), tmp_path / "bare", labels=FASHION_MNIST_CLASSES, preprocessing=preprocessing)
    assert_refused(run("evaluate", tmp_path / "bare"), "names no data set", "--dataset")
