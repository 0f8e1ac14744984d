"""Ensembles: scores against literal loops, planted faults, and hours of passes that survive a stop."""

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ccnet.evaluation import member_logits
from ccnet.paper import ensemble_logits, ensembles
from ccnet.paper.ensemble_logits import Extent, Logits
from ccnet.paper.ensemble_scores import averaged, correct, disagreement, over_draws, subsets, surprise
from ccnet.paper.findings import Findings
from ccnet.paper.intervals import Estimate

from .conftest import MakeContext

SMALL = Extent(images=40, pool=6, draws=5, sizes=(1, 2, 3, 4), viewed=2, mirrored=3, spread_images=20, spread_pool=4)
TINY = Extent(images=4, pool=4, draws=2, sizes=(1, 2, 3), viewed=1, mirrored=2, spread_images=2, spread_pool=4)


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def planted(pool: Tensor, views: Tensor, convnet: Tensor, labels: Tensor) -> Findings:
    """What is found in these logits [.., N, classes]."""
    logits = Logits(
        labels=labels,
        pool=pool,
        views=views[None].expand(SMALL.viewed, -1, -1, -1),
        mirrored=pool[: SMALL.mirrored, None].expand(-1, 2, -1, -1),
        baselines={"ConvNet": convnet},
        spreads={"std 0.05, corrected": pool[:4, :20]},
    )
    findings = Findings()
    ensembles.summarise(findings, logits, SMALL, seed=0)
    return findings


def verdicts(findings: Findings) -> dict[str, str]:
    return {claim.text: claim.verdict for claim in findings.claims}


def test_averages_of_logits_and_of_probabilities_are_the_literal_ones() -> None:
    logits = random_logits(3, 2, 4)
    for image, label in itertools.product(range(2), range(4)):
        members = [logits[member, image].tolist() for member in range(3)]
        assert float(averaged(logits)[image, label]) == pytest.approx(sum(member[label] for member in members) / 3)
        shares = [math.exp(member[label]) / sum(map(math.exp, member)) for member in members]
        assert float(averaged(logits, "probabilities")[image, label]) == pytest.approx(math.log(sum(shares) / 3))


def test_surprise_is_minus_the_logarithm_of_the_labels_probability() -> None:
    logits, label = random_logits(1, 4), 2
    share = math.exp(float(logits[0, label])) / sum(map(math.exp, logits[0].tolist()))
    assert float(surprise(logits, torch.tensor([label]))) == pytest.approx(-math.log(share))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(0, 99))
def test_churn_is_the_share_of_differing_pairs(runs: int, images: int, seed: int) -> None:
    predictions = torch.randint(3, (runs, images), generator=torch.Generator().manual_seed(seed))
    pairs = list(itertools.combinations(range(runs), 2))
    differing = sum(int(predictions[a, n] != predictions[b, n]) for a, b in pairs for n in range(images))
    assert disagreement(predictions) == pytest.approx(differing / (len(pairs) * images) if pairs else 0)


@pytest.mark.parametrize(("pool", "size", "count"), [(6, 1, 6), (6, 2, 5), (4, 3, 4), (4, 4, 1)])
def test_subsets_are_different_and_of_the_size_asked_for(pool: int, size: int, count: int) -> None:
    drawn = subsets(pool, size, 5, seed=0)
    assert len(set(drawn)) == len(drawn) == count
    assert all(len(set(members)) == size and max(members) < pool for members in drawn)
    assert drawn == subsets(pool, size, 5, seed=0)


def test_an_ensemble_of_identical_members_gains_exactly_nothing() -> None:
    labels = torch.arange(SMALL.images) % 10
    one = random_logits(SMALL.images, 10)
    findings = planted(one.expand(SMALL.pool, -1, -1), one.expand(4, -1, -1), one.expand(4, -1, -1), labels)
    gains = [row for row in findings.rows if row.part == ensembles.LEADS]
    assert len(gains) > 3
    assert {row.value for row in gains} == {0.0}
    assert {row.ours for row in gains} == {"+0.00 (+0.00 to +0.00)"}
    churn = [row.value for row in findings.rows if row.what.startswith("churn")]
    assert set(churn) == {0.0}
    found = verdicts(findings)
    assert {found[text] for text in found if "gains" in text} == {"fails"}
    assert len([text for text in found if "gains" in text]) == 4
    assert {found[text] for text in found if "beat" in text or "gain more" in text} == {"undecided"}


def test_members_that_err_apart_gain_much_and_beat_views_that_do_not() -> None:
    labels = torch.zeros(SMALL.images, dtype=torch.int64)
    signal = torch.zeros(SMALL.images, 10)
    signal[:, 0] = 1.2
    pool = signal + random_logits(SMALL.pool, SMALL.images, 10)
    stuck = pool[0].expand(4, -1, -1)
    found = verdicts(planted(pool, stuck, stuck, labels))
    assert found["an ensemble of 3 gains over one sequence"] == "holds"
    assert found["an ensemble of 3 gains at least the paper's +2.4 points over one sequence"] == "holds"
    assert found["(ours) 4 sequences beat 4 views of the input, with the same network"] == "holds"
    fooled = planted(stuck[:1].expand(SMALL.pool, -1, -1), 10 * signal.expand(4, -1, -1), stuck, labels)
    assert verdicts(fooled)["(ours) 4 sequences beat 4 views of the input, with the same network"] == "fails"


def test_gains_are_those_of_a_literal_count() -> None:
    labels = torch.arange(SMALL.images) % 10
    pool = random_logits(SMALL.pool, SMALL.images, 10, seed=4)
    findings = planted(pool, pool[:4], pool[:4], labels)

    def right(members: tuple[int, ...]) -> float:
        mean = pool[list(members)].double().sum(dim=0) / len(members)
        return sum(int(mean[n].argmax()) == int(labels[n]) for n in range(SMALL.images)) / SMALL.images

    draws = subsets(SMALL.pool, 3, SMALL.draws, 0)
    gain = sum(map(right, draws)) / len(draws) - sum(right((j,)) for j in range(SMALL.pool)) / SMALL.pool
    row = next(row for row in findings.rows if (row.case, row.what) == ("3 passes", "over one sequence"))
    assert row.value == pytest.approx(gain)
    assert row.paper == "+2.4"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.018, 0.03, "holds"),
        (0.017, 0.02, "holds"),
        (0.0010, 0.0180, "undecided"),
        (-0.01, 0.03, "undecided"),
        (0.001, 0.0169, "fails"),
    ],
)
def test_a_gain_is_as_large_as_the_papers_only_where_its_whole_interval_is(
    low: float, high: float, verdict: str
) -> None:
    assert ensembles.reaches(Estimate((low + high) / 2, low, high), 2, 1.7).verdict == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [(0.001, 0.01, "holds"), (-0.01, 0.03, "undecided"), (-0.02, -0.01, "fails"), (0.0, 0.0, "fails")],
)
def test_a_gain_at_all_is_one_whose_interval_lies_above_nothing(low: float, high: float, verdict: str) -> None:
    assert ensembles.gains(Estimate((low + high) / 2, low, high), 2).verdict == verdict


def lead_of(ccnet: float, convnet: float, blurred: float | None = None) -> str:
    """The verdict on an ensemble that is right on 90% of 200 images, beside views that are right on such shares."""

    def of(share: float) -> dict[int, Tensor]:
        return {8: (torch.arange(200) < 200 * share).double()}

    baselines = {"ConvNet": of(convnet)} | ({} if blurred is None else {"BlurConvNet": of(blurred)})
    return ensembles.beats_all(ensembles.Scores(of(0.9), of(ccnet), {}, baselines), 8, seed=0).verdict


def test_an_ensemble_beats_all_views_only_if_each_networks_are_surely_worse() -> None:
    assert lead_of(0.8, 0.7, 0.8) == "holds"
    assert lead_of(0.8, 0.9, 0.8) == "undecided", "one of the three is as good"
    assert lead_of(0.8, 0.7) == "undecided", "one of the three was never seen"
    assert lead_of(0.8, 0.7, 1.0) == "fails"
    assert lead_of(1.0, 0.7) == "fails", "what was not seen cannot mend it"


def test_it_runs_on_networks_and_goes_on_where_it_was(
    make_context: MakeContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensembles, "QUICK", TINY)
    real, counted = member_logits, 0

    def stopping(network: Any, preprocessing: Any, dataset: Any, *given: Any, **options: Any) -> Tensor:
        nonlocal counted
        counted += len(dataset)
        if counted == 5 * TINY.images:
            raise KeyboardInterrupt
        return real(network, preprocessing, dataset, *given, **options)

    monkeypatch.setattr(ensemble_logits, "member_logits", stopping)
    with pytest.raises(KeyboardInterrupt):
        ensembles.find(make_context())
    again = make_context()
    findings = ensembles.find(again)
    assert again.taken_up == 4
    assert counted - TINY.images == TINY.passes(baselines=1)  # the stopped pass is made twice, and no other
    monkeypatch.setattr(ensemble_logits, "member_logits", None)
    assert ensembles.find(make_context()).as_json() == findings.as_json()
    assert ensembles.plot({"series": findings.series}).axes


def test_a_right_answer_is_the_largest_logit() -> None:
    logits = torch.tensor([[0.0, 1.0], [3.0, 2.0]])
    assert correct(logits, torch.tensor([1, 1])).tolist() == [1, 0]
    assert over_draws(logits[None].expand(2, -1, -1), [(0,), (0, 1)]).shape == (2, 2, 2)
