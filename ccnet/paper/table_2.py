"""Table 2: the Internal-Nets counted, and the variance of the weights that they generate untrained (A.1, A.2).

Two inputs, two sizes: "distance" has one output for each pair of channels, "offset", which the paper's network uses,
one for each pair and neighbour.
"""

import math
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ccnet.initialisation import unit_variance_
from ccnet.models import TABLE_3, CCNet, ConvNet
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.sequences import sample_scale_sequences
from ccnet.types import KernelInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HIDDEN = (16, 16)  # Table 2
IN_CHANNELS, CLASSES, SIDE = 3, 10, 32  # CIFAR-10's
INPUTS: tuple[KernelInput, ...] = ("distance", "offset")
SEEDS, QUICK_SEEDS = 10, 2
IMAGES = 16  # of Gaussian noise
ALLOWED = 0.1  # relative difference of two variances that counts as "similar"
LAYERS, VARIANCE, MAPS = (
    "CC layers: outputs and parameters of the Internal-Net",
    "Variance of the generated weights at the start, over that of nn.Conv2d's",
    "Standard deviation of the maps at the start, on noise of variance 1",
)


def find(context: Context) -> Findings:
    """Run it."""
    findings = Findings()
    count_layers(findings)
    seeds = range(context.seed, context.seed + (QUICK_SEEDS if context.quick else SEEDS))
    with context.progress("Table 2", 2 * len(seeds), "networks") as report:
        ratios: dict[str, list[list[float]]] = {kernel_input: [] for kernel_input in INPUTS}
        maps: dict[str, list[list[float]]] = {name: [] for name in STARTS}
        for seed in seeds:
            for kernel_input in INPUTS:
                drawn = context.step(
                    f"weights-{kernel_input}-{seed}", partial(variances, kernel_input, seed), hidden=HIDDEN
                )
                ratios[kernel_input].append(drawn)
            report.advance(1)
            for name in STARTS:
                kept = f"maps-{name.replace(' ', '-')}-{seed}"
                deviations = context.step(kept, partial(spreads, name, seed), images=IMAGES)
                maps[name].append(deviations)
            report.advance(1)
    judge_variance(findings, ratios)
    show_maps(findings, maps)
    findings.notes += [
        f"Variances and deviations are means over {len(seeds)} seeds. A.2 draws the biases of the last layer of an "
        "Internal-Net with the whole variance; ours give them nine tenths and leave a tenth to its weights, so that "
        "the filters of different phases differ from the first step on.",
        'Training with the recipe "fast" begins elsewhere: every layer is scaled until its map has variance 1 '
        '(ccnet/initialisation.py). The recipe "paper" keeps A.2.',
    ]
    return findings


def channels() -> list[tuple[int, int, int]]:
    """(C_in, C_out, kernel size) of each layer."""
    ins = [IN_CHANNELS, *(out for out, _, _ in TABLE_3)]
    return [(ins[j], out, size) for j, (out, size, _) in enumerate(TABLE_3)]


def implied(c_in: int, c_out: int, size: int, kernel_input: KernelInput) -> tuple[int, int]:
    """(C_final, parameters) of one Internal-Net, as Table 2 and A.1 say: three 1x1 convolutions with biases."""
    final = c_in * c_out * (size**2 if kernel_input == "offset" else 1)
    widths = (2, *HIDDEN, final)
    return final, sum((before + 1) * after for before, after in pairwise(widths))


def parameters(module: nn.Module) -> int:
    """How many."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_layers(findings: Findings) -> None:
    """Ours counted in the modules, beside what the paper implies."""
    agree, totals = 0, {}
    for kernel_input in INPUTS:
        network = CCNet(IN_CHANNELS, CLASSES, in_size=(SIDE, SIDE), kernel_input=kernel_input)
        mine = [parameters(layer.kernel) for layer in network.layers]  # type: ignore[arg-type]  # torch's stub
        theirs = [implied(*layer, kernel_input) for layer in channels()]
        for j, ((c_in, c_out, size), count, (final, wanted)) in enumerate(
            zip(channels(), mine, theirs, strict=True), 1
        ):
            case = f"{j}: {c_in} to {c_out}, {size}x{size}"
            findings.rows.append(Row(case, f"{kernel_input}: outputs", f"{final:,}", part=LAYERS))
            findings.rows.append(
                Row(case, f"{kernel_input}: parameters", f"{count:,}", f"{wanted:,}", float(count), LAYERS)
            )
            agree += count == wanted
        totals[kernel_input] = (sum(mine), parameters(network))
        for case, number in (("all Internal-Nets", sum(mine)), ("the whole CCNet", parameters(network))):
            findings.rows.append(
                Row(case, f"{kernel_input}: parameters", f"{number:,}", value=float(number), part=LAYERS)
            )
    widths = [layer.out_features for layer in network.layers[1].kernel.hidden]  # type: ignore[union-attr]
    convnet = parameters(ConvNet(IN_CHANNELS, CLASSES, in_size=(SIDE, SIDE)))
    findings.claims += [
        judged(
            "Internal-Nets have layers of 16, 16 and C_final channels (Table 2, A.1)",
            agree == 2 * len(TABLE_3) and tuple(widths) == HIDDEN,
            f"{agree} of {2 * len(TABLE_3)} layers have the parameters that this implies; hidden widths {widths}",
        ),
        judged(
            "CC-Net has more parameters than Baseline-Net (Sec. 6)",
            all(total > convnet for _, total in totals.values()),
            f"ConvNet {convnet:,}; CCNet {totals['distance'][1]:,} by distance, {totals['offset'][1]:,} by offset",
        ),
    ]
    findings.notes.append(
        'Columns "paper" are computed from Table 2 and A.1, which print no counts. Images of 3 channels and 32x32 px.'
    )


def variances(kernel_input: KernelInput, seed: int) -> list[float]:
    """Of each layer: variance of the weights that a new CCNet generates, over that of a new nn.Conv2d's weights."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        ratios = []
        for layer, (c_in, c_out, size) in zip(
            CCNet(IN_CHANNELS, CLASSES, kernel_input=kernel_input).layers, channels(), strict=True
        ):
            support = size if kernel_input == "distance" else 1  # distances fill the window, offsets one pixel
            points = (torch.rand(256, 2) - 0.5) * support
            generated: Tensor = layer.kernel(points)  # type: ignore[operator]  # torch's stub
            ratios.append(float(generated.var() / nn.Conv2d(c_in, c_out, size).weight.var()))
        return ratios


STARTS = ("ConvNet", "CCNet", "ConvNet unit variance", "CCNet unit variance")


def spreads(start: str, seed: int) -> list[float]:
    """Standard deviation of each layer's map, ReLU not yet applied, of a new network on Gaussian noise."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = (CCNet if start.startswith("CCNet") else ConvNet)(IN_CHANNELS, CLASSES, in_size=(SIDE, SIDE))
        x = torch.randn(IMAGES, IN_CHANNELS, SIDE, SIDE)
        arguments: tuple[Any, ...] = (x, sample_scale_sequences(1, seed=seed)[0]) if start.startswith("CC") else (x,)
        if start.endswith("variance"):
            unit_variance_(network, *arguments)
        found: list[float] = []
        for layer in network.layers:
            layer.register_forward_hook(lambda _layer, _inputs, out: found.append(float(out.std())))
        network(*arguments)
        return found


def judge_variance(findings: Findings, ratios: dict[str, list[list[float]]]) -> None:
    """Whether generated weights begin with the variance of an ordinary layer's."""
    means = {
        kernel_input: [sum(column) / len(column) for column in zip(*drawn, strict=True)]
        for kernel_input, drawn in ratios.items()
    }
    for kernel_input, drawn in ratios.items():
        for j, column in enumerate(zip(*drawn, strict=True), 1):
            mean = means[kernel_input][j - 1]
            std = math.sqrt(sum((value - mean) ** 2 for value in column) / max(1, len(column) - 1))
            findings.rows.append(Row(f"layer {j}", kernel_input, f"{mean:.3f} ± {std:.3f}", "similar", mean, VARIANCE))
        off = max(abs(mean - 1) for mean in means[kernel_input])
        findings.claims.append(
            judged(
                f'at the start, generated weights vary as an ordinary layer\'s do (A.2; "{kernel_input}")',
                off <= ALLOWED,
                f"over that of nn.Conv2d their variance is {min(means[kernel_input]):.3f} to "
                f"{max(means[kernel_input]):.3f} (mean over seeds, by layer); within {ALLOWED:.0%} counts as similar",
            )
        )
    findings.series["variance_ratio"] = means


def show_maps(findings: Findings, maps: dict[str, list[list[float]]]) -> None:
    """How large the maps of new networks are, with A.2's weights and with those that `fast` begins with."""
    means = {name: [sum(column) / len(column) for column in zip(*drawn, strict=True)] for name, drawn in maps.items()}
    for name, by_layer in means.items():
        for j, deviation in enumerate(by_layer, 1):
            findings.rows.append(Row(f"layer {j}", name, f"{deviation:.3g}", value=deviation, part=MAPS))
    findings.claims.append(
        judged(
            "(ours) with these weights the signal reaches the last convolution layer undiminished",
            means["CCNet"][-1] > 0.5,
            f"standard deviation of the last map, before its ReLU: CCNet {means['CCNet'][-1]:.3g}, ConvNet "
            f"{means['ConvNet'][-1]:.3g}; begun with variance 1: {means['CCNet unit variance'][-1]:.3g} and "
            f"{means['ConvNet unit variance'][-1]:.3g}",
        )
    )
    findings.series["maps"] = means


def plot(document: dict[str, Any]) -> "Figure":
    """Variance of generated weights, and how maps fade."""
    from ccnet.paper.drawing import COLOURS, figure

    drawn, (left, right) = figure(2)
    layers = range(1, len(TABLE_3) + 1)
    for kernel_input, ratios in document["series"]["variance_ratio"].items():
        left.plot(layers, ratios, marker="o", label=f"K by {kernel_input}")
    left.axhline(1, color="gray", linestyle=":")
    left.set_ylim(0, 1.5)
    left.set_title("Generated weights vary as Conv2d's")
    left.set_ylabel("variance / variance of nn.Conv2d")
    for name, deviations in document["series"]["maps"].items():
        kind = name.partition(" ")[0]
        style = "-" if name == kind else "--"
        label = f"{kind}, {'as A.2 has it' if name == kind else 'begun with variance 1'}"
        right.plot(layers, deviations, style, marker=".", color=COLOURS[kind], label=label)
    right.set_yscale("log")
    right.set_title("Maps of new networks fade, unless scaled")
    right.set_ylabel("standard deviation of the map")
    for axes in (left, right):
        axes.set_xlabel("layer")
        axes.legend(fontsize="small")
    return drawn
