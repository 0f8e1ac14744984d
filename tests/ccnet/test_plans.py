"""Prepared plans: equal to the layer, kept within a budget, never stale."""

import copy
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction

import pytest
import torch
from torch import nn

from ccnet import CCConv2d, CcnetError
from ccnet.backends import native
from ccnet.internal_net import InternalNet
from ccnet.native import kernels
from ccnet.plan_cache import PlanCache, Stamp

SCALE = Fraction(4, 5)


@dataclass
class Thing:
    nbytes: int


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return CCConv2d(3, 20, 3).eval()


@pytest.fixture
def x(generator):
    return torch.randn(2, 3, 11, 13, generator=generator)


@pytest.mark.parametrize("backend", ["discrete", *(["native"] if kernels() else [])])
@pytest.mark.parametrize("kernel_input", ["offset", "distance"])
@pytest.mark.parametrize("images", [0, 1, 20])
@pytest.mark.parametrize("scale", [1, Fraction(1, 2), SCALE, (Fraction(5, 3), 0.77)], ids=str)
@pytest.mark.parametrize("always_native", [False, True])
def test_a_plan_computes_what_its_layer_does(backend, kernel_input, images, scale, always_native, generator):
    layer = CCConv2d(2, 5, (3, 4), kernel_input=kernel_input, backend=backend)
    x = torch.randn(images, 2, 9, 10, generator=generator)
    cache = PlanCache()
    expected = layer(x, scale, backend="standard")
    for _ in range(3):  # generated in the pass, kept, found
        plan = layer.plan((9, 10), scale, cache=cache, always_native=always_native)
        torch.testing.assert_close(plan(x), expected, rtol=0, atol=1e-5)
        torch.testing.assert_close(plan(x, relu=True), expected.relu(), rtol=0, atol=1e-5)
    assert cache.stats.hits >= 1


def test_a_plan_tells_which_path_it_takes(layer):
    fast = kernels() is not None
    assert layer.plan((8, 8)).path(1) == "convolution"
    assert layer.plan((8, 8), always_native=True).path(1) == ("native" if fast else "convolution")
    plan = layer.plan((8, 8), SCALE)
    assert [plan.path(1), plan.path(64)] == (["native"] * 2 if fast else ["gather", "rows"])
    layer.backend = "discrete"
    plan = layer.plan((8, 8), SCALE)
    assert [plan.path(1), plan.path(64)] == ["gather", "rows"]
    layer.backend = "standard"
    with pytest.raises(CcnetError, match="plans are for the backends"):
        layer.plan((8, 8), SCALE)


def test_weights_are_kept_from_the_second_use_on_and_then_never_generated(layer, x, monkeypatch):
    counted: list[int] = []
    features = InternalNet.features

    def counting(net, points):
        counted.append(len(points))
        return features(net, points)

    monkeypatch.setattr(InternalNet, "features", counting)
    cache = PlanCache()
    plans = [layer.plan((11, 13), SCALE, cache=cache) for _ in range(4)]
    if kernels():
        assert [plan.generates for plan in plans] == [True, False, False, False]
        assert cache.stats.plans == 2  # the weights, and the basis that they are linear in
    assert len(counted) <= 2
    counted.clear()
    outputs = [plan(x) for plan in plans[2:]]
    assert not counted
    torch.testing.assert_close(outputs[0], outputs[1], rtol=0, atol=0)
    torch.testing.assert_close(plans[0](x), outputs[0], rtol=0, atol=1e-6)


def test_weights_can_be_kept_at_once(layer):
    cache = PlanCache()
    assert not layer.plan((11, 13), SCALE, cache=cache, keep=True).generates
    before = cache.stats
    layer.plan((11, 13), SCALE, cache=cache)
    assert (cache.stats.hits, cache.stats.misses) == (before.hits + 1, before.misses)


def train_a_step(layer):
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, fused=True)
    layer(torch.ones(1, 3, 5, 5)).sum().backward()
    optimizer.step()


def load_another_state(layer):
    torch.manual_seed(1)
    layer.load_state_dict(CCConv2d(3, 20, 3).state_dict())


def round_through_half_precision(layer):
    layer.to(torch.float16).to(torch.float32)


def replace_a_parameter(layer):
    layer.kernel.last.bias = nn.Parameter(torch.ones_like(layer.kernel.last.bias))


def replace_the_kernel(layer):
    torch.manual_seed(1)
    layer.kernel = InternalNet(3, 20, (3, 3))


def change_the_bias_in_place(layer):
    with torch.no_grad():
        layer.bias += 1


@pytest.mark.parametrize(
    "change",
    [train_a_step, load_another_state, round_through_half_precision, replace_a_parameter, replace_the_kernel,
     change_the_bias_in_place],
)  # fmt: skip
def test_a_plan_is_made_anew_after_the_weights_change(change, layer, x):
    cache = PlanCache()
    for _ in range(3):
        old = layer.plan((11, 13), SCALE, cache=cache)(x)
    change(layer)
    for _ in range(3):
        new = layer.plan((11, 13), SCALE, cache=cache)(x)
        torch.testing.assert_close(new, layer(x, SCALE), rtol=0, atol=1e-5)
        assert not torch.equal(new, old)


def test_a_layer_moved_to_another_dtype_gets_plans_of_it(layer, x):
    cache = PlanCache()
    for _ in range(3):
        layer.plan((11, 13), SCALE, cache=cache)
    layer.double()
    plan = layer.plan((11, 13), SCALE, cache=cache)
    torch.testing.assert_close(plan(x.double()), layer(x.double(), SCALE), rtol=0, atol=1e-12)


def test_parameters_that_keep_no_count_of_changes_are_never_taken_for_unchanged(x):
    with torch.inference_mode():
        layer = CCConv2d(3, 20, 3)
        cache = PlanCache()
        for _ in range(3):
            layer.plan((11, 13), SCALE, cache=cache)
        assert layer.bias is not None
        layer.bias.add_(1)
        torch.testing.assert_close(layer.plan((11, 13), SCALE, cache=cache)(x), layer(x, SCALE), rtol=0, atol=1e-5)
    assert cache.stats.hits == 0


def test_two_layers_do_not_share_plans(layer, x):
    other = copy.deepcopy(layer)
    with torch.no_grad():
        other.bias += 1
    cache = PlanCache()
    for _ in range(3):
        ours, theirs = (each.plan((11, 13), SCALE, cache=cache)(x) for each in (layer, other))
    torch.testing.assert_close(theirs, ours + 1)


def test_a_budget_of_nothing_keeps_nothing(layer):
    cache = PlanCache(0)
    plans = [layer.plan((11, 13), SCALE, cache=cache) for _ in range(3)]
    if kernels():
        assert all(plan.generates for plan in plans)
    assert (cache.stats.plans, cache.stats.hits) == (0, 0)


def test_a_copy_of_a_cache_is_empty_and_of_the_same_size(layer):
    cache = PlanCache(10**6)
    layer.plan((11, 13), SCALE, cache=cache, keep=True)
    copied = copy.deepcopy(cache)
    assert (copied.max_bytes, copied.stats.plans, copied.stats.hits) == (10**6, 0, 0)


@pytest.mark.parametrize(
    "x",
    [torch.zeros(1, 3, 11, 12), torch.zeros(1, 2, 11, 13), torch.zeros(3, 11, 13), torch.zeros(1, 3, 11, 13).double(),
     torch.zeros(1, 3, 11, 13).half(), torch.zeros(1, 3, 11, 13, dtype=torch.uint8),
     torch.zeros(1, 3, 11, 13, device="meta")],
    ids=lambda x: f"{x.dtype} {list(x.shape)} {x.device}",
)  # fmt: skip
def test_a_plan_refuses_what_it_was_not_made_for(layer, x):
    for scale in (1, SCALE):
        with pytest.raises(CcnetError, match=r"this plan takes torch.float32 \[N, 3, 11, 13\] on cpu; got"):
            layer.plan((11, 13), scale)(x)


@pytest.mark.parametrize("change", ["hook", "subclass"])
def test_what_a_user_adds_to_a_kernel_is_computed(layer, x, change):
    if change == "hook":
        layer.kernel.register_forward_hook(lambda _net, _points, weights: 2 * weights)
    else:

        class Doubled(InternalNet):
            def forward(self, points):
                return 2 * super().forward(points)

        doubled = Doubled(3, 20, (3, 3))
        doubled.load_state_dict(layer.kernel.state_dict())
        layer.kernel = doubled
    expected = layer(x, SCALE, backend="standard")
    cache = PlanCache()
    with torch.no_grad():
        torch.testing.assert_close(layer(x, SCALE), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(layer(x, SCALE), expected, rtol=0, atol=1e-5)
    for _ in range(3):
        plan = layer.plan((11, 13), SCALE, cache=cache)
        torch.testing.assert_close(plan(x), expected, rtol=0, atol=1e-5)


def test_a_default_device_elsewhere_does_not_move_what_belongs_to_the_layer(layer, x):
    expected = layer(x, SCALE)
    native._describe_axis.cache_clear()
    with torch.device("meta"), torch.no_grad():
        torch.testing.assert_close(layer.plan((11, 13), SCALE)(x), expected)
    native._describe_axis.cache_clear()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
def test_a_traced_layer_computes(layer, x):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return self.layer(x, SCALE)

    with torch.no_grad():
        traced = torch.jit.trace(Scaled(), (x,))
        other = torch.rand_like(x)
        torch.testing.assert_close(traced(other), layer(other, SCALE))


def test_eight_threads_with_a_small_budget_get_right_answers_and_stay_within_it(generator):
    torch.manual_seed(0)
    layer = CCConv2d(16, 64, 3).eval()
    x = torch.randn(1, 16, 12, 12, generator=generator)
    scales = [Fraction(p, q) for p, q in ((4, 5), (5, 6), (6, 7), (7, 8), (8, 9), (9, 10), (7, 9), (7, 10))]
    with torch.no_grad():
        expected = [layer(x, scale) for scale in scales]
    cache = PlanCache(12 * 2**20)  # a few plans of 0.6 to 3 MB
    highest = []

    def work(turn):
        torch.set_num_threads(1)
        for step in range(24):
            which = (turn * 5 + step * (turn + 1)) % len(scales)
            plan = layer.plan((12, 12), scales[which], cache=cache)
            torch.testing.assert_close(plan(x), expected[which], rtol=0, atol=1e-5)
            highest.append(cache.stats.nbytes)

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(work, turn) for turn in range(8)]:
            future.result(60)
    stats = cache.stats
    assert max(highest) <= cache.max_bytes
    assert stats.hits > 0
    assert stats.evictions > 0
    assert stats.nbytes <= cache.max_bytes


def test_a_bundle_is_found_while_its_parts_are_kept_and_unchanged(layer):
    cache = PlanCache(100)
    stamp = Stamp(layer)
    for key in ("a", "b"):
        cache.get(key, stamp, lambda: Thing(40))
    cache.keep_bundle("both", stamp, "value", ["a", "b", "a"])
    before = cache.stats.hits
    assert cache.get_bundle("both", layer) == "value"
    assert cache.stats.hits == before + 2
    with torch.no_grad():
        layer.bias.add_(1)
    assert cache.get_bundle("both", layer) is None
    stamp = Stamp(layer)
    cache.keep_bundle("both", stamp, "newer", ["a", "b"])
    assert cache.get_bundle("both", layer) == "newer"
    cache.get("c", stamp, lambda: Thing(40))  # evicts "a"
    assert cache.get_bundle("both", layer) is None
    cache.keep_bundle("both", stamp, "value", ["a", "b"])
    assert cache.get_bundle("both", layer) is None
    cache.keep_bundle("one", stamp, "value", ["b"])
    cache.clear()
    assert cache.get_bundle("one", layer) is None


@pytest.mark.parametrize(
    "change",
    [train_a_step, load_another_state, round_through_half_precision, replace_a_parameter, replace_the_kernel,
     change_the_bias_in_place],
)  # fmt: skip
def test_a_stamp_holds_until_the_weights_change(change, layer):
    stamp = Stamp(layer)
    assert stamp.holds()
    assert stamp == Stamp(layer)
    change(layer)
    assert not stamp.holds()
    assert stamp != Stamp(layer)
