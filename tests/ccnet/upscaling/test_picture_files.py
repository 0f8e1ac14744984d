"""Picture files enlarged into others, and the folder of an upscaler."""

import json
import struct
import zlib
from fractions import Fraction

import numpy as np
import pytest
import torch
from PIL import Image

from ccnet.checkpoint import load_checkpoint, read_config
from ccnet.cli_support import checkpoint_folders
from ccnet.errors import CcnetError, CheckpointError, PictureError, PictureSizeError
from ccnet.upscaling import CCUpscaler, picture_files
from ccnet.upscaling.folder import load_upscaler, save_upscaler, write_upscaler_metrics
from ccnet.upscaling.picture_files import FORMATS, Ensemble, Target, prepare
from ccnet.upscaling.tiles import enlarge
from service.served import visible_folders

PAIR = (Fraction(237, 100), Fraction(8, 5))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CCUpscaler(4, 2).requires_grad_(False).eval()


def written(path, mode, size=(15, 11)):
    channels = len(Image.new(mode, (1, 1)).getbands())
    values = np.random.default_rng(0).integers(0, 256, (*size[::-1], channels), dtype=np.uint8)
    Image.fromarray(values.squeeze(2) if channels == 1 else values, mode).save(path)
    return path


@pytest.mark.filterwarnings("ignore:'mode' parameter is deprecated")
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_a_file_keeps_its_channels_and_holds_what_the_library_computes(model, tmp_path, mode, suffix):
    source, target = written(tmp_path / "in.png", mode), tmp_path / f"out{suffix}"
    prepare(source, target, Target(scale=PAIR)).run(model)
    with Image.open(source) as before, Image.open(target) as after:
        assert after.size == (24, 27)
        assert after.mode == (mode if suffix == ".png" else {"L": "RGB", "LA": "RGBA"}.get(mode, mode))
        pixels = np.asarray(before).reshape(11, 15, -1)
        found = np.asarray(after.convert(mode)).reshape(27, 24, -1)
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None].float() / 255
    expected = (enlarge(model, x, PAIR)[0].permute(1, 2, 0) * 255).round().numpy()
    visible = expected[..., -1:] > 0 if mode in ("LA", "RGBA") else np.ones((27, 24, 1), dtype=bool)
    assert (np.abs(expected - found) * visible).max() <= 1


def test_a_size_is_reached_exactly(model, tmp_path):
    source = written(tmp_path / "in.png", "RGB")
    prepare(source, tmp_path / "out.png", Target(size=(40, 17))).run(model)
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (17, 40)


def test_an_ensemble_of_one_writes_the_plain_file(model, tmp_path):
    source = written(tmp_path / "in.png", "RGB")
    prepare(source, tmp_path / "a.png", Target(scale=PAIR)).run(model)
    counted: list[int] = []
    prepare(source, tmp_path / "b.png", Target(scale=PAIR)).run(model, Ensemble(1), counted.append)
    with Image.open(tmp_path / "a.png") as a, Image.open(tmp_path / "b.png") as b:
        assert np.abs(np.asarray(a, dtype=int) - np.asarray(b, dtype=int)).max() <= 1
    assert sum(counted) == 2 * 27 * 24


def test_a_colour_profile_is_kept(tmp_path):
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.new("RGB", (5, 5)).save(tmp_path / "in.png", icc_profile=profile)
    prepare(tmp_path / "in.png", tmp_path / "out.jpg", Target(scale=(2, 2))).run(None)
    with Image.open(tmp_path / "out.jpg") as picture:
        assert picture.info["icc_profile"] == profile


def sixteen_bit_rgb(path):
    """A PNG that Pillow would read as 8 bits without a word."""
    rows = b"".join(b"\0" + b"\1\2" * 12 for _ in range(4))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
    return path


def test_sixteen_bits_are_refused_and_not_cut(tmp_path):
    Image.fromarray(np.zeros((4, 4), dtype=np.uint16)).save(tmp_path / "grey.png")
    for source in (tmp_path / "grey.png", sixteen_bit_rgb(tmp_path / "rgb.png")):
        with pytest.raises(PictureError, match="16 bits a channel, of which 8 would be lost"):
            prepare(source, tmp_path / "out.png", Target(scale=(2, 2)))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("out.gif", "suffix '.gif'; allowed are .png, .jpg, .jpeg, .webp"),
        ("in.png", "is there already; give another name, or --force"),
        ("nowhere/out.png", "there is no folder"),
        ("folder.png", "is a folder"),
    ],
)
def test_a_target_that_cannot_be_written_is_refused_before_any_work(tmp_path, target, words):
    source = written(tmp_path / "in.png", "RGB")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(CcnetError, match=words):
        prepare(source, tmp_path / target, Target(scale=(2, 2)))


def test_transparency_is_not_written_as_jpeg(tmp_path):
    Image.new("RGBA", (5, 5), (1, 2, 3, 100)).save(tmp_path / "in.png")
    with pytest.raises(PictureError, match="partly transparent, which JPEG cannot say"):
        prepare(tmp_path / "in.png", tmp_path / "out.jpg", Target(scale=(2, 2)))


def test_an_opaque_picture_is_written_as_jpeg_without_its_opacity(tmp_path):
    for mode, plain in (("LA", "L"), ("RGBA", "RGB")):
        with Image.open(written(tmp_path / "plain.png", plain)) as picture:
            picture.convert(mode).save(tmp_path / "opaque.png")
        for name in ("plain", "opaque"):
            prepare(tmp_path / f"{name}.png", tmp_path / f"{name}.jpg", Target(scale=(2, 2)), force=True).run(None)
        assert (tmp_path / "opaque.jpg").read_bytes() == (tmp_path / "plain.jpg").read_bytes()


@pytest.mark.parametrize(
    ("suffix", "side", "words"),
    [
        (".webp", 16_384, "WEBP files have at most 16,383 along a side: use a smaller factor, or write a .png"),
        (".jpg", 65_504, "JPEG files have at most 65,500"),
        (".png", 2**20 + 4, "PNG files have at most 1,048,576 along a side: use a smaller factor$"),
    ],
)
def test_a_side_that_the_format_has_not_is_refused_before_any_work(tmp_path, suffix, side, words):
    Image.new("L", (side // 4, 1)).save(tmp_path / "in.png")
    with pytest.raises(PictureSizeError, match=words):
        prepare(tmp_path / "in.png", tmp_path / f"out{suffix}", Target(scale=(1, 4)))


@pytest.mark.parametrize("suffix", [".webp", ".jpg"])
def test_the_longest_side_of_a_format_is_written(tmp_path, suffix):
    longest = FORMATS[suffix].max_side
    Image.new("L", (-(-longest // 4), 1)).save(tmp_path / "in.png")
    prepare(tmp_path / "in.png", tmp_path / f"out{suffix}", Target(size=(1, longest))).run(None)
    with Image.open(tmp_path / f"out{suffix}") as picture:
        assert picture.size == (longest, 1)


def test_too_many_output_pixels_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_OUTPUT_PIXELS", 600)
    source = written(tmp_path / "in.png", "RGB")
    with pytest.raises(PictureSizeError, match="would become 30 x 22 = 660 pixels; at most 600"):
        prepare(source, tmp_path / "out.png", Target(scale=(2, 2)))


def test_too_large_a_picture_for_an_ensemble_is_refused(model, tmp_path, monkeypatch):
    monkeypatch.setattr(picture_files, "MAX_ENSEMBLE_INPUT_PIXELS", 100)
    job = prepare(written(tmp_path / "in.png", "RGB"), tmp_path / "out.png", Target(scale=(2, 2)))
    with pytest.raises(PictureSizeError, match="15 x 11 pixels were given; an ensemble takes at most 100"):
        job.run(model, Ensemble(2))
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("target", [Target(size=(10, 15)), Target(size=(61, 15)), Target(scale=(5, 1))])
def test_factors_out_of_range_are_refused(tmp_path, target):
    with pytest.raises(CcnetError, match="enlarged by 1 to 4"):
        prepare(written(tmp_path / "in.png", "RGB"), tmp_path / "out.png", target)


def test_an_upscaler_comes_back_as_it_was_saved(model, tmp_path):
    save_upscaler(model, tmp_path / "mine")
    again, config = load_upscaler(tmp_path / "mine")
    x = torch.rand(1, 1, 6, 7)
    assert torch.equal(again(x, PAIR), model(x, PAIR))
    assert config["name"] == "mine"
    assert not again.training
    assert "None yet" in (tmp_path / "mine" / "README.md").read_text()


def test_measurements_go_into_config_and_card(model, tmp_path):
    save_upscaler(model, tmp_path / "mine")
    row = {"factor": "2.37", "seen": False, "bicubic_db": 30.0, "ours_db": 30.5, "difference_db": 0.5}
    metrics = {"pictures": 3, "source": "three", "method": "Sure.", "rows": [row | {"difference_ci95": [0.4, 0.6]}]}
    write_upscaler_metrics(tmp_path / "mine", metrics)
    assert "| 2.37 | no | 30.00 | 30.50 | +0.50 (+0.40 to +0.60) |" in (tmp_path / "mine" / "README.md").read_text()
    load_upscaler(tmp_path / "mine")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "ccnet-checkpoint"}, "an upscaler is ccnet-upscaler version 1"),
        ({"architecture": {"name": "CCNet", "kwargs": {}}}, "not a CCUpscaler's"),
        ({"architecture": {"name": "CCUpscaler", "kwargs": {"width": 10**6}}}, "none above 512"),
        ({"architecture": {"name": "CCUpscaler", "kwargs": {"hidden": [1] * 10**5}}}, "at most 32 numbers in all"),
        ({"name": None}, "'name' is None; it is a text"),
    ],
)
def test_a_config_of_something_else_is_refused(model, tmp_path, change, words):
    save_upscaler(model, tmp_path / "mine")
    path = tmp_path / "mine" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(CheckpointError, match=words):
        load_upscaler(tmp_path / "mine")


def test_the_largest_architecture_that_a_config_may_ask_for_takes_no_memory(model, tmp_path, monkeypatch):
    save_upscaler(model, tmp_path / "mine")
    path = tmp_path / "mine" / "config.json"
    config = json.loads(path.read_text())
    config["architecture"]["kwargs"] |= {"width": 512, "depth": 512}  # 4.8 GB of weights
    path.write_text(json.dumps(config))
    built = []
    reset = CCUpscaler.reset_parameters

    def watched(network):
        built.append(network)
        reset(network)

    monkeypatch.setattr(CCUpscaler, "reset_parameters", watched)
    with pytest.raises(CheckpointError, match="missing of 1032"):
        load_upscaler(tmp_path / "mine")
    assert {parameter.device.type for network in built for parameter in network.parameters()} == {"meta"}


def test_weights_of_another_network_are_refused(model, tmp_path):
    save_upscaler(model, tmp_path / "mine")
    save_upscaler(CCUpscaler(5, 2), tmp_path / "other")
    (tmp_path / "mine" / "model.safetensors").write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="the network of its config needs"):
        load_upscaler(tmp_path / "mine")


def test_an_upscaler_is_no_classifier(model, tmp_path, root, monkeypatch):
    save_upscaler(model, tmp_path / "upscalers" / "mine")
    monkeypatch.setenv("CCNET_CHECKPOINTS", str(tmp_path))
    assert checkpoint_folders() == []
    assert visible_folders(tmp_path) == []
    with pytest.raises(CheckpointError, match="is ccnet-upscaler; what needs a classifier reads"):
        load_checkpoint(tmp_path / "upscalers" / "mine")
    shipped = visible_folders(root / "checkpoints")
    assert shipped == [folder for folder in shipped if read_config(folder)["labels"]]
