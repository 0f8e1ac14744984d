"""How an assessment runs a network: here and now, or in whatever way a caller provides."""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from ccnet.checkpoint import Checkpoint
from ccnet.ensemble import ScaleEnsemble
from ccnet.models import CCNet
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence


class Passes(Protocol):
    """How forward passes are made: here (`LocalPasses`), or behind the live traffic of a service.

    A call may block for as long as it likes, and may raise in order to end the assessment.
    """

    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        """Logits of every member.

        Args:
            images: [N, C, H, W], prepared by the checkpoint's `preprocess`, N at least 1.
            sequences: the members; none for a network that takes no scale sequence.

        Returns:
            [k, N, classes], on any device; [1, N, classes] without sequences.
        """

    def maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        """The last convolution's map [N, C, h, w] after its activation, and the logits [N, classes] of one pass."""


class LocalPasses:
    """Passes made here, in the calling thread, on the checkpoint's device.

    Args:
        model: a checkpoint; its network stays in whatever mode it is in.
        plans: where the prepared weights of the last members are kept; None leaves that to `ScaleEnsemble`.
    """

    def __init__(self, model: Checkpoint, plans: PlanCache | None = None) -> None:
        self._network, self._device = model.model, model.device
        self._ensemble = ScaleEnsemble(model.model, plans=plans) if isinstance(model.model, CCNet) else None

    @torch.inference_mode()
    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        """See `Passes.member_logits`."""
        images = images.to(self._device)
        if self._ensemble is None:
            plain: Tensor = self._network(images)
            return plain[None]
        (logits,) = self._ensemble.member_logits([(images, sequences)])
        return logits

    @torch.inference_mode()
    def maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        """See `Passes.maps_and_logits`."""
        given = () if sequence is None else (sequence,)
        maps = self._network.features(images.to(self._device), *given)
        return maps, self._network.head(maps)
