"""The model of the peers that use this library: `ScaleEnsemble`, every weight prepared before the first request.

They do what the service does by default where a request names no seed: it gets the sequences of one of a few seeds, all
requests of a batch those of the same seed. They have room for all of their members, as the service has.
"""

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnet import CCNet, ScaleEnsemble, ScaleSequence, load_checkpoint
from ccnet.pictures import decode_picture
from ccnet.plan_cache import PlanCache

CHECKPOINT = Path(__file__).resolve().parents[3] / "checkpoints" / "fashion-mnist-ccnet"
LARGEST = 8  # members
SEEDS = 2  # as the service's CCNET_SEED_POOL
PLAN_CACHE_BYTES = 2**30  # more than 16 members need


class PreparedModel:
    """The shipped checkpoint, the members of every seed prepared.

    Attributes:
        labels: Of the classes.
    """

    def __init__(self) -> None:
        checkpoint = load_checkpoint(CHECKPOINT)
        assert isinstance(checkpoint.model, CCNet)
        self.labels = checkpoint.labels
        self._preprocess = checkpoint.preprocess
        plans = PlanCache(PLAN_CACHE_BYTES)
        self._ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler, plans=plans)
        self._members = [self._ensemble.sample(LARGEST, seed) for seed in range(SEEDS)]
        for members in self._members:
            self._ensemble.prepare(members)
            self.classify(torch.zeros(1, 1, 32, 32), [1])  # the first pass is the slowest

    def decode(self, picture: bytes) -> Tensor:
        """An encoded picture -> [1, 1, 32, 32], as the network wants it."""
        return self._preprocess([decode_picture(picture, max_pixels=2**24, name="the picture")])

    def classify(self, images: Tensor, sizes: Sequence[int]) -> Tensor:
        """Probabilities [N, classes] of images [N, 1, 32, 32] that want ensembles of different sizes."""
        return mean_logits(self._ensemble, images, sizes, random.choice(self._members)).softmax(dim=1)


def mean_logits(
    ensemble: ScaleEnsemble, images: Tensor, sizes: Sequence[int], members: Sequence[ScaleSequence]
) -> Tensor:
    """Logits [N, classes] of images, each the mean over as many of the members as it wants.

    Images that want the same size could be one call each, or the largest ensemble could run over all of them and each
    take the mean of its first members. Faster than both for batches of 8 and more (16 images of mixed sizes: 134 ms,
    171 ms and 197 ms of one core) is one call for each member with the images that want it: no pass too many, and the
    weights of a member are read once a batch. Images that all want the same size are one call.
    """
    if len(set(sizes)) == 1:
        return ensemble(images, sequences=members[: sizes[0]]).logits
    wanted = torch.tensor(sizes)
    total = torch.zeros(len(images), ensemble.model.classes)
    for number, member in enumerate(members[: max(sizes)]):
        chosen = wanted > number
        total[chosen] += ensemble(images[chosen], sequences=[member]).logits
    return total / wanted[:, None]


def answer(labels: tuple[str, ...], probabilities: Tensor) -> dict[str, object]:
    """What every peer answers for one picture, from its probabilities [classes]; ready for JSON."""
    values: NDArray[np.float32] = probabilities.numpy()
    return {"label": labels[int(values.argmax())], "probabilities": dict(zip(labels, values.tolist(), strict=True))}


def options(description: str | None) -> argparse.ArgumentParser:
    """The command line that all peers have."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    return parser
