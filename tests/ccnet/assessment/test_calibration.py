"""Scores and calibration: literal loops, known answers, and what must hold of any numbers."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor

from ccnet.assessment.calibration import Bins, calibration_error, error_by_chance
from ccnet.assessment.rows import AVERAGED
from ccnet.assessment.scores import Outcome, averaged_outcome
from ccnet.assessment.temperature import HIGHEST, LOWEST, cross_fitted, fit_temperature, halves
from tests.ccnet.assessment import oracles


def outcome(images: int = 200, classes: int = 5, sharpness: float = 2.0, seed: int = 0) -> Outcome:
    dice = torch.Generator().manual_seed(seed)
    scores = sharpness * torch.randn(images, classes, generator=dice, dtype=torch.float64)
    return Outcome(scores, torch.randint(classes, (images,), generator=dice))


def calibrated(images: int, classes: int, seed: int) -> Outcome:
    """Labels drawn with exactly the probabilities that are claimed."""
    dice = torch.Generator().manual_seed(seed)
    scores = 2 * torch.randn(images, classes, generator=dice, dtype=torch.float64)
    return Outcome(scores, scores.softmax(1).multinomial(1, generator=dice)[:, 0])


@pytest.mark.parametrize("averaged", AVERAGED)
def test_scores_of_an_ensemble_are_the_literal_sums(averaged) -> None:
    dice = torch.Generator().manual_seed(1)
    members = 3 * torch.randn(4, 60, 5, generator=dice)
    labels = torch.randint(5, (60,), generator=dice)
    found = averaged_outcome(members, labels, averaged)
    by_hand = oracles.mean_of_logits if averaged == "logits" else oracles.mean_of_probabilities
    expected = by_hand(members.double().tolist())
    assert found.log_probabilities.exp().flatten().tolist() == pytest.approx([*itertools.chain(*expected)], rel=1e-12)
    assert found.predicted.tolist() == oracles.predicted(expected)
    assert float(found.correct.mean()) == pytest.approx(oracles.accuracy(expected, labels.tolist()))
    assert float(found.nll.mean()) == pytest.approx(oracles.nll(expected, labels.tolist()), rel=1e-12)
    assert float(found.brier.mean()) == pytest.approx(oracles.brier(expected, labels.tolist()), rel=1e-12)


@pytest.mark.parametrize("bins", [1, 7, 15])
def test_calibration_errors_are_the_literal_sums(bins) -> None:
    found = outcome()
    confidences, correct = found.confidence.tolist(), found.correct.tolist()
    width = calibration_error(found.confidence, found.correct, bins)
    mass = calibration_error(found.confidence, found.correct, bins, equal_mass=True)
    assert width == pytest.approx(oracles.calibration_error(confidences, correct, bins), rel=1e-12)
    assert mass == pytest.approx(oracles.equal_mass_error(confidences, correct, bins), rel=1e-12)
    assert width > 0.01, "or this shows nothing"


def test_an_error_computed_with_other_bins_would_be_noticed() -> None:
    found = outcome()
    other = oracles.calibration_error(found.confidence.tolist(), found.correct.tolist(), 14)
    assert calibration_error(found.confidence, found.correct, 15) != pytest.approx(other, rel=1e-3)


@pytest.mark.parametrize("confidence", [0.0, 0.2, 0.4, 1.0])
def test_the_upper_edge_of_a_bin_belongs_to_it(confidence) -> None:
    index = Bins.equal_width(torch.tensor([confidence], dtype=torch.float64), 5).index
    assert int(index) == max(0, math.ceil(confidence * 5) - 1)


def test_equal_confidences_share_a_bin_of_equal_mass_whatever_their_order() -> None:
    confidence = torch.full((100,), 0.5, dtype=torch.float64)
    correct = torch.tensor([1.0, 0.0], dtype=torch.float64).repeat_interleave(50)
    assert calibration_error(confidence, correct, 10, equal_mass=True) == 0
    spread = torch.linspace(0.3, 0.9, 90, dtype=torch.float64)
    assert Bins.equal_mass(spread, 9).count.tolist() == [10] * 9


@given(seed=st.integers(0, 2**32), classes=st.integers(2, 12))
@settings(max_examples=15, deadline=None)
def test_a_calibrated_classifier_has_an_error_that_goes_to_0_with_the_images(seed, classes) -> None:
    many = calibrated(40_000, classes, seed)
    assert calibration_error(many.confidence, many.correct, 15) < 0.02
    assert calibration_error(many.confidence, many.correct, 15, equal_mass=True) < 0.02


def test_what_chance_gives_is_what_calibrated_classifiers_show() -> None:
    shown = [calibrated(150, 4, seed) for seed in range(60)]
    errors = [calibration_error(one.confidence, one.correct, 15) for one in shown]
    claimed = [error_by_chance(one.confidence, 15, seed=seed) for seed, one in enumerate(shown)]
    assert sum(errors) / 60 == pytest.approx(sum(mean for mean, _ in claimed) / 60, rel=0.1)
    assert sum(error > most for error, (_, most) in zip(errors, claimed, strict=True)) <= 9  # 3 are expected
    assert sum(errors) / 60 > 0.03, "few images: far from 0 although nothing is wrong"


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 3.0])
def test_the_fitted_temperature_has_the_smallest_likelihood_loss(sharpness) -> None:
    made = calibrated(3000, 6, seed=2)
    sharp = Outcome(made.scores * sharpness, made.labels)
    fitted = fit_temperature(sharp)
    found = minimize_scalar(
        lambda log_t: float(sharp.scaled(math.exp(log_t)).nll.mean()),
        bounds=(math.log(LOWEST), math.log(HIGHEST)),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert fitted == pytest.approx(math.exp(found.x), rel=1e-5)
    assert fitted == pytest.approx(sharpness, rel=0.1)


def test_temperatures_have_bounds_and_1_where_nothing_depends_on_them() -> None:
    certain = torch.eye(4, dtype=torch.float64)
    assert fit_temperature(Outcome(certain, torch.arange(4))) == LOWEST
    assert fit_temperature(Outcome(certain, (torch.arange(4) + 1) % 4)) == HIGHEST
    assert fit_temperature(Outcome(torch.zeros(4, 4, dtype=torch.float64), torch.arange(4))) == 1
    assert fit_temperature(Outcome(torch.zeros(4, 1, dtype=torch.float64), torch.zeros(4, dtype=torch.long))) == 1


@st.composite
def outcomes(draw: st.DrawFn) -> Outcome:
    images, classes = draw(st.integers(20, 40)), draw(st.integers(1, 5))
    numbers = st.floats(-50, 50, allow_nan=False, width=32)
    scores = draw(st.lists(numbers, min_size=images * classes, max_size=images * classes))
    labels = draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    return Outcome(torch.tensor(scores, dtype=torch.float64).view(images, classes), torch.tensor(labels))


@given(found=outcomes(), seed=st.integers(0, 2**32))
@settings(max_examples=60, deadline=None)
def test_scaling_never_changes_a_label(found, seed) -> None:
    scaled = cross_fitted(found, seed)
    assert scaled is not None
    assert torch.equal(scaled[0].predicted, found.predicted)
    assert all(LOWEST <= temperature <= HIGHEST for temperature in scaled[1])
    assert math.isfinite(float(scaled[0].nll.mean()))


def test_each_half_is_scaled_with_what_was_fitted_to_the_other() -> None:
    found = outcome(101)
    first, second = halves(101, seed=5)
    assert sorted([*first.tolist(), *second.tolist()]) == list(range(101))
    result = cross_fitted(found, seed=5)
    assert result is not None
    scaled, temperatures = result
    assert temperatures == (fit_temperature(found.at(first)), fit_temperature(found.at(second)))
    assert torch.equal(scaled.scores[second], found.scores[second] / temperatures[0])
    assert torch.equal(scaled.scores[first], found.scores[first] / temperatures[1])
    assert temperatures[0] != temperatures[1]


def test_labels_of_a_half_do_not_touch_how_it_is_scaled() -> None:
    """The planted fault: were a half scaled by its own labels, other labels would scale it in another way."""
    found = outcome(100)
    first, _ = halves(100, seed=0)
    other_labels = found.labels.clone()
    other_labels[first] = (other_labels[first] + 1) % 5
    before, after = cross_fitted(found, 0), cross_fitted(Outcome(found.scores, other_labels), 0)
    assert before is not None
    assert after is not None
    assert torch.equal(before[0].scores[first], after[0].scores[first])


def test_too_few_images_are_not_scaled() -> None:
    assert cross_fitted(outcome(19), 0) is None
    assert cross_fitted(outcome(20), 0) is not None


def test_probabilities_of_extreme_logits_stay_finite() -> None:
    scores: Tensor = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], dtype=torch.float64)
    found = Outcome(scores, torch.tensor([0, 0]))
    assert found.nll.tolist() == [0, 2e4]
    assert found.brier.tolist() == [0, 2]
