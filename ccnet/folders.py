"""Labelled pictures of one's own: an npz file of arrays, or a folder with one folder of pictures for each class.

    npz       `images` uint8 [N, H, W] or [N, H, W, C], `labels` whole numbers [N], and, if there, `classes`, their
              names; without them classes are called by their numbers
    folder    FOLDER/CLASS/PICTURE: each folder inside is a class and bears its name; what it holds are PNG, JPEG or
              WebP files of any size

What is announced is bounded before it is read: an array by the shape in its header, a picture by that in its own.
Nothing that is not an array of numbers or of text, or not a picture, is opened as anything else.
"""

import lzma
import os
import tokenize
import zipfile
import zlib
from itertools import zip_longest
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from ccnet.data import ImageDataset, LabelledPictures
from ccnet.errors import DataError, PictureError
from ccnet.pictures import MAX_PIXELS, read_picture

MAX_BYTES = 2**30  # of pixels in memory, however they come
MAX_PICTURES = 1_000_000
MAX_CLASSES = 10_000
MAX_NAME = 200  # characters
MAX_FILE_BYTES = 64 * 2**20  # of one encoded picture
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
_NO_HEADER = (
    ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, SyntaxError, TypeError,
    tokenize.TokenError,
)  # fmt: skip
_UNREADABLE = (
    OSError, ValueError, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error, lzma.LZMAError,
    zipfile.BadZipFile,
)  # fmt: skip


def load_npz(path: Path | str, *, max_bytes: int = MAX_BYTES) -> ImageDataset:
    """Read pictures of one size.

    Args:
        path: an npz file with `images`, `labels` and perhaps `classes`; see the module.
        max_bytes: most bytes of any array, by its header and by what it holds.

    Returns:
        The data set, named after the file, as the split "test".

    Raises:
        DataError: no such file, a damaged one, arrays of another kind, or more than is allowed.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            images, labels = (_array(archive, name, max_bytes, MAX_PICTURES) for name in ("images", "labels"))
            named = "classes.npy" in archive.namelist()
            classes = _array(archive, "classes", max_bytes, MAX_CLASSES) if named else None
    except _UNREADABLE as error:
        reason = f"it holds no {error.args[0]}" if isinstance(error, KeyError) else str(error)
        raise DataError(
            f"{path} cannot be read ({reason}); needed is an npz file with images uint8 [N, H, W] or [N, H, W, C], "
            "labels [N] and perhaps classes"
        ) from error
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape[1:]:
        raise DataError(
            f"{path}: images are {images.dtype} {list(images.shape)}; allowed are uint8 [N, H, W] or [N, H, W, C], "
            "none of H, W and C 0"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1 or (len(labels) and labels.max() >= MAX_CLASSES):
        raise DataError(
            f"{path}: labels are {labels.dtype} {list(labels.shape)}; allowed are whole numbers [N] below "
            f"{MAX_CLASSES:,}"
        )
    pixels: NDArray[np.uint8] = images if images.ndim == 4 else images[..., None]
    names = _class_names(path, classes, labels)
    return ImageDataset(path.stem, "test", pixels, labels.astype(np.int64), names, str(path))


def load_class_folders(
    path: Path | str, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES
) -> LabelledPictures:
    """Read a folder that holds one folder of pictures for each class, whose name it bears.

    Pictures stand in the order first of each class, second of each class, and so on, so that the first of them hold all
    classes. Files and folders whose names begin with a dot are left out; links are refused.

    Args:
        path: the folder.
        max_pixels: most pixels of a picture, by its header.
        max_bytes: most bytes of all decoded pictures together.

    Returns:
        The data set, named after the folder, as the split "test".

    Raises:
        DataError: no such folder, no picture, a file that is no picture, or more than is allowed.
    """
    folder = Path(path)
    names = [entry.name for entry in _entries(folder) if _is_class(entry)]
    if not names:
        raise DataError(f"{folder} holds no folder; give each class one folder of pictures, with the class's name")
    if len(names) > MAX_CLASSES:
        raise DataError(f"{folder} holds {len(names):,} folders; at most {MAX_CLASSES:,} classes are allowed")
    classes = _names(folder, names)
    files = [[(label, file) for file in _pictures(folder / name)] for label, name in enumerate(names)]
    ordered = [found for turn in zip_longest(*files) for found in turn if found is not None]
    if len(ordered) > MAX_PICTURES:
        raise DataError(f"{folder} holds {len(ordered):,} files; at most {MAX_PICTURES:,} pictures are allowed")
    images, total = [], 0
    for _, file in ordered:
        images.append(_picture(file, max_pixels))
        total += images[-1].nbytes
        if total > max_bytes:
            raise DataError(
                f"{folder}: its pictures hold more than {max_bytes:,} bytes; scale them down, or give fewer"
            )
    labels = np.array([label for label, _ in ordered], dtype=np.int64)
    shown = tuple(_shown(file.relative_to(folder)) for _, file in ordered)
    return LabelledPictures(folder.resolve().name, "test", tuple(images), labels, classes, str(folder), shown)


def _array(archive: zipfile.ZipFile, name: str, max_bytes: int, most: int) -> NDArray[Any]:
    """One array of at most `most` rows: the header is read first, and no more bytes than it may and does announce."""
    with archive.open(f"{name}.npy") as stream:
        shape, fortran, dtype = _header(stream, name)
        if dtype.hasobject or dtype.kind not in "iuU":
            raise ValueError(f"{name} is {dtype}; arrays of whole numbers and of text are read")
        if min(shape, default=0) < 0:
            raise ValueError(f"{name} {list(shape)} has a negative size")
        if shape and shape[0] > most:
            raise ValueError(f"{name} {list(shape)} announces {shape[0]:,} rows; at most {most:,} are read")
        announced = dtype.itemsize
        for size in shape:
            announced *= size
        if announced > max_bytes:
            raise ValueError(f"{name} {list(shape)} announces {announced:,} bytes; at most {max_bytes:,} are read")
        payload = stream.read(announced + 1)
    if len(payload) != announced:
        raise ValueError(f"{name} announces {announced:,} bytes and does not hold as many")
    array = np.frombuffer(payload, dtype=dtype)
    return array.reshape(shape, order="F" if fortran else "C").copy()


def _header(stream: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """(shape, whether the first index runs fastest, type) of an array.

    Raises:
        ValueError: it is no header. numpy evaluates it as a literal and trusts what it finds: much else is raised then.
    """
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{name} is written in version {version} of the format; 1.0 and 2.0 are read")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    try:
        return read(stream)
    except _NO_HEADER as error:
        raise ValueError(f"the header of {name} describes no array: {error}") from error


def _class_names(path: Path, classes: NDArray[Any] | None, labels: NDArray[Any]) -> tuple[str, ...]:
    if classes is None:
        return tuple(str(index) for index in range(int(labels.max()) + 1)) if len(labels) else ()
    if classes.dtype.kind != "U" or classes.ndim != 1:
        raise DataError(f"{path}: classes are {classes.dtype} {list(classes.shape)}; allowed is text, one name a class")
    try:
        return _names(path, [str(name) for name in classes])
    except ValueError as error:
        raise DataError(f"{path}: the names of the classes are no text ({error})") from error


def _shown(file: Path) -> str:
    """A name that can be written down: names of files may be any bytes."""
    return "/".join(file.parts).encode("utf-8", "backslashreplace").decode()


def _names(source: Path, names: list[str]) -> tuple[str, ...]:
    """The names of classes, each once, text that can be written down.

    Raises:
        DataError: they are not.
    """
    for name in names:
        if not name or len(name) > MAX_NAME or not name.isprintable():  # surrogates are not printable
            raise DataError(
                f"{source}: {name!a} is no name of a class; allowed are 1 to {MAX_NAME} printable characters"
            )
    if len(set(names)) < len(names):
        raise DataError(f"{source}: a class is named twice; give each a name of its own")
    return tuple(names)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """What a folder holds, by name, without what is hidden.

    Raises:
        DataError: it cannot be read, or holds a link.
    """
    try:
        with os.scandir(folder) as found:
            entries = sorted((entry for entry in found if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: {error.strerror or error}; give a folder with one folder a class") from error
    for entry in entries:
        if entry.is_symlink():
            raise DataError(f"{entry.path} is a link; links are not followed: put the pictures themselves there")
    return entries


def _is_class(entry: os.DirEntry[str]) -> bool:
    if entry.is_dir(follow_symlinks=False):
        return True
    if entry.name.lower().endswith(_SUFFIXES):
        raise DataError(f"{entry.path} lies beside the folders of the classes; put it into one of them")
    return False  # a note or a licence beside the folders


def _pictures(folder: Path) -> list[Path]:
    files = []
    for entry in _entries(folder):
        if not entry.is_file(follow_symlinks=False):
            raise DataError(f"{entry.path} is no file; a class's folder holds pictures and nothing else")
        if entry.stat(follow_symlinks=False).st_size > MAX_FILE_BYTES:
            raise DataError(f"{entry.path} is larger than {MAX_FILE_BYTES:,} bytes; scale it down")
        files.append(Path(entry.path))
    return files


def _picture(file: Path, max_pixels: int) -> NDArray[np.uint8]:
    try:
        return read_picture(file, max_pixels=max_pixels)
    except PictureError as error:
        raise DataError(str(error)) from error
