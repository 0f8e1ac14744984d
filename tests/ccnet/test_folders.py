"""Pictures of one's own: what is read, in which order, and what is refused before it costs anything."""

import io
import json
import math
import os
import struct
import tracemalloc
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ccnet.errors import DataError
from ccnet.folders import load_class_folders, load_npz

PIXELS = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
LABELS = np.array([1, 0, 1, 2])


def saved(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def folders(root: Path, **classes: list[tuple[int, int]]) -> Path:
    """Pictures of these (width, height) in a folder for each class; the value of a pixel tells them apart."""
    value = 0
    for name, sizes in classes.items():
        (root / name).mkdir(parents=True)
        for index, size in enumerate(sizes):
            Image.new("L", size, value).save(root / name / f"{index}.png")
            value += 1
    return root


def test_an_npz_file_is_read_with_and_without_channels_and_names(tmp_path) -> None:
    plain = load_npz(saved(tmp_path / "mine.npz", images=PIXELS, labels=LABELS))
    np.testing.assert_array_equal(plain.images, PIXELS[..., None])
    assert plain.labels.tolist() == [1, 0, 1, 2]
    assert (plain.name, plain.split, plain.classes) == ("mine", "test", ("0", "1", "2"))
    colour = np.repeat(PIXELS[..., None], 3, axis=3)
    named = load_npz(
        saved(
            tmp_path / "named.npz",
            images=np.asfortranarray(colour),
            labels=LABELS.astype(np.uint8),
            classes=["a", "b", "ü"],
        )
    )
    np.testing.assert_array_equal(named.images, colour)
    assert named.classes == ("a", "b", "ü")
    np.savez_compressed(tmp_path / "small.npz", images=PIXELS, labels=LABELS)
    np.testing.assert_array_equal(load_npz(str(tmp_path / "small.npz")).images, plain.images)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"labels": LABELS}, "holds no .*images.npy"),
        ({"images": PIXELS}, "holds no .*labels.npy"),
        ({"images": PIXELS.astype(np.int16), "labels": LABELS}, "images are int16"),
        ({"images": PIXELS[0], "labels": LABELS}, r"images are uint8 \[5, 6\]"),
        ({"images": np.zeros((4, 5, 6, 2), np.uint8), "labels": LABELS}, "C = 1 or 3"),
        ({"images": PIXELS, "labels": LABELS[:3]}, "4 images need int64"),
        ({"images": PIXELS, "labels": LABELS - 1}, "labels run from -1"),
        ({"images": PIXELS, "labels": LABELS + 10_000}, "below 10,000"),
        ({"images": PIXELS, "labels": LABELS.astype(float)}, "arrays of whole numbers"),
        ({"images": PIXELS, "labels": LABELS[:, None]}, r"labels are int64 \[4, 1\]"),
        ({"images": PIXELS, "labels": np.array([None] * 4)}, "labels is object"),
        ({"images": PIXELS, "labels": LABELS, "classes": [1, 2, 3]}, "allowed is text"),
        ({"images": PIXELS, "labels": LABELS, "classes": ["a", "b"]}, "labels run from 0 to 2"),
        ({"images": PIXELS, "labels": LABELS, "classes": ["a", "b", "a"]}, "named twice"),
        ({"images": PIXELS, "labels": LABELS, "classes": ["a", "b", "c\n"]}, "no name of a class"),
        ({"images": PIXELS, "labels": LABELS, "classes": ["a", "b", ""]}, "no name of a class"),
        ({"images": PIXELS[:0], "labels": LABELS[:0]}, "holds no image"),
    ],
    ids=str,
)
def test_other_arrays_are_refused(tmp_path, arrays, words) -> None:
    with pytest.raises(DataError, match=words):
        load_npz(saved(tmp_path / "mine.npz", **arrays))


def test_files_that_are_no_npz_are_refused(tmp_path) -> None:
    good = saved(tmp_path / "good.npz", images=PIXELS, labels=LABELS).read_bytes()
    for name, content in (
        ("cut", good[:200]),
        ("empty", b""),
        ("text", b"images"),
        ("flipped", good[:80] + b"\xff" * 40 + good[120:]),
    ):
        (tmp_path / f"{name}.npz").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_npz(tmp_path / f"{name}.npz")
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(tmp_path / "missing.npz")


def header(shape: tuple[int, ...], descr: str = "|u1") -> bytes:
    text = json.dumps({"descr": descr, "fortran_order": False, "shape": 0}).replace('"shape": 0', f'"shape": {shape}')
    padded = text.replace("false", "False").ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(padded)) + padded.encode()


@pytest.mark.parametrize(
    ("shape", "words"),
    [
        ((2**40, 28, 28), "announces"),
        ((2**20, 28, 28), "does not hold as many|announces"),
        ((1, 28, 28), "not hold as many"),
    ],
)
def test_a_header_that_lies_costs_no_memory(tmp_path, shape, words) -> None:
    path = tmp_path / "lies.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", header(shape) + bytes(10))
        archive.writestr("labels.npy", header((1,)) + bytes(1))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words):
            load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "text",
    ["{'descr': (", "{'descr': ()", "{1: 2, 'a': 3}", "{[]: 1}", "", "7", "{" * 500, "{'descr': 1/0}", "\x00"],
    ids=lambda text: text[:16] or "nothing",
)
@pytest.mark.parametrize("fields", [False, True], ids=["alone", "among fields"])
def test_a_header_that_describes_no_array_is_refused(tmp_path, text, fields) -> None:
    if fields:
        text = f"{{'descr': {text}, 'fortran_order': False, 'shape': (1,)}}"
    path = tmp_path / "none.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode())
    with pytest.raises(DataError, match="cannot be read"):
        load_npz(path)


@pytest.mark.parametrize(
    ("images", "labels", "classes", "words"),
    [
        ((1_000_001, 1, 1), (1_000_001,), None, r"images \[1000001, 1, 1\] announces 1,000,001 rows"),
        ((1, 1, 1), (2**30,), None, "labels .* announces 1,073,741,824 rows; at most 1,000,000"),
        ((1, 1, 1), (1,), 10_001, "classes .* announces 10,001 rows; at most 10,000"),
        ((1, 0, 4), (1,), None, "none of H, W and C 0"),
        ((1, 4, 4, 0), (1,), None, "none of H, W and C 0"),
    ],
)
def test_more_pictures_labels_or_classes_than_are_allowed_are_refused_by_their_headers(
    tmp_path, images, labels, classes, words
) -> None:
    path = tmp_path / "many.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header(images) + bytes(math.prod(images)))
        archive.writestr("labels.npy", header(labels) + bytes(min(math.prod(labels), 2**20)))
        if classes:
            stream = io.BytesIO()
            np.save(stream, np.array([str(number) for number in range(classes)]))
            archive.writestr("classes.npy", stream.getvalue())
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=words):
            load_npz(path)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()


def test_more_bytes_than_announced_are_not_read(tmp_path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("images.npy", header((1, 4, 4)) + bytes(50_000_000))
        archive.writestr("labels.npy", header((1,)) + bytes(1))
    with pytest.raises(DataError, match="announces 16 bytes and does not hold as many"):
        load_npz(path)
    with pytest.raises(DataError, match="at most 15 are read"):
        load_npz(path, max_bytes=15)


def test_class_folders_are_read_with_a_picture_of_each_class_in_turn(tmp_path) -> None:
    root = folders(tmp_path / "set", cat=[(4, 3), (4, 3), (9, 9)], dog=[(5, 5)])
    (root / ".hidden").mkdir()
    (root / "cat" / ".DS_Store").write_text("x")
    (root / "LICENSE.txt").write_text("free")
    found = load_class_folders(root)
    assert found.classes == ("cat", "dog")
    assert found.labels.tolist() == [0, 1, 0, 0]
    assert [image.shape for image in found.images] == [(3, 4, 1), (5, 5, 1), (3, 4, 1), (9, 9, 1)]
    assert [int(image[0, 0, 0]) for image in found.images] == [0, 3, 1, 2]
    assert (found.name, found.split, len(found)) == ("set", "test", 4)
    assert found.first(2).labels.tolist() == [0, 1]


def test_pictures_keep_the_names_of_their_files(tmp_path) -> None:
    root = folders(tmp_path / "set", cat=[(4, 3), (4, 3)], dog=[(5, 5)])
    odd = os.fsencode(root / "dog") + b"/1\xff.png"
    os.rename(root / "dog" / "0.png", odd)
    found = load_class_folders(root)
    assert found.files == ("cat/0.png", "dog/1\\udcff.png", "cat/1.png")
    assert found.first(2).files == found.files[:2]
    with pytest.raises(DataError, match="2 files are named; 3 images"):
        replace(found, files=found.files[:2])


def test_folders_that_cannot_be_right_are_refused(tmp_path) -> None:
    with pytest.raises(DataError, match="No such file"):
        load_class_folders(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no folder"):
        load_class_folders(tmp_path / "empty")
    (tmp_path / "bare" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="holds no image"):
        load_class_folders(tmp_path / "bare")
    beside = folders(tmp_path / "beside", cat=[(2, 2)])
    Image.new("L", (2, 2)).save(beside / "lost.png")
    with pytest.raises(DataError, match=r"lost\.png lies beside the folders"):
        load_class_folders(beside)
    nested = folders(tmp_path / "nested", cat=[(2, 2)])
    (nested / "cat" / "more").mkdir()
    with pytest.raises(DataError, match="more is no file"):
        load_class_folders(nested)
    broken = folders(tmp_path / "broken", cat=[(2, 2)])
    (broken / "cat" / "note.txt").write_text("no picture")
    with pytest.raises(DataError, match=r"note\.txt: the bytes given begin like no PNG"):
        load_class_folders(broken)


def test_links_are_refused_wherever_they_lead(tmp_path) -> None:
    (tmp_path / "secret.png").write_bytes(b"x")
    for place in ("cat/link.png", "link"):
        root = folders(tmp_path / place.replace("/", "-"), cat=[(2, 2)])
        (root / place).symlink_to(tmp_path / "secret.png")
        with pytest.raises(DataError, match="links are not followed"):
            load_class_folders(root)


def test_pictures_are_bounded_by_pixels_and_together_by_bytes(tmp_path) -> None:
    root = folders(tmp_path / "set", cat=[(30, 20), (30, 20)])
    with pytest.raises(DataError, match="30 x 20 = 600 pixels"):
        load_class_folders(root, max_pixels=599)
    with pytest.raises(DataError, match="more than 1,199 bytes"):
        load_class_folders(root, max_bytes=1199)
    assert len(load_class_folders(root, max_pixels=600, max_bytes=1200)) == 2


def test_colour_and_grey_may_stand_side_by_side(tmp_path) -> None:
    root = folders(tmp_path / "set", cat=[(3, 3)])
    stream = io.BytesIO()
    Image.new("RGB", (4, 4), (9, 8, 7)).save(stream, "JPEG")
    (root / "cat" / "1.jpg").write_bytes(stream.getvalue())
    assert [image.shape[2] for image in load_class_folders(root).images] == [1, 3]
