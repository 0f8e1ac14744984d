"""Table 3: both networks layer by layer, read off the modules and off a real pass; and A.2's training beside ours."""

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ccnet.layer import CCConv2d
from ccnet.models import CCNet, ConvNet
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.recipes import TrainingConfig, recipe
from ccnet.sequences import ScaleSequence, sample_scale_sequences

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# As printed: layers of ConvNet ("+1" is the stride) and of CCNet.
CONVNET = (
    "CONV 32 3x3+1", "CONV 32 4x4+2", "CONV 64 3x3+1", "CONV 64 3x3+1", "CONV 64 3x3+1", "CONV 64 3x3+1",
    "CONV 64 3x3+1", "CONV 64 4x4+2", "FC 512", "FC 512", "FC 10",
)  # fmt: skip
CCNET = (
    "CC 32 3x3", "CC 32 4x4", "CC 64 3x3", "CC 64 3x3", "CC 64 3x3", "CC 64 3x3", "CC 64 3x3", "CC 64 4x4",
    "FC 512", "FC 512", "FC 10",
)  # fmt: skip
# What A.2 says of training; (CCNet's, ConvNet's) where they differ.
TRAINING: dict[str, Any] = {
    "epochs": 400,
    "batch_size": 64,
    "optimizer": "adam",
    "learning_rate": (5e-4, 1e-3),
    "schedule": "steps",
    "milestones": ((200, 300), (150, 250)),
    "weight_decay": 5e-4,
    "crop_padding": 4,
    "flip": "random",
    "sequence_std": 0.01,
}
UNSAID = ("label_smoothing", "gradient_clip", "ema_decay", "init")
IN_CHANNELS, CLASSES, SIZE = 3, 10, (32, 32)  # CIFAR-10's
SEQUENCES, QUICK_SEQUENCES = 200, 20
TEXT_FACTOR = 0.25 ** (1 / 6)  # Sec. 6: "approximately (1/4)^(1/6)"
APPENDIX_FACTOR = 0.25 ** (1 / 7)  # A.2
LAYERS, RECIPES = "", "Training: A.2 beside our recipes (CCNet / ConvNet where they differ)"


def find(context: Context) -> Findings:
    """Run it."""
    findings = Findings()
    drawn = sample_scale_sequences(QUICK_SEQUENCES if context.quick else SEQUENCES, seed=context.seed, in_size=SIZE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(context.seed)
        convnet, ccnet = ConvNet(IN_CHANNELS, CLASSES, in_size=SIZE), CCNet(IN_CHANNELS, CLASSES, in_size=SIZE)
    compare_layers(findings, convnet, ccnet, drawn[0])
    judge_sizes(findings, convnet, ccnet, drawn)
    compare_training(findings)
    return findings


def described(layer: nn.Module, *, stride: bool) -> str:
    """A layer in the words of Table 3."""
    if isinstance(layer, nn.Linear):
        return f"FC {layer.out_features}"
    if isinstance(layer, CCConv2d):
        return "CC {} {}x{}".format(layer.out_channels, *layer.kernel_size)
    assert isinstance(layer, nn.Conv2d)
    text = "CONV {} {}x{}".format(layer.out_channels, *layer.kernel_size)
    return f"{text}+{layer.stride[0]}" if stride else text


def all_layers(network: ConvNet | CCNet) -> list[nn.Module]:
    """Convolutions and fully connected ones, in the order of the pass."""
    return [*network.layers, *(layer for layer in network.head if isinstance(layer, nn.Linear))]


@torch.no_grad()
def sizes_of_a_pass(network: ConvNet | CCNet, *arguments: ScaleSequence) -> list[tuple[int, ...]]:
    """Shapes of one image's maps behind every layer, as they come out."""
    found: list[tuple[int, ...]] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _inputs, out: found.append(tuple(out.shape[1:])))
        for layer in all_layers(network)
    ]
    try:
        network(torch.zeros(1, IN_CHANNELS, *SIZE), *arguments)
    finally:
        for handle in handles:
            handle.remove()
    return found


def compare_layers(findings: Findings, convnet: ConvNet, ccnet: CCNet, sequence: ScaleSequence) -> None:
    """A line a layer: what it is, what comes out, how many parameters it has."""
    agree = 0
    parts = ((convnet, "ConvNet", CONVNET, ()), (ccnet, "CCNet", CCNET, (sequence,)))
    for network, name, printed, arguments in parts:
        sizes = sizes_of_a_pass(network, *arguments)
        lines = zip(all_layers(network), printed, sizes, strict=True)
        for j, (layer, wanted, size) in enumerate(lines, 1):
            case, text = f"layer {j}", described(layer, stride=True)
            count = sum(parameter.numel() for parameter in layer.parameters())
            findings.rows.append(Row(case, name, text, wanted))
            if isinstance(layer, CCConv2d):
                scales = ", ".join(map(str, sequence.scales[j - 1]))
                findings.rows.append(Row(case, "a sequence's scales [H, W]", scales))
            findings.rows.append(Row(case, f"{name}, out [H, W]", str(list(size[1:])) if len(size) > 1 else "-"))
            findings.rows.append(Row(case, f"{name}, parameters", f"{count:,}", value=float(count)))
            agree += text == wanted
    total = len(CONVNET) + len(CCNET)
    findings.claims.append(
        judged("the networks are those of Table 3", agree == total, f"{agree} of {total} layers agree with the print")
    )
    findings.notes.append(
        f"Images of {IN_CHANNELS} channels, {SIZE[0]}x{SIZE[1]} px. CCNet's sizes are those of one sampled sequence; "
        "its parameters are those of the Internal-Nets by offset (A.1), with their biases."
    )


def judge_sizes(findings: Findings, convnet: ConvNet, ccnet: CCNet, drawn: list[ScaleSequence]) -> None:
    """The totals: eight layers, 1:4, and the factor of a layer."""
    last = sizes_of_a_pass(convnet)[len(convnet.layers) - 1][1:]
    passed = [sizes_of_a_pass(ccnet, sequence)[len(ccnet.layers) - 1][1:] for sequence in drawn]
    same = sum(size == last for size in passed)
    quarter = sum(sequence.total == (Fraction(1, 4),) * 2 for sequence in drawn)
    scales = [float(scale) for sequence in drawn for pair in sequence.scales[1:] for scale in pair]
    factor = math.exp(sum(map(math.log, scales)) / len(scales))
    strides = [layer.stride[0] for layer in convnet.layers]  # type: ignore[index]  # torch's stub
    findings.claims += [
        judged(
            "whatever the sequence, the last map is 1:4 and as large as the Baseline's",
            same == quarter == len(drawn),
            f"{same} of {len(drawn)} sampled sequences end at {list(last)}, {quarter} multiply to 1/4 exactly",
        ),
        judged(
            "the Baseline's conv-layers have strides 1,2,1,1,1,1,1,2 (Sec. 6)",
            strides == [1, 2, 1, 1, 1, 1, 1, 2],
            f"strides {','.join(map(str, strides))}",
        ),
        judged(
            "Sec. 6 and A.2 name the same mean scale-factor of a layer: (1/4)^(1/6) and (1/4)^(1/7)",
            TEXT_FACTOR == APPENDIX_FACTOR,
            f"{TEXT_FACTOR:.4f} and {APPENDIX_FACTOR:.4f}: a matter of the two texts, which nothing measured decides. "
            f"Seven layers that share 1/4, as in Table 4, have the latter, and so have ours (geometric mean "
            f"{factor:.4f})",
        ),
    ]
    heights = [[SIZE[0], *(size[0] for size in sequence.shapes(SIZE))] for sequence in drawn[:20]]
    first = [SIZE[0], *(size[1] for size in sizes_of_a_pass(convnet)[: len(convnet.layers)])]
    findings.series = {"ConvNet": first, "CCNet": heights}


def compare_training(findings: Findings) -> None:
    """Every setting that A.2 names, and those that it does not name and our recipes have."""
    agree = 0
    recipes = {name: (recipe(name, "ccnet"), recipe(name, "convnet")) for name in ("paper", "fast")}
    for key in (*TRAINING, *UNSAID):
        wanted = TRAINING.get(key)
        printed = "" if wanted is None else both(*wanted) if isinstance(wanted, tuple) else str(wanted)
        for name, configs in recipes.items():
            values = [getattr(config, key) for config in configs]
            findings.rows.append(Row(key, f'recipe "{name}"', both(*values), printed * (name == "paper"), part=RECIPES))
        agree += wanted is not None and both(*settings(recipes["paper"], key)) == printed
    findings.claims.append(
        judged(
            'the recipe "paper" trains as A.2 says',
            agree == len(TRAINING),
            f"{agree} of {len(TRAINING)} settings agree; the spread of the scales is "
            f"{recipes['paper'][0].sequence_std}, near what Table 4 was drawn with (`ccnet paper table_4`), and not "
            f"the {TRAINING['sequence_std']} of the text",
        )
    )
    findings.notes.append(
        "What A.2 does not name stands in the recipes without a figure of the paper's. The shipped checkpoints were "
        "trained on Fashion-MNIST with the recipe that their cards name."
    )


def settings(configs: tuple[TrainingConfig, TrainingConfig], key: str) -> list[Any]:
    """A setting of CCNet's and of ConvNet's training."""
    return [getattr(config, key) for config in configs]


def both(first: Any, second: Any) -> str:
    """Two values in words, one where they are equal."""
    return str(first) if first == second else f"{first} / {second}"


def plot(document: dict[str, Any]) -> "Figure":
    """How maps shrink: at once, or gradually."""
    from ccnet.paper.drawing import COLOURS, figure

    drawn, (axes,) = figure(1)
    series = document["series"]
    layers = range(len(series["ConvNet"]))
    for number, heights in enumerate(series["CCNet"]):
        label = f"CCNet, {len(series['CCNet'])} sampled sequences" if number == 0 else None
        axes.plot(layers, heights, color=COLOURS["CCNet"], alpha=0.35, linewidth=1, label=label)
    axes.plot(layers, series["ConvNet"], color=COLOURS["ConvNet"], marker="o", label="ConvNet")
    axes.set_xticks(list(layers), ["input", *map(str, layers[1:])])
    axes.set_xlabel("convolution layer")
    axes.set_ylabel("height of the map, px")
    axes.set_ylim(0, None)
    axes.set_title("CCNet shrinks its maps gradually, ConvNet in two steps")
    axes.legend()
    return drawn
