"""The model of the peers that use this library: `ScaleEnsemble`, every weight prepared before the first request.

They do what the service does by default where a request names no seed: it gets the sequences of one of a few seeds, all
requests of a batch those of the same seed. They get more room than the service's default, so that they never prepare
anything while they serve.
"""

import argparse
import random
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ccnet import ScaleEnsemble, load_checkpoint
from ccnet.pictures import decode_picture
from ccnet.plan_cache import PlanCache

CHECKPOINT = Path(__file__).resolve().parents[3] / "checkpoints" / "fashion-mnist-ccnet"
LARGEST = 8  # members
SEEDS = 4  # as the service's CCNET_SEED_POOL
PLAN_CACHE_BYTES = 2 * 2**30  # more than 32 members need


class PreparedModel:
    """The shipped checkpoint, the members of every seed prepared.

    Attributes:
        labels: Of the classes.
    """

    def __init__(self) -> None:
        checkpoint = load_checkpoint(CHECKPOINT)
        self.labels = checkpoint.labels
        self._preprocess = checkpoint.preprocess
        plans = PlanCache(PLAN_CACHE_BYTES)
        self._ensemble = ScaleEnsemble(checkpoint.model, **checkpoint.sampler, plans=plans)  # type: ignore[arg-type]
        self._members = [self._ensemble.sample(LARGEST, seed) for seed in range(SEEDS)]
        for members in self._members:
            self._ensemble.prepare(members)
            self.classify(torch.zeros(1, 1, 32, 32), [1])  # the first pass is the slowest

    def decode(self, picture: bytes) -> Tensor:
        """An encoded picture -> [1, 1, 32, 32], as the network wants it."""
        return self._preprocess([decode_picture(picture, max_pixels=2**24, name="the picture")])

    def classify(self, images: Tensor, sizes: list[int]) -> Tensor:
        """Probabilities [N, classes] of images that want ensembles of different sizes.

        The largest ensemble runs over the whole batch and each image takes the mean of its first members. This makes
        more passes than running the images of each size by themselves does, but fewer and larger batches, which is
        faster: a member's weights are read once however many images there are.
        """
        members = random.choice(self._members)[: max(sizes)]
        of_members = self._ensemble(images, sequences=members).member_logits  # [k, N, classes]
        logits = torch.stack([of_members[:size, image].mean(dim=0) for image, size in enumerate(sizes)])
        return logits.softmax(dim=1)


def answer(labels: tuple[str, ...], probabilities: Tensor) -> dict[str, object]:
    """What every peer answers for one picture, from its probabilities [classes]; ready for JSON."""
    values: NDArray[np.float32] = probabilities.numpy()
    return {"label": labels[int(values.argmax())], "probabilities": dict(zip(labels, values.tolist(), strict=True))}


def port(description: str | None) -> int:
    """The TCP port that the command line names."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--port", type=int, required=True)
    return int(parser.parse_args().port)
