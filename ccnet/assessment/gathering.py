"""All logits that the numbers are made of, computed once: every sequence of the pool, and every view, over all images.

Pictures are prepared a block at a time and used for all members and views before the next block, so that memory does
not grow with the data set and a large photograph is resized once. Within a block one member follows the other, because
its weights are prepared for its first batch and serve all others.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.assessment.options import PROBE_SEQUENCES, AssessmentOptions
from ccnet.assessment.passes import Passes
from ccnet.checkpoint import Checkpoint
from ccnet.data import LabelledPictures
from ccnet.errors import CcnetError
from ccnet.evaluation import takes_sequence
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from ccnet.views import View, input_views

BLOCK_IMAGES = 1024  # prepared at once: 13 MB of 32 x 32 RGB


@dataclass(frozen=True)
class Gathered:
    """Logits of every member and view.

    Attributes:
        members: float32 [pool, N, classes]; one row for a network without sequences.
        views: float32 [views, N, classes] under the first member, the unchanged picture first; None without views.
        seconds: time that the members' passes took.
    """

    members: Tensor
    views: Tensor | None
    seconds: float


class CountedPasses:
    """Passes that are counted and reported, and whose answers are checked.

    Args:
        passes: what makes them.
        total: how many there will be.
        on_progress: called with (done, total) after each call.
    """

    def __init__(self, passes: Passes, total: int, on_progress: Callable[[int, int], None] | None) -> None:
        self._passes, self._total, self._on_progress = passes, total, on_progress
        self._done = 0

    def member_logits(self, images: Tensor, sequences: Sequence[ScaleSequence]) -> Tensor:
        """See `Passes.member_logits`; float32 on the CPU."""
        logits = _checked(self._passes.member_logits(images, sequences), (max(1, len(sequences)), len(images)))
        self._count(len(images) * max(1, len(sequences)))
        return logits

    def maps_and_logits(self, images: Tensor, sequence: ScaleSequence | None) -> tuple[Tensor, Tensor]:
        """See `Passes.maps_and_logits`."""
        maps, logits = self._passes.maps_and_logits(images, sequence)
        logits = _checked(logits, (len(images),))
        self._count(len(images))
        return maps, logits

    def _count(self, passes: int) -> None:
        self._done += passes
        if self._on_progress is not None:
            self._on_progress(self._done, self._total)


def draw_sequences(model: Checkpoint, options: AssessmentOptions) -> tuple[list[ScaleSequence], list[ScaleSequence]]:
    """(the pool, the sequences of the shift probe), as the checkpoint's sampler draws them by the seed.

    Both are the first of the same list; both are empty for a network that takes none.
    """
    if not takes_sequence(model.model):
        return [], []
    count = max(options.pool_size, PROBE_SEQUENCES)
    size = model.preprocessing.input_size
    drawn = sample_scale_sequences(count, seed=options.seed, in_size=size, **model.sampler)
    return drawn[: options.pool_size], drawn[:PROBE_SEQUENCES]


def gather(
    model: Checkpoint,
    dataset: LabelledPictures,
    pool: Sequence[ScaleSequence],
    options: AssessmentOptions,
    passes: Passes,
) -> Gathered:
    """Run every image through every member, and through every view under the first member.

    Raises:
        CcnetError: logits that are not finite, or of another shape than the network's classes.
    """
    members: list[tuple[ScaleSequence, ...]] = [(sequence,) for sequence in pool] or [()]
    moved = input_views(options.sizes[-1])[1:] if options.views else []
    shape = (len(dataset), len(model.labels))
    member_logits, view_logits = torch.empty(len(members), *shape), torch.empty(1 + len(moved), *shape)
    seconds = 0.0
    for start, x in _blocks(model, dataset):
        block = slice(start, start + len(x))
        for row, member in zip(member_logits, members, strict=True):
            begun = time.monotonic()
            row[block] = _in_batches(passes, x, member, options.batch_size, shape[1])
            seconds += time.monotonic() - begun
        view_logits[0, block] = member_logits[0, block]
        for row, view in zip(view_logits[1:], moved, strict=True):
            row[block] = _in_batches(passes, _seen(x, view, model), members[0], options.batch_size, shape[1])
    return Gathered(member_logits, view_logits if options.views else None, seconds)


def _blocks(model: Checkpoint, dataset: LabelledPictures) -> Iterator[tuple[int, Tensor]]:
    for start in range(0, len(dataset), BLOCK_IMAGES):
        yield start, model.preprocess(dataset.images[start : start + BLOCK_IMAGES])


def _seen(x: Tensor, view: View, model: Checkpoint) -> Tensor:
    return view(x, model.preprocessing.black)


def _in_batches(passes: Passes, x: Tensor, member: tuple[ScaleSequence, ...], batch_size: int, classes: int) -> Tensor:
    logits = torch.cat([passes.member_logits(images, member)[0] for images in x.split(batch_size)])
    if logits.shape[1] != classes:
        raise CcnetError(f"the network has {classes} labels and {logits.shape[1]} logits; its checkpoint is damaged")
    return logits


def _checked(logits: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Float32 logits on the CPU.

    Raises:
        CcnetError: another shape than [*shape, classes], or values that are not finite.
    """
    if logits.shape[:-1] != shape:
        raise CcnetError(f"logits of shape {list(logits.shape)}; {[*shape, 'classes']} were asked for")
    if not bool(torch.isfinite(logits).all()):
        raise CcnetError("the logits hold NaN or infinity, so nothing can be said of this network: check its weights")
    return logits.float().cpu()
