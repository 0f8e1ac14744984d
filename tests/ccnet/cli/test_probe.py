"""`ccnet probe`: Table 1, and the report, as the library measures them."""

import json
from fractions import Fraction
from pathlib import Path

import pytest

from ccnet import sample_scale_sequences
from ccnet.checkpoint import Checkpoint
from ccnet.data import load_dataset
from ccnet.equivariance import noise_images, shift_grid, shift_report, table1
from tests.ccnet.cli.calls import DATA, DISTRIBUTION, SAMPLE, assert_refused, parsed, run, said


def test_noise_is_measured_as_the_library_does_and_0_enters(ccnet: Checkpoint) -> None:
    (answer,) = parsed("probe", "--max-shift", "1,3", "--samples", 2, "--seed", 2)
    members = sample_scale_sequences(8, seed=2, std=DISTRIBUTION["std"])  # type: ignore[arg-type]
    rows = table1(ccnet.model, noise_images(2, (1, 32, 32), 2), (1, 3), sequences=members, seed=2)
    assert (answer["model"], answer["input"]) == ("tiny-ccnet", "noise")
    assert answer["rows"] == json.loads(json.dumps([row.row() for row in rows]))
    assert answer["protocol"]["fill"] == 0
    assert "noise" in answer["protocol"]["fill_means"]


def test_pictures_are_shifted_on_black(convnet: Checkpoint) -> None:
    options = ("-c", "tiny-convnet", "--input", "fashion-mnist-sample", *SAMPLE, "--max-shift", 2, "--samples", 5)
    (answer,) = parsed("probe", *options)
    images = convnet.preprocess(load_dataset("fashion-mnist-sample", "test", DATA).images[:5])
    black = convnet.preprocessing.black
    rows = table1(convnet.model, images, (2,), seed=0, fill=black)
    assert answer["rows"] == json.loads(json.dumps([row.row() for row in rows]))
    assert answer["protocol"]["fill"] == list(black)
    assert "black" in answer["protocol"]["fill_means"]


def test_checkpoints_are_compared_under_what_they_were_called(folder: Path) -> None:
    """Two runs may hold checkpoints of one name; neither row may be lost."""
    text = said("probe", "-c", "tiny-convnet", "-c", folder / "tiny-convnet", "--max-shift", 1, "--samples", 2)
    assert text.count("±1") == 2
    answers = parsed("probe", "-c", "tiny-convnet", "-c", folder / "tiny-convnet", "--max-shift", 1, "--samples", 2)
    assert [answer["model"] for answer in answers] == ["tiny-convnet", str(folder / "tiny-convnet")]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--max-shift", "a,b"], ["max shifts", "'a,b'", '"2,4,6"']),
        (["--max-shift", "2.5"], ["'2.5'"]),
        (["--max-shift", "40"], ["40", "0 to 31"]),
        (["--samples", 0], ["--samples", "1 or more"]),
        (["--input", "cats"], ["unknown data set 'cats'", "fashion-mnist"]),
        (["--input", "fashion-mnist-sample"], ["--data-dir"]),
        (["--input", "fashion-mnist-sample", *SAMPLE, "--samples", 501], ["501", "has 500 images"]),
    ],
    ids=str,
)
def test_bad_options_are_refused_in_one_line(options: list[object], words: list[str]) -> None:
    assert_refused(run("probe", "-c", "tiny-convnet", *options), *words)


def test_a_report_is_what_the_library_reports(ccnet: Checkpoint) -> None:
    options = ("--report", "--max-shift", 1, "--step", "1/2", "--border", "circular", "--samples", 2, "--seed", 4)
    (answer,) = parsed("probe", "-c", "tiny-ccnet", *options)
    members = sample_scale_sequences(8, seed=4, std=DISTRIBUTION["std"])  # type: ignore[arg-type]
    wanted = shift_report(
        ccnet.model,
        noise_images(2, (1, 32, 32), 4),
        shift_grid(1, Fraction(1, 2)),
        sequences=members,
        seed=4,
        border="circular",
    )
    assert answer["measures"] == json.loads(json.dumps(wanted.as_json()))["measures"]
    assert len(answer["per_shift"]) == 25
    assert answer["protocol"]["fill_means"] == "nothing: no value enters under border circular"


def test_a_report_stands_beside_that_of_another_model() -> None:
    text = said("probe", "--report", "-c", "tiny-ccnet", "-c", "tiny-convnet", "--max-shift", 1, "--samples", 2)
    for shown in ("tiny-ccnet", "tiny-convnet", "feature SNR", "pairwise", "9 shifts"):
        assert shown in text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--report", "--max-shift", "1,2"), ("--report", "1,2")),
        (("--report", "--step", "0"), ("a step that goes into it",)),
        (("--report", "--step", "5"), ("a step that goes into it",)),
        (("--report", "--max-shift", "0"), ("1 px or more",)),
        (("--report", "--step", "1e-30000000"), ("1e-30000000", "0.25")),
        (("--report", "--step", "half"), ("--step half", "1/2")),
        (("--step", "1/2"), ("--report",)),
        (("--border", "wrap"), ("wrap", "circular")),
    ],
)
def test_options_of_a_report_that_cannot_be_are_refused(options: tuple[str, ...], words: tuple[str, ...]) -> None:
    assert_refused(run("probe", "-c", "tiny-convnet", *options), *words)
