"""`ccnet upscale`: a picture into another, training, and what is refused."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.pictures import read_picture
from ccnet.upscaling import CCUpscaler
from ccnet.upscaling.folder import load_upscaler, save_upscaler
from ccnet.upscaling.picture_files import Target, prepare
from tests.ccnet.cli.calls import assert_refused, parsed, run, said


@pytest.fixture
def upscalers(tmp_path, monkeypatch):
    """A folder of checkpoints with an upscaler of random weights in it."""
    torch.manual_seed(0)
    save_upscaler(CCUpscaler(4, 2), tmp_path / "checkpoints" / "upscalers" / "tiny")
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path / "checkpoints"))
    return tmp_path / "checkpoints" / "upscalers"


def test_a_picture_is_enlarged_along_each_axis_as_the_library_does(upscalers, shoes, tmp_path):
    answer = parsed("upscale", shoes[0], tmp_path / "out.png", "--scale", "1.6x2.37")
    assert answer["checkpoint"] == "tiny"
    assert answer["scale"] == ["237/100", "8/5"]
    assert answer["out_size"] == [67, 45]
    model, _ = load_upscaler(upscalers / "tiny")
    prepare(shoes[0], tmp_path / "same.png", Target(scale=(Fraction("2.37"), Fraction("1.6")))).run(model)
    assert (tmp_path / "same.png").read_bytes() == (tmp_path / "out.png").read_bytes()


def test_a_size_is_width_by_height(upscalers, shoes, tmp_path):
    assert "64 x 48 px" in said("upscale", shoes[0], tmp_path / "out.png", "--size", "64x48", "-c", "tiny")
    assert read_picture(tmp_path / "out.png").shape == (48, 64, 1)


def test_bicubic_needs_no_checkpoint(shoes, tmp_path):
    answer = parsed("upscale", shoes[0], tmp_path / "out.png", "--scale", "5/2", "--method", "bicubic")
    assert (answer["out_size"], answer["checkpoint"]) == ([70, 70], None)


@pytest.mark.parametrize("members", ["steps", "views"])
def test_an_ensemble_writes_a_picture(upscalers, shoes, tmp_path, members):
    said(
        "upscale", shoes[0], tmp_path / "out.png", "--scale", 2, "--ensemble", 3, "--members", members,
        "--aggregate", "mean",
    )  # fmt: skip
    assert read_picture(tmp_path / "out.png").shape == (56, 56, 1)


def test_training_makes_an_upscaler_that_can_be_used(tmp_path, shoes):
    rng = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for number in range(8):
        Image.fromarray(rng.integers(0, 256, (30, 40), dtype=np.uint8)).save(tmp_path / "pictures" / f"{number}.png")
    out = tmp_path / "run"
    assert "checkpoint: " in said("upscale", "--train", tmp_path / "pictures", "--out", out, "--steps", 1)
    said("upscale", shoes[0], tmp_path / "out.png", "--scale", 2, "-c", out / "checkpoint")


def test_a_file_that_is_there_is_replaced_only_with_force(shoes, tmp_path):
    before = Path(shoes[1]).read_bytes()
    assert_refused(run("upscale", shoes[0], shoes[1], "--scale", 2, "--method", "bicubic"), "is there already")
    assert Path(shoes[1]).read_bytes() == before
    said("upscale", shoes[0], shoes[1], "--scale", 2, "--method", "bicubic", "--force")
    assert read_picture(shoes[1]).shape == (56, 56, 1)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "either --scale"),
        (["--scale", 2, "--size", "9x9"], "either --scale"),
        (["--scale", "1e9"], "a scale is a factor such as 3"),
        (["--scale", "2x2x2"], "one factor or two"),
        (["--scale", "1/0"], "a scale is a factor"),
        (["--scale", "nan"], "a scale is a factor"),
        (["--scale", "0.5"], "enlarged by 1 to 4"),
        (["--size", "64"], "WIDTHxHEIGHT"),
        (["--size", "64x999999999"], "enlarged by 1 to 4"),
        (["--scale", 2, "--method", "nearest"], "cc or bicubic"),
        (["--scale", 2, "--method", "bicubic", "--ensemble", 2], "no ensemble"),
        (["--scale", 2, "-c", "unknown"], "no upscaler 'unknown'"),
        (["--scale", 2, "--ensemble", 0], "allowed is a whole number"),
        (["--scale", 2, "--train", "folder"], "takes no picture"),
        (["--scale", 2, "--steps", 5], "--steps belongs to --train"),
        (["--scale", 2, "--out", "run"], "--out belongs to --train"),
        (["--scale", 2, "--threads", 1], "--threads belongs to --train"),
        (["--scale", 2, "--fresh"], "--fresh belongs to --train"),
        (["--scale", 2, "--kernel-input", "offset"], "--kernel-input belongs to --train"),
        (["--scale", 2, "--members", "views"], "--members belongs to --ensemble"),
        (["--scale", 2, "--aggregate", "median"], "--aggregate belongs to --ensemble"),
    ],
)
def test_what_cannot_be_right_is_refused(upscalers, shoes, tmp_path, options, words):
    assert_refused(run("upscale", shoes[0], tmp_path / "out.png", *options), words)
    assert not (tmp_path / "out.png").exists()


def test_without_an_upscaler_it_says_how_to_get_one(shoes, tmp_path):
    result = run("upscale", shoes[0], tmp_path / "out.png", "--scale", 2)
    assert_refused(result, "no upscaler in", "--train", "--method bicubic")


@pytest.mark.parametrize(
    "option",
    [["--scale", 2], ["--size", "9x9"], ["--method", "bicubic"], ["--checkpoint", "x"], ["--ensemble", 2],
     ["--members", "views"], ["--aggregate", "mean"], ["--force"], ["--json"]],
)  # fmt: skip
def test_training_takes_no_option_of_enlarging(tmp_path, option):
    assert_refused(run("upscale", "--train", tmp_path, *option), f"--train makes an upscaler and takes no {option[0]};")


def test_without_pictures_it_says_what_to_give():
    assert_refused(run("upscale"), "ccnet upscale in.png out.png --scale 2.37")
