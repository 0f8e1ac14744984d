"""Scale ensembles: members, aggregation, reproducibility."""

import math
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from ccnet import CCNet, CcnetError, ConvNet, EnsembleOutput, PlanCache, ScaleEnsemble, sample_scale_sequences
from ccnet.ensemble import aggregate_logits
from ccnet.passes import plan_passes, run_together


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


def test_members_come_from_the_spread_that_was_asked_for(model):
    assert ScaleEnsemble(model, std="text").sample(2, seed=0) == tuple(sample_scale_sequences(2, seed=0, std=0.01))


def test_large_batches_are_cut_without_changing_the_answer(model, x, monkeypatch):
    sequences = sample_scale_sequences(1, seed=1)
    whole = ScaleEnsemble(model)(x, sequences=sequences)
    images: list[int] = []

    def recording(passes):
        images.append(sum(len(chunk) for _, chunk in passes))
        return run_together(passes)

    monkeypatch.setattr("ccnet.ensemble.run_together", recording)
    cut = ScaleEnsemble(model, max_images_per_pass=2)(x, sequences=sequences)
    assert images == [2, 1]
    torch.testing.assert_close(whole.logits, cut.logits, rtol=0, atol=1e-5)


def mixed_batches(x, *shapes):
    """Batches of (images, members) each; members of a batch are those of a seed of its own."""
    return [
        (x[:images], sample_scale_sequences(members, seed=images, in_size=tuple(x.shape[2:])))
        for images, members in shapes
    ]


@pytest.mark.parametrize("backend", ["auto", "discrete", "standard"])
@pytest.mark.parametrize("max_passes", [1, 5, 128])
def test_batches_that_run_together_get_what_each_gets_alone(x, monkeypatch, backend, max_passes):
    monkeypatch.setattr("ccnet.ensemble.MAX_PASSES", max_passes)
    torch.manual_seed(0)
    model = CCNet(1, in_size=(8, 12), backend=backend).eval()
    ensemble = ScaleEnsemble(model)
    batches = mixed_batches(x[..., :8, :12], (3, 1), (1, 4), (0, 2), (2, 3))
    together = ensemble.member_logits(batches)
    for logits, (images, members) in zip(together, batches, strict=True):
        assert logits.shape == (len(members), len(images), 10)
        with torch.inference_mode():
            alone = torch.stack([model(images, member) for member in members])
        torch.testing.assert_close(logits, alone, rtol=0, atol=1e-5)
        assert torch.equal(logits, ensemble.member_logits([(images, members)])[0])


def test_a_call_holds_as_many_passes_as_maps_may_be_in_memory(model, x, monkeypatch):
    calls: list[list[tuple[int, int]]] = []

    def recording(passes):
        calls.append([(len(plan.tree.leaves), len(images)) for plan, images in passes])
        return run_together(passes)

    monkeypatch.setattr("ccnet.ensemble.run_together", recording)
    monkeypatch.setattr("ccnet.ensemble.MAX_PASSES", 6)
    ScaleEnsemble(model).member_logits(mixed_batches(x, (3, 1), (1, 3), (2, 4), (1, 1)))
    assert calls == [[(1, 3), (3, 1)], [(3, 2)], [(1, 2), (1, 1)]]


def test_without_native_kernels_no_more_weights_are_held_than_those_of_a_batch_and_the_next(x, monkeypatch):
    model = CCNet(1, in_size=(8, 8), backend="discrete").eval()
    made: list[weakref.ref[object]] = []
    held: list[int] = []

    def recording(passes):
        made.extend(weakref.ref(plan) for plan, _ in passes)
        held.append(sum(plan() is not None for plan in made))
        return run_together(passes)

    monkeypatch.setattr("ccnet.ensemble.run_together", recording)
    ensemble = ScaleEnsemble(model, plans=PlanCache(2**20))
    ensemble.member_logits([(x[:1, :, :8, :8], ensemble.sample(2, seed)) for seed in range(12)])
    assert len(held) == 12
    assert max(held) <= 2


def test_calls_are_cut_where_their_weights_would_take_too_much(x, monkeypatch):
    model = CCNet(1, in_size=(8, 8), kernel_input="distance").eval()
    images: list[int] = []

    def recording(passes):
        images.append(len(passes))
        return run_together(passes)

    monkeypatch.setattr("ccnet.ensemble.run_together", recording)
    ensemble = ScaleEnsemble(model)
    batches = [(x[:1, :, :8, :8], ensemble.sample(1, seed)) for seed in range(4)]
    of_each = plan_passes(model, batches[0][1]).nbytes
    monkeypatch.setattr("ccnet.ensemble.MAX_WEIGHT_BYTES", 2.5 * of_each)
    ensemble.member_logits(batches)
    assert sum(images) == 4
    assert max(images) == 2


@pytest.mark.parametrize("prepared", [False, True])
def test_changed_parameters_count_from_the_next_call_on(x, prepared):
    model = CCNet(1, in_size=(8, 12)).eval()
    ensemble = ScaleEnsemble(model)
    images, sequences = x[:, :, :8, :12], ensemble.sample(2, seed=0)
    if prepared:
        ensemble.prepare(sequences)
    before = [ensemble.member_logits([(images, sequences)])[0] for _ in range(3)][-1]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)
    (after,) = ensemble.member_logits([(images, sequences)])
    assert not torch.allclose(before, after)
    with torch.inference_mode():
        torch.testing.assert_close(after, torch.stack([model(images, sequence) for sequence in sequences]))


def test_no_batches_are_no_logits(model):
    assert ScaleEnsemble(model).member_logits([]) == []


def test_a_batch_without_members_is_refused_before_any_runs(model, x):
    with pytest.raises(CcnetError, match="at least one sequence"):
        ScaleEnsemble(model).member_logits([*mixed_batches(x, (1, 1)), (x, [])])


def test_aggregates_follow_their_definitions():
    members = torch.tensor([[[0.0, 1.0, 5.0]], [[1.0, 2.0, -4.0]], [[5.0, 3.0, 0.0]]])
    assert aggregate_logits(members, "mean").tolist() == [[2.0, 2.0, pytest.approx(1 / 3)]]
    assert aggregate_logits(members, "median").tolist() == [[1.0, 2.0, 0.0]]
    assert aggregate_logits(members[:2], "median").tolist() == [[0.5, 1.5, 0.5]]
    members = members.double()
    of_probabilities = aggregate_logits(members, "mean_probability").exp()
    torch.testing.assert_close(of_probabilities, members.softmax(2).mean(0), rtol=0, atol=1e-12)
    assert math.isclose(of_probabilities.sum(), 1, rel_tol=1e-12)


def test_agreement_is_the_share_of_members_that_vote_with_the_ensemble(model, x):
    sequences = tuple(sample_scale_sequences(4, seed=0))
    votes = torch.tensor([[0, 1], [0, 1], [2, 1], [0, 0]])  # [member, image]
    members = torch.nn.functional.one_hot(votes, 3).double()
    output = EnsembleOutput(aggregate_logits(members), members, sequences)
    assert output.agreement.tolist() == [0.75, 0.75]
    assert ScaleEnsemble(model)(x, sequences=sequences).agreement.shape == (3,)


def test_members_that_run_at_once_do_not_disturb_each_other(model, x):
    ensemble = ScaleEnsemble(model)
    expected = [ensemble(x, size=2, seed=seed).logits for seed in range(4)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda seed: ensemble(x, size=2, seed=seed).logits, range(4)))
    for alone, at_once in zip(expected, together, strict=True):
        torch.testing.assert_close(at_once, alone)


def test_no_gradients_are_kept(model, x):
    assert not ScaleEnsemble(model)(x, size=1, seed=0).logits.requires_grad


@pytest.mark.parametrize(
    "arguments", [{"size": 0}, {"size": -1}, {"size": "four"}, {"sequences": []}, {"aggregate": "vote"}]
)
def test_a_bad_call_is_refused(model, x, arguments):
    with pytest.raises(CcnetError):
        ScaleEnsemble(model)(x, **{"seed": 0, **arguments})


def test_a_bad_aggregate_is_refused_before_any_pass(model):
    with pytest.raises(CcnetError, match="aggregate is one of mean, median, mean_probability"):
        ScaleEnsemble(model)(torch.zeros(1), size=1, aggregate="vote")  # type: ignore[arg-type]  # no image to pass


def test_an_ensemble_that_cannot_be_is_refused(model):
    with pytest.raises(CcnetError, match="ConvNet has none"):
        ScaleEnsemble(ConvNet(1))  # type: ignore[arg-type]
    with pytest.raises(CcnetError, match="max_images_per_pass"):
        ScaleEnsemble(model, max_images_per_pass=0)


def test_images_of_another_shape_are_refused(model):
    with pytest.raises(CcnetError, match=r"\[N, 1, 32, 32\]"):
        ScaleEnsemble(model)(torch.zeros(1, 3, 32, 32), size=1)
