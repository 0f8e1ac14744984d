"""One draw looked at closely: which classes are confused, how probabilities match what is right, the worst errors."""

from typing import Any

import torch
from torch import Tensor

from ccnet.assessment.calibration import Bins
from ccnet.assessment.intervals import wilson
from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.rows import Row
from ccnet.assessment.scores import Outcome

MATRIX_CLASSES = 100  # more make a matrix of more numbers than anyone reads
WORST_ERRORS = 20
MOST_CONFUSED = 10


def describe_shown(
    row: Row, classes: tuple[str, ...], options: AssessmentOptions, files: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The first draw of a row as JSON values; its logits averaged.

    Args:
        row: the largest size.
        classes: the network's.
        options: give the bins.
        files: the name of each image's file, for the errors; empty where images have none.
    """
    outcome, scaled = row.outcomes["logits"][0], row.scaled["logits"]
    matrix = confusion(outcome, len(classes))
    return {
        "kind": row.kind,
        "size": row.size,
        "draw": 0,
        "members": list(row.members[0]),
        "ties": ties(outcome),
        "per_class": [_class_row(name, index, matrix) for index, name in enumerate(classes)],
        "confusion": matrix.tolist() if len(classes) <= MATRIX_CLASSES else None,
        "most_confused": _most_confused(matrix, classes),
        "reliability": reliability(outcome, options.bins),
        "reliability_scaled": None if scaled is None else reliability(scaled[0], options.bins),
        "errors": _worst_errors(outcome, classes, files),
    }


def confusion(outcome: Outcome, classes: int) -> Tensor:
    """Images by label (row) and predicted class (column), int64 [classes, classes]."""
    pairs = outcome.labels * classes + outcome.predicted
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def ties(outcome: Outcome) -> int:
    """Images with several classes of the largest score; the first of them counts as predicted."""
    largest = outcome.scores.amax(dim=1, keepdim=True)
    return int(((outcome.scores == largest).sum(dim=1) > 1).sum())


def reliability(outcome: Outcome, bins: int) -> list[dict[str, Any]]:
    """The bins of a reliability diagram; confidence and accuracy are None in an empty one."""
    made = Bins.equal_width(outcome.confidence, bins)
    rows = zip(made.count.tolist(), made.confidence.tolist(), made.accuracy(outcome.correct).tolist(), strict=True)
    return [
        {
            "from": index / bins,
            "to": (index + 1) / bins,
            "images": count,
            "confidence": confidence if count else None,
            "accuracy": accuracy if count else None,
        }
        for index, (count, confidence, accuracy) in enumerate(rows)
    ]


def _class_row(name: str, index: int, matrix: Tensor) -> dict[str, Any]:
    """Accuracy (recall) of the images of a class, and precision of what is called so; None where there are none."""
    images, called, right = (int(n) for n in (matrix[index].sum(), matrix[:, index].sum(), matrix[index, index]))
    return {
        "label": name,
        "images": images,
        "accuracy": right / images if images else None,
        "interval": list(wilson(right / images, images)) if images else None,
        "precision": right / called if called else None,
    }


def _most_confused(matrix: Tensor, classes: tuple[str, ...]) -> list[dict[str, Any]]:
    wrong = matrix - torch.diag(matrix.diagonal())
    order = wrong.flatten().argsort(descending=True, stable=True)[:MOST_CONFUSED].tolist()
    cells = [(divmod(cell, len(classes)), int(wrong.flatten()[cell])) for cell in order]
    return [{"label": classes[a], "predicted": classes[b], "images": n} for (a, b), n in cells if n]


def _worst_errors(outcome: Outcome, classes: tuple[str, ...], files: tuple[str, ...]) -> list[dict[str, Any]]:
    """The errors of the largest confidence; "file" is None where images have none."""
    wrong = torch.nonzero(outcome.correct == 0)[:, 0]
    order = wrong[outcome.confidence[wrong].argsort(descending=True, stable=True)][:WORST_ERRORS]
    of_label = (-outcome.nll).exp()
    return [
        {
            "index": index,
            "file": files[index] if files else None,
            "label": classes[int(outcome.labels[index])],
            "predicted": classes[int(outcome.predicted[index])],
            "probability": float(outcome.confidence[index]),
            "probability_of_label": float(of_label[index]),
        }
        for index in order.tolist()
    ]
