"""What a network said of N labelled images, and the scores of each image that means are made of.

Everything is float64: scores of thousands of images are added, and differences of a tenth of a percent are read off.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ccnet.ensemble import aggregate_logits

Averaged = Literal["logits", "probabilities"]


@dataclass(frozen=True)
class Outcome:
    """Predictions of N images beside their labels.

    Attributes:
        scores: float64 [N, classes], log-probabilities up to a constant of each image: logits, for example.
        labels: int64 [N].
    """

    scores: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def predicted(self) -> Tensor:
        """The class of the largest score, int64 [N]; of equal ones the first."""
        return self.scores.argmax(dim=1)

    @cached_property
    def log_probabilities(self) -> Tensor:
        """Float64 [N, classes]."""
        return self.scores.log_softmax(dim=1)

    @cached_property
    def confidence(self) -> Tensor:
        """Probability of the predicted class, float64 [N]."""
        return self.log_probabilities.amax(dim=1).exp()

    @cached_property
    def correct(self) -> Tensor:
        """1 where the predicted class is the label, else 0; float64 [N]."""
        return (self.predicted == self.labels).double()

    @cached_property
    def nll(self) -> Tensor:
        """Negative log-likelihood of each label, nats, float64 [N]."""
        return -self.log_probabilities.gather(1, self.labels[:, None])[:, 0]

    @cached_property
    def brier(self) -> Tensor:
        """Squared distance of the probabilities from the label's certain ones, summed over classes: 0 to 2, [N].

        Source: Brier, "Verification of forecasts expressed in terms of probability", 1950.
        """
        certain = torch.zeros_like(self.scores).scatter_(1, self.labels[:, None], 1.0)
        return (self.log_probabilities.exp() - certain).square().sum(dim=1)

    def scaled(self, temperature: float) -> "Outcome":
        """The same predictions with all scores divided by a temperature."""
        return Outcome(self.scores / temperature, self.labels)

    def at(self, images: Tensor) -> "Outcome":
        """Some of the images, by index."""
        return Outcome(self.scores[images], self.labels[images])


def averaged_outcome(member_logits: Tensor, labels: Tensor, averaged: Averaged) -> Outcome:
    """The outcome of an ensemble.

    Args:
        member_logits: [k, N, classes].
        labels: int64 [N].
        averaged: "logits" as in the paper (Sec. 4), or "probabilities".
    """
    logits = member_logits.double()
    return Outcome(aggregate_logits(logits, "mean" if averaged == "logits" else "mean_probability"), labels)
