"""Runs the measurements of a probe: which image, which shift, which sequences; the cosine and the label of each.

Each image's own map is computed once for a group of sequences and compared with all of its shifted copies. What is
measured is fixed by a `Plan` beforehand, so the batch size changes memory and time and not the answer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ccnet.equivariance.cosine import cosine_after_cut
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
        shift: int64 [M, 2], (dy, dx) in input px.
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
    """Attributes: cosine, float64 [M], NaN where both maps are zero; same_label, bool [M], None without labels."""

    cosine: Tensor
    same_label: Tensor | None


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
    total = len(plan.image)
    cosine = torch.full((total,), torch.nan, dtype=torch.float64)
    same_label = torch.zeros(total, dtype=torch.bool)
    done = 0
    with subject.evaluating():
        for group_index, group in enumerate(groups):
            in_group = plan.group == group_index
            for chosen in torch.split(torch.unique(plan.image[in_group]), batch_size):  # sorted, as searchsorted needs
                maps, labels = subject(images[chosen], group)
                _require_total_scale(images, maps, protocol)
                rows = torch.nonzero(in_group & torch.isin(plan.image, chosen)).flatten()
                for batch in torch.split(rows, batch_size):
                    shift = plan.shift[batch]
                    moved_maps, moved_labels = _shifted_back(subject, images[plan.image[batch]], shift, group, protocol)
                    own = torch.searchsorted(chosen, plan.image[batch])
                    cosine[batch] = cosine_after_cut(maps[own], moved_maps, cut=protocol.cut, per=protocol.cosine)
                    if labels is not None and moved_labels is not None:
                        same_label[batch] = labels[own] == moved_labels
                    done += len(batch)
                    if on_progress is not None:
                        on_progress(done, total)
    return Measurements(cosine, same_label if subject.has_labels else None)


def _shifted_back(
    subject: Subject, images: Tensor, shift: Tensor, group: Group, protocol: Protocol
) -> tuple[Tensor, Tensor | None]:
    """Steps (i) and (ii) for one batch: shift the images, take their maps, shift the maps back."""
    dy, dx = shift.unbind(dim=1)
    maps, labels = subject(shift_images(images, dy, dx, border=protocol.border, fill=protocol.fill), group)
    scale = protocol.exact_total_scale
    map_dy, map_dx = (d.double() * scale.numerator / scale.denominator for d in (dy, dx))
    return shift_map_back(maps, map_dy, map_dx, a=protocol.cubic_a, outside=protocol.reads_outside), labels


def _require_total_scale(images: Tensor, maps: Tensor, protocol: Protocol) -> None:
    """A map twice or half as large as the total scale says: the shift would be undone by the wrong amount."""
    scale = protocol.exact_total_scale
    for before, after in zip(images.shape[-2:], maps.shape[-2:], strict=True):
        if not before * scale / 2 < after < before * scale * 2:
            raise CcnetError(
                f"total_scale {scale} says that a {before} px image has a map of about {float(before * scale):g} px; "
                f"this model's map has {after} px: give the total_scale of this model (map px per input px)"
            )
