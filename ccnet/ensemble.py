"""Scale ensembles (Sec. 4): one trained CCNet, run once for each of k scale sequences, the results aggregated.

Members differ in the sizes of all maps but the first and the last. Those with equal prefixes of scales share the maps
of these layers (`ccnet.prefixes`), and prepared layers are kept for the next call (`ccnet.plan_cache`). Passes are cut
into chunks of images and groups of members so that memory grows neither with the batch nor with the ensemble.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.gpu import EnsembleProgram, Precision, supports
from ccnet.grid import whole_number
from ccnet.models import CCNet, ConvNet, require_images
from ccnet.passes import can_plan, plan_passes
from ccnet.plan_cache import DEFAULT_BYTES, PlanCache
from ccnet.sequences import SPREADS, Method, ScaleSequence, Spread, sample_scale_sequences

Aggregate = Literal["mean", "median", "mean_probability"]
MEMBER_BYTES = 42_000_000  # a member's weights in float32, median
MAX_PASSES = 128  # images times members whose maps are in memory at once, on a CPU


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
        std, method, max_numerator: of the sampler that draws members by seed (see `sample_scale_sequences`).
        max_images_per_pass: most images of one forward pass; larger batches are cut (on a CPU at `MAX_PASSES` in any
            case).
        plans: where prepared layers are kept; None makes one for this ensemble, of `ccnet.plan_cache.DEFAULT_BYTES` or,
            on a GPU, a tenth of its memory.
        precision: of products on a GPU (see `ccnet.gpu.EnsembleProgram`); elsewhere they have the model's dtype.

    Attributes:
        plans: the cache; its `stats` count what was found and made.

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
        max_numerator: int | None = None,
        max_images_per_pass: int = 256,
        plans: PlanCache | None = None,
        precision: Precision = "ieee",
    ) -> None:
        if isinstance(model, ConvNet):
            raise CcnetError("an ensemble varies the scales of a CCNet; a ConvNet has none to vary: call it by itself")
        self.model, self.std, self.method, self.max_numerator = model, std, method, max_numerator
        self.max_images_per_pass = whole_number("max_images_per_pass", max_images_per_pass)
        self.plans = PlanCache(_default_bytes(self._device)) if plans is None else plans
        self.precision: Precision = precision

    def sample(self, size: int, seed: int | None = None) -> tuple[ScaleSequence, ...]:
        """The members that a call with this size and seed uses; a smaller size gives the first of a larger one."""
        return tuple(
            sample_scale_sequences(
                size,
                seed=seed,
                std=self.std,
                method=self.method,
                max_numerator=self.max_numerator,
                in_size=self.model.in_size,
            )
        )

    @torch.inference_mode()
    def prepare(self, sequences: Sequence[ScaleSequence]) -> None:
        """Keep these members' prepared layers now, as far as the cache has room, so that their first use is fast."""
        if self._has_program:
            self._program(tuple(sequences), keep=True)
        elif can_plan(self.model):
            for sequence in sequences:
                plan_passes(self.model, [sequence], self.plans, keep=True)

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
        member_logits = self._member_logits(x, members)
        return EnsembleOutput(aggregate_logits(member_logits, aggregate), member_logits, members)

    @property
    def _has_program(self) -> bool:
        """Whether the members run as one program on a GPU; it computes in float32 at most."""
        parameter = next(self.model.parameters())
        return supports(parameter.device) and parameter.dtype == torch.float32 and can_plan(self.model)

    @property
    def _device(self) -> torch.device:
        return next(self.model.parameters()).device

    def _program(self, members: tuple[ScaleSequence, ...], *, keep: bool = False) -> EnsembleProgram:
        """The members as a program for a GPU; those that come again are replayed from CUDA graphs."""

        def make(graph: bool) -> EnsembleProgram:
            return EnsembleProgram(
                self.model, members, precision=self.precision, graph=graph, max_images=self.max_images_per_pass
            )

        graph = self._device.type == "cuda"
        key = (id(self.model), "program", members, self.precision, self.max_images_per_pass)
        once = None if keep else lambda: make(graph=False)
        return self.plans.get(key, self.plans.stamp(self.model), lambda: make(graph), once, len(members) * MEMBER_BYTES)

    def _member_logits(self, x: Tensor, members: Sequence[ScaleSequence]) -> Tensor:
        """[k, N, classes], in the order of the members."""
        require_images(x, self.model.in_channels, self.model.in_size)
        if self._has_program:
            return self._program(tuple(members))(x)
        planned = can_plan(self.model)
        most = min(self.max_images_per_pass, MAX_PASSES) if planned else self.max_images_per_pass
        chunks = x.split(most) if len(x) else (x,)
        if not planned:
            return torch.stack([torch.cat([self.model(chunk, member) for chunk in chunks]) for member in members])
        # Members that share a prefix stand next to each other, so that cuts seldom part them.
        order = sorted(range(len(members)), key=lambda member: members[member].scales)
        group = max(1, MAX_PASSES // max(1, len(chunks[0])))
        logits: list[Tensor] = []
        for begin in range(0, len(order), group):
            plan = plan_passes(self.model, [members[member] for member in order[begin : begin + group]], self.plans)
            logits.append(torch.cat([plan(chunk) for chunk in chunks], dim=1))
        return torch.cat(logits)[sorted(range(len(order)), key=order.__getitem__)]


def _default_bytes(device: torch.device) -> int:
    """Budget of an ensemble's own cache: a tenth of a GPU's memory, where 32 members take a gigabyte."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory // 10)
    return DEFAULT_BYTES


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
