"""Planned passes: the network's own answers, equal prefixes once, the same bits in every batch."""

import copy
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
import torch
from torch import nn

from ccnet import CCConv2d, CCNet, CcnetError, ScaleEnsemble, ScaleSequence, SequenceError, sample_scale_sequences
from ccnet.native import Kernels, kernels
from ccnet.passes import plan_passes
from ccnet.plan_cache import PlanCache
from ccnet.prefixes import PrefixTree

HALF = Fraction(1, 2)


@pytest.fixture(scope="module", params=["offset", "distance"])
def model(request):
    torch.manual_seed(0)
    return CCNet(2, 5, in_size=(16, 20), kernel_input=request.param).eval()


@pytest.fixture(scope="module")
def sequences():
    return sample_scale_sequences(3, seed=4, in_size=(16, 20))


@pytest.fixture
def x(generator):
    return torch.randn(3, 2, 16, 20, generator=generator)


@pytest.mark.parametrize("backend", ["discrete", *(["native"] if kernels() else [])])
def test_member_logits_are_those_of_the_networks_passes(model, sequences, x, backend):
    backends = [layer.backend for layer in model.layers]
    try:
        for layer in model.layers:
            layer.backend = backend
        cache = PlanCache()
        with torch.no_grad():
            expected = torch.stack([model(x, sequence) for sequence in sequences])
        for _ in range(3):  # generated in the pass, kept, found
            plan = plan_passes(model, sequences, cache)
            torch.testing.assert_close(plan(x), expected, rtol=0, atol=1e-5)
        assert plan.nbytes <= cache.stats.nbytes
        assert plan_passes(model, sequences)(x[:0]).shape == (3, 0, 5)
    finally:
        for layer, name in zip(model.layers, backends, strict=True):
            layer.backend = name


def test_passes_agree_with_the_specification_in_float64(sequences, generator):
    torch.manual_seed(0)
    model = CCNet(1, in_size=(16, 20), backend="standard").double()
    x = torch.randn(1, 1, 16, 20, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        expected = torch.stack([model(x, sequence) for sequence in sequences])
    for layer in model.layers:
        assert isinstance(layer, CCConv2d)
        layer.backend = "auto"
    torch.testing.assert_close(plan_passes(model, sequences)(x), expected, rtol=0, atol=1e-11)
    torch.testing.assert_close(plan_passes(model.float(), sequences)(x.float()), expected.float(), rtol=0, atol=1e-5)


@pytest.mark.skipif(kernels() is None, reason="torch's matrix products depend on the batch")
def test_an_image_gives_the_same_bits_alone_in_any_batch_and_in_any_ensemble(model, sequences, x):
    cache = PlanCache()
    for _ in range(2):
        plan_passes(model, sequences, cache)
    together = plan_passes(model, sequences, cache)(x)
    for member, sequence in enumerate(sequences):
        alone = [plan_passes(model, [sequence], cache)(image[None])[0] for image in x]
        assert torch.equal(torch.cat(alone), together[member])


def test_equal_prefixes_are_computed_once(model, x, monkeypatch):
    ones = (Fraction(1),) * 5
    left = ScaleSequence((Fraction(1), HALF, HALF, *ones), (Fraction(1), HALF, HALF, *ones))
    right = ScaleSequence((Fraction(1), HALF, Fraction(1), HALF, *ones[1:]), left.horizontal)
    members = [left, right, left]
    plan = plan_passes(model, members)
    counted: list[int] = []
    assert [len(level) for level in plan.plans] == [1, 1, 2, 2, 2, 2, 2, 2]
    if kernels():
        run = Kernels.run

        def counting(found, *calls):
            counted.extend(len(call.program.layers) for call in calls)
            run(found, *calls)

        monkeypatch.setattr(Kernels, "run", counting)
    together = plan(x)
    if kernels():
        assert counted == [14 + 3]  # maps and fully connected layers
    for member, sequence in enumerate(members):
        torch.testing.assert_close(together[member], plan_passes(model, [sequence])(x)[0], rtol=0, atol=1e-6)


def test_a_warm_pass_makes_nothing(model, sequences, x):
    cache = PlanCache()
    for _ in range(2):
        plan_passes(model, sequences, cache)
    before = cache.stats
    plan = plan_passes(model, sequences, cache)
    plan(x)
    assert cache.stats.misses == before.misses
    assert not any(each.generates for level in plan.plans for each in level)


def test_the_head_is_packed_anew_after_it_changed(sequences, generator):
    torch.manual_seed(0)
    model = CCNet(1, in_size=(16, 20)).eval()
    x = torch.randn(2, 1, 16, 20, generator=generator)
    cache = PlanCache()
    old = plan_passes(model, sequences, cache)(x)
    with torch.no_grad():
        model.get_parameter("head.5.bias").add_(3)
    torch.testing.assert_close(plan_passes(model, sequences, cache)(x), old + 3)


def test_a_sequence_that_the_network_cannot_run_is_refused(model):
    with pytest.raises(SequenceError, match="must multiply to exactly 1/4"):
        plan_passes(model, [ScaleSequence((HALF,) * 8, (HALF,) * 8)])


def test_an_ensemble_in_groups_keeps_the_order_of_its_members(model, x, monkeypatch):
    members = sample_scale_sequences(5, seed=1, in_size=(16, 20))
    whole = ScaleEnsemble(model)(x, sequences=members)
    monkeypatch.setattr("ccnet.ensemble.MAX_PASSES", 6)  # two members of three images
    grouped = ScaleEnsemble(model)(x, sequences=members)
    torch.testing.assert_close(grouped.member_logits, whole.member_logits, rtol=0, atol=1e-6)


def test_prepared_members_are_found_at_their_first_use(model, sequences, x):
    ensemble = ScaleEnsemble(model, plans=PlanCache())
    ensemble.prepare(sequences)
    before = ensemble.plans.stats
    ensemble(x, sequences=sequences)
    assert ensemble.plans.stats.misses == before.misses


@pytest.mark.parametrize("backend", ["standard", "chunked"])
def test_a_literal_backend_runs_an_ensemble_without_plans(sequences, x, backend):
    torch.manual_seed(0)
    model = CCNet(2, 5, in_size=(16, 20), backend=backend).eval()
    ensemble = ScaleEnsemble(model)
    ensemble.prepare(sequences)
    output = ensemble(x[:1], sequences=sequences[:1])
    with torch.no_grad():
        torch.testing.assert_close(output.logits, model(x[:1], sequences[0]))
    assert ensemble.plans.stats.misses == 0


def test_a_new_network_where_a_dead_one_lay_gets_its_own_plans(sequences, generator):
    cache = PlanCache()
    x = torch.randn(1, 2, 16, 20, generator=generator)
    for seed in range(8):
        torch.manual_seed(seed)
        model = CCNet(2, 5, in_size=(16, 20)).eval()
        ensemble = ScaleEnsemble(model, plans=cache)
        ensemble.prepare(sequences[:1])
        with torch.no_grad():
            expected = model(x, sequences[0])
        torch.testing.assert_close(ensemble(x, sequences=sequences[:1]).logits, expected, rtol=0, atol=1e-5)
        del model, ensemble


def narrow_head(model):
    model.head = nn.Sequential(nn.Flatten(), nn.Linear(64 * 20, 7), nn.Tanh(), nn.Linear(7, 5, bias=False))


def scaled_head(model):
    model.head.register_forward_hook(lambda _head, _x, logits: 3 * logits)


def scaled_layer(model):
    model.layers[2].register_forward_hook(lambda _layer, _x, out: 3 * out)


@pytest.mark.parametrize("change", [narrow_head, scaled_head, scaled_layer])
def test_what_a_user_changes_in_a_network_is_computed(change, sequences, x):
    torch.manual_seed(0)
    model = CCNet(2, 5, in_size=(16, 20)).eval()
    change(model)
    with torch.no_grad():
        expected = model(x, sequences[0])
    for _ in range(3):
        torch.testing.assert_close(ScaleEnsemble(model)(x, sequences=sequences[:1]).logits, expected)


def test_images_of_another_dtype_than_the_network_are_refused(model, sequences, x):
    with pytest.raises(CcnetError, match=r"this plan takes torch\.float32"):
        ScaleEnsemble(model)(x.double(), sequences=sequences)


def test_an_ensemble_can_be_copied(model, sequences, x):
    ensemble = ScaleEnsemble(model)
    output = ensemble(x, sequences=sequences)
    torch.testing.assert_close(copy.deepcopy(ensemble)(x, sequences=sequences).logits, output.logits)


def test_ensembles_from_eight_threads_with_a_small_budget_are_right_and_within_it():
    torch.manual_seed(0)
    model = CCNet(1).eval()
    x = torch.rand(1, 1, 32, 32)
    members = sample_scale_sequences(6, seed=0)  # about 250 MB of weights
    with torch.no_grad():
        expected = [model(x, member) for member in members]
    cache = PlanCache(100 * 2**20)
    ensemble = ScaleEnsemble(model, plans=cache)

    def work(turn):
        torch.set_num_threads(1)
        for step in range(6):
            member = (turn + step) % len(members)
            logits = ensemble(x, sequences=[members[member]]).logits
            torch.testing.assert_close(logits, expected[member], rtol=0, atol=1e-5)
            assert cache.stats.nbytes <= cache.max_bytes

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, turn) for turn in range(8)]:
            future.result(100)
    assert cache.stats.hits > 0


@pytest.mark.skipif(kernels() is None, reason="pure torch keeps weights at once")
def test_a_layer_that_another_sequence_shares_is_not_kept_for_that(x):
    torch.manual_seed(0)
    model = CCNet(2, 5, in_size=(16, 20)).eval()
    ones = (Fraction(1),) * 5
    left = ScaleSequence((Fraction(1), HALF, HALF, *ones), (Fraction(1), HALF, HALF, *ones))
    right = ScaleSequence((Fraction(1), HALF, Fraction(1), HALF, *ones[1:]), left.horizontal)
    cache = PlanCache()
    for sequence in (left, right):
        assert all(plan.generates for level in plan_passes(model, [sequence], cache).plans for plan in level)
    assert not any(plan.generates for level in plan_passes(model, [right], cache).plans for plan in level)


def test_the_first_member_through_a_node_is_told_for_every_node():
    ones = (Fraction(1),) * 5
    left = ScaleSequence((Fraction(1), HALF, HALF, *ones), (Fraction(1), HALF, HALF, *ones))
    right = ScaleSequence((Fraction(1), HALF, Fraction(1), HALF, *ones[1:]), left.horizontal)
    tree = PrefixTree.make([right, left, right], [(3, 3)] * 8, (16, 20))
    assert tree.first_members() == ((0,), (0,), *[(0, 1)] * 6)
