"""Table 1: the paired verdict, the control, and a CCNet that is none."""

import math
from pathlib import Path

import pytest
import torch

from ccnet import CcnetError, save_checkpoint
from ccnet.equivariance import shift_similarity
from ccnet.equivariance.protocol import Protocol
from ccnet.paper import networks, table_1
from ccnet.paper.findings import Findings
from ccnet.paper.networks import Trained

from .conftest import MakeContext


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table_1, "QUICK_SAMPLES", 4)
    monkeypatch.setattr(table_1, "SHIFTS", (4,))


def better(first: list[float], second: list[float]) -> str:
    found = {"CCNet": torch.tensor([first]), "ConvNet": torch.tensor([second])}
    return table_1.better("CCNet", "ConvNet", found, "a claim", seed=0).verdict


def test_a_lead_on_every_image_holds_and_its_opposite_fails() -> None:
    low, high = [0.1, 0.5, 0.3, 0.8], [0.2, 0.6, 0.4, 0.9]
    assert better(high, low) == "holds"
    assert better(low, high) == "fails"


def test_a_copy_or_a_coin_is_undecided() -> None:
    values = [0.1, 0.5, 0.3, 0.8]
    assert better(values, values) == "undecided"
    assert better([0.9, 0.1, 0.8, 0.2], [0.1, 0.9, 0.2, 0.8]) == "undecided"


def test_a_difference_much_smaller_than_the_spread_over_images_is_seen() -> None:
    images = torch.linspace(0.1, 0.9, 100).tolist()
    assert better([value + 0.001 for value in images], images) == "holds"


def test_images_whose_maps_are_zero_on_one_side_are_left_out() -> None:
    assert table_1.cosines([{"per_image": [0.5, None]}]).isnan().tolist() == [[False, True]]
    assert better([0.5, math.nan, 0.6, 0.7], [0.4, 0.9, 0.5, math.nan]) == "holds"


def test_all_rows_and_claims_are_there_and_what_lacks_a_network_is_undecided(make_context: MakeContext) -> None:
    findings = table_1.find(make_context())
    cases = dict.fromkeys(row.case for row in findings.rows if not row.part)
    assert len(cases) == 2
    verdicts = {claim.text: claim.verdict for claim in findings.claims}
    rankings = [verdict for text, verdict in verdicts.items() if "BlurConvNet" in text]
    assert rankings == ["undecided", "undecided"]
    assert sum("CC-Net is more resilient" in text for text in verdicts) == 2
    assert any("no checkpoint of a BlurConvNet" in note for note in findings.notes)
    assert any(row.part == table_1.CONTROL for row in findings.rows)
    assert table_1.plot({"series": findings.series}).axes


def test_images_are_clusters_of_the_sequence_that_they_were_really_seen_under(make_context: MakeContext) -> None:
    run = networks.runs_of(make_context(), "CCNet")[0]
    images = torch.randn(40, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    row = shift_similarity(run.checkpoint.model, images, 4, ensemble_size=table_1.SEQUENCES)
    of_image, cluster = torch.tensor(row.per_image), table_1.sequence_of(40)
    means = [float(of_image[cluster == number].mean()) for number in range(table_1.SEQUENCES)]
    assert row.sequence_means == pytest.approx(means, abs=1e-6)


def test_what_one_sequence_does_to_all_of_its_images_widens_the_interval() -> None:
    generator = torch.Generator().manual_seed(0)
    of_sequence = 0.05 * torch.randn(table_1.SEQUENCES, generator=generator)
    images = 0.5 + 0.02 * torch.randn(1, 960, generator=generator)
    shared = images + of_sequence[table_1.sequence_of(960)]
    alone, clustered = (found.high - found.low for found in (table_1.interval(images, 0), table_1.interval(shared, 0)))
    assert clustered > 5 * alone
    assert clustered == pytest.approx(2 * 1.96 * float(of_sequence.std()) / table_1.SEQUENCES**0.5, rel=0.15)


def test_the_spread_over_sequences_is_shown(make_context: MakeContext) -> None:
    findings = table_1.find(make_context())
    shown = [row for row in findings.rows if row.what == "CCNet, std over sequences"]
    assert len(shown) == 4  # images and noise, trained and untrained
    assert all(row.value is not None and row.value > 0 for row in shown)


def test_a_step_of_another_protocol_is_not_taken_up(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    run = networks.runs_of(make_context(), "ConvNet")[0]
    dataset = networks.images_of(make_context(), [run]).first(2)

    def measured_with() -> int:
        context = make_context()
        table_1.measure(context, run, dataset, table_1.NOISE, 2)
        return context.taken_up

    assert [measured_with(), measured_with()] == [0, 1]
    monkeypatch.setattr(table_1, "SEQUENCES", 7)
    assert measured_with() == 0
    monkeypatch.setattr(table_1, "Protocol", lambda: Protocol(include_zero=False))
    assert [measured_with(), measured_with()] == [0, 1]


def test_another_run_takes_up_every_row(make_context: MakeContext, monkeypatch: pytest.MonkeyPatch) -> None:
    first = table_1.find(make_context())
    monkeypatch.setattr(table_1, "shift_similarity", None)
    again = make_context()
    assert table_1.find(again).as_json() == first.as_json()
    assert again.taken_up == 2 * 2 * 2  # networks, inputs, trained and untrained


def test_a_ccnet_that_is_a_copy_of_the_convnet_is_not_more_resilient(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(context: object, kind: str) -> list[Trained]:
        if kind == "BlurConvNet":
            return []
        real = networks.runs_of(make_context(), "ConvNet")[0]
        return [Trained(kind, f"planted-{kind.lower()}", real.fingerprint, real.checkpoint)]

    monkeypatch.setattr(table_1, "runs_of", planted)
    monkeypatch.setattr(table_1, "needed", planted)
    findings = table_1.find(make_context())
    claims = [claim for claim in findings.claims if "CC-Net is more resilient" in claim.text]
    assert {claim.verdict for claim in claims} == {"undecided"}
    assert all("+0.000 (+0.000 to +0.000)" in claim.evidence for claim in claims)


def test_a_checkpoint_of_another_architecture_is_refused(
    make_context: MakeContext, tmp_path: Path, checkpoints: Path
) -> None:
    real = make_context().checkpoint("fashion-mnist-convnet")
    save_checkpoint(real.model, tmp_path / "fashion-mnist-ccnet", labels=real.labels, preprocessing=real.preprocessing)
    context = make_context()
    object.__setattr__(context.options, "checkpoints", str(tmp_path))
    with pytest.raises(CcnetError, match="holds a ConvNet where a CCNet"):
        networks.runs_of(context, "CCNet")
    with pytest.raises(CcnetError, match="ccnet train"):
        networks.needed(context, "ConvNet")


def test_seeds_are_found_beside_the_first_run(make_context: MakeContext, tmp_path: Path, checkpoints: Path) -> None:
    for name in ("fashion-mnist-convnet-seed1", "fashion-mnist-convnet", "fashion-mnist-convnet-old"):
        (tmp_path / name).symlink_to(checkpoints / "fashion-mnist-convnet")
    context = make_context()
    object.__setattr__(context.options, "checkpoints", str(tmp_path))
    runs = networks.runs_of(context, "ConvNet")
    assert [run.name for run in runs] == ["fashion-mnist-convnet", "fashion-mnist-convnet-seed1"]
    assert "ConvNet 2 (" in networks.runs_note({"ConvNet": runs})


def test_networks_with_random_weights_show_what_a_cosine_proves() -> None:
    rows = table_1.rows_of(
        "noise, ±6 px", (table_1.NOISE, 6), {kind: [measured(0.6)] for kind in ("ConvNet", "CCNet")}, 0
    ) + table_1.rows_of(
        "noise, ±6 px", ("", 6), {kind: [measured(0.99)] for kind in ("ConvNet", "CCNet")}, 0, table_1.CONTROL
    )
    assert table_1.judge_control(Findings(rows=rows)).verdict == "fails"


def measured(cosine: float) -> table_1.Measured:
    return {"per_image": [cosine] * 3, "consistency": 0.5, "sequence_std": 0.0, "skipped": 0}
