"""Scale ensembles (Sec. 4): one trained CCNet, run once for each of k scale sequences, the results aggregated.

Members differ in the sizes of all maps but the first and the last, so a forward pass serves one member and any number
of images. Passes are cut into chunks of images so that memory does not grow with the batch.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.grid import whole_number
from ccnet.models import CCNet, ConvNet
from ccnet.sequences import SPREADS, Method, ScaleSequence, Spread, sample_scale_sequences

Aggregate = Literal["mean", "median", "mean_probability"]


@dataclass(frozen=True)
class EnsembleOutput:
    """What an ensemble of k members says of N images.

    Attributes:
        logits: [N, classes], aggregated.
        member_logits: [k, N, classes], one row a member in the order of `sequences`.
        sequences: the k members.
    """

    logits: Tensor
    member_logits: Tensor
    sequences: tuple[ScaleSequence, ...]

    @property
    def agreement(self) -> Tensor:
        """Share of the members that vote for the ensemble's class, [N], in [0, 1]."""
        votes = self.member_logits.argmax(dim=2) == self.logits.argmax(dim=1)
        return votes.float().mean(dim=0)


class ScaleEnsemble:
    """Runs a CCNet with several scale sequences and aggregates the logits.

    Args:
        model: a CCNet; put it in eval mode and on its device first.
        std, method: of the sampler that draws members by seed (see `sample_scale_sequences`).
        max_images_per_pass: images of one forward pass; larger batches are cut.

    Example:
        >>> output = ScaleEnsemble(CCNet(1))(torch.rand(2, 1, 32, 32), size=3, seed=0)
        >>> output.logits.shape, output.member_logits.shape
        (torch.Size([2, 10]), torch.Size([3, 2, 10]))

    Source: arXiv 2006.11120, Sec. 4 "Scale Ensembles", A.2.
    """

    def __init__(
        self,
        model: CCNet,
        *,
        std: float | Spread = SPREADS["table4"],
        method: Method = "corrected",
        max_images_per_pass: int = 256,
    ) -> None:
        if isinstance(model, ConvNet):
            raise CcnetError("an ensemble varies the scales of a CCNet; a ConvNet has none to vary: call it by itself")
        self.model, self.std, self.method = model, std, method
        self.max_images_per_pass = whole_number("max_images_per_pass", max_images_per_pass)

    def sample(self, size: int, seed: int | None = None) -> tuple[ScaleSequence, ...]:
        """The members that a call with this size and seed uses; a smaller size gives the first of a larger one."""
        return tuple(
            sample_scale_sequences(size, seed=seed, std=self.std, method=self.method, in_size=self.model.in_size)
        )

    @torch.inference_mode()
    def __call__(
        self,
        x: Tensor,
        size: int = 3,
        seed: int | None = None,
        sequences: Sequence[ScaleSequence] | None = None,
        aggregate: Aggregate = "mean",
    ) -> EnsembleOutput:
        """Classify.

        Args:
            x: [N, C, H, W], preprocessed.
            size: number of members k, drawn by `seed`; ignored when `sequences` are given.
            seed: the same seed gives the same members; None draws fresh ones.
            sequences: the members themselves.
            aggregate: "mean" of the logits (the paper's), their "median", or "mean_probability" (log of the mean).

        Raises:
            CcnetError: no members, an unknown aggregate or images of another shape than the model's.
        """
        _require_aggregate(aggregate)
        members = self.sample(size, seed) if sequences is None else tuple(sequences)
        if not members:
            raise CcnetError("an ensemble needs at least one sequence; got none")
        member_logits = torch.stack([self._pass(x, sequence) for sequence in members])
        return EnsembleOutput(aggregate_logits(member_logits, aggregate), member_logits, members)

    def _pass(self, x: Tensor, sequence: ScaleSequence) -> Tensor:
        """One member's logits, [N, classes]."""
        chunks = x.split(self.max_images_per_pass) if len(x) else (x,)
        return torch.cat([self.model(chunk, sequence) for chunk in chunks])


def aggregate_logits(member_logits: Tensor, aggregate: Aggregate = "mean") -> Tensor:
    """[k, N, classes] -> [N, classes] by "mean", "median" (mean of the middle two for even k) or "mean_probability".

    Raises:
        CcnetError: an unknown aggregate.
    """
    _require_aggregate(aggregate)
    k = len(member_logits)
    if aggregate == "mean":
        return member_logits.mean(dim=0)
    if aggregate == "median":
        ordered = member_logits.sort(dim=0).values
        return (ordered[(k - 1) // 2] + ordered[k // 2]) / 2
    return member_logits.log_softmax(dim=2).logsumexp(dim=0) - math.log(k)


def _require_aggregate(aggregate: str) -> None:
    if aggregate not in get_args(Aggregate):
        raise CcnetError(f"aggregate is one of {', '.join(get_args(Aggregate))}; got {aggregate!r}")
