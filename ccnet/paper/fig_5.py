"""Figure 5: one network, many ladders of map sizes, one final size.

The paper draws three sequences of three layers: uniform, alternating between the axes, and irregular. Here they are
sequences of the paper's eight-layer network, and sampled ones beside them.
"""

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch

from ccnet.models import CCNet
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.sequences import ScaleSequence, sample_scale_sequences

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

IN_SIZE, FINAL = (32, 32), (8, 8)
TOTAL = Fraction(1, 4)
FREE_LAYERS = 7  # behind the first, whose scale is 1
SAMPLED, QUICK_SAMPLED = 1000, 100


def find(context: Context) -> Findings:
    """Run it."""
    findings = Findings()
    count = QUICK_SAMPLED if context.quick else SAMPLED
    sampled = sample_scale_sequences(count, seed=context.seed)
    shown = {"uniform": uniform(), "alternating": alternating()} | {
        f"sampled, number {number}": sequence for number, sequence in enumerate(sampled[:2], 1)
    }
    for name, sequence in shown.items():
        for layer, size in enumerate(sequence.shapes(IN_SIZE), 1):
            findings.rows.append(Row(f"layer {layer}", name, f"{size[0]} x {size[1]}", value=float(size[0] * size[1])))
    ladders = [sequence.shapes(IN_SIZE) for sequence in dict.fromkeys([*shown.values(), *sampled])]
    reach = sum(ladder[-1] == FINAL for ladder in ladders)
    findings.claims = [
        judged(
            "every sequence ends at the same size",
            reach == len(ladders),
            f"{reach} of {len(ladders)} end at {FINAL[0]} x {FINAL[1]}, over {len(set(ladders))} different ladders",
        ),
        judge_network(list(shown.values())),
    ]
    findings.notes = [
        "Uniform and alternating: fractions with denominators up to 10, the last one set so that their product is "
        f"{TOTAL}. Sampled: as networks are trained and served here.",
    ]
    findings.series = {"ladders": {name: sequence.shapes(IN_SIZE) for name, sequence in shown.items()}}
    return findings


def uniform() -> ScaleSequence:
    """The same scale at every free layer of both axes, as far as fractions go."""
    axis = axis_of([True] * FREE_LAYERS)
    return ScaleSequence(axis, axis)


def alternating() -> ScaleSequence:
    """One axis at a time, the vertical one first."""
    turns = [layer % 2 == 0 for layer in range(FREE_LAYERS)]
    return ScaleSequence(axis_of(turns), axis_of([not turn for turn in turns]))


def axis_of(shrinks: list[bool]) -> tuple[Fraction, ...]:
    """Scales of an axis with the first layer's 1: equal where it shrinks, 1 elsewhere; their product is `TOTAL`."""
    scale = Fraction(float(TOTAL) ** (1 / sum(shrinks))).limit_denominator(10)
    scales = [scale if shrink else Fraction(1) for shrink in shrinks]
    last = max(layer for layer, shrink in enumerate(shrinks) if shrink)
    scales[last] = TOTAL / scale ** (sum(shrinks) - 1)
    return (Fraction(1), *scales)


@torch.no_grad()
def judge_network(sequences: list[ScaleSequence]) -> Any:
    """Whether one network of fixed parameters takes them all."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CCNet(1, 10, in_size=IN_SIZE).eval()
    images = torch.rand(1, 1, *IN_SIZE, generator=torch.Generator().manual_seed(0))
    maps = [network.features(images, sequence) for sequence in sequences]
    right = sum(tuple(found.shape[2:]) == FINAL and bool(found.isfinite().all()) for found in maps)
    return judged(
        "one network, its parameters unchanged, takes every sequence",
        right == len(maps),
        f"{right} of {len(maps)} give a map of {FINAL[0]} x {FINAL[1]}",
    )


def plot(document: dict[str, Any]) -> "Figure":
    """A row a sequence: its maps, to scale, from the image to the last."""
    from ccnet.paper.drawing import figure

    ladders = document["series"]["ladders"]
    drawn, axes = figure(1, len(ladders), panel=(9.0, 1.5))
    for panel, (name, sizes) in zip(axes, ladders.items(), strict=True):
        draw_ladder(panel, [list(IN_SIZE), *sizes], name)
    return drawn


def draw_ladder(axes: "Axes", sizes: list[list[int]], name: str) -> None:
    """Rectangles of the maps' heights and widths, their sizes below."""
    from matplotlib.patches import Rectangle

    room = IN_SIZE[1] + 6
    for place, (height, width) in enumerate(sizes):
        corner = (place * room - width / 2, -height / 2)
        ends = place in (0, len(sizes) - 1)
        axes.add_patch(Rectangle(corner, width, height, facecolor="#DDDDDD" if ends else "#0072B2", edgecolor="black"))
        axes.annotate(f"{height} x {width}", (place * room, -IN_SIZE[0] / 2 - 2), ha="center", va="top", fontsize=8)
    axes.set_xlim(-room / 2, (len(sizes) - 0.5) * room)
    axes.set_ylim(-IN_SIZE[0] / 2 - 9, IN_SIZE[0] / 2 + 1)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title(name, fontsize=9, loc="left")
