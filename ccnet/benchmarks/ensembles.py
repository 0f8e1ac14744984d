"""Ensembles of k members in one call, warm, beside k single passes of the same sequences one after the other.

Both go through prepared plans of one cache. The single passes are bare plans; the ensemble is `ScaleEnsemble`, the mean
of the logits included.
"""

import torch
from torch import Tensor

from ccnet import CCNet, ScaleEnsemble, ScaleSequence, sample_scale_sequences
from ccnet.benchmarks.checks import Probe, checked_rows, no_misses
from ccnet.benchmarks.counting import pass_cost
from ccnet.benchmarks.measure import WARM_UP_AFTER_CHECKS, Rounds, take_turns
from ccnet.benchmarks.report import Result, Row, Settings, Target
from ccnet.passes import plan_passes
from ccnet.plan_cache import PlanCache

MEMBERS, BATCHES, IN_CHANNELS = (1, 2, 4, 8, 16, 32), (1, 64), 3
CACHE_BYTES = 8 * 2**30  # 32 members of 42 MB, and more for those with large numerators
SHARED = Target("ensemble of 8, batch 1, warm, vs 8 single passes", 0.85)
TARGET_CASE = (8, 1)  # members, images
CHECKED = (0, 1, 7, 15, 31)  # members that are compared: `standard` takes seconds for each


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    side, members, batches = (8, (1, 2), (1, 2)) if settings.quick else (32, MEMBERS, BATCHES)
    model = CCNet(IN_CHANNELS, in_size=(side, side)).eval()
    drawn = sample_scale_sequences(members[-1], seed=settings.seed, in_size=model.in_size)
    cache, probe = PlanCache(CACHE_BYTES), Probe(model)
    for batch in batches:
        x = probe.batch(batch)
        first = 0.0  # seconds of one member
        for k in members:
            quick_target = settings.quick and (k, batch) == (members[-1], 1)
            target = SHARED if (k, batch) == TARGET_CASE or quick_target else None
            seconds = measure_ensemble(result, settings, model, drawn[:k], x, probe, cache, target)
            first = first or seconds
            result.add(Row(_case(k, batch), "of k = 1", seconds / first, "x"))


def measure_ensemble(
    result: Result,
    settings: Settings,
    model: CCNet,
    sequences: list[ScaleSequence],
    x: Tensor,
    probe: Probe,
    cache: PlanCache,
    target: Target | None,
) -> float:
    """One k and batch; the median seconds of the ensemble."""
    case = _case(len(sequences), len(x))
    ensemble = ScaleEnsemble(model, plans=cache)

    def together() -> Tensor:
        return ensemble(x, sequences=sequences).member_logits

    @torch.inference_mode()
    def single() -> Tensor:
        return torch.cat([plan_passes(model, [sequence], cache)(x) for sequence in sequences])

    members = [member for member in CHECKED if member < len(sequences)]
    expected = torch.stack([probe.expected(sequences[member], len(x)) for member in members])
    rows = checked_rows(len(x))
    for use in ("first", "second", "warm") if len(x) == 1 else ("warm",):
        for name, call in (("ensemble", together), ("single passes", single)):
            result.checks.require(f"{case}, {name}, {use} use", call()[members][:, rows], expected)
    with no_misses(cache, case):
        times = take_turns(
            {"ensemble": together, "k single passes": single}, Rounds.of(settings.quick, WARM_UP_AFTER_CHECKS)
        )
    result.add_times(case, times)
    result.add_ratio(case, "ensemble / singles", times["ensemble"], times["k single passes"], target)
    member = times["ensemble"].median / len(sequences)
    arithmetic = sum(pass_cost(sequence, model.in_size, model.in_channels).multiply_adds for sequence in sequences)
    result.add(Row(case, "a member", member, "s"))
    result.add(Row(case, "GFLOP/s", 2e-9 * len(x) * arithmetic / times["ensemble"].median, "GFLOP/s"))
    return times["ensemble"].median


def _case(k: int, batch: int) -> str:
    return f"k = {k}, batch {batch}"
