"""The shift probes: Table 1's row, the whole table, and the similarity at every shift."""

from collections.abc import Callable, Sequence
from typing import Any, Unpack

import torch
from torch import Tensor

from ccnet.equivariance.measure import OnProgress, Plan, run_plan
from ccnet.equivariance.protocol import Choices, Protocol, require_whole
from ccnet.equivariance.results import (
    BOOTSTRAP_RESAMPLES,
    ShiftSimilarity,
    SimilarityMap,
    bootstrap_interval,
    mean_by,
    none_for_nan,
    pair_cosines,
)
from ccnet.equivariance.shifts import draw_shifts
from ccnet.equivariance.subject import Group, Subject
from ccnet.errors import CcnetError
from ccnet.sequences import ScaleSequence

# Sequences drawn when none are given. Under members "split" more of them cost no more passes.
DEFAULT_ENSEMBLE_SIZE = 8
DEFAULT_BATCH_SIZE = 64


def shift_similarity(
    model_or_features: Callable[..., Any],
    images: Tensor,
    max_shift: int,
    *,
    sequences: Sequence[ScaleSequence] | None = None,
    ensemble_size: int = DEFAULT_ENSEMBLE_SIZE,
    seed: int = 0,
    samples: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: OnProgress | None = None,
    **choices: Unpack[Choices],
) -> ShiftSimilarity:
    """One row of Table 1: how alike are the maps of an image and of a shifted copy, once shifted back?

    Args:
        model_or_features: a CCNet-like module (`features(x, sequence)`), a ConvNet-like one (`features(x)`), or any
            function from images to maps [N, C, h, w]. It is measured in evaluation mode.
        images: float [N, C, H, W], preprocessed as the model wants them.
        max_shift: r in input px; each shift is uniform on the whole px of [-r, r]^2.
        sequences: scale sequences to measure under; None draws `ensemble_size` of them with `seed`.
        ensemble_size: k, at least 1; no effect on a model without sequences.
        seed: of shifts, sequences and bootstrap.
        samples: pairs to measure; None means one for each image. Pair p shows image p mod N.
        batch_size: images a pass.
        on_progress: called with (done, total) measurements after each pass.
        **choices: the fields of `Protocol` (border, fill, cubic_a, cut, total_scale, ...).

    Returns:
        The row, with every choice behind it in `.protocol`.

    Raises:
        CcnetError: an argument out of range, a map that does not fit the protocol, or nothing but zero maps.

    Source: arXiv 2006.11120, Sec. 6 "Verifying Shift-Equivariance" and Table 1.
    """
    protocol = Protocol(**choices)
    subject = Subject(model_or_features)
    require_images(images, max_shift, protocol, seed=seed, batch_size=batch_size)
    if samples is not None:
        require_whole("samples", samples, least=1)
    pairs = len(images) if samples is None else samples
    groups = subject.groups(
        sequences, ensemble_size=ensemble_size, seed=seed, members=protocol.members, in_size=seen_size(images, protocol)
    )
    shift = draw_shifts(pairs, max_shift, seed=seed, include_zero=protocol.include_zero)
    plan = Plan.deal(torch.arange(pairs) % len(images), shift, len(images), len(groups), protocol)
    groups = groups[: int(plan.group.max()) + 1]  # few pairs do not reach the last sequences
    measured = run_plan(subject, images, plan, groups, protocol, batch_size=batch_size, on_progress=on_progress)

    cosine = pair_cosines(plan, measured)
    image = torch.arange(pairs) % len(images)
    kept = cosine[~cosine.isnan()]
    by_sequence = subject.takes_sequences and protocol.members != "ensemble"
    sequence_means = mean_by(plan.group, measured.cosine, len(groups)) if by_sequence else torch.empty(0)
    return ShiftSimilarity(
        max_shift=max_shift,
        cosine_mean=kept.mean().item(),
        cosine_std=kept.std(correction=0).item(),
        ci95=bootstrap_interval(image[~cosine.isnan()], kept, seed=seed),
        consistency=None if measured.same_label is None else measured.same_label.double().mean().item(),
        samples=pairs,
        skipped=pairs - len(kept),
        per_image=none_for_nan(mean_by(image, cosine, min(pairs, len(images)))),
        sequence_means=none_for_nan(sequence_means),
        sequence_std=_spread(sequence_means),
        protocol=describe(protocol, groups, seed=seed, images=images) | {"bootstrap_resamples": BOOTSTRAP_RESAMPLES},
    )


def table1(
    model_or_features: Callable[..., Any],
    images: Tensor,
    max_shifts: Sequence[int] = (2, 4, 6),
    *,
    sequences: Sequence[ScaleSequence] | None = None,
    ensemble_size: int = DEFAULT_ENSEMBLE_SIZE,
    seed: int = 0,
    samples: int | None = None,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: OnProgress | None = None,
    **choices: Unpack[Choices],
) -> list[ShiftSimilarity]:
    """A column of Table 1: `shift_similarity` for each max shift, under the same scale sequences.

    Args:
        max_shifts: r of each row, input px; the paper's are 2, 4 and 6.
        on_progress: counts the measurements of all rows.
        (all others as in `shift_similarity`)

    Raises:
        CcnetError: as `shift_similarity`; no max shift at all.
    """
    if not max_shifts:
        raise CcnetError("max_shifts is empty; give at least one max shift in px, the paper's are (2, 4, 6)")
    rows = []
    for index, max_shift in enumerate(max_shifts):
        rows.append(
            shift_similarity(
                model_or_features,
                images,
                max_shift,
                sequences=sequences,
                ensemble_size=ensemble_size,
                seed=seed,
                samples=samples,
                batch_size=batch_size,
                on_progress=_part_of(on_progress, index, len(max_shifts)),
                **choices,
            )
        )
    return rows


def similarity_map(
    model_or_features: Callable[..., Any],
    images: Tensor,
    max_shift: int,
    *,
    sequences: Sequence[ScaleSequence] | None = None,
    ensemble_size: int = DEFAULT_ENSEMBLE_SIZE,
    seed: int = 0,
    batch_size: int = DEFAULT_BATCH_SIZE,
    on_progress: OnProgress | None = None,
    **choices: Unpack[Choices],
) -> SimilarityMap:
    """Mean cosine over the images at every whole shift of [-r, r]^2: N (2r + 1)^2 pairs.

    Arguments as in `shift_similarity`; `include_zero` has no effect, since the middle belongs to the map.

    Raises:
        CcnetError: as `shift_similarity`.
    """
    protocol = Protocol(**choices)
    subject = Subject(model_or_features)
    require_images(images, max_shift, protocol, seed=seed, batch_size=batch_size)
    groups = subject.groups(
        sequences, ensemble_size=ensemble_size, seed=seed, members=protocol.members, in_size=seen_size(images, protocol)
    )
    side, count = 2 * max_shift + 1, len(images)
    steps = torch.arange(-max_shift, max_shift + 1)
    shift = torch.cartesian_prod(steps, steps).repeat(
        count, 1
    )  # all shifts of the first image, then of the second, ...
    image = torch.arange(count).repeat_interleave(side * side)
    plan = Plan.deal(image, shift, len(image), len(groups), protocol)
    groups = groups[: int(plan.group.max()) + 1]
    measured = run_plan(subject, images, plan, groups, protocol, batch_size=batch_size, on_progress=on_progress)

    cosine = pair_cosines(plan, measured)
    cell = torch.arange(side * side).repeat(count)
    values = none_for_nan(mean_by(cell, cosine, side * side))
    return SimilarityMap(
        max_shift=max_shift,
        cosine=tuple(values[start : start + side] for start in range(0, side * side, side)),
        samples=len(cosine),
        skipped=int(cosine.isnan().sum()),
        protocol=describe(protocol, groups, seed=seed, images=images)
        | {"shift": "every whole px of [-max_shift, max_shift]^2 once for each image", "include_zero": True},
    )


def noise_images(n: int, shape: tuple[int, int, int], seed: int = 0) -> Tensor:
    """Gaussian noise, mean 0 and variance 1, as an input of Table 1 (lower half).

    Args:
        n: images, at least 1.
        shape: (C, H, W) of the network's input.
        seed: the same seed gives the same noise.

    Returns:
        float32 [n, C, H, W].
    """
    require_whole("n", n, least=1)
    for name, size in zip(("channels", "height", "width"), shape, strict=True):
        require_whole(name, size, least=1)
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def require_images(images: object, max_shift: int, protocol: Protocol, *, seed: int, batch_size: int) -> None:
    """Raise `CcnetError` for images, a largest shift, a seed or a batch size that no probe can work with."""
    if not isinstance(images, Tensor) or images.ndim != 4 or len(images) == 0 or not images.is_floating_point():
        given = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise CcnetError(f"images are a float tensor [N, C, H, W] with N >= 1, already preprocessed; got {given}")
    require_whole("max_shift", max_shift, least=0)
    require_whole("batch_size", batch_size, least=1)
    require_whole("seed", seed, least=0)
    height, width = seen_size(images, protocol)
    if min(height, width) < 1:
        raise CcnetError(
            f"a margin of {protocol.margin} px leaves nothing of images of {images.shape[2]} x {images.shape[3]} px"
        )
    if max_shift >= min(height, width):
        raise CcnetError(
            f"max_shift {max_shift} would push a {height} x {width} image out of itself; "
            f"allowed are 0 to {min(height, width) - 1}"
        )
    if protocol.border == "crop" and max_shift > protocol.margin:
        raise CcnetError(f"max_shift {max_shift} leaves a margin of {protocol.margin} px; give a larger margin")


def seen_size(images: Tensor, protocol: Protocol) -> tuple[int, int]:
    """What the model sees of the images, px."""
    return images.shape[2] - 2 * protocol.margin, images.shape[3] - 2 * protocol.margin


def describe(protocol: Protocol, groups: list[Group], *, seed: int, images: Tensor) -> dict[str, object]:
    """The protocol with what was measured, as JSON values."""
    used = [str(sequence) for group in groups for sequence in group if sequence is not None]
    return protocol.describe() | {
        "sequences": used,
        "seed": seed,
        "images": len(images),
        "input": list(images.shape[1:]),
    }


def _spread(means: Tensor) -> float | None:
    present = means[~means.isnan()]
    return present.std(correction=0).item() if len(present) else None


def _part_of(on_progress: OnProgress | None, index: int, parts: int) -> OnProgress | None:
    """The progress of part `index` as progress of the whole; all parts are equally long."""
    if on_progress is None:
        return None
    return lambda done, total: on_progress(index * total + done, parts * total)
