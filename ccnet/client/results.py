"""What the service answers, as frozen dataclasses: one class a JSON object, one field a key (docs/http.md).

A key that a field does not know is left out, so that an older client reads a newer service. Sizes are (height, width).
"""

from dataclasses import dataclass
from typing import Any

from ccnet.sequences import ScaleSequence


@dataclass(frozen=True)
class Timing:
    """Where the time of a request went on the service.

    Attributes:
        decode: reading and preparing the images, ms.
        queue: waiting for the inference thread, ms.
        inference: forward passes, ms.
        total: from the first byte of the request to the answer, ms.
    """

    decode: float
    queue: float
    inference: float
    total: float


@dataclass(frozen=True)
class TopClass:
    """One class and its probability."""

    label: str
    class_index: int
    probability: float


@dataclass(frozen=True)
class ImageResult:
    """What one image was classified as.

    Attributes:
        index: position of the image in the request, from 0.
        label: name of the most probable class.
        class_index: its number.
        probability: its probability.
        top: the most probable classes, best first.
        agreement: share of the members whose best class is the label; 1 for a model without members.
        entropy: of the probabilities, in nats.
        logits: aggregated over the members, one a class; None unless asked for with include="logits".
    """

    index: int
    label: str
    class_index: int
    probability: float
    top: tuple[TopClass, ...]
    agreement: float
    entropy: float
    logits: tuple[float, ...] | None = None


@dataclass(frozen=True)
class Member:
    """What one member of the ensemble thinks of every image.

    Attributes:
        sequence: its scales, exact; `ccnet.ScaleEnsemble(...)(x, sequences=[...])` takes it as it is.
        labels: its best class for each image.
        probabilities: what it gives that class.
    """

    sequence: ScaleSequence
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Classification:
    """The answer of `classify`.

    Attributes:
        request_id: finds the request in the service's log.
        model: name of the model that answered.
        ensemble_size: members used; 1 for a model without scale sequences.
        seed: the same images, ensemble size, seed and model give the same answer.
        results: one an image, in the order given.
        timing_ms: where the time went on the service.
        members: one a member; None unless asked for with include="members", and for a model without sequences.
        asked_ensemble_size: members asked for, when time ran out and `min_size` allowed fewer; None otherwise.
    """

    request_id: str
    model: str
    ensemble_size: int
    seed: int
    results: tuple[ImageResult, ...]
    timing_ms: Timing
    members: tuple[Member, ...] | None = None
    asked_ensemble_size: int | None = None

    @property
    def labels(self) -> tuple[str, ...]:
        """The label of every image."""
        return tuple(result.label for result in self.results)


@dataclass(frozen=True)
class SequenceDraw:
    """The answer of `sequences`: what a classification with the same options uses.

    Attributes:
        request_id: finds the request in the service's log.
        model: name of the model.
        ensemble_size: number of sequences.
        seed: decides them.
        input_size: (height, width) of the network's input, px; `sequence.shapes(input_size)` are the sizes of its maps.
        sequences: one a member.
    """

    request_id: str
    model: str
    ensemble_size: int
    seed: int
    input_size: tuple[int, int]
    sequences: tuple[ScaleSequence, ...]


@dataclass(frozen=True)
class ModelInfo:
    """A model that the service has loaded.

    Attributes:
        name: what `model=` takes.
        default: whether a request that names no model gets this one.
        architecture: such as "CCNet".
        takes_sequences: whether it is run as an ensemble of scale sequences.
        labels: one a class.
        input_size: (height, width) of the network's input, px.
        device: where it runs.
        parameters: how many numbers were learned.
        backend: how continuous convolutions are computed; None without any.
        instruction_set: what the native kernels use; None under another backend.
        metrics: as its model card states them.
        config: all of its config.json; None in the list of all models.
    """

    name: str
    default: bool
    architecture: str
    takes_sequences: bool
    labels: tuple[str, ...]
    input_size: tuple[int, int]
    device: str
    parameters: int
    backend: str | None = None
    instruction_set: str | None = None
    metrics: dict[str, Any] | None = None
    config: dict[str, Any] | None = None


@dataclass(frozen=True)
class Models:
    """The loaded models, as the service lists them."""

    models: tuple[ModelInfo, ...]


@dataclass(frozen=True)
class ShiftRow:
    """One row of Table 1 (arXiv 2006.11120).

    Attributes:
        max_shift: shifts are drawn up to this far, input px.
        cosine_mean: mean cosine of the last maps before and after a shift.
        cosine_std: its standard deviation over the pairs.
        ci95: bootstrap interval of the mean, images resampled.
        samples: pairs measured, skipped ones included.
        skipped: pairs without a cosine, because both maps are zero.
        consistency: share of pairs in which both images get the same label; None for a model without labels.
        sequence_std: spread of the means of single scale sequences; None without several.
    """

    max_shift: int
    cosine_mean: float
    cosine_std: float
    ci95: tuple[float, float]
    samples: int
    skipped: int
    consistency: float | None = None
    sequence_std: float | None = None


@dataclass(frozen=True)
class EquivarianceTable:
    """The answer of `equivariance`: Table 1 of one model.

    Attributes:
        request_id: finds the request in the service's log.
        model: name of the model.
        input: what was shifted, "noise" or "dataset".
        samples: images, each shifted once a row.
        rows: one for each `max_shift`.
        protocol: every choice behind the numbers.
        timing_ms: where the time went on the service.
    """

    request_id: str
    model: str
    input: str
    samples: int
    rows: tuple[ShiftRow, ...]
    protocol: dict[str, Any]
    timing_ms: Timing


@dataclass(frozen=True)
class ShiftMap:
    """Mean cosine at every shift.

    Attributes:
        max_shift: r, input px.
        cosine: 2r + 1 rows of as many values; row r + dy, column r + dx holds the shift (dy, dx), None where all was
            skipped.
        samples: pairs measured.
        skipped: pairs without a cosine.
    """

    max_shift: int
    cosine: tuple[tuple[float | None, ...], ...]
    samples: int
    skipped: int


@dataclass(frozen=True)
class ModelProbe:
    """What one model makes of the images that were sent: the rows of Table 1, and the cosine at every shift."""

    model: str
    rows: tuple[ShiftRow, ...]
    map: ShiftMap
    protocol: dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """The answer of `compare`: models side by side on the same images.

    Attributes:
        request_id: finds the request in the service's log.
        samples: images that were sent.
        seed: decides shifts and sequences.
        models: one a model, in the order asked for.
        timing_ms: where the time went on the service.
    """

    request_id: str
    samples: int
    seed: int
    models: tuple[ModelProbe, ...]
    timing_ms: Timing


@dataclass(frozen=True)
class Health:
    """The answer of the probes."""

    status: str
