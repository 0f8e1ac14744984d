"""The assessment itself: one pass over everything, and the document made of it."""

from collections.abc import Callable
from typing import Any

from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.passes import Passes
from ccnet.checkpoint import Checkpoint
from ccnet.data import LabelledPictures


def assess(
    model: Checkpoint,
    dataset: LabelledPictures,
    options: AssessmentOptions | None = None,
    *,
    passes: Passes | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Assess a classifier on labelled pictures.

    Args:
        model: a checkpoint.
        dataset: pictures whose classes the network knows, matched by name (or by number, where they have no names).
        options: what is asked; None takes all defaults.
        passes: how the network is run; None runs it here.
        on_progress: called with (done, total) passes after each call of `passes`; may raise in order to stop.

    Returns:
        JSON-able document; docs/evaluation.md says what each number means.

    Raises:
        CcnetError: a class that the network does not know, a shift as large as the picture, or logits that are not
            finite.
    """
    raise NotImplementedError


def passes_needed(model: Checkpoint, images: int, options: AssessmentOptions | None = None) -> int:
    """Forward passes of single images that an assessment of `images` pictures makes: its cost before any work."""
    raise NotImplementedError


def metrics(document: dict[str, Any]) -> dict[str, Any]:
    """What `ccnet.evaluation.evaluate` reports, made of an assessment's document: what a model card takes."""
    raise NotImplementedError
