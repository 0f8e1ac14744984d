"""A training step (forward, backward, AdamW) of CCNet beside ConvNet's, both as `ccnet train` runs them.

The networks take turns; every step of CCNet has a fresh scale sequence, as in training. ConvNet is measured with the
channels outermost and innermost, and compared in the faster way.
"""

import itertools
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ccnet import CCNet, ConvNet, ScaleSequence, sample_scale_sequences
from ccnet.allocator import keep_freed_memory
from ccnet.benchmarks.checks import Checks, exact_copy
from ccnet.benchmarks.measure import TRAINING_WARM_UP, Rounds, Times, take_turns
from ccnet.benchmarks.references import channels_last
from ccnet.benchmarks.report import Result, Row, Settings, Target
from ccnet.sequences import Method

IN_CHANNELS, CLASSES = 3, 10
BATCHES, TARGET_BATCH = (16, 64, 256), 64
STEPS, BUDGET_S = 40, 40.0
METHODS: tuple[Method, ...] = ("corrected", "conditioned")
STEP = Target("training step vs ConvNet's, batch 64", 3.0, paper="15")


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    keep_freed_memory()  # as `ccnet.training.train` does
    side, batches = (8, (4,)) if settings.quick else (32, BATCHES)
    for batch in batches:
        x = torch.randn(batch, IN_CHANNELS, side, side)
        labels = torch.randint(CLASSES, (batch,))
        measure_batch(result, settings, x, labels)


def measure_batch(result: Result, settings: Settings, x: Tensor, labels: Tensor) -> None:
    """One batch size."""
    case, size = f"batch {len(x)}", (x.shape[2], x.shape[3])
    rounds = Rounds.of(True) if settings.quick else Rounds(STEPS, BUDGET_S, TRAINING_WARM_UP)
    calls: dict[str, Callable[[], None]] = {}
    for method in METHODS:
        network = CCNet(IN_CHANNELS, CLASSES, in_size=size)
        needed = 50 * rounds.most  # a turn holds several short steps
        drawn = sample_scale_sequences(
            needed if settings.quick else 400, seed=settings.seed, in_size=size, method=method
        )
        if method == METHODS[0]:
            check_step(result.checks, f"{case}, step", network, drawn[0], x, labels)
        calls[f"CCNet, {method}"] = ccnet_step(network, drawn, channels_last(x), labels)
    for name, images in (("ConvNet", x.contiguous()), ("ConvNet, channels last", channels_last(x))):
        convnet = ConvNet(IN_CHANNELS, CLASSES, in_size=size)
        if "last" in name:
            convnet = convnet.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub
        calls[name] = step(convnet, lambda network=convnet, images=images: network(images), labels)  # type: ignore[misc]
    times = take_turns(calls, rounds)
    result.add_times(case, times)
    reference: Times = min((times[name] for name in calls if "ConvNet" in name), key=lambda time: time.median)
    for method in METHODS:
        wanted = len(x) == TARGET_BATCH or settings.quick
        target = STEP if wanted and method == METHODS[0] else None
        result.add_ratio(case, f"{method} / ConvNet", times[f"CCNet, {method}"], reference, target)
    result.add(Row(case, "CCNet, corrected, an image", times["CCNet, corrected"].median / len(x), "s"))


def ccnet_step(network: CCNet, drawn: list[ScaleSequence], x: Tensor, labels: Tensor) -> Callable[[], None]:
    """A step with the next sequence."""
    sequences = itertools.cycle(drawn)
    return step(network, lambda: network(x, next(sequences)), labels)


def step(network: nn.Module, forward: Callable[[], Tensor], labels: Tensor) -> Callable[[], None]:
    """Forward, backward and AdamW."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)

    def call() -> None:
        loss = nn.functional.cross_entropy(forward(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return call


def check_step(checks: Checks, case: str, network: CCNet, sequence: ScaleSequence, x: Tensor, labels: Tensor) -> None:
    """Loss and gradients of a batch beside those of its first image in float64.

    The loss counts the first image alone, so that `standard`, which forms the whole product of Eq. 3, need not take
    the others. A gradient is compared by its norm: where the input of a ReLU is within rounding of 0 one precision
    lets a value pass that the other does not, and single values are then far off.
    """
    exact = exact_copy(network)
    loss = nn.functional.cross_entropy(network(x, sequence), labels, reduction="none")[0]
    wanted = nn.functional.cross_entropy(exact(x[:1].double(), sequence), labels[:1])
    checks.require(f"{case}, loss", loss, wanted)
    mine = torch.autograd.grad(loss, list(network.parameters()))
    theirs = torch.autograd.grad(wanted, list(exact.parameters()))
    for (name, _), actual, expected in zip(network.named_parameters(), mine, theirs, strict=True):
        error = float((actual.double() - expected).norm()) / (float(expected.norm()) or 1.0)
        checks.record(f"{case}, gradient of {name}", error)
