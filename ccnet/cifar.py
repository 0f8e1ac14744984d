"""CIFAR-10 from its standard Python archive, without ever running what a pickle asks for.

The archive holds six pickles (five for training, one for test) made by Python 2 with protocol 2. Each is a dict
with bytes keys: b"data" uint8 [10000, 3072] (a row is one image: red plane, green plane, blue plane, each 32 x 32 row
by row) and b"labels", a list of 10,000 numbers.

A pickle names the callables that it wants called. `_NumbersOnly` knows the few names that such a file needs and answers
each with an inert stand-in that only *records* what it is given; the array is then made here, from the recorded bytes,
once shape and type have been checked. Any other name is refused, so no file can reach code of numpy or anything else.
"""

import io
import pickle
import tarfile
import zlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ccnet.errors import DataError

CIFAR_10_CLASSES = (
    "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
)  # fmt: skip
ARCHIVE = "cifar-10-python.tar.gz"
FOLDER = "cifar-10-batches-py"

_BATCHES = {"train": tuple(f"data_batch_{number}" for number in range(1, 6)), "test": ("test_batch",)}
_ROW = 3 * 32 * 32
_MAX_BATCH_IMAGES = 10_000
_MAX_BATCH_BYTES = 64 << 20  # a real batch is 30 MiB
_HELP = (
    f"get {ARCHIVE} from https://www.cs.toronto.edu/~kriz/cifar.html (163 MiB) and give its folder, or the folder "
    f"{FOLDER} inside it, with --data-dir"
)


def read_cifar_10(split: str, data_dir: Path | None) -> tuple[NDArray[np.uint8], NDArray[np.int64], Path]:
    """Read one split.

    Args:
        split: "train" or "test".
        data_dir: a folder with the archive or the extracted folder in it, or either of the two itself.

    Returns:
        (images uint8 [N, 32, 32, 3], labels int64 [N], the archive or folder that was read).

    Raises:
        DataError: nothing found, an archive cut short, or a batch that is not one.
    """
    source = _find_source(data_dir)
    files = _read_folder(source, split) if source.is_dir() else _read_archive(source, split)
    batches = [_parse_batch(content, f"{name} of {source}") for name, content in files.items()]
    images = np.concatenate([data for data, _ in batches])
    labels = np.concatenate([labels for _, labels in batches])
    return np.ascontiguousarray(images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)), labels, source


def _find_source(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError(f"CIFAR-10 has no standard place on this system: {_HELP}")
    if data_dir.is_file() or (data_dir / _BATCHES["test"][0]).is_file():
        return data_dir
    for candidate in (data_dir / FOLDER, data_dir / ARCHIVE):
        if candidate.exists():
            return candidate
    raise DataError(f"neither {ARCHIVE} nor {FOLDER} in {data_dir}: {_HELP}")


def _read_folder(folder: Path, split: str) -> dict[str, bytes]:
    files = {}
    for name in _BATCHES[split]:
        try:
            size = (folder / name).stat().st_size
            if size > _MAX_BATCH_BYTES:
                raise DataError(f"{name} of {folder} has {size:,} bytes; a batch has at most {_MAX_BATCH_BYTES:,}")
            files[name] = (folder / name).read_bytes()
        except OSError as error:
            raise DataError(f"cannot read {name} of {folder} ({error}): {_HELP}") from error
    return files


def _read_archive(archive: Path, split: str) -> dict[str, bytes]:
    """The wanted members of the archive, in one pass; nothing is ever written to disk."""
    files: dict[str, bytes] = {}
    try:
        with tarfile.open(archive, "r:gz") as members:
            for member in members:
                folder, _, name = member.name.rpartition("/")
                if folder != FOLDER or name not in _BATCHES[split]:
                    continue
                content = members.extractfile(member) if member.isfile() else None
                if content is None or member.size > _MAX_BATCH_BYTES:
                    raise DataError(
                        f"{member.name} of {archive} is no regular file of at most {_MAX_BATCH_BYTES:,} bytes"
                    )
                files[name] = content.read()
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        raise DataError(f"{archive} is damaged or cut short ({error}): {_HELP}") from error
    missing = [name for name in _BATCHES[split] if name not in files]
    if missing:
        raise DataError(f"{archive} has no {', '.join(missing)} in {FOLDER}: {_HELP}")
    return {name: files[name] for name in _BATCHES[split]}


class _PickledDtype:
    """Stands in for numpy.dtype: remembers the type code, for example b"u1"."""

    def __init__(self, code: object, *_: object) -> None:
        self.code = code

    def __setstate__(self, _: object) -> None:
        """Byte order and fields do not matter: only single bytes are accepted."""


class _PickledArray:
    """Stands in for numpy.ndarray: remembers (version, shape, dtype, is_fortran, bytes)."""

    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


def _reconstruct(*_: object) -> _PickledArray:
    """Stands in for numpy's function of that name, which makes an empty array to be filled by its state."""
    return _PickledArray()


def _encode(text: object, encoding: object) -> bytes:
    """Stands in for _codecs.encode, by which Python 3 writes bytes into protocol 2."""
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("_codecs.encode is known for Latin-1 text alone")
    return text.encode("latin1")


class _NumbersOnly(pickle.Unpickler):
    """Builds dicts, lists, numbers, text and recorded arrays; refuses every other name."""

    _stand_ins: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
        ("numpy._core.multiarray", "_reconstruct"): _reconstruct,  # its name since numpy 2
        ("numpy", "ndarray"): _PickledArray,
        ("numpy", "dtype"): _PickledDtype,
        ("_codecs", "encode"): _encode,
    }

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a known name.

        Raises:
            pickle.UnpicklingError: any other name.
        """
        try:
            return self._stand_ins[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch of CIFAR-10 needs") from None


def _parse_batch(content: bytes, where: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """(data uint8 [n, 3072], labels int64 [n]) of one batch."""
    try:
        batch = _NumbersOnly(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle may raise anything at all: it is a program for a small machine
        raise DataError(f"{where} is damaged, cut short or not a batch of CIFAR-10 ({error}): {_HELP}") from error
    if not isinstance(batch, dict) or not {b"data", b"labels"} <= batch.keys():
        raise DataError(f"{where} is no dict with b'data' and b'labels': {_HELP}")
    data = _checked_data(batch[b"data"], where)
    labels = batch[b"labels"]
    if not isinstance(labels, list) or len(labels) != len(data):
        raise DataError(f"{where}: b'labels' must be a list of {len(data)} numbers, one for each image")
    if not all(type(label) is int and 0 <= label < len(CIFAR_10_CLASSES) for label in labels):
        raise DataError(f"{where}: a label is not one of the integers 0 to {len(CIFAR_10_CLASSES) - 1}")
    return data, np.asarray(labels, dtype=np.int64)


def _checked_data(recorded: object, where: str) -> NDArray[np.uint8]:
    """The array that a `_PickledArray` describes, if it is what a batch holds."""
    match recorded:
        case _PickledArray(state=(int(), (int(rows), int(columns)), _PickledDtype(code=code), is_fortran, bytes(raw))):
            is_bytes = code in (b"u1", "u1", b"B", "B", b"uint8", "uint8") and not is_fortran
            if is_bytes and columns == _ROW and 1 <= rows <= _MAX_BATCH_IMAGES and len(raw) == rows * _ROW:
                return np.frombuffer(raw, dtype=np.uint8).reshape(rows, _ROW)
    raise DataError(
        f"{where}: b'data' must be uint8 [n, {_ROW}], n from 1 to {_MAX_BATCH_IMAGES:,}, in C order: {_HELP}"
    )
