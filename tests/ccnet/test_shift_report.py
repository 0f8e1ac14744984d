"""The report of all measures at all shifts: literal loops, networks whose answer is known, and planted faults."""

import json
import math
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ccnet import CCConv2d
from ccnet.equivariance import Choices, exact_period, measure, shift_grid, shift_images, shift_map_back, shift_report
from ccnet.errors import CcnetError
from ccnet.sequences import ScaleSequence, sample_scale_sequences
from tests.ccnet.shift_controls import CircularNet, SequenceNet, circular, images, sequences_of

GRID = [(-2, 0), (1, 1), (0, 0), (0, -1), (3, 2)]
LABELS = torch.tensor([0, 3, 1, 2, 2])


class Classifier(CircularNet):
    """Its logits hang on the place, so that labels change with the shift."""

    def forward(self, x: Tensor) -> Tensor:
        return 4 * self.features(x)[:, :, 0, 0]


def value_of(report: Any, name: str) -> float:
    found = report.measures[name].value
    assert found is not None
    return float(found)


def literal(net: Classifier, batch: Tensor, labels: Tensor) -> dict[str, float]:
    """Every measure by loops over images and shifts."""
    cosines, signals, errors = [], [], []
    logit_cosines, logit_signals, logit_errors, changes, same, right = [], [], [], [], [], []
    agree = pairs = all_right = 0
    for n in range(len(batch)):
        own, own_logits = net.features(batch[n : n + 1]), net(batch[n : n + 1])[0]
        found_labels = []
        for dy, dx in GRID:
            down, right_by = torch.tensor([dy]), torch.tensor([dx])
            moved = shift_images(batch[n : n + 1], down, right_by, border="reflect")
            logits = net(moved)[0]
            found_labels.append(int(logits.argmax()))
            if (dy, dx) == (0, 0):
                continue
            back = shift_map_back(net.features(moved), down, right_by)
            a, b = (m[0, :, 1:-1, 1:-1].flatten().tolist() for m in (own, back))
            signals.append(sum(x * x for x in a))
            errors.append(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))
            dot = sum(x * y for x, y in zip(a, b, strict=True))
            cosines.append(dot / math.sqrt(signals[-1] * sum(y * y for y in b)))
            u, v = ((z - z.mean()).tolist() for z in (own_logits, logits))
            logit_signals.append(sum(x * x for x in u))
            logit_errors.append(sum((x - y) ** 2 for x, y in zip(u, v, strict=True)))
            logit_cosines.append(
                sum(x * y for x, y in zip(u, v, strict=True)) / math.sqrt(logit_signals[-1] * sum(y * y for y in v))
            )
            label = int(own_logits.argmax())
            changes.append(abs(float(own_logits.softmax(0)[label] - logits.softmax(0)[label])))
            same.append(found_labels[-1] == label)
            right.append(found_labels[-1] == int(labels[n]))
        for i, first in enumerate(found_labels):
            for j, second in enumerate(found_labels):
                if i != j:
                    pairs, agree = pairs + 1, agree + (first == second)
        all_right += all(label == int(labels[n]) for label in found_labels)

    def mean(values: list[Any]) -> float:
        return sum(values) / len(values)

    return {
        "feature_cosine": mean(cosines),
        "feature_snr_db": 10 * math.log10(sum(signals) / sum(errors)),
        "logit_cosine": mean(logit_cosines),
        "logit_snr_db": 10 * math.log10(sum(logit_signals) / sum(logit_errors)),
        "mean_absolute_change": mean(changes),
        "consistency": mean(same),
        "shifted_accuracy": mean(right),
        "pairwise_consistency": agree / pairs,
        "worst_case_accuracy": all_right / len(batch),
        "accuracy": mean([int(net(batch[n : n + 1]).argmax()) == int(labels[n]) for n in range(len(batch))]),
    }


def test_every_measure_is_what_loops_over_images_and_shifts_say() -> None:
    net, batch = Classifier().eval(), images(5)
    choices: Choices = {"border": "reflect", "cut": 1, "total_scale": 1}
    with torch.no_grad():
        labels = LABELS.clone()
        labels[:2] = net(batch[:2]).argmax(1)  # some are right
        wanted = literal(net, batch, labels)
    found = shift_report(net, batch, GRID, labels=labels, **choices)
    assert set(found.measures) == set(wanted)
    for name, value in wanted.items():
        assert value_of(found, name) == pytest.approx(value, abs=1e-12), name
    assert 0 < wanted["consistency"] < 1
    assert 0 < wanted["pairwise_consistency"] < 1


def test_intervals_hold_the_value_and_the_batch_size_changes_nothing() -> None:
    batch = images(5)
    found = shift_report(Classifier(), batch, GRID, border="reflect", cut=1, total_scale=1)
    again = shift_report(Classifier(), batch, GRID, border="reflect", cut=1, total_scale=1, batch_size=2)
    for name, one in found.measures.items():
        assert one.value is not None
        assert one.ci95 is not None
        assert one.ci95[0] <= one.value <= one.ci95[1], name
        assert value_of(again, name) == pytest.approx(one.value, abs=1e-12)


def test_without_labels_there_is_no_accuracy_and_a_function_of_maps_has_no_labels() -> None:
    assert "accuracy" not in shift_report(Classifier(), images(2), GRID, cut=1, total_scale=1).measures
    only_maps = shift_report(nn.Identity(), images(2), GRID, cut=1, total_scale=1)
    assert set(only_maps.measures) == {"feature_cosine", "feature_snr_db"}
    with pytest.raises(CcnetError, match="classifies nothing"):
        shift_report(nn.Identity(), images(5), GRID, labels=LABELS, cut=1, total_scale=1)


def test_a_net_that_goes_round_at_stride_one_differs_nowhere() -> None:
    found = shift_report(CircularNet(), images(3), shift_grid(2), **circular())
    assert value_of(found, "feature_cosine") == pytest.approx(1, abs=1e-12)
    assert value_of(found, "consistency") == 1
    assert value_of(found, "pairwise_consistency") == 1
    assert all(row["feature_snr_db"] is None or row["feature_snr_db"] > 250 for row in found.per_shift)


def exact_at(net: nn.Module, batch: Tensor, total_scale: Fraction, reach: int) -> set[tuple[float, float]]:
    """The shifts at which nothing but rounding differs."""
    found = shift_report(net, batch, shift_grid(reach), **circular(total_scale))
    return {
        (float(row["dy"] or 0), float(row["dx"] or 0))
        for row in found.per_shift
        if row["feature_snr_db"] is None or row["feature_snr_db"] > 200
    }


def test_a_stride_two_net_is_exact_at_even_shifts_only() -> None:
    even = {(float(dy), float(dx)) for dy in (-2, 0, 2) for dx in (-2, 0, 2)}
    assert exact_at(CircularNet(stride=2), images(4), Fraction(1, 2), 3) == even


class CircularCC(nn.Module):
    """A CC layer of scale p/q on pictures that go round: wrapped by a multiple of q, and what came of it cut off."""

    def __init__(self, scale: Fraction) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = CCConv2d(2, 5, 3, kernel_input="distance").double()
        self.scale, self.wrap = scale, 2 * scale.denominator

    def features(self, x: Tensor) -> Tensor:
        cut = int(self.wrap * self.scale)
        out = self.layer(F.pad(x, (self.wrap,) * 4, mode="circular"), self.scale)
        return out[..., cut:-cut, cut:-cut].relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x).mean(dim=(2, 3))


@pytest.mark.parametrize("scale", [Fraction(2, 3), Fraction(3, 4), Fraction(1, 2)])
def test_a_cc_layer_of_scale_p_over_q_is_exact_at_shifts_by_q_only(scale: Fraction) -> None:
    q = scale.denominator
    multiples = {(float(dy), float(dx)) for dy in range(-4, 5) for dx in range(-4, 5) if dy % q == 0 and dx % q == 0}
    assert exact_at(CircularCC(scale), images(3, size=12), scale, 4) == multiples


def test_a_crop_is_exact_inside_where_the_layers_see_the_picture_alone() -> None:
    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.conv = nn.Conv2d(2, 3, 3, padding=1, dtype=torch.float64)

        def features(self, x: Tensor) -> Tensor:
            return self.conv(x).relu()

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x).mean(dim=(2, 3))

    inside = shift_report(Padded(), images(3, size=18), shift_grid(2), border="crop", margin=3, cut=3, total_scale=1)
    assert value_of(inside, "feature_cosine") == pytest.approx(1, abs=1e-12)
    with_rim = shift_report(Padded(), images(3, size=18), shift_grid(2), border="crop", margin=3, cut=0, total_scale=1)
    assert value_of(with_rim, "feature_cosine") < 0.999


def test_a_probe_that_compares_a_map_with_itself_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def itself(subject: Any, batch: Tensor, shift: Tensor, group: Any, protocol: Any) -> Any:
        return subject(batch, group)

    monkeypatch.setattr(measure, "_shifted_back", itself)
    even = {(float(dy), float(dx)) for dy in (-2, 0, 2) for dx in (-2, 0, 2)}
    assert exact_at(CircularNet(stride=2), images(4), Fraction(1, 2), 3) != even


def test_sequences_are_reported_apart_and_an_ensemble_is_one_model() -> None:
    sequences, batch = sequences_of("1/4 1", "1/2 1/2"), images(4)
    found = shift_report(SequenceNet(), batch, GRID, sequences=sequences, members="each", cut=1, total_scale=1)
    assert [row["sequence"] for row in found.per_sequence] == [str(sequence) for sequence in sequences]
    for row, sequence in zip(found.per_sequence, sequences, strict=True):
        alone = shift_report(SequenceNet(), batch, GRID, sequences=[sequence], cut=1, total_scale=1)
        assert row["feature_cosine"] == pytest.approx(value_of(alone, "feature_cosine"), abs=1e-12)
    means = [float(row["feature_cosine"] or 0) for row in found.per_sequence]
    assert value_of(found, "feature_cosine") == pytest.approx(sum(means) / 2, abs=1e-12)
    together = shift_report(SequenceNet(), batch, GRID, sequences=sequences, members="ensemble", cut=1, total_scale=1)
    assert together.per_sequence == ()


def test_the_exact_period_is_the_smallest_shift_that_stays_whole_at_every_layer() -> None:
    for sequence in [ScaleSequence.parse("1 2/3 3/4 1/2 x 1 1/2 1 1/2"), *sample_scale_sequences(3, seed=1)]:
        for axis, period in zip((sequence.vertical, sequence.horizontal), exact_period(sequence), strict=True):
            products = [math.prod(axis[: layer + 1]) for layer in range(len(axis))]
            whole = next(d for d in range(1, period + 1) if all((d * product).denominator == 1 for product in products))
            assert whole == period
    assert exact_period(ScaleSequence.parse("1 2/3 3/4 1/2 x 1 1/2 1 1/2")) == (12, 4)


def test_the_report_is_json_and_names_its_shifts() -> None:
    found = shift_report(SequenceNet(), images(2), [(1, 0)], sequences=sequences_of("1/4 1"), cut=1, total_scale=1)
    document = json.loads(json.dumps(found.as_json()))
    assert [(row["dy"], row["dx"]) for row in document["per_shift"]] == [(1.0, 0.0), (0.0, 0.0)]
    assert document["protocol"]["exact_period_px"] == [[4, 4]]
    assert document["per_shift"][1]["feature_snr_db"] is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shifts": []}, "pairs"),
        ({"shifts": [(1, 0), (1, 0)]}, "each once"),
        ({"shifts": [(12, 0)]}, "out of itself"),
        ({"labels": torch.zeros(3)}, "whole numbers"),
        ({"border": "crop"}, "margin"),
        ({"margin": 2}, "margin"),
        ({"border": "crop", "margin": 1, "shifts": [(2, 0)]}, "larger margin"),
        ({"border": "crop", "margin": 6, "shifts": [(0, 0)]}, "leaves nothing"),
        ({"undo": "ideal"}, "go round"),
        ({"undo": "ideal", "border": "zero", "outside": "circular"}, "go round"),
        ({"undo": "guess"}, "undo is one of"),
    ],
)
def test_an_argument_out_of_range_is_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(CcnetError, match=message):
        shift_report(CircularNet(), images(3), **{"shifts": [(1, 1)], "total_scale": 1, **arguments})


def test_a_grid_holds_every_step_with_both_ends_and_refuses_too_many() -> None:
    assert shift_grid(1) == [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    assert len(shift_grid(1, Fraction(1, 2))) == 25
    assert shift_grid(2, Fraction(2, 3))[-1] == (2, 2)
    for max_shift, step in ((1, 0), (-1, 1), (0, 1), (1, Fraction(2, 3)), (200, 1)):
        with pytest.raises(CcnetError):
            shift_grid(max_shift, step)


@pytest.mark.parametrize("border", ["reflect", "zero"], ids=["no difference", "no signal before something enters"])
def test_an_snr_whose_resamples_may_hold_no_difference_or_no_signal_has_no_interval(border: str) -> None:
    class Awake(nn.Module):
        """Its map is the picture where that has a bright pixel; else it is empty, or, by `border`, flat."""

        def features(self, x: Tensor) -> Tensor:
            bright = (x.amax(dim=(1, 2, 3), keepdim=True) > 1).double()
            return bright * x[:, :1] + (1 - bright) * (0.5 if border == "reflect" else 0.0)

        def forward(self, x: Tensor) -> Tensor:
            return self.features(x).flatten(1)[:, :4]

    batch = images(4)
    batch[1:] = 0.1  # of these the map moves not at all, or comes to be only when 9 enters
    found = shift_report(Awake(), batch, GRID, border=border, fill=9.0, cut=0, total_scale=1)  # type: ignore[arg-type]
    assert found.measures["feature_snr_db"].value is not None
    assert found.measures["feature_snr_db"].ci95 is None
    json.dumps(found.as_json(), allow_nan=False)


def test_an_images_own_values_make_those_of_all() -> None:
    found = shift_report(Classifier(), images(5), GRID, labels=LABELS, border="reflect", cut=1, total_scale=1)
    for name in ("feature_cosine", "consistency", "pairwise_consistency", "worst_case_accuracy"):
        own = [value for value in found.per_image[name] if value is not None]
        assert sum(own) / len(own) == pytest.approx(value_of(found, name), abs=1e-12)
        assert len(own) == 5
    alone = shift_report(Classifier(), images(5)[2:3], GRID, border="reflect", cut=1, total_scale=1)
    assert found.per_image["feature_snr_db"][2] == pytest.approx(value_of(alone, "feature_snr_db"), abs=1e-9)
    assert "per_image" not in found.as_json()
