"""How steady answers are: on how many images do two draws of the same size disagree, and what an ensemble changes.

A draw is one choice of scale sequences. A client whose requests bring different seeds sees this churn; one that sends
its seed along sees none.
"""

import torch
from torch import Tensor


def churn(predicted: Tensor) -> float | None:
    """Share of images on which two different draws disagree, the mean over all pairs of draws; None for one draw.

    Args:
        predicted: int64 [draws, N], the class of each image in each draw.
    """
    draws = len(predicted)
    if draws == 1:
        return None
    pairs = draws * (draws - 1)
    agreeing = torch.zeros(predicted.shape[1], dtype=torch.float64)
    for voted in predicted.unique():  # of the draws that vote for a class every two agree
        votes = (predicted == voted).sum(dim=0).double()
        agreeing += votes * (votes - 1) / pairs
    return float(1 - agreeing.mean())


def gained_and_lost(correct: Tensor, before: Tensor) -> tuple[float, float]:
    """Shares of images that became right, and that became wrong, the mean over all pairs of a draw now and one before.

    Their difference is the difference of the accuracies.

    Args:
        correct: float64 [draws, N], 1 where right.
        before: float64 [other draws, N], what it is compared with.
    """
    now, then = correct.mean(dim=0), before.mean(dim=0)
    return float((now * (1 - then)).mean()), float(((1 - now) * then).mean())
