"""Figure 6: centres of mass against loops, drifts against their formula, and layers that are not what they claim."""

import math
from dataclasses import replace

import pytest
import torch

from ccnet.paper import fig_6
from ccnet.paper.fig_6 import BEFORE, BEHIND, LAYERS, MIDDLE, NARROW, SIZE, TAPERED, WAYS, WIDE
from ccnet.paper.findings import Findings

from .conftest import MakeContext


def verdicts(far: dict[fig_6.Way, float]) -> list[str]:
    findings = Findings()
    fig_6.judge(findings, far)
    return [claim.verdict for claim in findings.claims]


def test_the_centre_of_mass_is_the_weighted_mean_of_the_places_of_px(generator: torch.Generator) -> None:
    picture = torch.rand(1, 1, 5, 7, generator=generator, dtype=torch.float64)
    weights = {(i, j): float(picture[0, 0, i, j]) for i in range(5) for j in range(7)}
    total = sum(weights.values())
    down = sum(i * weight for (i, _), weight in weights.items()) / total
    across = sum(j * weight for (_, j), weight in weights.items()) / total
    assert fig_6.centre_of_mass(picture) == pytest.approx((down, across))


def test_the_cross_is_centred_and_symmetric() -> None:
    cross = fig_6.cross()
    assert torch.equal(cross, cross.flip(2))
    assert torch.equal(cross, cross.mT)
    assert fig_6.centre_of_mass(cross) == ((fig_6.CANVAS_PX - 1) / 2,) * 2


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_a_layer_keeps_the_light_and_nothing_reaches_the_rim(way: fig_6.Way) -> None:
    last = fig_6.pictures(way)[-1][0, 0]
    assert float(last.sum()) == pytest.approx(float(fig_6.cross().sum()), rel=1e-12)
    rim = torch.cat([last[:2].flatten(), last[-2:].flatten(), last[:, :2].flatten(), last[:, -2:].flatten()])
    assert float(rim.abs().max()) == 0


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.name)
def test_every_layer_drifts_as_far_as_the_formula_says(way: fig_6.Way) -> None:
    curve = fig_6.drift(way)
    for layer, drifts in enumerate(curve):
        assert drifts == pytest.approx((layer * way.expected_drift(),) * 2, abs=1e-9)


def test_a_layer_is_the_literal_sum_over_its_neighbours() -> None:
    picture = torch.zeros(1, 1, 8, 8, dtype=torch.float64)
    picture[0, 0, 3, 4] = 1
    made = WIDE.apply(picture)[0, 0]
    along = {d: math.exp(-(d**2) / 2) for d in (2, 1, 0, -1)}
    total = sum(along.values())
    for n in range(8):
        for o in range(8):
            weight = along.get(n - 3, 0) * along.get(o - 4, 0) / total**2
            assert float(made[n, o]) == pytest.approx(weight, abs=1e-15)


def test_the_findings_are_those_of_the_tie_rule(make_context: MakeContext) -> None:
    findings = fig_6.find(make_context())
    assert [claim.verdict for claim in findings.claims] == ["holds", "holds", "holds", "fails"]
    values = {(row.case, row.what): row.value for row in findings.rows}
    assert values[BEHIND.name, "drift a layer, px"] == pytest.approx(-0.5)
    assert values[BEFORE.name, "drift a layer, px"] == pytest.approx(0.5)
    rim = values[WIDE.name, "weight at the rim"]
    assert rim is not None
    assert values[WIDE.name, "drift a layer, px"] == pytest.approx(SIZE / 2 * rim)


def test_a_cc_layer_that_drifts_like_a_conv_layer_fails(make_context: MakeContext) -> None:
    half = LAYERS / 2
    good = {BEHIND: half, BEFORE: half, NARROW: 0.01, MIDDLE: 0.4, WIDE: 2.3, TAPERED: 0.0}
    assert verdicts(good) == ["holds", "holds", "holds", "fails"]
    assert verdicts(good | {NARROW: half}) == ["holds", "fails", "holds", "fails"]
    assert verdicts(good | {TAPERED: 1e-3}) == ["holds", "holds", "fails", "fails"]
    assert verdicts(good | {BEFORE: 0.0})[0] == "fails"


def test_a_conv_layer_under_the_name_of_a_cc_layer_is_measured_as_what_it_is() -> None:
    assert fig_6.drift(replace(NARROW, padding=(1, 2)))[-1] == pytest.approx((-LAYERS / 2,) * 2)


def test_steps_are_taken_up_and_the_result_is_drawn(make_context: MakeContext) -> None:
    first = fig_6.find(make_context())
    again = make_context()
    assert fig_6.find(again).as_json() == first.as_json()
    assert again.taken_up == len(WAYS)
    drawn = fig_6.plot(first.as_json())
    assert len(drawn.axes) == 4 * (len(fig_6.SHOWN) + 1)
