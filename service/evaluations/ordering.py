"""From what was asked to an order: the model is there, knows the classes, and the cost is allowed; before any pass."""

import hashlib
import json
import re
from pathlib import Path

from ccnet.assessment.classes import labels_for
from ccnet.data import LabelledPictures
from service.engine import Engine
from service.errors import TooLarge
from service.evaluations.archives import Limits, read_archive
from service.evaluations.jobs import Order
from service.evaluations.receiving import Received
from service.evaluations.schemas import EvaluationOptions
from service.evaluations.worker import Assessor, assessment_options
from service.probes import test_split
from service.settings import Settings

MAX_NAME = 64  # characters of what an uploaded data set is called


def order_of(
    settings: Settings,
    engine: Engine,
    assessor: Assessor,
    options: EvaluationOptions,
    key: str | None,
    upload: tuple[Path, Received] | None,
    limits: Limits,
) -> Order:
    """An order, after looking at all that it needs; takes seconds for a large upload and is work for a thread.

    Args:
        settings: For the limit on passes.
        engine: Has the models.
        assessor: Knows the cost.
        options: What is asked.
        key: By which the client tells a repetition.
        upload: The file of the data set and the form that it came in; None for a built-in one.
        limits: Of what is in the file.

    Raises:
        UnknownModel: No such model is loaded.
        TooLarge: It costs more passes than allowed, or the upload holds too much.
        Malformed, UnsupportedImage, OptionOutOfRange: As `read_archive`.
        CcnetError: Options that do not go together, a class that the model does not know, no such data set.
    """
    model = engine.model(options.model)
    asked = assessment_options(options)
    dataset: LabelledPictures
    if upload is None:
        dataset, digest = test_split(options.dataset or "", settings.data_dir), ""
    else:
        dataset, digest = read_archive(upload[0], _name(upload[1].filename), limits), upload[1].digest
    if options.limit is not None:
        dataset = dataset.first(options.limit)
    labels_for(model.checkpoint.labels, dataset)
    passes = assessor.passes_needed(model.checkpoint, len(dataset), asked)
    if passes > settings.max_evaluation_passes:
        raise TooLarge(
            f"{len(dataset):,} images with these options cost {passes:,} passes; one evaluation may cost "
            f"{settings.max_evaluation_passes:,}: ask for fewer draws or smaller sizes, or set a limit"
        )
    told = options.model_dump(mode="json")
    fingerprint = hashlib.sha256(json.dumps([told, digest], sort_keys=True).encode()).hexdigest()
    return Order(
        model=model.name,
        dataset=dataset.name,
        images=len(dataset),
        options=told | {"model": model.name},
        passes=passes,
        fingerprint=fingerprint,
        key=key,
        uploaded=upload is not None,
    )


def _name(filename: str) -> str:
    """What an uploaded data set is called, after its file."""
    stem = re.split(r"[/\\]", filename)[-1].rsplit(".", 1)[0]
    return re.sub(r"[^\w.-]+", "-", stem, flags=re.ASCII).strip("-.")[:MAX_NAME] or "upload"
