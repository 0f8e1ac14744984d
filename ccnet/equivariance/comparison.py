"""What an image's own answer and that of its shifted copy have in common, at three levels: map, logits, label."""

from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from torch import Tensor

from ccnet.equivariance.cosine import cosine_after_cut
from ccnet.equivariance.protocol import Cosine


@dataclass(frozen=True)
class MapComparison:
    """Of n pairs of maps, aligned and without their rims; float64 [n] each.

    Attributes:
        cosine: NaN where both maps are zero.
        signal: energy (sum of squares) of the own map.
        error: energy of the difference. 10 log10(sum of signals / sum of errors) is the SNR in dB.
    """

    cosine: Tensor
    signal: Tensor
    error: Tensor


@dataclass(frozen=True)
class AnswerComparison:
    """Of n pairs of logits; float64 [n] but for the labels.

    Attributes:
        cosine, signal, error: as of maps. Logits count without their mean over the classes, which no probability
            depends on.
        change: |p_c - p'_c|, c the own label: Michaeli et al. 2023 average it over pairs (mean absolute change).
        own_label, moved_label: int64 [n], the class of the image and that of its shifted copy.
    """

    cosine: Tensor
    signal: Tensor
    error: Tensor
    change: Tensor
    own_label: Tensor
    moved_label: Tensor


Comparison = TypeVar("Comparison", MapComparison, AnswerComparison)


def compare_maps(own: Tensor, moved: Tensor, *, cut: int, per: Cosine) -> MapComparison:
    """Maps [n, C, h, w], the second already shifted back; as `cosine_after_cut`."""
    cosine = cosine_after_cut(own, moved, cut=cut, per=per)
    rows, columns = slice(cut, own.shape[2] - cut), slice(cut, own.shape[3] - cut)
    signal, error = _energies(own[:, :, rows, columns].double(), moved[:, :, rows, columns].double())
    return MapComparison(cosine, signal, error)


def compare_answers(own: Tensor, moved: Tensor) -> AnswerComparison:
    """Logits [n, classes]."""
    label = own.argmax(dim=1)
    chosen = label[:, None]
    change = own.softmax(dim=1).gather(1, chosen) - moved.softmax(dim=1).gather(1, chosen)
    centred, moved_centred = (logits - logits.mean(dim=1, keepdim=True) for logits in (own, moved))
    cosine = cosine_after_cut(centred[:, :, None, None], moved_centred[:, :, None, None], cut=0)
    signal, error = _energies(centred, moved_centred)
    return AnswerComparison(cosine, signal, error, change.abs().squeeze(1), label, moved.argmax(dim=1))


def in_order(parts: list[tuple[Tensor, Comparison]]) -> Comparison:
    """Comparisons put together in the order of their places: int64 [n] of each, all of 0 .. M - 1 once."""
    order = torch.cat([places for places, _ in parts]).argsort()
    kind = type(parts[0][1])
    return kind(*(torch.cat([getattr(part, one.name) for _, part in parts])[order] for one in fields(kind)))


def _energies(own: Tensor, moved: Tensor) -> tuple[Tensor, Tensor]:
    own, moved = own.flatten(1), moved.flatten(1)
    return own.square().sum(dim=1), (own - moved).square().sum(dim=1)
