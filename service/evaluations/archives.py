"""An uploaded data set: a file -> labelled pictures, nothing of which is believed before it is counted.

    a .zip of pictures   one folder a class, `Sneaker/1.png`; all of them may lie in one folder more
    an .npz of arrays    `images` uint8 [N, H, W] or [N, H, W, C], `labels` whole numbers [N], and maybe `classes`;
                         other arrays beside them are not read

Both are ZIP archives, told apart by what is in them. Nothing is unpacked to the disk, so that no name in the archive
ever becomes a path. Sizes that headers announce are checked first and counted again while reading; pictures are of the
kinds and sizes that requests may hold; arrays are plain numbers and texts, whose shape is checked before they are read.
"""

import errno
import os
import stat
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path

import numpy as np

from ccnet.data import LabelledPictures
from ccnet.errors import DataError
from ccnet.folders import load_npz
from service.errors import Malformed, OptionOutOfRange, TooLarge, UnsupportedImage
from service.images import Pixels, decode_image

FORMS = "a .zip with one folder of PNG, JPEG or WebP pictures for each class, or an .npz with images and labels"
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
IGNORED = ("__MACOSX", "Thumbs.db", "desktop.ini")  # what systems add, beside all that begins with a dot
ARRAY = ".npy"
MAX_CLASSES = 1000
DEEPEST = 3  # folder / class / picture
DIRECTORY_BYTES = 512  # of an archive's list, for each picture that is allowed
ENCRYPTED = 0x1
END_BYTES, MAX_COMMENT_BYTES = 22, 2**16  # of the record at the end of an archive
LOCATOR_BYTES = 20  # of the one before it, in an archive of 64-bit sizes


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may hold.

    Attributes:
        images: Pictures.
        pixels: Of each picture.
        unpacked_bytes: Of all files in the archive when unpacked, and of all pixels when decoded.
    """

    images: int
    pixels: int
    unpacked_bytes: int


def read_archive(path: Path, name: str, limits: Limits) -> LabelledPictures:
    """All pictures of an archive, those of the classes in turn, so that the first N are of all classes.

    Args:
        path: The file.
        name: What the data set is called.
        limits: Of what is in it.

    Raises:
        Malformed: It is no archive, or a damaged one.
        TooLarge: It holds more than allowed.
        UnsupportedImage: Something in it is of a kind that is not taken.
        OptionOutOfRange: A name, array or label that is not allowed. Whether a model knows the classes is not asked.
    """
    _check_directory(path, limits)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive)
            if all(member.filename.endswith(ARRAY) for member in members):
                return _arrays(path, members, name, limits)
            return _pictures(archive, members, name, limits)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, struct.error, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:  # that of a place before the file's beginning
            raise
        raise Malformed(
            f"the data set cannot be read, its archive is damaged ({str(error)[:200]}); send {FORMS}"
        ) from error


class _Budget:
    """Bytes that may still be read."""

    def __init__(self, limits: Limits) -> None:
        self.left, self._most = limits.unpacked_bytes, limits.unpacked_bytes

    def take(self, count: int) -> None:
        """Take so many.

        Raises:
            TooLarge: They are not left.
        """
        self.left -= count
        if self.left < 0:
            raise TooLarge(
                f"the data set has more than {self._most:,} bytes when unpacked; send fewer or smaller pictures"
            )

    def read(self, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
        """A whole file of the archive, counted as it comes."""
        with archive.open(member) as stream:
            data = stream.read(self.left + 1)
        self.take(len(data))
        return data


def _check_directory(path: Path, limits: Limits) -> None:
    """Bound the archive's list of files, all of which `zipfile` keeps in memory, before it is read."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        file.seek(max(0, size - END_BYTES - MAX_COMMENT_BYTES - LOCATOR_BYTES))
        end = file.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < END_BYTES:
        raise UnsupportedImage(f"the part `dataset` is no ZIP archive; send {FORMS}")
    (listed,) = struct.unpack("<I", end[at + 12 : at + 16])
    most = DIRECTORY_BYTES * limits.images
    if listed > most or end[max(0, at - LOCATOR_BYTES) :].startswith(b"PK\x06\x07"):
        raise TooLarge(f"the archive's list of files is too large; at most {limits.images:,} pictures are allowed")


def _members(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The files of an archive whose names and kinds may be there, without folders and what systems add."""
    members = []
    for member in archive.infolist():
        parts = member.filename.split("/")
        if member.is_dir() or any(part in IGNORED or part.startswith("._") for part in parts):
            continue
        _check_member(member, parts)
        if not parts[-1].startswith("."):
            members.append(member)
    for name, times in Counter(member.filename for member in members).items():
        if times > 1:
            raise OptionOutOfRange(f"dataset: {_shown(name)} stands {times} times in the archive; a name stands once")
    if not members:
        raise Malformed(f"the archive holds no picture; send {FORMS}")
    return members


def _check_member(member: zipfile.ZipInfo, parts: Sequence[str]) -> None:
    name = _shown(member.orig_filename)
    kind = stat.S_IFMT(member.external_attr >> 16)
    if member.flag_bits & ENCRYPTED:
        raise UnsupportedImage(f"{name} in the archive is encrypted; send it without a password")
    if kind not in (0, stat.S_IFREG):
        raise OptionOutOfRange(f"dataset: {name} in the archive is a link or another special file; send pictures")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UnsupportedImage(f"{name} in the archive is packed in an uncommon way; stored and deflate are taken")
    odd = not member.orig_filename.isprintable() or "\\" in member.orig_filename
    if odd or any(part in ("", ".", "..") for part in parts):
        raise OptionOutOfRange(
            f"dataset: {name} in the archive; a name is folder/picture.png, of signs that can be seen and slashes, "
            "without empty, . or .. parts"
        )


def _pictures(
    archive: zipfile.ZipFile, members: Sequence[zipfile.ZipInfo], name: str, limits: Limits
) -> LabelledPictures:
    """Pictures in folders that bear the names of classes."""
    if len(members) > limits.images:
        raise TooLarge(f"{len(members):,} pictures are in the archive; at most {limits.images:,} are allowed")
    by_class = _by_class(members)
    classes = tuple(by_class)
    if len(classes) > MAX_CLASSES:
        raise TooLarge(f"{len(classes):,} classes are in the archive; at most {MAX_CLASSES:,} are allowed")
    files, pixels = _Budget(limits), _Budget(limits)
    images: list[Pixels] = []
    numbers: list[int] = []
    names: list[str] = []
    for number, member in _in_turn(list(by_class.values())):
        image = decode_image(files.read(archive, member), limits.pixels, _shown(member.filename))
        pixels.take(image.nbytes)
        images.append(image)
        numbers.append(number)
        names.append(member.filename.encode("utf-8", "backslashreplace").decode())
    labels = np.array(numbers, dtype=np.int64)
    return LabelledPictures(name, "test", tuple(images), labels, classes, "upload", tuple(names))


def _by_class(members: Sequence[zipfile.ZipInfo]) -> dict[str, list[zipfile.ZipInfo]]:
    """The pictures of every class, both in order of their names."""
    shared = len({member.filename.split("/")[0] for member in members}) == 1
    found: dict[str, list[zipfile.ZipInfo]] = {}
    for member in sorted(members, key=lambda member: member.filename):
        parts = member.filename.split("/")
        shown = _shown(member.filename)
        if not parts[-1].lower().endswith(SUFFIXES):
            raise UnsupportedImage(f"{shown} in the archive is no picture; send {FORMS}")
        if not (len(parts) == 2 or (len(parts) == DEEPEST and shared)):
            raise OptionOutOfRange(
                f"dataset: {shown} in the archive; a picture lies in the folder of its class, and these folders at "
                "the top or together in one"
            )
        found.setdefault(parts[-2], []).append(member)
    return dict(sorted(found.items()))


def _in_turn(by_class: Sequence[Sequence[zipfile.ZipInfo]]) -> Iterator[tuple[int, zipfile.ZipInfo]]:
    """The first picture of every class, then the second of every class, and so on, each with its class's number."""
    for turn in zip_longest(*by_class):
        yield from ((number, member) for number, member in enumerate(turn) if member is not None)


def _arrays(path: Path, members: Sequence[zipfile.ZipInfo], name: str, limits: Limits) -> LabelledPictures:
    """Pictures of one size as an array."""
    _Budget(limits).take(sum(member.file_size for member in members))  # a header that lies is refused when it is read
    try:
        dataset = load_npz(path, max_bytes=limits.unpacked_bytes)
    except DataError as error:
        raise OptionOutOfRange(f"dataset: {str(error).replace(str(path), 'the npz file')}") from error
    count, (height, width) = len(dataset), dataset.image_size
    if count > limits.images or height * width > limits.pixels:
        raise TooLarge(
            f"dataset: {count:,} images of {height} x {width} pixels were given; allowed are {limits.images:,} images "
            f"of {limits.pixels:,} pixels"
        )
    return replace(dataset, name=name, source="upload")


def _shown(name: str) -> str:
    """A name from an archive, for a message."""
    return repr(os.fsdecode(os.fsencode(name[:100]))) if name.isprintable() else ascii(name[:100])
