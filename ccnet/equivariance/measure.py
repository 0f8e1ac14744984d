"""Runs the measurements of a probe: which image, which shift, which sequences; what the two answers have in common.

Each image's own map is computed once for a group of sequences and compared with all of its shifted copies. What is
measured is fixed by a `Plan` beforehand, so the batch size changes memory and time and not the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.equivariance.comparison import AnswerComparison, MapComparison, compare_answers, compare_maps, in_order
from ccnet.equivariance.protocol import Protocol
from ccnet.equivariance.shifts import shift_images, shift_map_back
from ccnet.equivariance.subject import Group, Subject
from ccnet.errors import CcnetError

# on_progress(done, total), in measurements; may raise in order to stop.
OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Plan:
    """M measurements, fixed before the first one runs.

    Attributes:
        pair: int64 [M], the pair that a measurement belongs to (several under members "each").
        image: int64 [M], index of the image.
        shift: int64 or float64 [M, 2], (dy, dx) in input px.
        group: int64 [M], index of the group of sequences.
    """

    pair: Tensor
    image: Tensor
    shift: Tensor
    group: Tensor

    @staticmethod
    def deal(image: Tensor, shift: Tensor, images: int, groups: int, protocol: Protocol) -> "Plan":
        """Give each pair its group, or, under members "each", all of them.

        Pair p shows image p mod N for the (p div N)-th time; groups are dealt round by image and round, so that an
        image that is shown again meets another sequence.
        """
        pair = torch.arange(len(image))
        if protocol.members != "each":
            return Plan(pair, image, shift, (image + pair // images) % groups)
        group = torch.arange(groups).repeat_interleave(len(image))
        return Plan(pair.repeat(groups), image.repeat(groups), shift.repeat(groups, 1), group)


@dataclass(frozen=True)
class Measurements:
    """M measurements in the plan's order.

    Attributes:
        maps: of the features.
        answers: of the logits; None for a subject without.
    """

    maps: MapComparison
    answers: AnswerComparison | None

    @property
    def cosine(self) -> Tensor:
        """Of the maps, float64 [M]; NaN where both are zero."""
        return self.maps.cosine

    @property
    def same_label(self) -> Tensor | None:
        """Whether the image and its shifted copy get the same label, bool [M]; None without labels."""
        return None if self.answers is None else self.answers.own_label == self.answers.moved_label


def run_plan(
    subject: Subject,
    images: Tensor,
    plan: Plan,
    groups: list[Group],
    protocol: Protocol,
    *,
    batch_size: int,
    on_progress: OnProgress | None = None,
) -> Measurements:
    """Carry out the plan, at most `batch_size` images a pass.

    Returns:
        the measurements in the plan's order.

    Raises:
        CcnetError: a map that does not fit the protocol (its size, its total scale, not finite).
    """
    total, done = len(plan.image), 0
    maps_found: list[tuple[Tensor, MapComparison]] = []
    answers_found: list[tuple[Tensor, AnswerComparison]] = []
    with subject.evaluating():
        for group_index, group in enumerate(groups):
            in_group = plan.group == group_index
            for chosen in torch.split(torch.unique(plan.image[in_group]), batch_size):  # sorted, as searchsorted needs
                maps, logits = subject(_unmoved(images[chosen], protocol), group)
                _require_total_scale(images, maps, protocol)
                rows = torch.nonzero(in_group & torch.isin(plan.image, chosen)).flatten()
                for batch in torch.split(rows, batch_size):
                    moved, moved_logits = _shifted_back(
                        subject, images[plan.image[batch]], plan.shift[batch], group, protocol
                    )
                    own = torch.searchsorted(chosen, plan.image[batch])
                    compared = compare_maps(maps[own], moved, cut=protocol.cut, per=protocol.cosine)
                    maps_found.append((batch, compared))
                    if logits is not None and moved_logits is not None:
                        answers_found.append((batch, compare_answers(logits[own], moved_logits)))
                    done += len(batch)
                    if on_progress is not None:
                        on_progress(done, total)
    return Measurements(in_order(maps_found), in_order(answers_found) if answers_found else None)


def _unmoved(images: Tensor, protocol: Protocol) -> Tensor:
    """What the model sees of images that are not shifted: under border "crop" their middle."""
    margin = protocol.margin
    return images[..., margin:-margin, margin:-margin] if margin else images


def _shifted_back(
    subject: Subject, images: Tensor, shift: Tensor, group: Group, protocol: Protocol
) -> tuple[Tensor, Tensor | None]:
    """Steps (i) and (ii) for one batch: shift the images, take their maps and logits, shift the maps back."""
    dy, dx = shift.unbind(dim=1)
    moved = shift_images(images, dy, dx, border=protocol.border, fill=protocol.fill, margin=protocol.margin)
    maps, logits = subject(moved, group)
    scale = protocol.exact_total_scale
    map_dy, map_dx = (d.double() * scale.numerator / scale.denominator for d in (dy, dx))
    back = shift_map_back(maps, map_dy, map_dx, a=protocol.cubic_a, outside=protocol.reads_outside, undo=protocol.undo)
    return back, logits


def _require_total_scale(images: Tensor, maps: Tensor, protocol: Protocol) -> None:
    """A map twice or half as large as the total scale says: the shift would be undone by the wrong amount."""
    scale = protocol.exact_total_scale
    for size, after in zip(images.shape[-2:], maps.shape[-2:], strict=True):
        before = size - 2 * protocol.margin
        if not before * scale / 2 < after < before * scale * 2:
            raise CcnetError(
                f"total_scale {scale} says that a {before} px image has a map of about {float(before * scale):g} px; "
                f"this model's map has {after} px: give the total_scale of this model (map px per input px)"
            )
