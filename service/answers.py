"""Logits -> what an answer says: probabilities, the best classes, entropy, and what each member thinks.

Works on numpy arrays after the forward passes; no tensor gets further than the engine.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class Answer:
    """What N images were classified as.

    Attributes:
        logits: float64 [N, classes], aggregated over the members.
        probabilities: float64 [N, classes], softmax of the logits.
        ranking: [N, classes], class indices from the most to the least probable.
        entropy: float64 [N], of the probabilities, in nats.
        agreement: float64 [N], share of members whose best class is the answer's; 1 without members.
        member_logits: float64 [k, N, classes]; k = 0 for a model without members.
        member_classes: [k, N], the best class of every member.
    """

    logits: Floats
    probabilities: Floats
    ranking: Indices
    entropy: Floats
    agreement: Floats
    member_logits: Floats
    member_classes: Indices

    @property
    def member_probabilities(self) -> Floats:
        """float64 [k, N], the probability each member gives its best class."""
        shifted = _shifted(self.member_logits)
        best: Floats = 1.0 / np.exp(shifted).sum(axis=-1)  # that of the best class is exp(0) / sum
        return best


def answer_of(logits: NDArray[np.floating], member_logits: NDArray[np.floating] | None) -> Answer:
    """Summarise the logits [N, classes] of a pass and, for an ensemble, those of its members [k, N, classes].

    Raises:
        ArithmeticError: A logit is NaN or infinite.
    """
    aggregated = np.asarray(logits, dtype=np.float64)
    members = np.empty((0, *aggregated.shape)) if member_logits is None else np.asarray(member_logits, dtype=np.float64)
    if not (np.isfinite(aggregated).all() and np.isfinite(members).all()):
        raise ArithmeticError("the model answered with logits that are not finite")
    shifted = _shifted(aggregated)
    exponentials = np.exp(shifted)
    total = exponentials.sum(axis=-1)
    probabilities = exponentials / total[..., None]
    ranking = np.argsort(-probabilities, axis=-1, kind="stable")
    member_classes = members.argmax(axis=-1)
    votes = member_classes == ranking[:, 0]
    return Answer(
        logits=aggregated,
        probabilities=probabilities,
        ranking=ranking,
        entropy=np.log(total) - (probabilities * shifted).sum(axis=-1),  # of exp(shifted) / total
        agreement=votes.mean(axis=0) if len(members) else np.ones(len(aggregated)),
        member_logits=members,
        member_classes=member_classes,
    )


def _shifted(logits: Floats) -> Floats:
    """So that the largest is 0: their exponentials are those of the softmax, and do not overflow."""
    shifted: Floats = logits - logits.max(axis=-1, keepdims=True)
    return shifted
