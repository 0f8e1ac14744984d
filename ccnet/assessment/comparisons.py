"""Paired comparisons: what an ensemble gains, what views gain at as many passes, and the difference of the two.

An image brings the values of both sides along into a resample, so what is easy or hard for both cancels, and a
difference that no two intervals of accuracies would show can be told from chance. Fewer than `LEAST_COMPARED` images
get no interval: the bootstrap knows of no values but theirs, and of one image claims certainty.
"""

from typing import Any

from ccnet.assessment.intervals import bootstrap
from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.rows import Row

LEAST_COMPARED = 20  # images


def compare_all(rows: list[Row], options: AssessmentOptions) -> list[dict[str, Any]]:
    """For each size above 1: sequences - one sequence, views - the plain picture, sequences - views, where measured.

    Args:
        rows: all of the report.
        options: give seed and resamples.
    """
    by_kind = {kind: {row.size: row for row in rows if row.kind == kind} for kind in ("sequences", "views", "pass")}
    sequences, views = by_kind["sequences"], by_kind["views"]
    found = []
    for size in options.sizes[1:]:
        pairs = ((sequences, sequences, 1), (views, views, 1), (sequences, views, size))
        for of, minus, other in pairs:
            if size in of and other in minus:
                found.append(compare(of[size], minus[other], options))
    return found


def compare(of: Row, minus: Row, options: AssessmentOptions) -> dict[str, Any]:
    """One comparison as JSON values: the difference of accuracies, and of likelihoods after temperature scaling."""
    return {
        "of": {"kind": of.kind, "size": of.size},
        "minus": {"kind": minus.kind, "size": minus.size},
        "accuracy": _difference(of.correct.mean(dim=0) - minus.correct.mean(dim=0), options),
        "scaled_nll": None
        if of.scaled_nll is None or minus.scaled_nll is None
        else _difference(of.scaled_nll - minus.scaled_nll, options),
    }


def _difference(values: Any, options: AssessmentOptions) -> dict[str, Any]:
    difference = float(values.mean())
    if len(values) < LEAST_COMPARED:
        return {"difference": difference, "interval": None}
    interval = bootstrap(values, seed=options.seed, resamples=options.resamples)
    return {"difference": difference, "interval": list(interval)}
