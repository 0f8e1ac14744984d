"""Uploaded data sets that mean no good: every limit holds, nothing is written, and what is said is clear."""

import io
import stat
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.errors import Malformed, OptionOutOfRange, ServiceError, TooLarge, UnsupportedImage
from service.evaluations.archives import Limits, read_archive
from tests.service.pictures import grey, huge_png

LIMITS = Limits(images=10, pixels=1000, unpacked_bytes=100_000)


@pytest.fixture
def read(tmp_path) -> Callable[..., object]:
    """Reads an archive from a folder that holds nothing but it, and still does afterwards."""

    def reader(data: bytes, limits: Limits = LIMITS) -> object:
        path = tmp_path / "upload"
        path.write_bytes(data)
        try:
            return read_archive(path, "set", limits)
        finally:
            assert list(tmp_path.iterdir()) == [path]

    return reader


def packed(*members: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    stream = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(stream, "w", method) as archive:
        warnings.simplefilter("ignore")  # about names that stand twice
        for name, data in members:
            archive.writestr(name, data)
    return stream.getvalue()


def special(name: str, mode: int) -> zipfile.ZipInfo:
    member = zipfile.ZipInfo(name)
    member.external_attr = mode << 16
    return member


def array(shape: tuple[int, ...], data: bytes = b"", descr: str = "|u1") -> bytes:
    """An .npy file that announces what it wants."""
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape!r}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def patched(data: bytes, signature: bytes, offset: int, value: bytes) -> bytes:
    """An archive with a header that lies."""
    at = data.rindex(signature) + offset
    return data[:at] + value + data[at + len(value) :]


BOMB = packed(("a/1.png", bytes(10_000_000)))
CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"
LABELS = ("labels.npy", array((2,), bytes(16), "<i8"))


def test_folders_may_lie_in_one_and_what_systems_add_is_left_out(read):
    dataset = read(
        packed(
            ("shoes/", b""), ("shoes/boot/1.png", grey(1)), ("shoes/boot/.DS_Store", b"x"),
            ("__MACOSX/shoes/boot/._1.png", b"x"), ("shoes/sandal/b.PNG", grey(3)), ("shoes/sandal/a.jpg", grey(2)),
        )
    )  # fmt: skip
    assert dataset.classes == ("boot", "sandal")
    assert [int(image[0, 0, 0]) for image in dataset.images] == [1, 2, 3]
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.files == ("shoes/boot/1.png", "shoes/sandal/a.jpg", "shoes/sandal/b.PNG")


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b"", UnsupportedImage, "no ZIP archive"),
        (b"GIF89a" + bytes(100), UnsupportedImage, "no ZIP archive"),
        (packed(), Malformed, "no picture"),
        (packed(("a/1.png", grey(1)))[:-30], UnsupportedImage, "no ZIP archive"),
        (packed(("a/1.png", grey(1)), method=zipfile.ZIP_STORED).replace(b"IDAT", b"XXXX"), Malformed, "damaged"),
        (packed(("../1.png", grey(1))), OptionOutOfRange, "without empty, . or .. parts"),
        (packed(("/etc/1.png", grey(1))), OptionOutOfRange, "without empty, . or .. parts"),
        (packed(("a/../b/1.png", grey(1))), OptionOutOfRange, "without empty, . or .. parts"),
        (packed(("a\\1.png", grey(1))), OptionOutOfRange, "seen and slashes"),
        (packed(("a/\n1.png", grey(1))), OptionOutOfRange, "seen and slashes"),
        (packed(("1.png", grey(1))), OptionOutOfRange, "in the folder of its class"),
        (packed(("a/b/c/d/1.png", grey(1))), OptionOutOfRange, "in the folder of its class"),
        (packed(("a/b/1.png", grey(1)), ("c/d/1.png", grey(1))), OptionOutOfRange, "together in one"),
        (packed(("a/1.png", grey(1)), ("a/1.png", grey(2))), OptionOutOfRange, "2 times"),
        (packed(("a/1.txt", b"text")), UnsupportedImage, "'a/1.txt' in the archive is no picture"),
        (packed(("a/1.zip", BOMB)), UnsupportedImage, "no picture"),
        (packed(("a/1.png", BOMB)), UnsupportedImage, "begin like no PNG"),
        (packed(("a/1.png", b"\x89PNG\r\n\x1a\n")), Malformed, "damaged or truncated"),
        (packed((special("a/1.png", stat.S_IFLNK | 0o777), b"/etc/passwd")), OptionOutOfRange, "a link"),
        (packed((special("a/1.png", stat.S_IFIFO), b"")), OptionOutOfRange, "special file"),
        (packed(("a/1.png", grey(1)), method=zipfile.ZIP_LZMA), UnsupportedImage, "uncommon"),
        (patched(packed(("a/1.png", grey(1))), CENTRAL, 8, b"\x01\x00"), UnsupportedImage, "encrypted"),
        (packed(*((f"a/{number}.png", grey(1)) for number in range(11))), TooLarge, "11 pictures"),
        (BOMB, TooLarge, "100,000 bytes when unpacked"),
        (patched(BOMB, CENTRAL, 24, struct.pack("<I", 10)), Malformed, "damaged"),
        (packed(("a/1.png", huge_png(1000))), TooLarge, "at most 1,000"),
        (packed(("a/1.png", grey(1)), ("a/2.png", huge_png(1000))), TooLarge, "at most 1,000"),
        (patched(packed(("a/1.png", grey(1))), END, 12, b"\xff\xff\xff\xff"), TooLarge, "list of files"),
        (patched(packed(("a/1.png", grey(1))), END, 16, b"\xff\xff\xff\x0f"), Malformed, "damaged"),
    ],
)  # fmt: skip
def test_archives_that_are_not_as_they_should_be_are_refused(read, data, kind, words):
    with pytest.raises(ServiceError) as refusal:
        read(data)
    assert type(refusal.value) is kind, refusal.value
    assert words in refusal.value.detail


@pytest.mark.parametrize(
    ("members", "kind", "words"),
    [
        ([("images.npy", array((2, 4, 4), bytes(32)))], OptionOutOfRange, "labels.npy"),
        ([("images.npy", array((2, 4, 4), bytes(31))), LABELS], OptionOutOfRange, "does not hold as many"),
        ([("images.npy", array((2, 4, 4), bytes(33))), LABELS], OptionOutOfRange, "does not hold as many"),
        ([("images.npy", array((10**12, 4, 4))), LABELS], OptionOutOfRange, "announces"),
        ([("images.npy", array((-2, 4, 4), bytes(32))), LABELS], OptionOutOfRange, "negative"),
        ([("images.npy", array((2, 4, 4), bytes(256), "<f8")), LABELS], OptionOutOfRange, "float64"),
        ([("images.npy", array((2, 4, 4), bytes(256), "|O")), LABELS], OptionOutOfRange, "object"),
        ([("images.npy", array((2, 40, 40), bytes(3200))), LABELS], TooLarge, "40 x 40"),
        ([("images.npy", array((11, 1, 1), bytes(11))), ("labels.npy", array((11,), bytes(11)))], TooLarge, "11 im"),
        ([("images.npy", array((2, 4, 4), bytes(10_000_000))), LABELS], TooLarge, "when unpacked"),
        ([("images.npy", b"not an array"), LABELS], OptionOutOfRange, "cannot be read"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_as_they_should_be_are_refused(read, members, kind, words):
    with pytest.raises(ServiceError) as refusal:
        read(packed(*members))
    assert type(refusal.value) is kind, refusal.value
    assert words in refusal.value.detail
    assert "/" not in refusal.value.detail.replace("image/", "").split("needed is")[0]  # no path of this machine


def test_pickles_are_not_read(read, tmp_path_factory):
    path = tmp_path_factory.mktemp("arrays") / "set.npz"
    np.savez(path, images=np.zeros((1, 4, 4), np.uint8), labels=np.array([{"a": 1}], dtype=object))
    with pytest.raises(OptionOutOfRange, match="object"):
        read(path.read_bytes())


def test_other_arrays_beside_those_of_a_data_set_are_not_read(read):
    images = ("images.npy", array((2, 4, 4), bytes(32)))
    dataset = read(packed(images, LABELS, ("more.npy", b"no array at all")))
    assert (len(dataset.images), dataset.classes) == (2, read(packed(images, LABELS)).classes)
    with pytest.raises(OptionOutOfRange, match=r"images\.npy"):
        read(packed(("more.npy", b"alone")))


def test_all_pixels_together_are_bounded(read):
    with pytest.raises(TooLarge, match="when unpacked"):
        read(packed(*((f"a/{number}.png", grey(1, 30)) for number in range(10))), Limits(10, 1000, 5000))


def test_mutated_archives_never_do_anything_but_be_read_or_refused(read):
    sound = packed(("a/1.png", grey(1)), ("b/2.png", grey(2)))
    rng = np.random.default_rng(5)
    refused = 0
    for _ in range(300):
        mutated = bytearray(sound)
        for at in rng.integers(0, len(sound), rng.integers(1, 6)):
            mutated[at] = rng.integers(0, 256)
        try:
            read(bytes(mutated))
        except ServiceError:
            refused += 1
    assert refused > 100


def test_a_list_of_files_too_long_is_refused_before_it_is_read(read, monkeypatch):
    monkeypatch.setattr(zipfile, "ZipFile", None)
    many = b"".join(zlib.compress(bytes([number])) for number in range(10)) + b"PK\x06\x07" + bytes(16)
    with pytest.raises(TooLarge, match="list of files"):
        read(many + END + bytes(18))


def test_the_fixture_would_notice_a_file_left_behind(tmp_path):
    (tmp_path / "other").touch()
    assert [path.name for path in Path(tmp_path).iterdir()] == ["other"]
