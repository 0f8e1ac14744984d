"""Every layer of CCNet by itself, in GFLOP/s, beside `conv2d` of the same channels and kernel on the same maps.

Sequences are drawn by seed. The reference has stride 1, so its maps do not shrink: arithmetic a second is compared and
not time. Both count every tap, also those on the padding.
"""

from typing import cast

import torch
from torch import Tensor

from ccnet import CCConv2d, CCNet, sample_scale_sequences
from ccnet.benchmarks.checks import checked_rows, exact_copy, no_misses
from ccnet.benchmarks.counting import LayerCost, pass_cost
from ccnet.benchmarks.measure import Rounds, take_turns
from ccnet.benchmarks.references import channels_last, reference_layer
from ccnet.benchmarks.report import Result, Row, Settings, Target
from ccnet.grid import ScalePair
from ccnet.plan_cache import PlanCache

SEQUENCES, IN_CHANNELS = 3, 3
BATCHES = (1, 8, 64)  # the target is for the last; the others are measured for the first sequence, to see it grow
SPEED = Target("each CCNet layer, batch 64: GFLOP/s vs conv2d", 0.8, "at least")


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    in_size, batches = ((8, 8), (1, 2)) if settings.quick else ((32, 32), BATCHES)
    model = CCNet(IN_CHANNELS, in_size=in_size).eval()
    count = 1 if settings.quick else SEQUENCES
    for number, sequence in enumerate(sample_scale_sequences(count, seed=settings.seed, in_size=in_size), 1):
        result.notes.append(f"sequence {number}: {sequence}")
        costs = pass_cost(sequence, in_size, IN_CHANNELS).layers
        for batch in batches if number == 1 else batches[-1:]:
            for j, (layer, scales, cost) in enumerate(zip(model.layers, sequence.scales, costs, strict=True), 1):
                case = f"sequence {number}, batch {batch}, layer {j}"
                target = SPEED if batch == batches[-1] else None
                measure_layer(result, settings, case, cast(CCConv2d, layer), scales, cost, batch, target)


def measure_layer(
    result: Result,
    settings: Settings,
    case: str,
    layer: CCConv2d,
    scales: ScalePair,
    cost: LayerCost,
    batch: int,
    target: Target | None,
) -> None:
    """One layer at one batch, warm."""
    x = channels_last(torch.randn(batch, cost.channels[0], *cost.in_size))
    reference, cache = reference_layer(*cost.channels, cost.kernel), PlanCache()

    @torch.inference_mode()
    def run() -> Tensor:
        return layer.plan(cost.in_size, scales, cost.out_size, cache=cache)(x)

    @torch.inference_mode()
    def convolve() -> Tensor:
        out: Tensor = reference(x)
        return out

    rows = checked_rows(batch)
    with torch.no_grad():
        expected = exact_copy(layer)(x[rows].double(), scales, cost.out_size)
    for use in ("first", "second", "warm"):
        result.checks.require(f"{case}, {use} use", run()[rows], expected)
    with no_misses(cache, case):
        times = take_turns({"CC layer": run, "conv2d": convolve}, Rounds.of(settings.quick))
    path = layer.plan(cost.in_size, scales, cost.out_size, cache=cache).path(batch)
    multiply_adds = {"CC layer": batch * cost.multiply_adds, "conv2d": convolve().numel() * reference.weight[0].numel()}
    result.add_times(case, times)
    for name, time in times.items():
        speed = time.scaled(0.5e9 / multiply_adds[name])  # seconds for 1e9 operations, two a multiply-add
        result.add(Row(case, f"{name} GFLOP/s", 1 / speed.median, "GFLOP/s", speed.spread / speed.median**2))
    equal = times["conv2d"].scaled(multiply_adds["CC layer"] / multiply_adds["conv2d"])
    result.add_ratio(case, "CC / conv2d speed", equal, times["CC layer"], target)
    result.notes.append(f"{case}: path {path}, {cost.phases} phases")
