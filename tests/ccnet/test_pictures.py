"""Encoded pictures become what a viewer would show, and nothing is decoded that is over a limit."""

import contextlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from ccnet.errors import CcnetError, PictureError, PictureFormatError, PictureSizeError
from ccnet.pictures import decode_picture, read_picture, sniff_format
from tests.service.pictures import PNG_SIGNATURE, encoded, huge_png, png_chunk, webp_on_canvas

MAX_PIXELS = 10_000
RED, BLUE = (255, 0, 0), (0, 0, 255)


def decoded(data: bytes) -> np.ndarray:
    return decode_picture(data, max_pixels=MAX_PIXELS)


def gradient(mode: str = "RGB") -> Image.Image:
    """A picture of 6 x 4 pixels that is different in every corner."""
    values = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3) * 3
    return Image.fromarray(values).convert(mode)


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_colour_is_decoded_exactly(image_format):
    pixels = decoded(encoded(gradient(), image_format, **({"lossless": True} if image_format == "WEBP" else {})))
    np.testing.assert_array_equal(pixels, np.asarray(gradient()))
    assert pixels.dtype == np.uint8


def test_jpeg_is_decoded():
    pixels = decoded(encoded(Image.new("RGB", (16, 8), RED), "JPEG", quality=95))
    assert pixels.shape == (8, 16, 3)
    assert np.abs(pixels.astype(int) - RED).max() <= 3


def test_grey_has_one_channel():
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.testing.assert_array_equal(decoded(encoded(values))[..., 0], values)


def test_one_bit_becomes_black_and_white():
    bits = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(decoded(encoded(bits))[..., 0], bits * np.uint8(255))


def test_sixteen_bit_grey_is_scaled_and_not_clipped():
    values = np.array([[0, 257, 32768], [255, 40000, 65535]], dtype=np.uint16)
    np.testing.assert_array_equal(decoded(encoded(values))[..., 0], [[0, 1, 128], [1, 156, 255]])


def test_sixteen_bit_grey_shows_its_transparent_value_as_white():
    data = struct.pack(">IIBBBBB", 2, 1, 16, 0, 0, 0, 0)
    rows = b"\x00" + struct.pack(">HH", 1000, 2000)
    file = PNG_SIGNATURE + png_chunk(b"IHDR", data) + png_chunk(b"tRNS", struct.pack(">H", 1000))
    file += png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    np.testing.assert_array_equal(decoded(file)[..., 0], [[255, 8]])


def test_sixteen_bit_colour_is_scaled():
    data = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    rows = b"\x00" + struct.pack(">HHH", 65535, 32896, 0)
    file = PNG_SIGNATURE + png_chunk(b"IHDR", data) + png_chunk(b"IDAT", zlib.compress(rows)) + png_chunk(b"IEND", b"")
    np.testing.assert_array_equal(decoded(file), [[[255, 128, 0]]])


def test_palette_becomes_colour():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    np.testing.assert_array_equal(decoded(encoded(image)), [[RED, BLUE]])


def test_transparent_palette_entry_shows_white():
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    np.testing.assert_array_equal(decoded(encoded(image, transparency=0)), [[(255, 255, 255), BLUE]])


@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_transparency_is_laid_over_white(image_format):
    pixels = np.array([[(*RED, 0), (*RED, 255), (0, 0, 0, 128)]], dtype=np.uint8)
    options = {"lossless": True, "exact": True} if image_format == "WEBP" else {}
    shown = decoded(encoded(pixels, image_format, **options))
    np.testing.assert_array_equal(shown[0, :2], [(255, 255, 255), RED])
    np.testing.assert_array_equal(shown[0, 2], (127, 127, 127))


def test_grey_with_alpha_is_laid_over_white_and_stays_grey():
    image = Image.merge("LA", (Image.new("L", (2, 1), 10), Image.fromarray(np.array([[0, 255]], dtype=np.uint8))))
    np.testing.assert_array_equal(decoded(encoded(image)), [[[255], [10]]])


@pytest.mark.parametrize(("mode", "value"), [("L", 10), ("RGB", RED)])
def test_colour_declared_transparent_shows_white(mode, value):
    image = Image.new(mode, (2, 1), value)
    image.putpixel((1, 0), 20 if mode == "L" else BLUE)
    shown = decoded(encoded(image, transparency=value))
    assert (shown[0, 0] == 255).all()
    np.testing.assert_array_equal(np.ravel(shown[0, 1]), np.ravel([20] if mode == "L" else BLUE))


def test_cmyk_jpeg_becomes_red_green_blue():
    cmyk = Image.new("RGB", (16, 16), BLUE).convert("CMYK")
    assert np.abs(decoded(encoded(cmyk, "JPEG", quality=95)).astype(int) - BLUE).max() <= 5


def test_animation_shows_its_first_frame():
    first, second = Image.new("RGB", (3, 2), RED), Image.new("RGB", (3, 2), BLUE)
    for image_format, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = encoded(first, image_format, save_all=True, append_images=[second], **options)
        np.testing.assert_array_equal(decoded(data), np.asarray(first))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("image_format", ["PNG", "WEBP"])
def test_exif_orientation_is_applied(orientation, image_format):
    upright = np.asarray(gradient())
    # EXIF 2.32: the 0th row and column of the stored image are these sides of the upright one.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if image_format == "WEBP" else {}
    np.testing.assert_array_equal(
        decoded(encoded(np.ascontiguousarray(stored), image_format, exif=exif, **options)), upright
    )


def test_unreadable_exif_is_ignored():
    np.testing.assert_array_equal(decoded(encoded(gradient(), exif=b"Exif\x00\x00garbage")), np.asarray(gradient()))


def test_formats_are_told_by_their_bytes():
    assert [sniff_format(encoded(gradient(), name)) for name in ("PNG", "JPEG", "WEBP", "GIF", "BMP")] == [
        "PNG",
        "JPEG",
        "WEBP",
        None,
        None,
    ]


@pytest.mark.parametrize("data", [b"just text", b"\x00" * 100, b"<svg/>", encoded(gradient(), "GIF"), b"RIFF"])
def test_other_bytes_are_no_picture(data):
    with pytest.raises(PictureFormatError, match="PNG, JPEG or WebP"):
        decoded(data)


def test_no_bytes_are_refused():
    with pytest.raises(PictureError, match="no bytes"):
        decoded(b"")


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.9])
def test_truncated_files_are_refused(image_format, kept):
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    data = encoded(noise, image_format)
    with pytest.raises(PictureError, match=r"image 3.*truncated"):
        decode_picture(data[: int(kept * len(data))], name="image 3")


def test_flipped_bytes_never_escape_as_another_error():
    noise = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    dice = np.random.default_rng(2)
    for image_format in ("PNG", "JPEG", "WEBP"):
        good = encoded(noise, image_format)
        for _ in range(100):
            bad = bytearray(good)
            for position in dice.integers(12, len(bad), 4):
                bad[position] ^= int(dice.integers(1, 256))
            with contextlib.suppress(PictureError):
                decoded(bytes(bad))


def test_what_follows_the_end_of_a_file_is_ignored_as_viewers_do():
    for image_format in ("PNG", "WEBP"):
        options = {"lossless": True} if image_format == "WEBP" else {}
        data = encoded(gradient(), image_format, **options)
        np.testing.assert_array_equal(decoded(data + b"trailing garbage"), np.asarray(gradient()))


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000)])
def test_pictures_of_one_row_or_column_keep_their_size(size):
    assert decoded(encoded(Image.new("L", size))).shape == (size[1], size[0], 1)


def test_a_file_is_read_and_what_is_wrong_with_it_is_told_by_its_path(tmp_path):
    path = tmp_path / "shoe.png"
    path.write_bytes(encoded(gradient()))
    np.testing.assert_array_equal(read_picture(path), np.asarray(gradient()))
    path.write_text("This is a text file.")
    with pytest.raises(PictureFormatError, match=r"shoe\.png: the bytes given begin like no PNG"):
        read_picture(path)
    for missing, reason in ((tmp_path / "none.png", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(PictureError, match=f"{missing.name}: {reason}.*give the path of a PNG"):
            read_picture(missing)


def test_every_refusal_is_an_error_of_the_library():
    with pytest.raises(CcnetError):
        decoded(b"")


def test_pixels_are_counted_before_decoding():
    with pytest.raises(PictureSizeError, match=r"200 x 100 = 20,000 pixels.*10,000"):
        decoded(encoded(Image.new("L", (200, 100))))


def test_a_decompression_bomb_is_refused_from_its_header():
    bomb = huge_png()
    assert 90_000 < len(bomb) < 150_000
    with pytest.raises(PictureSizeError, match="pixels"):
        decoded(bomb)


def test_a_header_alone_is_enough_to_refuse():
    header = struct.pack(">IIBBBBB", 101, 100, 8, 0, 0, 0, 0)
    unfinished = PNG_SIGNATURE + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"not even zlib")
    with pytest.raises(PictureSizeError, match="101 x 100"):
        decoded(unfinished)


@pytest.mark.parametrize("side", [101, 20_000, 2**24])
def test_the_canvas_of_a_webp_is_counted_and_not_its_frames(side):
    """An animation may put small frames on a large canvas, which the decoder would allocate."""
    with pytest.raises(PictureSizeError, match="pixels"):
        decoded(webp_on_canvas(side))


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"exif": b"Exif\0\0"}], ids=["lossy", "lossless", "extended"]
)
def test_the_size_of_a_webp_is_checked_before_pillow_opens_it(monkeypatch, options):
    data = encoded(Image.new("RGB", (37, 200)), "WEBP", **options)
    assert decoded(data).shape == (200, 37, 3)
    monkeypatch.setattr(Image, "open", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(PictureSizeError, match="37 x 200 = 7,400"):
        decode_picture(data, max_pixels=7_399)
