"""The measures of the literature: rankings that are paired, and a CCNet that is none."""

from typing import Any

import pytest

from ccnet.equivariance import MEASURES
from ccnet.paper import networks, shift_measures
from ccnet.paper.networks import Trained

from .conftest import MakeContext


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shift_measures, "QUICK_SAMPLES", 2)
    monkeypatch.setattr(shift_measures, "SETTINGS", shift_measures.SETTINGS[:1])


def verdict(name: str, **per_image: list[float | None]) -> str:
    measured: dict[str, Any] = {kind: {"per_image": {name: values}} for kind, values in per_image.items()}
    return shift_measures.ranking(name, measured, "Whole shifts", seed=0).verdict


def test_three_networks_in_order_on_every_image_hold_and_out_of_order_fail() -> None:
    best, middle, worst = ([base + lead for base in (0.1, 0.5, 0.3, 0.8)] for lead in (0.02, 0.01, 0.0))
    assert verdict("feature_cosine", ConvNet=list(worst), BlurConvNet=list(middle), CCNet=list(best)) == "holds"
    assert verdict("feature_cosine", ConvNet=list(middle), BlurConvNet=list(worst), CCNet=list(best)) == "fails"
    assert verdict("feature_cosine", ConvNet=list(worst), BlurConvNet=list(middle), CCNet=list(middle)) == "undecided"


def test_less_change_is_better() -> None:
    assert verdict("mean_absolute_change", ConvNet=[0.3, 0.4, 0.5], CCNet=[0.1, 0.2, 0.3]) == "holds"
    assert verdict("feature_cosine", ConvNet=[0.3, 0.4, 0.5], CCNet=[0.1, 0.2, 0.3]) == "fails"


def test_images_without_a_value_on_one_side_are_left_out() -> None:
    assert verdict("feature_snr_db", ConvNet=[1.0, None, 2.0], CCNet=[3.0, 0.1, 4.0]) == "holds"


def test_every_measure_has_a_row_and_a_claim_and_another_run_takes_all_up(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = shift_measures.find(make_context())
    assert list(dict.fromkeys(row.case for row in findings.rows)) == list(MEASURES.values())
    assert len(findings.claims) == len(shift_measures.RANKED)
    assert any("no checkpoint of a BlurConvNet" in note for note in findings.notes)
    monkeypatch.setattr(shift_measures, "shift_report", None)
    again = make_context()
    assert shift_measures.find(again).as_json() == findings.as_json()
    assert again.taken_up == 2
    series = {setting.name: findings.series["real"] for setting in shift_measures.SETTINGS}
    assert shift_measures.plot({"series": series}).axes


def test_a_ccnet_that_is_a_copy_of_the_convnet_leads_in_nothing(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(_context: object, kind: str) -> list[Trained]:
        real = networks.runs_of(make_context(), "ConvNet")[0]
        return [Trained(kind, f"planted-{kind.lower()}", real.fingerprint, real.checkpoint)]

    monkeypatch.setattr(shift_measures, "runs_of", planted)
    monkeypatch.setattr(shift_measures, "needed", planted)
    findings = shift_measures.find(make_context())
    assert {claim.verdict for claim in findings.claims} == {"undecided"}
