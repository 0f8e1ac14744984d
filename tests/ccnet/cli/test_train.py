"""`ccnet train`: a run ends in a measured checkpoint."""

import struct
from pathlib import Path

import numpy as np
import pytest

from ccnet import load_checkpoint, sample_scale_sequences
from ccnet.checkpoint import read_config
from tests.ccnet.cli.calls import assert_refused, run, said


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Fashion-MNIST's four files with a handful of images."""
    rng = np.random.default_rng(0)
    for prefix, count in (("train", 8), ("t10k", 4)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)
        for name, array in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            (tmp_path / name).write_bytes(header + array.tobytes())
    return tmp_path


def test_a_run_ends_in_a_measured_checkpoint(data: Path) -> None:
    options = ("--arch", "convnet", "--data-dir", data, "--epochs", 1, "--batch-size", 4, "--threads", 1)
    text = said("train", *options, "--device", "cpu", "--out", data / "run", "--checkpoint", data / "final")
    assert text.splitlines()[-1] == f"checkpoint: {data / 'final'}"
    config = read_config(data / "final")
    assert config["training"]["steps"] == 2
    assert config["metrics"]["n"] == 4


def test_a_ccnet_is_trained_and_measured_with_the_sampler_that_was_asked_for(data: Path) -> None:
    options = ("--data-dir", data, "--epochs", 1, "--batch-size", 8, "--threads", 1, "--device", "cpu")
    sampler = ("--sequence-method", "conditioned", "--sequence-max-numerator", 7)
    said("train", *options, *sampler, "--out", data / "run")
    checkpoint = load_checkpoint(data / "run" / "checkpoint")
    assert checkpoint.sampler == {"std": 0.05, "method": "conditioned", "max_numerator": 7}
    measured = checkpoint.config["metrics"]["sequences"]
    assert measured == [str(q) for q in sample_scale_sequences(len(measured), seed=0, **checkpoint.sampler)]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "slow"], ["recipe 'slow'", "fast, paper"]),
        (["--arch", "resnet"], ["arch 'resnet'", "ccnet, convnet"]),
        (["--epochs", 0], ["'0' was given"]),
        (["--threads", 0], ["'0' was given"]),
        (["--learning-rate", -1], ["learning_rate -1.0"]),
        (["--learning-rate", "fast"], ["--learning-rate"]),
        (["--sequence-method", "best"], ["sequence_method 'best'", "corrected, conditioned"]),
        (["--sequence-max-numerator", 7], ["sequence_max_numerator 7", "with 'conditioned'"]),
        (["--dataset", "imagenet"], ["unknown data set 'imagenet'"]),
        (["--data-dir", "nowhere"], ["nowhere", "apt-get install dataset-fashion-mnist"]),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(tmp_path: Path, options: list[object], words: list[str]) -> None:
    assert_refused(run("train", "--out", tmp_path / "run", *options), *words)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert_refused(run("train", "--out", tmp_path / "file"), "file: File exists")
