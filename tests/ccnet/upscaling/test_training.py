"""Training pairs, and runs that stop and go on."""

import shutil
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.errors import CcnetError, DataError
from ccnet.stopping import StopRequest
from ccnet.training_state import STATE_FILE
from ccnet.upscaling import training
from ccnet.upscaling.evaluation import FACTORS, compare, compare_ensembles, describe, pair_of, psnr, seen, square
from ccnet.upscaling.folder import load_upscaler
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.pairs import TrainingPairs, read_pictures, reduce
from ccnet.upscaling.recipe import HELD_OUT, UpscalerTraining, training_factors
from ccnet.upscaling.training import train_upscaler


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Nine soft random pictures, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(9):
        noise = Image.fromarray(rng.integers(0, 256, (12, 15, 3), dtype=np.uint8))
        noise.resize((60, 48), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


@pytest.fixture
def config(folder):
    return UpscalerTraining(str(folder), steps=6, batch_size=2, low_size=12, width=4, depth=2, validate_every=4)


def test_factors_near_those_held_out_are_never_trained():
    factors = training_factors(12)
    assert min(factors) > 1
    assert max(factors) == 4
    assert all(abs(s - out) >= Fraction(1, 20) for s in factors for out in HELD_OUT)
    assert {Fraction(2), Fraction(3), Fraction(4), Fraction(5, 2)} <= set(factors)
    assert [describe(factor) for factor in FACTORS if not seen(factor)] == ["1.37", "1.6", "2.37", "3.3", "2.37 x 1.6"]


def test_the_degradation_is_pillows():
    picture = np.random.default_rng(1).integers(0, 256, (40, 50), dtype=np.uint8)
    small = reduce(torch.from_numpy(picture)[None, None].float() / 255, (16, 25))[0, 0]
    theirs = np.asarray(Image.fromarray(picture).resize((25, 16), Image.Resampling.BICUBIC), dtype=float)
    assert np.abs(small.numpy() * 255 - theirs).max() <= 1


def test_pairs_follow_from_seed_and_step_and_have_the_exact_factor(config):
    pairs = TrainingPairs(read_pictures(config.source, 1024), config)
    for step in range(20):
        small, large, scale = pairs.batch(step)
        assert tuple(large.shape[2:]) == tuple(s * n for s, n in zip(scale, small.shape[2:], strict=True))
        assert 0 <= small.min() <= small.max() <= 1
    assert torch.equal(pairs.batch(3)[1], pairs.batch(3)[1])
    assert pairs.batch(3)[1].shape != pairs.batch(4)[1].shape or not torch.equal(pairs.batch(3)[1], pairs.batch(4)[1])


def test_pictures_are_split_as_wholes_and_large_ones_reduced(folder):
    pictures = read_pictures(str(folder), 30)
    assert (len(pictures.training), len(pictures.validation)) == (8, 1)
    assert pictures.training[0].shape == (24, 30)


def test_a_data_set_is_a_source_too(fashion_mnist_dir, monkeypatch):
    monkeypatch.setattr("ccnet.data.FASHION_MNIST_FOLDER", fashion_mnist_dir)
    pictures = read_pictures("fashion-mnist", 1024)
    assert (len(pictures.training), len(pictures.validation)) == (52_500, 7_500)
    small, large, _ = TrainingPairs(pictures, UpscalerTraining("fashion-mnist")).batch(0)
    assert max(large.shape[2:]) <= 28
    assert len(small) == 8


@pytest.mark.parametrize(
    ("sizes", "words"),
    [([], "0 PNG, JPEG or WebP pictures; at least 8"), ([(20, 30)] * 8, "a side of 20 px; at least 24")],
)
def test_too_little_to_learn_from_is_refused(tmp_path, sizes, words):
    for number, size in enumerate(sizes):
        Image.new("L", size).save(tmp_path / f"{number}.png")
    with pytest.raises(DataError, match=words):
        read_pictures(str(tmp_path), 1024)


def test_what_is_neither_folder_nor_data_set_is_refused():
    with pytest.raises(DataError, match="nowhere is no folder, and as a data set: unknown data set"):
        read_pictures("nowhere", 1024)


@pytest.mark.parametrize(
    ("change", "words"),
    [({"steps": 0}, "steps 0"), ({"kernel_input": "both"}, "'both'"), ({"seed": -1}, "seed -1"),
     ({"learning_rate": float("nan")}, "learning_rate nan")],
)  # fmt: skip
def test_numbers_that_make_no_run_are_refused(config, change, words):
    with pytest.raises(CcnetError, match=words):
        replace(config, **change)


def test_a_run_writes_a_checkpoint_that_says_how_it_was_made(config, tmp_path):
    result = train_upscaler(config, tmp_path / "run", checkpoint_dir=tmp_path / "mine", progress=False)
    assert result.finished
    model, written = load_upscaler(tmp_path / "mine")
    assert model.config["width"] == 4
    assert written["training"]["steps"] == 6
    assert written["data"]["validation_pictures"] == 1
    assert [entry["step"] for entry in result.history] == [4, 6]
    card = (tmp_path / "mine" / "README.md").read_text()
    assert "without those nearer than 1/20 to 137/100, 8/5, 237/100, 33/10" in card


def test_a_run_that_was_stopped_goes_on_to_the_same_weights(config, tmp_path, monkeypatch):
    train_upscaler(config, tmp_path / "whole", progress=False)

    class StopsAfter3(StopRequest):
        requested = property(lambda self: self.asked > 3, lambda self, _: None)
        count = 0

        @property
        def asked(self):
            self.count += 1
            return self.count

    monkeypatch.setattr(training, "StopRequest", StopsAfter3)
    first = train_upscaler(config, tmp_path / "parts", progress=False)
    assert (first.finished, first.steps) == (False, 3)
    monkeypatch.setattr(training, "StopRequest", StopRequest)
    assert train_upscaler(config, tmp_path / "parts", progress=False).finished
    a, b = (load_upscaler(tmp_path / name / "checkpoint")[0].state_dict() for name in ("whole", "parts"))
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_a_state_of_another_run_is_refused(config, tmp_path):
    train_upscaler(config, tmp_path, progress=False)
    assert (tmp_path / STATE_FILE).exists()
    with pytest.raises(CcnetError, match=r"of another run .*seed 0 there and 1 here"):
        train_upscaler(replace(config, seed=1), tmp_path, progress=False)
    assert train_upscaler(replace(config, seed=1), tmp_path, resume=False, progress=False).finished


def test_a_state_of_other_pictures_is_refused(config, folder, tmp_path):
    source = tmp_path / "pictures"
    shutil.copytree(folder, source)
    config = replace(config, source=str(source))
    train_upscaler(config, tmp_path / "run", progress=False)
    with Image.open(source / "3.png") as picture:
        changed = np.asarray(picture).copy()
    changed[7, 5] ^= 64
    Image.fromarray(changed).save(source / "3.png")
    with pytest.raises(CcnetError, match=r"a run on other pictures than .* holds now; put them back"):
        train_upscaler(config, tmp_path / "run", progress=False)
    assert train_upscaler(config, tmp_path / "run", resume=False, progress=False).finished


def test_a_run_says_what_its_smallest_picture_leaves_out(folder, config, tmp_path, capfd):
    for path in folder.iterdir():
        shutil.copy(path, tmp_path)
    with Image.open(tmp_path / "0.png") as picture:
        picture.crop((0, 0, 30, 40)).save(tmp_path / "0.png")
    train_upscaler(replace(config, source=str(tmp_path)), tmp_path / "run", progress=True)
    every = training_factors(12)
    left_out = sum(s.numerator > 30 for s in every)
    said = "8 pictures to train on, 1 held back; patches of at most 30 px, the smallest side of any of them, which"
    assert f"{said} leaves out {left_out} of {len(every)} factors" in capfd.readouterr().out


def test_psnr_leaves_the_border_out_and_knows_its_decibels():
    truth = torch.full((1, 1, 20, 20), 100 / 255)
    wrong = truth.clone()
    wrong[:, :, 0] = 1.0
    assert psnr(wrong, truth, square("3.3")) > 100
    assert psnr(truth + 1 / 255, truth, square("2")) == pytest.approx(48.1308, abs=1e-3)


def test_pairs_of_a_comparison_have_the_same_borders():
    large, small = pair_of(np.zeros((300, 700), dtype=np.uint8), (Fraction("2.37"), Fraction("1.6")))
    assert large.shape == (1, 1, 237, 400)
    assert small.shape == (1, 1, 100, 250)
    with pytest.raises(CcnetError, match="shorter than the period of factor 237/100, 237 px"):
        pair_of(np.zeros((300, 200), dtype=np.uint8), square("2.37"))


def test_a_comparison_of_a_network_without_residual_finds_no_difference():
    model = CCUpscaler(4, 2).requires_grad_(False)
    for parameter in (*model.last.kernel.last.parameters(), *model.last.parameters(recurse=False)):
        parameter.zero_()
    picture = np.random.default_rng(0).integers(0, 256, (48, 48), dtype=np.uint8)
    found = compare(model, {"noise": picture}, [square("2"), square("1.6")], source="noise")
    assert [row["difference_db"] for row in found["rows"]] == [0.0, 0.0]
    assert [row["difference_ci95"] for row in found["rows"]] == [[0.0, 0.0]] * 2
    views = compare_ensembles(model, {"noise": picture}, [square("2")], sizes=(2,))
    assert [row["members"] for row in views["rows"]] == ["steps", "steps", "views", "views"]
    assert [row["difference_db"] for row in views["rows"][2:]] == pytest.approx([0, 0], abs=1e-3)
