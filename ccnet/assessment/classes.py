"""The classes of a data set, found among those of a network: by name, since their orders need not be the same."""

import re
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ccnet.data import LabelledPictures
from ccnet.errors import CcnetError


def labels_for(model_classes: tuple[str, ...], dataset: LabelledPictures) -> tuple[Tensor, str]:
    """The labels of a data set as indices of the network's classes.

    A class is found by its exact name; else by its letters and digits alone ("T-shirt/top" cannot name a folder, but
    "t_shirt top" can); else, where its name is a number, as the class of that number, counted from 0.

    Returns:
        (int64 [N], "name" or, where a number was taken for any class, "number").

    Raises:
        CcnetError: a class with images that the network does not know, or two that it knows as one.
    """
    used = np.unique(dataset.labels).tolist()
    found, by_number = {}, False
    for index in used:
        found[index], numbered = _find(dataset.classes[index], model_classes, dataset.name)
        by_number |= numbered
    if len(set(found.values())) < len(found):
        twice = [dataset.classes[index] for index in used if list(found.values()).count(found[index]) > 1]
        raise CcnetError(f"the classes {_listed(twice)} of {dataset.name} are one class to the network; rename them")
    place = np.zeros(len(dataset.classes), dtype=np.int64)
    place[used] = [found[index] for index in used]
    return torch.from_numpy(place[dataset.labels]), "number" if by_number else "name"


def in_classes_of(model_classes: tuple[str, ...], dataset: LabelledPictures) -> LabelledPictures:
    """The data set with the network's classes, in the network's order.

    Raises:
        CcnetError: as `labels_for`.
    """
    labels, _ = labels_for(model_classes, dataset)
    return replace(dataset, labels=labels.numpy(), classes=model_classes)


def _find(name: str, known: tuple[str, ...], dataset: str) -> tuple[int, bool]:
    """(the network's class of this name, whether the name was taken for a number)."""
    if name in known:
        return known.index(name), False
    alike = [index for index, other in enumerate(known) if _plain(other) == _plain(name) != ""]
    if len(alike) == 1:
        return alike[0], False
    if name.isascii() and name.isdecimal() and len(name) <= 9 and int(name) < len(known):
        return int(name), True
    raise CcnetError(
        f"class {name!r} of {dataset} is none of the network's: {_listed(known)}; name the classes as they are named "
        "there, or by their numbers"
    )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name.casefold())


def _listed(names: list[str] | tuple[str, ...], most: int = 20) -> str:
    shown = ", ".join(repr(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
