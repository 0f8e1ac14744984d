"""Labelled pictures of one's own: an npz file of arrays, or a folder with one folder of pictures for each class."""

from pathlib import Path

from ccnet.data import ImageDataset, LabelledPictures


def load_npz(path: Path | str) -> ImageDataset:
    """Read `images`, `labels` and, if there, `classes` from an npz file."""
    raise NotImplementedError


def load_class_folders(path: Path | str) -> LabelledPictures:
    """Read a folder that holds one folder of pictures for each class, whose name it bears."""
    raise NotImplementedError
