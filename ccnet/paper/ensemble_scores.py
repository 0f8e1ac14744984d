"""What ensembles come to, from logits that were computed once: subsets, averages, right answers, disagreement."""

import itertools
import math
import random
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ccnet.augmentation import derived_seed

Mean = Literal["logits", "probabilities"]


def subsets(pool: int, size: int, draws: int, seed: int) -> list[tuple[int, ...]]:
    """`draws` different subsets of range(pool), or all of them where there are fewer; single ones are always all."""
    if size == 1 or math.comb(pool, size) <= draws:
        return list(itertools.combinations(range(pool), size))
    dice = random.Random(derived_seed(seed, "ensembles of the paper", size))
    found: dict[tuple[int, ...], None] = {}
    while len(found) < draws:
        found[tuple(sorted(dice.sample(range(pool), size)))] = None
    return list(found)


def averaged(logits: Tensor, mean: Mean = "logits") -> Tensor:
    """Members' logits [k, N, classes] -> logits of the ensemble, float64 [N, classes].

    Of mean probabilities these are the logarithms, so that either mean is scored alike.
    """
    if mean == "logits":
        return logits.double().mean(dim=0)
    return torch.logsumexp(logits.double().log_softmax(dim=-1), dim=0) - math.log(len(logits))


def correct(logits: Tensor, labels: Tensor) -> Tensor:
    """1 for each image whose largest logit is its label's, else 0; float64 [N]."""
    return (logits.argmax(dim=-1) == labels).double()


def surprise(logits: Tensor, labels: Tensor) -> Tensor:
    """Negative log-likelihood of each image's label; float64 [N]."""
    return F.cross_entropy(logits.double(), labels, reduction="none")


def disagreement(predictions: Tensor) -> float:
    """Churn: the share of images on which two of the predictions [R, N] differ, mean over the pairs; 0 for R = 1."""
    runs = len(predictions)
    if runs < 2:
        return 0.0
    votes = F.one_hot(predictions).sum(dim=0).double()  # [N, classes]
    agreeing = (votes * (votes - 1)).sum(dim=1) / (runs * (runs - 1))
    return float((1 - agreeing).mean())


def over_draws(logits: Tensor, draws: Sequence[Sequence[int]], mean: Mean = "logits") -> Tensor:
    """Logits of the ensembles of these members: [pool, N, classes] -> float64 [draws, N, classes]."""
    return torch.stack([averaged(logits[list(members)], mean) for members in draws])
