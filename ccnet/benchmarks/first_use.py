"""The first pass of a new sequence beside its warm ones, batch 1, for both samplers.

A first use makes grids, generates all weights and applies them; the second one keeps the weights. Every sequence is new
to the network and to the cache, and its warm passes follow at once, so that both times of a ratio see one machine.
"""

import time
from typing import Any

import torch
from torch import Tensor

from ccnet import CCNet, ScaleSequence, sample_scale_sequences
from ccnet.benchmarks.checks import Probe, WrongResult, checked_rows, no_misses
from ccnet.benchmarks.counting import pass_cost
from ccnet.benchmarks.measure import Times, median_and_spread
from ccnet.benchmarks.report import Result, Row, Settings, Target
from ccnet.passes import plan_passes
from ccnet.plan_cache import PlanCache

IN_CHANNELS = 3
SEQUENCES, WARM_CALLS, CHECKED, FAMILIAR = 40, 10, 2, 3
BATCHES = (1, 8)  # the target is for one image; a larger batch shares the cost
SAMPLERS: dict[str, dict[str, Any]] = {
    "corrected": {"method": "corrected"},
    "conditioned": {"method": "conditioned"},
    "conditioned, numerator <= 7": {"method": "conditioned", "max_numerator": 7},
}
TARGETS = {
    "corrected": Target("new sequence (cold) vs warm pass, batch 1", 5.0),
    "conditioned": Target("new sequence (cold) vs warm pass, batch 1, conditioned", 4.0),
}


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    side, count = (8, 6) if settings.quick else (32, SEQUENCES)
    model = CCNet(IN_CHANNELS, in_size=(side, side)).eval()
    for name, options in SAMPLERS.items():
        drawn = sample_scale_sequences(FAMILIAR + count, seed=settings.seed, in_size=model.in_size, **options)
        probe = Probe(model)
        for batch in BATCHES[:1] if settings.quick else BATCHES:
            target = TARGETS.get(name) if batch == 1 else None
            measure_sampler(result, f"{name}, batch {batch}", model, probe, batch, drawn, target)


def measure_sampler(
    result: Result,
    case: str,
    model: CCNet,
    probe: Probe,
    batch: int,
    drawn: list[ScaleSequence],
    target: Target | None,
) -> None:
    """First, second and warm passes of every sequence; the first few sequences warm up the process."""
    cache, x, rows = PlanCache(2**30), probe.batch(batch), checked_rows(batch)
    seconds: dict[str, list[float]] = {"first": [], "second": [], "warm": []}
    for number, sequence in enumerate(drawn):
        cold, (first_s, second_s, warm_s) = one_sequence(case, model, x, sequence, cache)
        if number < CHECKED:
            expected = probe.expected(sequence, batch)
            result.checks.require(f"{case}, first use", cold[0, rows], expected)
            with torch.inference_mode():
                warm = plan_passes(model, [sequence], cache)(x)
            result.checks.require(f"{case}, warm use", warm[0, rows], expected)
        if number >= FAMILIAR:
            for name, value in zip(seconds, (first_s, second_s, warm_s), strict=True):
                seconds[name].append(value)
    times = {name: Times(tuple(values)) for name, values in seconds.items()}
    result.add_times(case, times)
    result.add_ratio(case, "first / warm", times["first"], times["warm"], target)
    result.add_ratio(case, "second / warm", times["second"], times["warm"])
    costs = [pass_cost(sequence, model.in_size, model.in_channels) for sequence in drawn[FAMILIAR:]]
    counted = [(c.generation_multiply_adds + c.multiply_adds) / c.multiply_adds for c in costs]
    median, spread = median_and_spread(counted)
    result.add(Row(case, "counted first / warm", median, "x", spread))
    result.add(Row(case, "prepared", median_and_spread([c.prepared_bytes / 1e6 for c in costs])[0], "MB"))


def one_sequence(
    case: str, model: CCNet, x: Tensor, sequence: ScaleSequence, cache: PlanCache
) -> tuple[Tensor, tuple[float, float, float]]:
    """Logits of the first pass, and seconds of the first, of the second and of a warm one (the median of several)."""
    before = cache.stats.misses

    @torch.inference_mode()
    def call() -> tuple[Tensor, float]:
        start = time.perf_counter()
        logits = plan_passes(model, [sequence], cache)(x)
        return logits, time.perf_counter() - start

    cold, first = call()
    if cache.stats.misses == before:
        raise WrongResult(f"{case}: the plans of a new sequence were there before its first use")
    _, second = call()
    call()
    with no_misses(cache, case):
        warm = [call()[1] for _ in range(WARM_CALLS)]
    return cold, (first, second, median_and_spread(warm)[0])
