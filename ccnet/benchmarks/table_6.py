"""Table 6: 1 to 32 CC layers of s = 1 in a row (32 channels, 3x3, batch 50, 64x64) beside as many `conv2d`."""

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn

from ccnet import CCConv2d
from ccnet.benchmarks.checks import checked_rows, exact_copy, no_misses
from ccnet.benchmarks.measure import TRAINING_WARM_UP, Rounds, take_turns
from ccnet.benchmarks.references import channels_last, reference_layer
from ccnet.benchmarks.report import Result, Settings, Target
from ccnet.benchmarks.table_5 import check_gradients, forward_and_backward
from ccnet.plan_cache import PlanCache

BATCH, CHANNELS, KERNEL, SIZE = 50, 32, 3, 64
LAYERS = (1, 2, 4, 8, 16, 32)
CHECKED_LAYERS = 4  # of longer chains `standard` would keep too much for its gradients
INFERENCE = Target("CC layers at s = 1 vs conv2d, inference, warm", 1.05)
TRAINING = Target("CC layers at s = 1 vs conv2d, forward + backward", 1.25, paper="2.7, 2.5, 2.4, 2.2, 2.2, 2.2")


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    size, batch = (12, 2) if settings.quick else (SIZE, BATCH)
    x = channels_last(torch.randn(batch, CHANNELS, size, size))
    for count in (1, 2) if settings.quick else LAYERS:
        layers = nn.Sequential(*(CCConv2d(CHANNELS, CHANNELS, KERNEL) for _ in range(count)))
        reference = nn.Sequential(*(reference_layer(CHANNELS, CHANNELS, KERNEL) for _ in range(count)))
        measure_inference(result, settings, layers, reference, x)
        measure_training(result, settings, layers, reference, x)


def measure_inference(
    result: Result, settings: Settings, layers: nn.Sequential, reference: nn.Sequential, x: Tensor
) -> None:
    """One number of layers, warm."""
    case, cache = f"{len(layers)} layers, inference", PlanCache()
    in_size = (x.shape[2], x.shape[3])

    @torch.inference_mode()
    def run() -> Tensor:
        out = x
        for layer in layers:
            out = cast(CCConv2d, layer).plan(in_size, 1, cache=cache)(out)
        return out

    @torch.inference_mode()
    def convolve() -> Tensor:
        out: Tensor = reference(x)
        return out

    rows = checked_rows(len(x))
    with torch.no_grad():
        expected = exact_copy(layers)(x[rows].double())
    for use in ("first", "second", "warm"):
        result.checks.require(f"{case}, {use} use", run()[rows], expected)
    calls: dict[str, Callable[[], object]] = {"CC layers": run, "conv2d": convolve}
    with no_misses(cache, case):
        times = take_turns(calls, Rounds.of(settings.quick))
    result.add_times(case, times)
    result.add_ratio(case, "CC / conv2d", times["CC layers"], times["conv2d"], INFERENCE)


def measure_training(
    result: Result, settings: Settings, layers: nn.Sequential, reference: nn.Sequential, x: Tensor
) -> None:
    """One number of layers, forward and backward."""
    case = f"{len(layers)} layers, forward + backward"
    if len(layers) <= CHECKED_LAYERS:
        check_gradients(result.checks, case, layers, lambda module, images: cast(Tensor, module(images)), x)
    steps = {
        "CC layers": forward_and_backward(layers, layers, x),
        "conv2d": forward_and_backward(reference, reference, x),
    }
    times = take_turns(steps, Rounds.of(settings.quick, TRAINING_WARM_UP))
    result.add_times(case, times)
    result.add_ratio(case, "CC / conv2d", times["CC layers"], times["conv2d"], TRAINING)
