"""Temperature scaling: all logits divided by one number, which mends over- or under-confidence and no label.

The number is *cross-fitted*: the images are cut into two halves, each half is scaled with the temperature that was
fitted to the other, so that nothing is scored on what it was fitted to. Likelihoods of different models are compared
after scaling; before it they mostly compare how sharp the models happen to be (Ashukha et al., "Pitfalls of In-Domain
Uncertainty Estimation and Ensembling in Deep Learning", 2020, arXiv 2002.06470, Sec. 3).
"""

import math

import torch
from torch import Tensor

from ccnet.assessment.scores import Outcome
from ccnet.augmentation import generator

LOWEST, HIGHEST = 0.05, 20.0
LEAST_IMAGES = 20  # fewer fit nothing that is worth reporting
_STEPS, _CLOSE = 60, 1e-10


def halves(images: int, seed: int) -> tuple[Tensor, Tensor]:
    """The indices of two halves drawn by the seed; the second has one image more where their number is odd."""
    order = torch.randperm(images, generator=generator(seed, "halves"))
    return order[: images // 2], order[images // 2 :]


def cross_fitted(outcome: Outcome, seed: int) -> tuple[Outcome, tuple[float, float]] | None:
    """(the outcome scaled half by half, the temperature fitted to each half); None for fewer than `LEAST_IMAGES`.

    Args:
        outcome: unscaled.
        seed: of the halves.
    """
    if len(outcome) < LEAST_IMAGES:
        return None
    first, second = halves(len(outcome), seed)
    temperatures = fit_temperature(outcome.at(first)), fit_temperature(outcome.at(second))
    scores = outcome.scores.clone()
    scores[second] /= temperatures[0]
    scores[first] /= temperatures[1]
    return Outcome(scores, outcome.labels), temperatures


def fit_temperature(outcome: Outcome) -> float:
    """The temperature in [`LOWEST`, `HIGHEST`] of the smallest mean negative log-likelihood; 1 where none differs.

    With b = 1 / T the likelihood's derivative is the mean of E_p[z] - z_label and its second the mean of Var_p[z],
    which is never negative: one minimum, found by Newton steps inside a bracket that every step shrinks.
    """
    low, high = 1 / HIGHEST, 1 / LOWEST
    slope, _ = _derivatives(outcome, low)
    if slope > 0:
        return HIGHEST
    slope, _ = _derivatives(outcome, high)
    if slope < 0:
        return LOWEST
    b = 1.0
    for _ in range(_STEPS):
        slope, curvature = _derivatives(outcome, b)
        if slope == 0:
            break
        low, high = (low, b) if slope > 0 else (b, high)
        following = b - slope / curvature if curvature > 0 else low
        if not low < following < high:
            following = math.sqrt(low * high)
        if abs(following - b) <= _CLOSE * b:
            break
        b = following
    return 1 / b


def _derivatives(outcome: Outcome, b: float) -> tuple[float, float]:
    """First and second derivative of the mean negative log-likelihood by b = 1 / T."""
    z = outcome.scores
    probabilities = (b * z).softmax(dim=1)
    expected = (probabilities * z).sum(dim=1)
    of_label = z.gather(1, outcome.labels[:, None])[:, 0]
    variance = (probabilities * (z - expected[:, None]).square()).sum(dim=1)
    return float((expected - of_label).mean()), float(variance.mean())
