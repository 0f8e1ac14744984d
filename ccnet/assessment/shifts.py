"""The equivariance table of a report: Table 1 on pictures of the data set and on noise (docs/equivariance.md)."""

from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.passes import Passes
from ccnet.checkpoint import Checkpoint
from ccnet.data import LabelledPictures
from ccnet.equivariance import noise_images, table1
from ccnet.sequences import ScaleSequence


def shift_passes(images: int, options: AssessmentOptions) -> int:
    """Passes of the table: each picture once, and once shifted, in every row."""
    return 2 * len(options.max_shifts) * (min(images, options.shift_samples) + options.shift_samples)


def shift_tables(
    model: Checkpoint,
    dataset: LabelledPictures,
    sequences: Sequence[ScaleSequence],
    options: AssessmentOptions,
    passes: Passes,
) -> dict[str, Any] | None:
    """Both tables as JSON values; None where no max shift is asked for.

    Raises:
        CcnetError: a shift as large as the picture, or maps with nothing to compare.
    """
    if not options.max_shifts:
        return None
    preprocessing = model.preprocessing
    pictures = model.preprocess(dataset.images[: options.shift_samples])
    noise = noise_images(options.shift_samples, (preprocessing.channels, *preprocessing.input_size), options.seed)
    # A network without sequences is given None with every pass, which hides the argument from the probe.
    both = passes.maps_and_logits if sequences else partial(passes.maps_and_logits, sequence=None)
    found: dict[str, Any] = {}
    for name, images, fill in (("dataset", pictures, preprocessing.black), ("noise", noise, 0.0)):
        rows = table1(
            SimpleNamespace(maps_and_logits=both),  # type: ignore[arg-type]  # not called itself: it has the method
            images,
            options.max_shifts,
            sequences=sequences or None,
            seed=options.seed,
            batch_size=options.batch_size,
            fill=fill,
        )
        found[name] = {"images": len(images), "rows": [row.row() for row in rows], "protocol": rows[0].protocol}
    return found
