"""Whole passes of CCNet, warm, beside a chain of `conv2d` of equal arithmetic; at batch 1 also beside their floor.

The chain (`references.ConvolutionChain`) has the channels, kernels and fully connected layers of Table 3 and as many
multiply-adds as the pass; its time is scaled by the ratio of both counts. The floor of a pass over one image is the
larger of two times measured in the same turns: its arithmetic at the chain's speed at batch 64, and one reading of its
prepared weights, the fully connected ones included, at the bandwidth of reading a buffer of that size.
"""

from itertools import pairwise

import torch
from torch import Tensor

from ccnet import CCNet, ScaleSequence, sample_scale_sequences
from ccnet.benchmarks.checks import Probe, checked_rows, no_misses
from ccnet.benchmarks.counting import PassCost, pass_cost
from ccnet.benchmarks.measure import Rounds, take_turns
from ccnet.benchmarks.references import ConvolutionChain, MemoryReader
from ccnet.benchmarks.report import Result, Row, Settings, Target
from ccnet.passes import PassPlan, plan_passes
from ccnet.plan_cache import PlanCache

SEQUENCES, IN_CHANNELS = 3, 3
BATCHES = (1, 8, 64, 256)
CHAIN_BATCH = 64  # whose speed stands for the machine's
SIDES, SIDES_BATCH = (16, 32, 64), 8  # growth with the size of the images
CHAIN = Target("whole CCNet pass vs chain of conv2d + FC, batch 64", 1.3)
FLOOR = Target("whole CCNet pass vs its floor, batch 1", 1.5)


class WarmPass:
    """One sequence of one network, its plans looked up in a cache at every call."""

    def __init__(self, model: CCNet, sequence: ScaleSequence) -> None:
        self.model, self.sequence, self.cache = model, sequence, PlanCache(2**30)
        self.probe = Probe(model)
        self.cost: PassCost = pass_cost(sequence, model.in_size, model.in_channels, model.classes)

    def plan(self) -> PassPlan:
        """As it is now."""
        return plan_passes(self.model, [self.sequence], self.cache)

    @torch.inference_mode()
    def __call__(self, x: Tensor) -> Tensor:
        """[N, classes]."""
        return self.plan()(x)[0]

    def check(self, result: Result, case: str, x: Tensor) -> None:
        """Compare its first, its second and a warm call on a batch of the probe with `standard` in float64."""
        rows, expected = checked_rows(len(x)), self.probe.expected(self.sequence, len(x))
        self.cache.clear()
        for use in ("first", "second", "warm"):
            result.checks.require(f"{case}, {use} use", self(x)[rows], expected)

    @property
    def weight_bytes(self) -> int:
        """Weights that a pass reads: of all phases of all layers, and of the fully connected layers."""
        head = 4 * sum(a * b for a, b in pairwise(self.cost.head))
        kept = [plan.weights for level in self.plan().plans for plan in level]
        return head + sum(weights.nbytes for weights in kept if weights is not None)


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    side, batches = (8, (1, 2)) if settings.quick else (32, BATCHES)
    model = CCNet(IN_CHANNELS, in_size=(side, side)).eval()
    count = 1 if settings.quick else SEQUENCES
    for number, sequence in enumerate(sample_scale_sequences(count, seed=settings.seed, in_size=model.in_size), 1):
        result.notes.append(f"sequence {number}: {sequence}")
        warm = WarmPass(model, sequence)
        for batch in batches:
            target = CHAIN if batch == CHAIN_BATCH or (settings.quick and batch == batches[-1]) else None
            measure_pass(result, settings, f"sequence {number}, batch {batch}", warm, batch, target)
        measure_floor(result, settings, f"sequence {number}, batch 1", warm)
    for side in () if settings.quick else SIDES:
        model = CCNet(IN_CHANNELS, in_size=(side, side)).eval()
        (sequence,) = sample_scale_sequences(1, seed=settings.seed, in_size=model.in_size)
        measure_pass(result, settings, f"{side}x{side} px, batch {SIDES_BATCH}", WarmPass(model, sequence), SIDES_BATCH)


def measure_pass(
    result: Result, settings: Settings, case: str, warm: WarmPass, batch: int, target: Target | None = None
) -> None:
    """One batch beside the chain."""
    x = warm.probe.batch(batch)
    chain = ConvolutionChain(warm.cost, batch)
    warm.check(result, case, x)
    with no_misses(warm.cache, case):
        times = take_turns({"pass": lambda: warm(x), "chain": chain}, Rounds.of(settings.quick))
    needed = warm.cost.multiply_adds
    result.add_times(case, times)
    result.add_ratio(case, "pass / chain", times["pass"], times["chain"].scaled(needed / chain.multiply_adds), target)
    result.add(Row(case, "pass GFLOP/s", 2e-9 * batch * needed / times["pass"].median, "GFLOP/s"))
    result.add(Row(case, "multiply-adds an image", needed / 1e6, "M"))
    result.add(Row(case, "of the chain", chain.multiply_adds / 1e6, "M"))
    result.add(Row(case, "a pass and image", times["pass"].median / batch, "s"))


def measure_floor(result: Result, settings: Settings, case: str, warm: WarmPass) -> None:
    """One image beside the least time that this machine could take for it."""
    x, rounds = torch.randn(1, warm.model.in_channels, *warm.model.in_size), Rounds.of(settings.quick)
    images = 4 if settings.quick else CHAIN_BATCH
    chain = ConvolutionChain(warm.cost, images)
    for _ in range(rounds.warm_up):
        warm(x)
    weights = warm.weight_bytes
    reader = MemoryReader(weights, rounds)
    with no_misses(warm.cache, case):
        times = take_turns({"pass": lambda: warm(x), "chain": chain, "reading": reader}, rounds)
    arithmetic = times["chain"].scaled(warm.cost.multiply_adds / (images * chain.multiply_adds))
    reading = times["reading"].scaled(weights / reader.nbytes)
    result.add_times(case, {"floor: arithmetic": arithmetic, "floor: weights": reading})
    result.add(Row(case, "weights", weights / 1e6, "MB"))
    result.add(Row(case, "bandwidth", weights / reading.median / 1e9, "GB/s"))
    speed = 2e-9 * warm.cost.multiply_adds / arithmetic.median
    result.add(Row(case, f"chain GFLOP/s at batch {images}", speed, "GFLOP/s"))
    floor = max(arithmetic, reading, key=lambda time: time.median)
    result.add_ratio(case, "pass / floor", times["pass"], floor, FLOOR)
    result.notes.append(f"{case}: memory read fastest by a {reader.name}")
