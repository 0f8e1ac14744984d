"""Forward passes of an evaluation, in turns behind the live traffic (`service.background`)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ccnet.assessment import Passes
from ccnet.sequences import ScaleSequence
from service.background import Errand


class BackgroundPasses:
    """As `ccnet.assessment.Passes` says, cut into turns. How passes are cut follows from the question alone, so that
    the same question has the same answer whatever else the service does.

    Args:
        passes: Makes the passes of a turn, on the inference thread.
        errand: Waits for the turns.
        turn_passes: Most passes of a turn.
        count: Told the passes of every turn that was run.
    """

    def __init__(self, passes: Passes, errand: Errand, turn_passes: int, count: Callable[[int], None]) -> None:
        self._passes = passes
        self._errand = errand
        self._turn_passes = turn_passes
        self._count = count

    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        """See `Passes.member_logits`; the logits are on the CPU."""
        members = max(1, self._turn_passes // len(images))
        groups = [sequences[first : first + members] for first in range(0, len(sequences), members)] or [sequences]
        chunks = images.split(self._turn_passes)
        return torch.cat([torch.cat([self._logits(chunk, group) for chunk in chunks], dim=1) for group in groups])

    def maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        """See `Passes.maps_and_logits`; both are on the CPU."""
        found = [self._maps(chunk, sequence) for chunk in images.split(self._turn_passes)]
        return torch.cat([maps for maps, _ in found]), torch.cat([logits for _, logits in found])

    def _logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        passes = len(images) * max(1, len(sequences))
        logits = self._errand.run(passes, lambda: self._passes.member_logits(images, sequences).cpu())
        self._count(passes)
        return logits

    def _maps(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        def both() -> tuple[Tensor, Tensor]:
            maps, logits = self._passes.maps_and_logits(images, sequence)
            return maps.cpu(), logits.cpu()

        found = self._errand.run(len(images), both)
        self._count(len(images))
        return found
