"""Figure 6: a 4 x 4 conv layer of stride 1 moves what it filters by half a pixel; a CC layer of scale 1 does not.

A Gaussian is applied twenty times to a white cross, and the centre of mass is measured after every layer, in float64,
in a picture so large that nothing reaches its rim.

What a CC layer with an even K does at scale 1: its neighbours lie at the whole distances -K/2 + 1, ..., K/2 (a tie goes
to the left), so that the one at K/2 has no partner and moves the centre by (K/2) k(K/2) / sum(k) a layer, where k is
the kernel along the axis. It is centred as far as the kernel has decayed at its rim, and exactly where k(K/2) = 0.
"""

import math
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccnet.layer import cc_conv2d
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.types import Kernel

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = 4  # K
LAYERS = 20
SHOWN = (1, 5, 10, 20)  # layers after which the picture is drawn
CANVAS_PX = 128  # the cross and 2 px a layer to each side fit in
CROSS_PX, ARM_PX = 24, 6
SHARE = 0.01  # of the conv layers' drift: what drifts less is called centred
EXACT_PX = 1e-9  # more than rounding in float64 does in twenty layers


@dataclass(frozen=True)
class Way:
    """One way to apply a Gaussian of 4 x 4 px once.

    Attributes:
        name: in the table.
        sigma: px.
        padding: px (before, behind) of a conv layer; None is a CC layer.
        tapered: whether the kernel is lowered by its value at the rim, so that it ends at 0.
    """

    name: str
    sigma: float
    padding: tuple[int, int] | None = None
    tapered: bool = False

    def profile(self, distance: Tensor) -> Tensor:
        """The kernel along an axis, not normalised."""
        values = torch.exp(-(distance**2) / (2 * self.sigma**2))
        return values - math.exp(-((SIZE / 2) ** 2) / (2 * self.sigma**2)) if self.tapered else values

    def distances(self) -> Tensor:
        """From an output px to the input px that it is made of, along an axis."""
        taps = torch.arange(SIZE, dtype=torch.float64)
        return SIZE / 2 - taps if self.padding is None else (SIZE - 1) / 2 - taps

    def kernel(self) -> Kernel:
        """The continuous kernel; its weights sum to 1 over the distances that occur."""
        total = self.profile(self.distances()).sum()
        return lambda points: (self.profile(points) / total).prod(dim=1)[:, None, None]

    def apply(self, picture: Tensor) -> Tensor:
        """One layer; [1, 1, H, W] -> [1, 1, H, W]."""
        if self.padding is None:
            return cc_conv2d(picture, self.kernel(), SIZE, scale=1)
        points = torch.cartesian_prod(self.distances(), self.distances())
        weights = self.kernel()(points).view(1, 1, SIZE, SIZE)
        return torch.nn.functional.conv2d(torch.nn.functional.pad(picture, self.padding * 2), weights)

    def expected_drift(self) -> float:
        """px a layer along an axis: half a px of a conv layer, the unpaired neighbour's share of a CC layer."""
        if self.padding is not None:
            return self.padding[0] - (SIZE - 1) / 2
        values = self.profile(self.distances())
        return float(SIZE / 2 * values[0] / values.sum())


BEHIND = Way("conv, sigma 1 px, padded more behind", 1.0, (1, 2))
BEFORE = Way("conv, sigma 1 px, padded more before", 1.0, (2, 1))
NARROW = Way("CC, sigma 0.5 px", 0.5)
MIDDLE = Way("CC, sigma 0.7 px", 0.7)
WIDE = Way("CC, sigma 1 px, cut off at its rim", 1.0)
TAPERED = Way("CC, sigma 1 px, lowered to 0 at its rim", 1.0, tapered=True)
WAYS = (BEHIND, BEFORE, NARROW, MIDDLE, WIDE, TAPERED)


def find(context: Context) -> Findings:
    """Run it; it takes a second, quick or not."""
    findings = Findings()
    settings = {"layers": LAYERS, "canvas_px": CANVAS_PX, "cross_px": (CROSS_PX, ARM_PX)}
    drifts = {
        way: context.step(f"way-{number}", partial(drift, way), way=repr(way), **settings)
        for number, way in enumerate(WAYS)
    }
    for way, curve in drifts.items():
        down, across = curve[-1]
        rim = way.profile(torch.tensor([SIZE / 2], dtype=torch.float64)) / way.profile(way.distances()).sum()
        if way.padding is None:
            findings.rows.append(Row(way.name, "weight at the rim", f"{float(rim):.2g}", value=float(rim)))
        findings.rows += [
            Row(way.name, "drift a layer, px", f"{down / LAYERS:+.4f}", "0.5" if way.padding else "0", down / LAYERS),
            Row(way.name, "expected", f"{way.expected_drift():+.4f}", value=way.expected_drift()),
            Row(way.name, f"after {LAYERS} layers, px (down, across)", f"{down:+.3f}, {across:+.3f}", value=down),
        ]
    judge(findings, {way: max(abs(value) for value in curve[-1]) for way, curve in drifts.items()})
    findings.notes = [
        f"A white cross of {CROSS_PX} px on {CANVAS_PX} px, float64; drift: of the centre of mass, down and to "
        "the right. The paper does not give its sigma.",
        "A conv layer can only choose the direction. A CC layer with an even K at scale 1 reads whole distances, "
        "of which the one at K/2 has no partner: (K/2) k(K/2) / sum(k) px a layer is what is expected.",
    ]
    findings.series = {"drifts": {way.name: curve for way, curve in drifts.items()}}
    return findings


def judge(findings: Findings, far: dict[Way, float]) -> None:
    """The claims; `far` is the larger drift of the two axes in px, after all layers."""
    conv = far[BEHIND]
    findings.claims = [
        judged(
            "a 4 x 4 conv layer of stride 1 moves the picture by half a px, whichever side is padded more",
            all(abs(far[way] - LAYERS / 2) < EXACT_PX for way in (BEHIND, BEFORE)),
            f"{far[BEHIND]:.6f} and {far[BEFORE]:.6f} px after {LAYERS} layers",
        ),
        judged(
            f"CC layers whose kernel has decayed at its rim stay centred, within {SHARE:.0%} of the conv layers' drift",
            far[NARROW] < SHARE * conv,
            f"{far[NARROW]:.4f} px after {LAYERS} layers at sigma {NARROW.sigma}",
        ),
        judged(
            "(ours) CC layers stay centred to the last digits where the kernel ends at 0",
            far[TAPERED] < EXACT_PX,
            f"{far[TAPERED]:.1e} px after {LAYERS} layers",
        ),
        judged(
            "(ours) CC layers stay centred whatever the kernel is at its rim",
            far[WIDE] < SHARE * conv,
            f"{far[WIDE]:.2f} px after {LAYERS} layers at sigma {WIDE.sigma}, cut off: {far[WIDE] / conv:.0%} of the "
            f"conv layers'; {far[MIDDLE]:.2f} px at sigma {MIDDLE.sigma}",
        ),
    ]


def cross() -> Tensor:
    """A white cross in the middle of a black picture, [1, 1, CANVAS_PX, CANVAS_PX] in float64."""
    picture = torch.zeros(1, 1, CANVAS_PX, CANVAS_PX, dtype=torch.float64)
    middle, length, width = CANVAS_PX // 2, CROSS_PX // 2, ARM_PX // 2
    picture[..., middle - length : middle + length, middle - width : middle + width] = 1
    picture[..., middle - width : middle + width, middle - length : middle + length] = 1
    return picture


def centre_of_mass(picture: Tensor) -> tuple[float, float]:
    """(down, across) in px from the centre of the first px."""
    total = picture.sum()
    down = (picture.sum(dim=(0, 1, 3)) * torch.arange(picture.shape[2])).sum() / total
    across = (picture.sum(dim=(0, 1, 2)) * torch.arange(picture.shape[3])).sum() / total
    return float(down), float(across)


def pictures(way: Way) -> list[Tensor]:
    """The cross, and what is left of it after each layer."""
    made = [cross()]
    for _ in range(LAYERS):
        made.append(way.apply(made[-1]))
    return made


def drift(way: Way) -> list[tuple[float, float]]:
    """How far the centre of mass is from where it was, in px (down, across), before and after every layer."""
    centres = [centre_of_mass(picture) for picture in pictures(way)]
    return [(down - centres[0][0], across - centres[0][1]) for down, across in centres]


def plot(document: dict[str, Any]) -> "Figure":
    """The crosses after some layers with the true centre marked, a row a way, and its drift over the layers."""
    from ccnet.paper.drawing import figure

    rows = (BEHIND, NARROW, WIDE, TAPERED)
    drifts = document["series"]["drifts"]
    columns = len(SHOWN) + 1
    drawn, axes = figure(columns, len(rows), panel=(2.5, 2.4))
    for number, way in enumerate(rows):
        panels = axes[number * columns : (number + 1) * columns]
        made = pictures(way)
        for panel, layer in zip(panels, SHOWN, strict=False):
            draw_picture(panel, made[layer])
            if number == 0:
                panel.set_title(f"after {layer} layer{'s' * (layer > 1)}")
        panels[0].set_ylabel(way.name.replace(", ", ",\n"), fontsize=9)
        draw_drifts(panels[-1], drifts, way)
        if number == 0:
            panels[-1].set_title("drift, px an axis")
    axes[-1].set_xlabel("layers")
    return drawn


def draw_picture(axes: "Axes", picture: Tensor) -> None:
    """A picture as bright as it can be, with a mark where the cross was centred."""
    centre = (CANVAS_PX - 1) / 2
    axes.imshow(picture[0, 0].numpy(), cmap="gray", vmin=0)
    axes.axhline(centre, color="#D55E00", linewidth=0.6)
    axes.axvline(centre, color="#D55E00", linewidth=0.6)
    axes.set_xlim(centre - CANVAS_PX / 4, centre + CANVAS_PX / 4)
    axes.set_ylim(centre + CANVAS_PX / 4, centre - CANVAS_PX / 4)
    axes.set_xticks([])
    axes.set_yticks([])


def draw_drifts(axes: "Axes", drifts: dict[str, list[list[float]]], shown: Way) -> None:
    """The distance of the centre from where it was, along an axis, on a log scale; the row's own way is bold."""
    layers = range(1, LAYERS + 1)
    floor = 1e-4
    for name, curve in drifts.items():
        far = [max(floor, abs(down)) for down, _ in curve[1:]]
        own = name == shown.name
        axes.plot(layers, far, color="#0072B2" if own else "#BBBBBB", linewidth=2.2 if own else 1, zorder=2 + own)
    end = abs(drifts[shown.name][-1][0])
    text = f"{end:.3g} px" if end > floor else "0 px"
    axes.annotate(text, (LAYERS, max(floor, end)), textcoords="offset points", xytext=(0, 5), ha="right", va="bottom")
    axes.set_yscale("log")
    axes.set_ylim(floor * 0.8, 60)
    axes.yaxis.tick_right()
    axes.tick_params(labelsize=7)
