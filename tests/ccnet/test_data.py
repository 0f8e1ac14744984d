"""Data sets: idx files and CIFAR batches of the right format are read, everything else is refused with a clear line."""

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ccnet import DataError
from ccnet.cifar import ARCHIVE, FOLDER
from ccnet.data import FASHION_MNIST_CLASSES, ImageDataset, load_dataset

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 28, 28), dtype=np.uint8)
LABELS = np.array([3, 0, 9, 9, 1], dtype=np.uint8)


def idx(array: NDArray[np.uint8]) -> bytes:
    """The array as an idx file of unsigned bytes."""
    header = bytes((0, 0, 8, array.ndim)) + b"".join(struct.pack(">I", size) for size in array.shape)
    return header + array.tobytes()


def write_test_split(folder: Path, images: bytes, labels: bytes | None = None) -> None:
    """Put raw idx content into the files of the test split, compressed."""
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(images))
    (folder / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(LABELS) if labels is None else labels))


class TestFashionMnist:
    def test_compressed_idx_files_are_read_as_they_are(self, tmp_path: Path) -> None:
        write_test_split(tmp_path, idx(IMAGES))
        dataset = load_dataset("fashion-mnist", "test", tmp_path)
        np.testing.assert_array_equal(dataset.images, IMAGES[..., None])
        np.testing.assert_array_equal(dataset.labels, LABELS)
        assert dataset.labels.dtype == np.int64
        assert (dataset.name, dataset.split, dataset.classes) == ("fashion-mnist", "test", FASHION_MNIST_CLASSES)

    def test_plain_idx_files_are_read_too(self, tmp_path: Path) -> None:
        (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS))
        np.testing.assert_array_equal(load_dataset("fashion-mnist", "train", str(tmp_path)).images[..., 0], IMAGES)

    @pytest.mark.parametrize("split", ["train", "test"])
    def test_a_missing_file_names_the_package_that_has_it(self, tmp_path: Path, split: str) -> None:
        with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist.*--data-dir"):
            load_dataset("fashion-mnist", split, tmp_path)

    @pytest.mark.parametrize("kept", [0, 1, 9, 12, 200, -1, -8, -9])
    def test_a_gzip_file_cut_short_anywhere_is_refused(self, tmp_path: Path, kept: int) -> None:
        write_test_split(tmp_path, idx(IMAGES))
        path = tmp_path / "t10k-images-idx3-ubyte.gz"
        path.write_bytes(path.read_bytes()[:kept])
        with pytest.raises(DataError, match=r"apt-get install dataset-fashion-mnist"):
            load_dataset("fashion-mnist", "test", tmp_path)

    def test_a_gzip_file_with_a_flipped_bit_is_refused(self, tmp_path: Path) -> None:
        write_test_split(tmp_path, idx(IMAGES))
        path = tmp_path / "t10k-images-idx3-ubyte.gz"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
        with pytest.raises(DataError, match="damaged or cut short"):
            load_dataset("fashion-mnist", "test", tmp_path)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            pytest.param(b"", "begins with nothing", id="empty"),
            pytest.param(b"\x89PNG\r\n\x1a\n" + bytes(100), "begins with 89 50 4e 47", id="another format"),
            pytest.param(idx(LABELS), "3 dimension", id="labels in place of images"),
            pytest.param(b"\0\0\x0d\x03" + idx(IMAGES)[4:], "unsigned bytes", id="floats"),
            pytest.param(idx(IMAGES)[:10], "inside its header", id="cut in the header"),
            pytest.param(idx(IMAGES)[:-1], "holds 3,919", id="one byte short"),
            pytest.param(idx(IMAGES) + b"\0", "holds more", id="one byte too long"),
            pytest.param(b"\0\0\x08\x03" + b"\xff" * 12, "at most 1,073,741,824", id="absurd size"),
            pytest.param(idx(IMAGES[:, :20]), "20 x 28; Fashion-MNIST's are 28 x 28", id="another image size"),
            pytest.param(idx(IMAGES[:4]), "4 images need", id="fewer images than labels"),
            pytest.param(idx(IMAGES[:0]), "0 images need", id="no images"),
        ],
    )  # fmt: skip
    def test_idx_content_that_is_wrong_is_refused(self, tmp_path: Path, content: bytes, message: str) -> None:
        write_test_split(tmp_path, content)
        with pytest.raises(DataError, match=message):
            load_dataset("fashion-mnist", "test", tmp_path)

    def test_a_label_without_a_class_is_refused(self, tmp_path: Path) -> None:
        write_test_split(tmp_path, idx(IMAGES), idx(np.array([0, 1, 2, 10, 3], dtype=np.uint8)))
        with pytest.raises(DataError, match="labels run from 0 to 10; 10 classes allow 0 to 9"):
            load_dataset("fashion-mnist", "test", tmp_path)

    def test_the_packaged_data_set_is_complete(self, fashion_mnist_dir: Path) -> None:
        train, test = (load_dataset("fashion-mnist", split, fashion_mnist_dir) for split in ("train", "test"))
        assert (len(train), len(test)) == (60_000, 10_000)
        assert np.bincount(train.labels).tolist() == [6000] * 10
        assert np.bincount(test.labels).tolist() == [1000] * 10


class TestSample:
    def test_it_holds_the_first_fifty_test_images_of_every_class(self, root: Path) -> None:
        sample = load_dataset("fashion-mnist-sample", "test", root / "tests" / "data")
        assert np.bincount(sample.labels).tolist() == [50] * 10
        assert sample.images.shape == (500, 28, 28, 1)
        assert sample.classes == FASHION_MNIST_CLASSES

    def test_it_equals_the_packaged_images(self, root: Path, fashion_mnist_dir: Path) -> None:
        sample = load_dataset("fashion-mnist-sample", "test", root / "tests" / "data")
        full = load_dataset("fashion-mnist", "test", fashion_mnist_dir)
        with np.load(root / "tests" / "data" / "fashion-mnist-sample.npz") as arrays:
            indices = arrays["indices"]
        np.testing.assert_array_equal(sample.images, full.images[indices])
        np.testing.assert_array_equal(sample.labels, full.labels[indices])

    def test_an_npz_that_would_need_pickle_is_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "fashion-mnist-sample.npz", images=np.array([{}]), labels=LABELS, classes=np.array(["a"]))
        with pytest.raises(DataError, match="not an npz file with images, labels and classes"):
            load_dataset("fashion-mnist-sample", "test", tmp_path)

    @pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut short"])
    def test_a_damaged_file_is_refused(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "fashion-mnist-sample.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"missing, damaged or not an npz"):
            load_dataset("fashion-mnist-sample", "test", tmp_path)


def cifar_pixels(count: int, seed: int = 0) -> NDArray[np.uint8]:
    """uint8 [count, 3072] of noise."""
    return np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)


def python_2_batch(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """A batch exactly as the published archive has it: protocol 2, written by Python 2 and its numpy, byte by byte."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    dtype = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
    dtype += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) + number(-1) + number(0) + b"tb"
    raw = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
    array += b"(" + number(1) + number(len(pixels)) + number(3072) + b"\x86" + dtype + b"\x89" + raw + b"tb"
    items = text(b"batch_label") + text(b"testing batch 1 of 1")
    items += text(b"labels") + b"](" + b"".join(number(label) for label in labels) + b"e"
    items += text(b"data") + array + text(b"filenames") + b"](" + text(b"domestic_cat_s_000907.png") + b"e"
    return b"\x80\x02}(" + items + b"u."


def python_3_batch(pixels: NDArray[np.uint8], labels: list[int]) -> bytes:
    """The same from the installed Python and numpy."""
    return pickle.dumps({b"batch_label": b"test", b"labels": labels, b"data": pixels}, protocol=2)


def write_archive(folder: Path, batches: dict[str, bytes]) -> Path:
    """`cifar-10-python.tar.gz` with these batches."""
    path = folder / ARCHIVE
    with tarfile.open(path, "w:gz") as archive:
        for name, content in batches.items():
            member = tarfile.TarInfo(f"{FOLDER}/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


class TestCifar10:
    @pytest.mark.parametrize("make", [python_2_batch, python_3_batch])
    def test_a_batch_of_either_python_becomes_images(self, tmp_path: Path, make: object) -> None:
        assert callable(make)
        pixels = cifar_pixels(4)
        write_archive(tmp_path, {"readme.html": b"<p>", "test_batch": make(pixels, [3, 8, 0, 9])})
        dataset = load_dataset("cifar-10", "test", tmp_path)
        assert dataset.images.shape == (4, 32, 32, 3)
        assert dataset.labels.tolist() == [3, 8, 0, 9]
        # A row is the red plane, then green, then blue, each row by row.
        assert dataset.images[2, 5, 7].tolist() == [pixels[2, plane * 1024 + 5 * 32 + 7] for plane in range(3)]
        assert dataset.classes[3] == "cat"

    def test_training_batches_come_in_their_order_whatever_the_archive_does(self, tmp_path: Path) -> None:
        numbers = (3, 1, 5, 2, 4)
        write_archive(tmp_path, {f"data_batch_{n}": python_3_batch(cifar_pixels(2, n), [n, n]) for n in numbers})
        dataset = load_dataset("cifar-10", "train", tmp_path)
        assert dataset.labels.tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]

    def test_the_extracted_folder_the_archive_and_their_parent_are_all_taken(self, tmp_path: Path) -> None:
        batch = python_3_batch(cifar_pixels(2), [1, 2])
        archive = write_archive(tmp_path, {"test_batch": batch})
        expected = load_dataset("cifar-10", "test", archive).images
        with tarfile.open(archive) as members:
            members.extractall(tmp_path / "out", filter="data")
        for place in (tmp_path, tmp_path / "out", tmp_path / "out" / FOLDER):
            np.testing.assert_array_equal(load_dataset("cifar-10", "test", place).images, expected)

    def test_no_data_says_where_to_get_it(self, tmp_path: Path) -> None:
        for place in (None, tmp_path):
            with pytest.raises(DataError, match=r"get cifar-10-python.tar.gz from https://.*--data-dir"):
                load_dataset("cifar-10", "test", place)

    @pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
    def test_an_archive_cut_short_is_refused(self, tmp_path: Path, share: float) -> None:
        archive = write_archive(tmp_path, {"test_batch": python_3_batch(cifar_pixels(20), [1] * 20)})
        archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
        with pytest.raises(DataError, match=r"damaged or cut short|has no test_batch"):
            load_dataset("cifar-10", "test", tmp_path)

    def test_an_archive_without_one_batch_is_refused(self, tmp_path: Path) -> None:
        write_archive(tmp_path, {f"data_batch_{n}": python_3_batch(cifar_pixels(1), [1]) for n in (1, 2, 4, 5)})
        with pytest.raises(DataError, match="has no data_batch_3"):
            load_dataset("cifar-10", "train", tmp_path)

    def test_a_member_that_is_a_link_is_refused(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / ARCHIVE, "w:gz") as archive:
            member = tarfile.TarInfo(f"{FOLDER}/test_batch")
            member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
        with pytest.raises(DataError, match="no regular file"):
            load_dataset("cifar-10", "test", tmp_path)

    def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(self, tmp_path: Path) -> None:
        class Harm:
            def __reduce__(self) -> tuple[object, tuple[str]]:
                return os.system, (f"touch {tmp_path / 'harm'}",)

        batch = pickle.dumps({b"data": Harm(), b"labels": [1]}, protocol=2)
        pickle.loads(batch)
        assert (tmp_path / "harm").exists(), "the attack itself must work, or this test shows nothing"
        (tmp_path / "harm").unlink()
        write_archive(tmp_path, {"test_batch": batch})
        with pytest.raises(DataError, match=r"asks for posix.system, which no batch"):
            load_dataset("cifar-10", "test", tmp_path)
        assert not (tmp_path / "harm").exists()

    @pytest.mark.parametrize(
        ("batch", "message"),
        [
            pytest.param(b"", "damaged, cut short", id="empty"),
            pytest.param(b"just text", "damaged, cut short", id="text"),
            pytest.param(python_2_batch(cifar_pixels(3), [1, 2, 3])[:-1], "damaged, cut short", id="cut by one byte"),
            pytest.param(python_2_batch(cifar_pixels(3), [1, 2, 3])[:4000], "damaged, cut short", id="cut in the data"),
            pytest.param(pickle.dumps([1, 2], protocol=2), "no dict with", id="a list"),
            pytest.param(pickle.dumps({b"labels": [1]}, protocol=2), "no dict with", id="no data"),
            pytest.param(pickle.dumps({b"data": [0], b"labels": [1]}, protocol=2), "must be uint8", id="data a list"),
            pytest.param(python_3_batch(cifar_pixels(3), [1, 2]), "a list of 3 numbers", id="a label missing"),
            pytest.param(python_3_batch(cifar_pixels(1), [10]), "integers 0 to 9", id="label 10"),
            pytest.param(python_3_batch(cifar_pixels(1), [True]), "integers 0 to 9", id="label True"),
            pytest.param(python_3_batch(cifar_pixels(3)[:, :3071], [1, 2, 3]), "must be uint8", id="3071 columns"),
            pytest.param(python_3_batch(np.zeros((1, 3072), "<u2"), [1]), "must be uint8", id="two bytes a value"),
            pytest.param(python_3_batch(np.zeros((1, 3072), "i1"), [1]), "must be uint8", id="signed"),
            pytest.param(python_3_batch(np.asfortranarray(cifar_pixels(2)), [1, 2]), "C order", id="Fortran order"),
        ],
    )  # fmt: skip
    def test_a_batch_of_another_form_is_refused(self, tmp_path: Path, batch: bytes, message: str) -> None:
        write_archive(tmp_path, {"test_batch": batch})
        with pytest.raises(DataError, match=message):
            load_dataset("cifar-10", "test", tmp_path)


def test_unknown_names_and_splits_list_the_known_ones() -> None:
    with pytest.raises(DataError, match=r"unknown data set 'mnist'; known are cifar-10, fashion-mnist"):
        load_dataset("mnist", "test")
    with pytest.raises(DataError, match=r"unknown split 'validation'; allowed are 'train' and 'test'"):
        load_dataset("fashion-mnist", "validation")


def test_first_keeps_images_and_labels_together() -> None:
    dataset = ImageDataset("d", "test", IMAGES[..., None], LABELS.astype(np.int64), FASHION_MNIST_CLASSES, "memory")
    assert dataset.first(2).labels.tolist() == [3, 0]
    assert len(dataset.first(100)) == 5
    with pytest.raises(DataError, match="at least 1"):
        dataset.first(0)
