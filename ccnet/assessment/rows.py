"""Rows of the report: one for each number of sequences, and one for each number of views, all measured in one way."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ccnet.assessment import churn, intervals
from ccnet.assessment.calibration import calibration_error, error_by_chance
from ccnet.assessment.options import AssessmentOptions
from ccnet.assessment.scores import Averaged, Outcome, averaged_outcome
from ccnet.assessment.temperature import cross_fitted
from ccnet.evaluation import subsets_of

AVERAGED: tuple[Averaged, ...] = ("logits", "probabilities")


@dataclass(frozen=True)
class Row:
    """Draws of one size.

    Attributes:
        kind: "sequences", "views", or "pass" for the plain pass of a network without sequences.
        size: members or views of a draw, and what it costs in passes an image.
        members: of each draw, their indices in the pool or in the list of views.
        outcomes: of each draw, under both ways to average; for a single member there is but one.
        scaled: the same after temperature scaling; None where there are too few images.
        temperatures: fitted to each half of the images, of each draw.
    """

    kind: str
    size: int
    members: list[tuple[int, ...]]
    outcomes: dict[Averaged, list[Outcome]]
    scaled: dict[Averaged, list[Outcome] | None]
    temperatures: dict[Averaged, list[tuple[float, float]]]

    @property
    def correct(self) -> Tensor:
        """1 where a draw is right, float64 [draws, N]; logits averaged."""
        return torch.stack([outcome.correct for outcome in self.outcomes["logits"]])

    @property
    def predicted(self) -> Tensor:
        """The class of each image in each draw, int64 [draws, N]; logits averaged."""
        return torch.stack([outcome.predicted for outcome in self.outcomes["logits"]])

    @property
    def scaled_nll(self) -> Tensor | None:
        """Mean over draws of the negative log-likelihood after scaling, float64 [N]; None where there is none."""
        scaled = self.scaled["logits"]
        return None if scaled is None else torch.stack([outcome.nll for outcome in scaled]).mean(dim=0)


def draws_of(size: int, pool: int, options: AssessmentOptions) -> list[tuple[int, ...]]:
    """The members of each draw: each of the first sequences alone, or subsets of the pool."""
    if size == 1:
        return [(member,) for member in range(min(options.draws, pool))]
    return subsets_of(pool, size, options.draws, options.seed)


def make_row(
    kind: str, members: list[tuple[int, ...]], logits: Tensor, labels: Tensor, options: AssessmentOptions
) -> Row:
    """Average the logits of each draw and scale them.

    Args:
        kind: see `Row`.
        members: of each draw.
        logits: [pool or views, N, classes].
        labels: int64 [N].
        options: give the seed of the halves.
    """
    size = len(members[0])
    outcomes: dict[Averaged, list[Outcome]] = {}
    scaled: dict[Averaged, list[Outcome] | None] = {}
    temperatures: dict[Averaged, list[tuple[float, float]]] = {}
    for averaged in AVERAGED if size > 1 else AVERAGED[:1]:
        outcomes[averaged] = [averaged_outcome(logits[list(draw)], labels, averaged) for draw in members]
        fitted = [cross_fitted(outcome, options.seed) for outcome in outcomes[averaged]]
        found = [one for one in fitted if one is not None]
        scaled[averaged] = [outcome for outcome, _ in found] or None
        temperatures[averaged] = [pair for _, pair in found]
    return Row(kind, size, members, outcomes, scaled, temperatures)


def describe_row(row: Row, alone: Row, options: AssessmentOptions) -> dict[str, Any]:
    """The row as JSON values.

    Args:
        row: of any size.
        alone: the row of size 1 that gains and losses are counted against.
        options: give bins, seed and resamples.
    """
    described: dict[str, Any] = {
        "kind": row.kind,
        "size": row.size,
        "passes": row.size,
        "draws": len(row.members),
        "members": [list(members) for members in row.members],
    }
    for averaged, outcomes in row.outcomes.items():
        described[f"mean_of_{averaged}"] = {
            "accuracy": _accuracy(outcomes, options),
            **_scores(outcomes, options),
            "scaled": _scaled(row, averaged, options),
        }
    gained, lost = churn.gained_and_lost(row.correct, alone.correct)
    return described | {"churn": churn.churn(row.predicted), "gained": gained, "lost": lost}


def _accuracy(outcomes: list[Outcome], options: AssessmentOptions) -> dict[str, Any]:
    of_image = torch.stack([outcome.correct for outcome in outcomes]).mean(dim=0)
    interval, method = intervals.of_share(of_image, draws=len(outcomes), seed=options.seed, resamples=options.resamples)
    return _over_draws([float(outcome.correct.mean()) for outcome in outcomes]) | {
        "interval": list(interval),
        "interval_method": method,
    }


def _scores(outcomes: list[Outcome], options: AssessmentOptions) -> dict[str, Any]:
    """All that depends on how sharp the probabilities are."""
    bins = options.bins
    nll = torch.stack([outcome.nll for outcome in outcomes])
    brier = torch.stack([outcome.brier for outcome in outcomes])
    chance, at_most = error_by_chance(outcomes[0].confidence, bins, seed=options.seed)

    def over_draws(measure: Callable[[Outcome], float]) -> dict[str, Any]:
        return _over_draws([measure(outcome) for outcome in outcomes])

    return {
        "nll": _over_draws(nll.mean(dim=1).tolist()) | _bootstrapped(nll, options),
        "brier": _over_draws(brier.mean(dim=1).tolist()) | _bootstrapped(brier, options),
        "ece": over_draws(lambda one: calibration_error(one.confidence, one.correct, bins))
        | {"by_chance": chance, "by_chance_95": at_most},
        "ece_equal_mass": over_draws(lambda one: calibration_error(one.confidence, one.correct, bins, equal_mass=True)),
        "confidence": over_draws(lambda one: float(one.confidence.mean())),
    }


def _scaled(row: Row, averaged: Averaged, options: AssessmentOptions) -> dict[str, Any] | None:
    scaled = row.scaled[averaged]
    if scaled is None:
        return None
    fitted = [temperature for pair in row.temperatures[averaged] for temperature in pair]
    return {"temperature": statistics.fmean(fitted), "temperatures": fitted, **_scores(scaled, options)}


def _bootstrapped(values: Tensor, options: AssessmentOptions) -> dict[str, Any]:
    interval = intervals.bootstrap(values.mean(dim=0), seed=options.seed, resamples=options.resamples)
    return {"interval": list(interval)}


def _over_draws(values: Sequence[float]) -> dict[str, Any]:
    """Mean, standard deviation (with n - 1; None for one draw) and all values."""
    return {
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else None,
        "values": list(values),
    }
