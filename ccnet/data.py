"""Image data sets from the files in which they are distributed, parsed here and checked to the last byte.

    fashion-mnist          idx files of Debian's package `dataset-fashion-mnist`: 60,000 + 10,000 grey images of 28 x 28
    cifar-10               `cifar-10-python.tar.gz`, or the folder inside it: 50,000 + 10,000 RGB images of 32 x 32
    fashion-mnist-sample   a few hundred of the test images as one npz file, for tests that need real pictures

Nothing is downloaded, and no file can run code: idx and npz are plain numbers, and the pickles of CIFAR-10 are read by
`ccnet.cifar`, which builds nothing but numbers either. A file that is cut short or of another format is a `DataError`
that says how to mend it.
"""

import gzip
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray

from ccnet.cifar import CIFAR_10_CLASSES, read_cifar_10
from ccnet.errors import DataError

FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_FOLDER = Path("/usr/share/datasets/fashion-mnist")
SAMPLE_FILE = "fashion-mnist-sample.npz"

_IDX_UNSIGNED_BYTE = 0x08
_MAX_IDX_BYTES = 1 << 30
_FASHION_MNIST_HELP = (
    "install the data with `apt-get install dataset-fashion-mnist` (again, if it is damaged), or give the folder of "
    "the four idx files with --data-dir"
)


@dataclass(frozen=True)
class LabelledPictures:
    """Labelled pictures of any sizes, as they are stored.

    Attributes:
        name: the data set, for example "fashion-mnist".
        split: "train" or "test".
        images: uint8 [N, H, W, C], or a tuple of N uint8 [H, W, C]; C = 1 (grey) or 3 (RGB).
        labels: int64 [N], each the index of a class.
        classes: the name of every class.
        source: where the images were read from, for people.
        files: the name of each image's own file, for people; empty where there are none.
    """

    name: str
    split: str
    images: NDArray[np.uint8] | tuple[NDArray[np.uint8], ...]
    labels: NDArray[np.int64]
    classes: tuple[str, ...]
    source: str
    files: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        self._check_images()
        if self.files and len(self.files) != len(self.images):
            raise DataError(f"{self.source}: {len(self.files)} files are named; {len(self.images)} images need as many")
        if self.labels.shape != (len(self.images),) or self.labels.dtype != np.int64:
            raise DataError(
                f"{self.source}: labels are {self.labels.dtype} {list(self.labels.shape)}; "
                f"{len(self.images)} images need int64 [{len(self.images)}]"
            )
        if len(self.images) == 0:
            raise DataError(f"{self.source}: holds no image")
        if self.labels.min() < 0 or self.labels.max() >= len(self.classes):
            raise DataError(
                f"{self.source}: labels run from {self.labels.min()} to {self.labels.max()}; "
                f"{len(self.classes)} classes allow 0 to {len(self.classes) - 1}"
            )

    def __len__(self) -> int:
        return len(self.images)

    def first(self, count: int) -> Self:
        """The first `count` images (all of them where there are fewer)."""
        if count < 1:
            raise DataError(f"asked for the first {count} images of {self.name}; at least 1 is needed")
        return replace(self, images=self.images[:count], labels=self.labels[:count], files=self.files[:count])

    def _check_images(self) -> None:
        for image in self.images:
            if image.ndim != 3 or image.dtype != np.uint8 or image.shape[2] not in (1, 3):
                raise DataError(
                    f"{self.source}: a picture is {image.dtype} {list(image.shape)}; "
                    "allowed is uint8 [H, W, C] with C = 1 or 3"
                )


@dataclass(frozen=True)
class ImageDataset(LabelledPictures):
    """Labelled images of one size: as `LabelledPictures`, with `images` uint8 [N, H, W, C]."""

    images: NDArray[np.uint8]

    @property
    def image_size(self) -> tuple[int, int]:
        """(height, width) of every image, in pixels."""
        return int(self.images.shape[1]), int(self.images.shape[2])

    @property
    def channels(self) -> int:
        """1 for grey images, 3 for RGB."""
        return int(self.images.shape[3])

    def _check_images(self) -> None:
        if self.images.ndim != 4 or self.images.dtype != np.uint8 or self.images.shape[3] not in (1, 3):
            raise DataError(
                f"{self.source}: images are {self.images.dtype} {list(self.images.shape)}; "
                "allowed are uint8 [N, H, W, C] with C = 1 or 3"
            )


def load_dataset(name: str, split: str, data_dir: Path | str | None = None) -> ImageDataset:
    """Read one split of a data set into memory.

    Args:
        name: "fashion-mnist", "cifar-10" or "fashion-mnist-sample" (test images only).
        split: "train" or "test".
        data_dir: folder that holds the files; None looks where Debian's package puts Fashion-MNIST. For CIFAR-10 it may
            also be the archive or the extracted folder itself.

    Returns:
        The images in the order of the files.

    Raises:
        DataError: an unknown name or split, a missing file, or one that is cut short or of another format.
    """
    if name not in _LOADERS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(sorted(_LOADERS))}")
    if split not in ("train", "test"):
        raise DataError(f"unknown split {split!r}; allowed are 'train' and 'test'")
    return _LOADERS[name](split, None if data_dir is None else Path(data_dir))


def _load_fashion_mnist(split: str, data_dir: Path | None) -> ImageDataset:
    folder = FASHION_MNIST_FOLDER if data_dir is None else data_dir
    prefix = "train" if split == "train" else "t10k"
    images = read_idx(_idx_file(folder, f"{prefix}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(_idx_file(folder, f"{prefix}-labels-idx1-ubyte"), dimensions=1)
    if images.shape[1:] != (28, 28):
        raise DataError(f"{folder}: images of {images.shape[1]} x {images.shape[2]}; Fashion-MNIST's are 28 x 28")
    return ImageDataset(
        name="fashion-mnist",
        split=split,
        images=images[..., None],
        labels=labels.astype(np.int64),
        classes=FASHION_MNIST_CLASSES,
        source=str(folder),
    )


def _idx_file(folder: Path, name: str) -> Path:
    """The file itself or its gzip form; the package ships the latter."""
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise DataError(f"no {name}.gz in {folder}: {_FASHION_MNIST_HELP}")


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an idx file of unsigned bytes, gzip-compressed or plain.

    The format: two zero bytes, one byte for the element type (0x08 = unsigned byte), one for the number of dimensions,
    each dimension as a big-endian uint32, then the elements, last index fastest.

    Args:
        path: the file; a name that ends in `.gz` is decompressed.
        dimensions: how many dimensions it must have (3 for images, 1 for labels).

    Returns:
        uint8 array of the shape in the header.

    Raises:
        DataError: wrong magic number, too few or too many bytes, damaged gzip, or more than 1 GiB.
    """
    try:
        with open(path, "rb") as file, gzip.open(file) if path.suffix == ".gz" else file as stream:
            return _parse_idx(stream, path, dimensions)
    except (EOFError, zlib.error, OSError) as error:
        raise DataError(f"{path} is damaged or cut short ({error}): {_FASHION_MNIST_HELP}") from error


def _parse_idx(stream: BinaryIO | gzip.GzipFile, path: Path, dimensions: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * dimensions)
    magic = bytes((0, 0, _IDX_UNSIGNED_BYTE, dimensions))
    if header[:4] != magic:
        raise DataError(
            f"{path} begins with {header[:4].hex(' ') or 'nothing'}; an idx file of unsigned bytes with {dimensions} "
            f"dimension(s) begins with {magic.hex(' ')}: {_FASHION_MNIST_HELP}"
        )
    if len(header) < 4 + 4 * dimensions:
        raise DataError(f"{path} is cut short inside its header of {4 + 4 * dimensions} bytes: {_FASHION_MNIST_HELP}")
    shape = tuple(int(size) for size in np.frombuffer(header[4:], dtype=">u4"))
    expected = int(np.prod(shape, dtype=object))
    if expected > _MAX_IDX_BYTES:
        raise DataError(f"{path} announces {expected:,} bytes; at most {_MAX_IDX_BYTES:,} are read")
    # One byte more than announced, so that a file that is too long is noticed; gzip also checks its CRC at the end.
    payload = stream.read(expected + 1)
    if len(payload) != expected:
        found = f"{len(payload):,}" if len(payload) < expected else "more"
        raise DataError(
            f"{path} announces {expected:,} bytes for {list(shape)} and holds {found}: {_FASHION_MNIST_HELP}"
        )
    return np.frombuffer(payload, dtype=np.uint8).reshape(shape).copy()


def _load_cifar_10(split: str, data_dir: Path | None) -> ImageDataset:
    images, labels, source = read_cifar_10(split, data_dir)
    return ImageDataset("cifar-10", split, images, labels, CIFAR_10_CLASSES, str(source))


def _load_sample(split: str, data_dir: Path | None) -> ImageDataset:
    if split != "test":
        raise DataError(f"the sample has only a 'test' split; given was {split!r}")
    if data_dir is None:
        raise DataError(f"the sample is read from the folder that holds {SAMPLE_FILE}: give it with --data-dir")
    path = data_dir / SAMPLE_FILE if data_dir.is_dir() else data_dir
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
            images, labels, classes = arrays["images"], arrays["labels"], arrays["classes"]
    except (OSError, ValueError, KeyError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} is missing, damaged or not an npz file with images, labels and classes ({error})"
        ) from error
    names = tuple(str(label) for label in classes)
    return ImageDataset("fashion-mnist-sample", split, images, labels, names, str(path))


_LOADERS: dict[str, Callable[[str, Path | None], ImageDataset]] = {
    "fashion-mnist": _load_fashion_mnist,
    "cifar-10": _load_cifar_10,
    "fashion-mnist-sample": _load_sample,
}
