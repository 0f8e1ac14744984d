"""What a user may give as images, and that the service will see the very same pixels."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from ccnet import CcnetError
from ccnet.client.images import encode_images, media_type
from ccnet.errors import PictureError, PictureFormatError
from ccnet.pictures import decode_picture
from tests.service.pictures import encoded, grey

RNG = np.random.default_rng(7)
COLOUR = RNG.integers(0, 256, (5, 7, 3), dtype=np.uint8)
GREY = RNG.integers(0, 256, (5, 7), dtype=np.uint8)


def pixels(data: bytes) -> np.ndarray:
    return decode_picture(data)


def seen(images) -> list[np.ndarray]:
    """What the service decodes."""
    return [pixels(data) for data in encode_images(images)]


def test_files_go_as_they_are(tmp_path):
    data = encoded(COLOUR, "JPEG")
    path = tmp_path / "a.anything"
    path.write_bytes(data)
    with path.open("rb") as file:
        given = [path, str(path), data, bytearray(data), memoryview(data), file, io.BytesIO(data)]
        assert encode_images(given) == (data,) * 7
    for one in (path, str(path), data, memoryview(data), io.BytesIO(data)):
        assert encode_images(one) == (data,)


@given(
    arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9))
    | arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9).flatmap(
        lambda shape: st.sampled_from([(*shape, 1), (*shape, 3), (2, *shape, 1), (3, *shape, 3)])
    ))
)  # fmt: skip
def test_arrays_arrive_without_loss(array):
    batch = array if array.ndim == 4 else array[None]
    expected = batch if batch.ndim == 4 else batch[..., None]
    found = seen(array)
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def test_arrays_may_lie_in_memory_as_they_like():
    for array in (COLOUR[::-1, ::2], np.asfortranarray(COLOUR), GREY.T, np.flip(COLOUR, -1)):
        np.testing.assert_array_equal(seen(array)[0].squeeze(), array)


def test_a_list_may_mix_kinds_and_hold_batches_and_be_an_iterator():
    images: list[Any] = [grey(9), np.stack([COLOUR, COLOUR]), Image.fromarray(GREY)]
    assert [one.shape for one in seen(images)] == [(4, 4, 1), (5, 7, 3), (5, 7, 3), (5, 7, 1)]
    assert encode_images(iter(images)) == encode_images(tuple(images)) == encode_images(images)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16", "I", "CMYK", "YCbCr", "HSV", "RGBa"])
def test_pictures_of_every_mode_arrive_as_their_own_file_would(mode):
    picture = Image.fromarray(COLOUR).convert("RGBA" if mode == "RGBa" else "RGB")
    if mode.startswith("I"):
        picture = Image.fromarray(GREY.astype(np.uint16) * 257).convert(mode)
    picture = picture.convert(mode)
    (found,) = seen(picture)
    if mode.startswith("I"):
        expected = GREY[..., None]
    else:
        expected = np.array(picture.convert("L" if mode in ("1", "L", "LA") else "RGB")).reshape(5, 7, -1)
    np.testing.assert_array_equal(found, expected)


def test_transparency_is_left_to_the_service():
    rgba = np.dstack([COLOUR, np.zeros((5, 7), np.uint8)])
    (found,) = seen(Image.fromarray(rgba))
    assert (found == 255).all()


def test_a_picture_just_opened_stands_as_its_file_does_and_a_turned_one_as_it_was_turned(tmp_path):
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(COLOUR).save(path, exif=exif)
    upright = np.rot90(COLOUR, -1)
    with Image.open(path) as picture:
        np.testing.assert_array_equal(seen(path)[0], upright)
        np.testing.assert_array_equal(seen(picture)[0], upright)
        np.testing.assert_array_equal(seen(picture.transpose(Image.Transpose.ROTATE_270))[0], upright)


def test_media_types_follow_the_content():
    kinds = {name: media_type(encoded(COLOUR, name)) for name in ("PNG", "JPEG", "WEBP")}
    assert kinds == {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


@pytest.mark.parametrize("images", [[], (), iter([])])
def test_no_image_is_refused(images):
    with pytest.raises(CcnetError, match="no image was given; give at least one: a path"):
        encode_images(images)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (COLOUR.astype(np.float32), r"image 0: an array of float32 was given; pixels are uint8 .*astype\('uint8'\)"),
        (COLOUR.astype(np.int64), "int64"),
        (GREY > 9, "bool"),
        (GREY[0], r"shape \[7\]"),
        (np.zeros((3, 5, 7), np.uint8), r"shape \[3, 5, 7\].*channels come last, and a batch of grey images"),
        (np.zeros((5, 7, 4), np.uint8), r"shape \[5, 7, 4\]"),
        (np.zeros((2, 3, 5, 7), np.uint8), r"shape \[2, 3, 5, 7\]"),
        (np.zeros((1, 1, 5, 7, 3), np.uint8), r"allowed are \[H, W\]"),
        (np.zeros((0, 5, 7, 3), np.uint8), "has no pixels"),
        (np.zeros((0, 7), np.uint8), "has no pixels"),
        (np.array("x", dtype=object), "object"),
    ],
)
def test_arrays_of_another_type_or_shape_are_refused(array, words):
    with pytest.raises(PictureError, match=words):
        encode_images(array)


def test_the_message_names_the_image_that_is_wrong():
    with pytest.raises(PictureError, match="image 2: an array of float64"):
        encode_images([GREY, grey(1), np.zeros((4, 4))])  # type: ignore[list-item]


def test_files_that_are_none_are_refused(tmp_path):
    with pytest.raises(PictureError, match=r"nowhere\.png: No such file or directory; give the path of a PNG"):
        encode_images("nowhere.png")
    with pytest.raises(PictureError, match="Is a directory"):
        encode_images(tmp_path)
    with pytest.raises(PictureError, match="null"):
        encode_images("a\0b")
    with pytest.raises(PictureFormatError, match="image 1: begins like no PNG"):
        encode_images([grey(1), b"GIF89a..."])
    with pytest.raises(PictureError, match="there are no bytes in it"):
        encode_images(io.BytesIO())
    path = tmp_path / "text.txt"
    path.write_text("hello")
    with path.open() as file, pytest.raises(PictureError, match="open it in binary mode"):
        encode_images(file)


@pytest.mark.parametrize("thing", [None, 5, {"a": b""}, object()])
def test_other_things_are_refused(thing):
    with pytest.raises(PictureError, match=rf"{type(thing).__name__} was given; give a path"):
        encode_images(thing)


def test_pictures_that_cannot_be_encoded_are_refused(tmp_path):
    with pytest.raises(PictureError, match="mode F"):
        encode_images(Image.fromarray(GREY.astype(np.float32)))
    data = encoded(RNG.integers(0, 256, (64, 64, 3), dtype=np.uint8), "JPEG")
    path = Path(tmp_path / "cut.jpg")
    path.write_bytes(data[: len(data) // 2])
    with Image.open(path) as picture, pytest.raises(PictureError, match=r"image 0: .* cannot be encoded as PNG"):
        encode_images(picture)
