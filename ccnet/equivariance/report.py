"""How steady a network is under shifts, in the measures that the literature uses, at every shift of one set.

    level     measure                  what it is
    feature   feature_cosine           as Table 1
              feature_snr_db           10 log10(energy of the maps / energy of their differences), summed over pairs
    logit     logit_cosine             of the logits without their mean over the classes
              logit_snr_db             as of the maps
              mean_absolute_change     mean |p_c(x) - p_c(Sx)|, c the class of x (Michaeli et al. 2023)
    label     consistency              share of pairs (x, Sx) with one label (as Chaman & Dokmanic 2021 count it)
              pairwise_consistency     share of pairs (Sx, S'x), S other than S', with one label (Zhang 2019)
              accuracy                 of the images as they are, where labels are given
              shifted_accuracy         of their shifted copies
              worst_case_accuracy      share of images that are right at every shift of the set

Pairs of an image with itself, the shift (0, 0), are in no mean of pairs; it is a member of the set for the label
measures of whole sets (`pairwise_consistency`, `worst_case_accuracy`). Every image meets every shift under the same
scale sequences. Intervals come from resampling images.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Unpack

import torch
from torch import Tensor

from ccnet.equivariance.measure import Measurements, OnProgress, Plan, run_plan
from ccnet.equivariance.period import exact_period
from ccnet.equivariance.probes import DEFAULT_BATCH_SIZE, DEFAULT_ENSEMBLE_SIZE, describe, require_images, seen_size
from ccnet.equivariance.protocol import Choices, Protocol
from ccnet.equivariance.results import BOOTSTRAP_RESAMPLES, bootstrap_ratio
from ccnet.equivariance.subject import Group, Subject
from ccnet.errors import CcnetError

MAX_SHIFTS = 10_000  # of one set
# Names in the order in which they are shown, and what a table calls them.
MEASURES = {
    "feature_cosine": "feature cosine",
    "feature_snr_db": "feature SNR",
    "logit_cosine": "logit cosine",
    "logit_snr_db": "logit SNR",
    "mean_absolute_change": "mean absolute change",
    "consistency": "consistency",
    "pairwise_consistency": "pairwise consistency",
    "accuracy": "accuracy",
    "shifted_accuracy": "shifted accuracy",
    "worst_case_accuracy": "worst-case accuracy",
}
Shift = tuple[int | float | Fraction, int | float | Fraction]


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes:
        value: None where there is nothing to measure; and for an SNR where nothing differs, or all answers are 0.
        ci95: percentile bootstrap interval, images resampled; None with the value, and where it has no end.
    """

    value: float | None
    ci95: tuple[float, float] | None


@dataclass(frozen=True)
class ShiftReport:
    """What `shift_report` answers.

    Attributes:
        measures: by name, over all images and shifts; those of logits and labels for subjects that have them, those of
            accuracy where labels are given.
        per_shift: for each shift `dy`, `dx` and the measures of pairs there, without intervals.
        per_sequence: for each scale sequence its text and the measures under it; empty without sequences, and for an
            ensemble. Under members "split" they differ by the images dealt to them as well.
        per_image: each image's own value of every measure, None where it has none; what two networks are compared by,
            image by image.
        images: how many.
        skipped: pairs without a cosine of maps, because both are zero; (0, 0) is none.
        protocol: every choice behind the numbers, as JSON values.
    """

    measures: dict[str, Measure]
    per_shift: tuple[dict[str, float | None], ...]
    per_sequence: tuple[dict[str, str | float | None], ...]
    per_image: dict[str, tuple[float | None, ...]]
    images: int
    skipped: int
    protocol: dict[str, object]

    def as_json(self) -> dict[str, Any]:
        """JSON values, without those of single images."""
        return asdict(
            replace(self, per_image={}), dict_factory=lambda items: {k: v for k, v in items if k != "per_image"}
        )


def shift_report(
    model_or_features: Callable[..., Any],
    images: Tensor,
    shifts: Sequence[Shift],
    *,
    labels: Tensor | None = None,
    sequences: Any = None,
    ensemble_size: int = DEFAULT_ENSEMBLE_SIZE,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: OnProgress | None = None,
    **choices: Unpack[Choices],
) -> ShiftReport:
    """Measure a network at every shift of a set.

    Args:
        model_or_features, images, sequences, ensemble_size, seed, batch_size: as in `shift_similarity`.
        shifts: (dy, dx) in input px, each once; numbers that are not whole interpolate. `shift_grid` makes the usual
            set. (0, 0) is added where it is missing.
        labels: int64 [N], the true classes; None leaves the accuracies out.
        on_progress: called with (done, total) measurements after each pass.
        **choices: the fields of `Protocol`; `include_zero` has no effect.

    Raises:
        CcnetError: an argument out of range, or a map that does not fit the protocol.
    """
    protocol = Protocol(**choices)
    subject = Subject(model_or_features)
    moves = _moves(shifts)
    require_images(images, math.ceil(float(moves.abs().max())), protocol, seed=seed, batch_size=batch_size)
    _require_labels(labels, images, subject)
    groups = subject.groups(
        sequences,
        ensemble_size=ensemble_size,
        seed=seed,
        members=protocol.members,
        in_size=seen_size(images, protocol),
    )
    count = len(images)
    image = torch.arange(count).repeat_interleave(len(moves))
    plan = Plan.deal(image, moves.repeat(count, 1), len(image), len(groups), protocol)
    groups = groups[: int(plan.group.max()) + 1]
    measured = run_plan(subject, images, plan, groups, protocol, batch_size=batch_size, on_progress=on_progress)

    found = _Found(plan, measured, moves, count, labels)
    sums = found.sums(torch.ones(len(plan.image), dtype=torch.bool))
    by_sequence = subject.takes_sequences and protocol.members != "ensemble"
    return ShiftReport(
        measures={name: _measure(name, *parts, seed) for name, parts in sums.items()},
        per_shift=tuple(found.at_shift(number) for number in range(len(moves))),
        per_sequence=tuple(found.under(number, group) for number, group in enumerate(groups)) if by_sequence else (),
        per_image={
            name: tuple(_value(name, *parts) for parts in zip(*both, strict=True)) for name, both in sums.items()
        },
        images=count,
        skipped=int((measured.cosine.isnan() & (plan.shift != 0).any(dim=1)).sum()),
        protocol=_protocol(protocol, groups, moves, seed, images),
    )


def shift_grid(max_shift: int, step: int | Fraction = 1) -> list[Shift]:
    """Every (dy, dx) of [-max_shift, max_shift]^2 whose parts are multiples of `step`, row by row, both ends included.

    Args:
        max_shift: px, at least 1.
        step: px, a whole number or a Fraction such as 1/2, which goes into `max_shift` without a rest.

    Raises:
        CcnetError: no such numbers, or more than 10,000 shifts.
    """
    step = Fraction(step)
    if max_shift < 1 or step <= 0 or (max_shift / step).denominator != 1:
        raise CcnetError(
            f"a grid of shifts has a max_shift of 1 px or more and a step that goes into it; got {max_shift} and {step}"
        )
    reach = int(max_shift / step)
    if (2 * reach + 1) ** 2 > MAX_SHIFTS:
        raise CcnetError(f"a grid of {(2 * reach + 1) ** 2:,} shifts; at most {MAX_SHIFTS:,}: take a larger step")
    line = [number * step for number in range(-reach, reach + 1)]
    return [(dy, dx) for dy in line for dx in line]


class _Found:
    """Sums of the measurements, an image's own together: a measure is a sum over images divided by another."""

    def __init__(self, plan: Plan, measured: Measurements, moves: Tensor, images: int, labels: Tensor | None) -> None:
        self._plan, self._measured, self._images = plan, measured, images
        self._labels = labels
        self._moves = moves
        self._is_pair = (plan.shift != 0).any(dim=1)
        # Measurements come in sets of all shifts of one image under one group, in the order of the shifts.
        self._number = torch.arange(len(plan.image)) % len(moves)

    def sums(self, chosen: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """(numerator, denominator), float64 [images] each, of every measure over the chosen measurements [M]."""
        sums = self._of_pairs(chosen & self._is_pair) | self._of_sets(chosen)
        return {name: sums[name] for name in MEASURES if name in sums}

    def at_shift(self, number: int) -> dict[str, float | None]:
        """The measures of pairs at one shift; the shift (0, 0) is compared with itself, as a control."""
        chosen = self._number == number
        sums = self._of_pairs(chosen)
        dy, dx = self._moves[number].tolist()
        return {"dy": dy, "dx": dx} | {name: _value(name, *parts) for name, parts in sums.items()}

    def under(self, group: int, sequences: Group) -> dict[str, str | float | None]:
        """The measures under one scale sequence."""
        sums = self.sums(self._plan.group == group)
        values = {name: _value(name, *parts) for name, parts in sums.items()}
        return {"sequence": str(sequences[0]), **values}

    def _of_pairs(self, chosen: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        maps, answers = self._measured.maps, self._measured.answers
        alive = chosen & ~maps.cosine.isnan()
        sums = {
            "feature_cosine": self._mean(maps.cosine, alive),
            "feature_snr_db": (self._sum(maps.signal, chosen), self._sum(maps.error, chosen)),
        }
        if answers is None:
            return sums
        sums |= {
            "logit_cosine": self._mean(answers.cosine, chosen & ~answers.cosine.isnan()),
            "logit_snr_db": (self._sum(answers.signal, chosen), self._sum(answers.error, chosen)),
            "mean_absolute_change": self._mean(answers.change, chosen),
            "consistency": self._mean((answers.own_label == answers.moved_label).double(), chosen),
        }
        if self._labels is not None:
            right = answers.moved_label == self._labels[self._plan.image]
            sums["shifted_accuracy"] = self._mean(right.double(), chosen)
        return sums

    def _of_sets(self, chosen: Tensor) -> dict[str, tuple[Tensor, Tensor]]:
        """Measures that look at all shifts of an image together; `chosen` holds whole sets."""
        answers = self._measured.answers
        if answers is None:
            return {}
        shifts = len(self._moves)
        labels = answers.moved_label[chosen].view(-1, shifts)  # [sets, shifts]
        image = self._plan.image[chosen].view(-1, shifts)[:, 0]
        sums = {}
        if shifts > 1:
            votes = torch.zeros(len(labels), int(labels.max()) + 1, dtype=torch.float64)
            votes.scatter_add_(1, labels, torch.ones(labels.shape, dtype=torch.float64))
            agreeing = (votes * (votes - 1)).sum(dim=1) / (shifts * (shifts - 1))
            sums["pairwise_consistency"] = self._by_image(agreeing, image)
        if self._labels is not None:
            right = labels == self._labels[image][:, None]
            own = answers.own_label[chosen].view(-1, shifts)[:, 0] == self._labels[image]
            sums["accuracy"] = self._by_image(own.double(), image)
            sums["worst_case_accuracy"] = self._by_image(right.all(dim=1).double(), image)
        return sums

    def _mean(self, values: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
        return self._sum(values, chosen), self._sum(torch.ones_like(values), chosen)

    def _sum(self, values: Tensor, chosen: Tensor) -> Tensor:
        return self._added(values[chosen], self._plan.image[chosen])

    def _by_image(self, values: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        return self._added(values, image), self._added(torch.ones_like(values), image)

    def _added(self, values: Tensor, image: Tensor) -> Tensor:
        return torch.zeros(self._images, dtype=torch.float64).index_add_(0, image, values)


def _measure(name: str, numerator: Tensor, denominator: Tensor, seed: int) -> Measure:
    value = _value(name, numerator, denominator)
    if value is None:
        return Measure(None, None)
    low, high = bootstrap_ratio(numerator, denominator, seed=seed)
    if not math.isfinite(high) or (low == 0 and name.endswith("_db")):  # resamples without any difference or signal
        return Measure(value, None)
    return Measure(value, (_in_units(name, low), _in_units(name, high)))


def _value(name: str, numerator: Tensor, denominator: Tensor) -> float | None:
    above, below = float(numerator.sum()), float(denominator.sum())
    if below == 0 or (above == 0 and name.endswith("_db")):
        return None
    return _in_units(name, above / below)


def _in_units(name: str, ratio: float) -> float:
    return 10 * math.log10(ratio) if name.endswith("_db") else ratio


def _moves(shifts: Sequence[Shift]) -> Tensor:
    """float64 [T, 2], with (0, 0)."""
    unique = list(dict.fromkeys((Fraction(dy), Fraction(dx)) for dy, dx in shifts))
    if len(unique) < len(shifts) or not shifts or len(shifts) > MAX_SHIFTS:
        raise CcnetError(f"shifts are 1 to {MAX_SHIFTS:,} pairs (dy, dx), each once; got {len(shifts)}")
    no_shift = (Fraction(0), Fraction(0))
    if no_shift not in unique:
        unique.append(no_shift)
    return torch.tensor([[float(dy), float(dx)] for dy, dx in unique], dtype=torch.float64)


def _require_labels(labels: Tensor | None, images: Tensor, subject: Subject) -> None:
    if labels is None:
        return
    if not subject.has_labels:
        raise CcnetError("labels were given, but a function that gives maps alone classifies nothing; leave them out")
    if labels.shape != (len(images),) or labels.is_floating_point():
        raise CcnetError(f"labels are whole numbers [{len(images)}]; got {labels.dtype} {list(labels.shape)}")


def _protocol(protocol: Protocol, groups: list[Group], moves: Tensor, seed: int, images: Tensor) -> dict[str, object]:
    periods = [list(exact_period(sequence)) for group in groups for sequence in group if sequence is not None]
    return describe(protocol, groups, seed=seed, images=images) | {
        "shift": f"{len(moves)} shifts for each image, (0, 0) among them",
        "sub_pixel": "Fourier series under a circular border, else Lanczos with a = 3",
        "exact_period_px": periods,
        "bootstrap_resamples": BOOTSTRAP_RESAMPLES,
    }
