"""Scale ensembles: members, aggregation, reproducibility."""

import math

import pytest
import torch

from ccnet import CCNet, CcnetError, ScaleEnsemble, sample_scale_sequences
from ccnet.ensemble import aggregate_logits


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return CCNet(1).eval()


@pytest.fixture(scope="module")
def x():
    return torch.rand(3, 1, 32, 32, generator=torch.Generator().manual_seed(0))


def test_logits_are_the_mean_of_the_members_passes(model, x):
    sequences = sample_scale_sequences(3, seed=1)
    output = ScaleEnsemble(model)(x, sequences=sequences)
    with torch.inference_mode():
        passes = torch.stack([model(x, sequence) for sequence in sequences])
    torch.testing.assert_close(output.member_logits, passes)
    torch.testing.assert_close(output.logits, passes.mean(0))
    assert output.sequences == tuple(sequences)


def test_the_seed_decides_the_members_and_smaller_ensembles_are_prefixes(model, x):
    ensemble = ScaleEnsemble(model)
    small, large = ensemble(x, size=2, seed=9), ensemble(x, size=4, seed=9)
    assert small.sequences == large.sequences[:2]
    torch.testing.assert_close(small.member_logits, large.member_logits[:2])
    assert ensemble(x, size=1).sequences != ensemble(x, size=1).sequences


def test_large_batches_are_cut_without_changing_the_answer(model, x):
    sequences = sample_scale_sequences(1, seed=1)
    whole, cut = (
        ScaleEnsemble(model)(x, sequences=sequences),
        ScaleEnsemble(model, max_images=2)(x, sequences=sequences),
    )
    torch.testing.assert_close(whole.logits, cut.logits, rtol=0, atol=1e-5)


def test_aggregates_follow_their_definitions():
    members = torch.tensor([[[0.0, 1.0, 5.0]], [[1.0, 2.0, -4.0]], [[5.0, 3.0, 0.0]]])
    assert aggregate_logits(members, "mean").tolist() == [[2.0, 2.0, pytest.approx(1 / 3)]]
    assert aggregate_logits(members, "median").tolist() == [[1.0, 2.0, 0.0]]
    probabilities = members.softmax(2).mean(0)
    torch.testing.assert_close(aggregate_logits(members, "mean_probability").exp(), probabilities)
    assert math.isclose(aggregate_logits(members, "mean_probability").exp().sum(), 1, rel_tol=1e-6)


def test_agreement_is_the_share_of_members_that_vote_with_the_ensemble(model, x):
    output = ScaleEnsemble(model)(x, size=4, seed=0)
    votes = (output.member_logits.argmax(2) == output.logits.argmax(1)).float().mean(0)
    assert torch.equal(output.agreement, votes)
    assert output.agreement.shape == (3,)


def test_no_gradients_are_kept(model, x):
    assert not ScaleEnsemble(model)(x, size=1, seed=0).logits.requires_grad


@pytest.mark.parametrize(
    "arguments", [{"size": 0}, {"size": -1}, {"size": "four"}, {"sequences": []}, {"aggregate": "vote"}]
)
def test_a_bad_call_is_refused(model, x, arguments):
    with pytest.raises(CcnetError):
        ScaleEnsemble(model)(x, **{"seed": 0, **arguments})


def test_images_of_another_shape_are_refused(model):
    with pytest.raises(CcnetError, match=r"\[N, 1, 32, 32\]"):
        ScaleEnsemble(model)(torch.zeros(1, 3, 32, 32), size=1)
