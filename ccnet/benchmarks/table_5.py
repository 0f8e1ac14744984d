"""Table 5: one CC layer (32 to 32 channels, 3x3, s = 2/3, batch 50) beside `conv2d` of stride 1 on the same input.

The CC layer has 4/9 of the reference's outputs. Time here, peak memory in `memory.py`. Inference is warm, the plan
looked up in its cache at every call; forward and backward includes the gradients of the images and of all parameters,
and generating the weights.
"""

from collections.abc import Callable
from fractions import Fraction

import torch
from torch import Tensor, nn

from ccnet import CCConv2d
from ccnet.benchmarks.checks import Checks, checked_rows, exact_copy, no_misses
from ccnet.benchmarks.measure import TRAINING_WARM_UP, Rounds, take_turns
from ccnet.benchmarks.references import channels_last, reference_layer
from ccnet.benchmarks.report import Result, Row, Settings, Target
from ccnet.plan_cache import PlanCache

BATCH, CHANNELS, KERNEL, SCALE = 50, 32, 3, Fraction(2, 3)
SIZES = (32, 64, 96, 128)
PAPER = {32: 4.4, 64: 2.8, 96: 1.9, 128: 1.9}  # forward and backward on a V100, over conv2d
INFERENCE = Target("CC layer s = 2/3 vs conv2d, inference, warm", 0.6)
TRAINING = Target("CC layer s = 2/3 vs conv2d, forward + backward", 1.0, paper="4.4, 2.8, 1.9, 1.9")
TARGET_FROM = 64  # px from which the target of forward and backward holds


def measure(settings: Settings, result: Result) -> None:
    """Run it."""
    for size in (8, 16) if settings.quick else SIZES:
        batch = 4 if settings.quick else BATCH
        layer = CCConv2d(CHANNELS, CHANNELS, KERNEL)
        x = channels_last(torch.randn(batch, CHANNELS, size, size))
        measure_inference(result, settings, layer, x)
        measure_training(result, settings, layer, x)


def measure_inference(result: Result, settings: Settings, layer: CCConv2d, x: Tensor) -> None:
    """One size, warm."""
    case = f"{x.shape[-1]}x{x.shape[-1]}, inference"
    reference, cache = reference_layer(CHANNELS, CHANNELS, KERNEL), PlanCache()
    in_size = (x.shape[2], x.shape[3])

    @torch.inference_mode()
    def run() -> Tensor:
        return layer.plan(in_size, SCALE, cache=cache)(x)

    @torch.inference_mode()
    def convolve() -> Tensor:
        out: Tensor = reference(x)
        return out

    rows = checked_rows(len(x))
    with torch.no_grad():
        expected = exact_copy(layer)(x[rows].double(), SCALE)
    for use in ("first", "second", "warm"):
        result.checks.require(f"{case}, {use} use", run()[rows], expected)
    with no_misses(cache, case):
        times = take_turns({"CC layer": run, "conv2d": convolve}, Rounds.of(settings.quick))
    result.add_times(case, times)
    result.add_ratio(case, "CC / conv2d", times["CC layer"], times["conv2d"], INFERENCE)
    multiply_adds = run().numel() * CHANNELS * KERNEL**2
    result.add(Row(case, "CC GFLOP/s", 2e-9 * multiply_adds / times["CC layer"].median, "GFLOP/s"))


def measure_training(result: Result, settings: Settings, layer: CCConv2d, x: Tensor) -> None:
    """One size, forward and backward."""
    size = x.shape[-1]
    case = f"{size}x{size}, forward + backward"
    reference = reference_layer(CHANNELS, CHANNELS, KERNEL)
    check_gradients(result.checks, case, layer, lambda module, images: module(images, SCALE), x)
    steps = {
        "CC layer": forward_and_backward(lambda images: layer(images, SCALE), layer, x),
        "conv2d": forward_and_backward(reference, reference, x),
    }
    times = take_turns(steps, Rounds.of(settings.quick, TRAINING_WARM_UP))
    result.add_times(case, times)
    target = TRAINING if size >= TARGET_FROM or settings.quick else None
    result.add_ratio(case, "CC / conv2d", times["CC layer"], times["conv2d"], target)


def forward_and_backward(run: Callable[[Tensor], Tensor], module: nn.Module, x: Tensor) -> Callable[[], None]:
    """A call of forward and backward, with gradients of the images and of the module's parameters."""
    images = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    with torch.no_grad():
        cotangent = torch.randn_like(run(images))

    def step() -> None:
        images.grad = None
        module.zero_grad(set_to_none=True)
        run(images).backward(cotangent)

    return step


def check_gradients(
    checks: Checks, case: str, module: nn.Module, run: Callable[[nn.Module, Tensor], Tensor], x: Tensor
) -> None:
    """Outputs and gradients of a whole batch beside those of two of its images in float64.

    The cotangent is 0 for all other images, so that the parameters' gradients come from these two alone.
    """
    rows = checked_rows(len(x))
    images = x.detach().clone(memory_format=torch.preserve_format).requires_grad_()
    out = run(module, images)
    cotangent = torch.zeros_like(out)
    cotangent[rows] = torch.randn_like(out[rows])
    found = torch.autograd.grad(out, [images, *module.parameters()], cotangent)
    exact, few = exact_copy(module), x[rows].double().requires_grad_()
    wanted_out = run(exact, few)
    wanted = torch.autograd.grad(wanted_out, [few, *exact.parameters()], cotangent[rows].double())
    checks.require(f"{case}, output", out[rows], wanted_out)
    checks.require(f"{case}, gradient of the images", found[0][rows], wanted[0])
    for (name, _), mine, theirs in zip(module.named_parameters(), found[1:], wanted[1:], strict=True):
        checks.require(f"{case}, gradient of {name}", mine, theirs)
