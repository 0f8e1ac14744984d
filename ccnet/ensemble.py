"""Scale ensembles (Sec. 4): one trained CCNet, run once for each of k scale sequences, the results aggregated.

Members differ in the sizes of all maps but the first and the last. Those with equal prefixes of scales share the maps
of these layers (`ccnet.prefixes`), and prepared layers are kept for the next call (`ccnet.plan_cache`). Passes are cut
into chunks of images and groups of members so that memory grows neither with the batch nor with the ensemble.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from ccnet.errors import CcnetError
from ccnet.gpu import EnsembleProgram, Precision, supports
from ccnet.grid import whole_number
from ccnet.models import CCNet, ConvNet, require_images
from ccnet.passes import PassPlan, can_plan, plan_passes, run_together
from ccnet.plan_cache import DEFAULT_BYTES, PlanCache
from ccnet.sequences import SPREADS, Method, ScaleSequence, Spread, sample_scale_sequences

Aggregate = Literal["mean", "median", "mean_probability"]
MEMBER_BYTES = 42_000_000  # a member's weights in float32, median
MAX_PASSES = 128  # images times members whose maps are in memory at once, on a CPU
MAX_WEIGHT_BYTES = 2**30  # of passes that run together


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


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some members over some images of a batch, small enough to be run at once.

    Attributes:
        plan, images: what is run.
        batch, members, at: where the logits belong: the batch, its members, and the place of the images in it.
    """

    plan: PassPlan
    images: Tensor
    batch: int
    members: list[int]
    at: slice

    @property
    def passes(self) -> int:
        """Its cost."""
        return len(self.images) * len(self.members)


@dataclass(frozen=True, slots=True)
class _Part:
    """What a piece came to, and where it belongs; its plan is let go."""

    members: list[int]
    at: slice
    logits: Tensor


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
        (member_logits,) = self.member_logits([(x, members)])
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

    @torch.inference_mode()
    def member_logits(self, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> list[Tensor]:
        """Run several ensembles at once: [k, N, classes] of each, in the order of its members.

        Faster than one call after the other where batches are small or want members of their own, since the native
        kernels share the cores among all of them.

        Args:
            batches: images [N, C, H, W], preprocessed, and the members that they want, one at least.

        Raises:
            CcnetError: no members, or images of another shape than the model's.
        """
        for x, members in batches:
            require_images(x, self.model.in_channels, self.model.in_size)
            if not members:
                raise CcnetError("an ensemble needs at least one sequence; got none")
        if self._has_program:
            return [self._program(tuple(members))(x) for x, members in batches]
        if not can_plan(self.model):
            return [self._unplanned(x, members) for x, members in batches]
        return self._planned(batches)

    def _unplanned(self, x: Tensor, members: Sequence[ScaleSequence]) -> Tensor:
        chunks = _chunks(x, self.max_images_per_pass)
        return torch.stack([torch.cat([self.model(chunk, member) for chunk in chunks]) for member in members])

    def _planned(self, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> list[Tensor]:
        parts: list[list[_Part]] = [[] for _ in batches]
        for pieces in _calls(self._pieces(batches)):
            found = run_together([(piece.plan, piece.images) for piece in pieces])
            for piece, logits in zip(pieces, found, strict=True):
                parts[piece.batch].append(_Part(piece.members, piece.at, logits))
        return [_whole(of_batch, len(members), len(x)) for of_batch, (x, members) in zip(parts, batches, strict=True)]

    def _pieces(self, batches: Sequence[tuple[Tensor, Sequence[ScaleSequence]]]) -> Iterator[_Piece]:
        """Chunks of images x groups of members; a group's weights are prepared when its turn comes."""
        stamp = self.plans.stamp(self.model)
        for number, (x, members) in enumerate(batches):
            chunks = _chunks(x, min(self.max_images_per_pass, MAX_PASSES))
            order = list(range(len(members)))
            size = max(1, MAX_PASSES // max(1, len(chunks[0])))
            if size < len(members):  # those that share a prefix stand next to each other, so that cuts seldom part them
                order.sort(key=lambda member: members[member].scales)
            for group in (order[begin : begin + size] for begin in range(0, len(order), size)):
                plan = plan_passes(self.model, [members[member] for member in group], self.plans, stamp=stamp)
                begin = 0
                for chunk in chunks:
                    yield _Piece(plan, chunk, number, group, slice(begin, begin + len(chunk)))
                    begin += len(chunk)


def _chunks(x: Tensor, most: int) -> tuple[Tensor, ...]:
    return x.split(most) if len(x) > most else (x,)


def _whole(parts: Sequence[_Part], members: int, images: int) -> Tensor:
    """The logits [members, images, classes] of a batch from those of its pieces."""
    first = parts[0].logits
    if len(parts) == 1:
        return first
    logits = first.new_empty(members, images, first.shape[2])
    for part in parts:
        logits[part.members, part.at] = part.logits
    return logits


def _calls(pieces: Iterable[_Piece]) -> Iterator[list[_Piece]]:
    """Pieces that run together: as many as the bounds allow, one at least.

    Of a batch that was cut one chunk of images, or it would have been cut in vain; and one piece where there are no
    native kernels, which would run one after the other and hold the weights of all.
    """
    call: list[_Piece] = []
    passes = weight_bytes = 0
    for piece in pieces:
        passes, weight_bytes = passes + piece.passes, weight_bytes + piece.plan.nbytes
        full = passes > MAX_PASSES or weight_bytes > MAX_WEIGHT_BYTES
        if call and (full or piece.plan.native is None or call[-1].plan is piece.plan):
            yield call
            call = []
            passes, weight_bytes = piece.passes, piece.plan.nbytes
        call.append(piece)
    yield call


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
