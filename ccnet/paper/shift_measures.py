"""What the literature measures beside Table 1: maps, logits and labels under every shift of a grid, at both borders.

Not in the paper. Whoever ships a model wants to know whether its *answers* hold still, which the cosine of a map does
not say; and whoever blurs strides (Zhang 2019) wants to see both on one scale. docs/equivariance.md has the measures.
"""

from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ccnet.data import ImageDataset
from ccnet.equivariance import MEASURES, Measure, shift_grid, shift_report
from ccnet.equivariance.protocol import Border, Protocol
from ccnet.paper.context import Context
from ccnet.paper.findings import Claim, Findings, Row, judged
from ccnet.paper.networks import KINDS, Trained, images_of, missing_note, needed, runs_of
from ccnet.paper.table_1 import SEQUENCES, lead_over

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANKED = tuple(name for name in MEASURES if name != "accuracy")  # accuracy is not of shifts
LESS_IS_BETTER = ("mean_absolute_change",)
SAMPLES, QUICK_SAMPLES = 300, 8
REACH, QUICK_REACH = 2, 1  # px


class Setting(NamedTuple):
    """One set of shifts.

    Attributes:
        name: of its steps.
        title: of its table.
        border: what enters.
        step: of the grid, px.
    """

    name: str
    title: str
    border: Border
    step: Fraction


SETTINGS = (
    Setting("real", "Whole shifts up to ±{} px, black enters", "zero", Fraction(1)),
    Setting("circular", "Shifts by half pixels up to ±{} px, the picture goes round", "circular", Fraction(1, 2)),
)


def find(context: Context) -> Findings:
    """Run it."""
    images, reach = (QUICK_SAMPLES, QUICK_REACH) if context.quick else (SAMPLES, REACH)
    runs = {kind: (needed(context, kind) if kind != "BlurConvNet" else runs_of(context, kind))[:1] for kind in KINDS}
    present = {kind: found[0] for kind, found in runs.items() if found}
    dataset = images_of(context, list(present.values())).first(images)
    findings = Findings()
    with context.progress("shift measures", len(SETTINGS) * len(present), "networks") as report:
        for setting in SETTINGS:
            title = setting.title.format(reach)
            measured = {}
            for kind, run in present.items():
                measured[kind] = measure(context, run, dataset, setting, reach)
                report.advance(1)
            findings.rows += rows_of(measured, title)
            findings.claims += [ranking(name, measured, title, context.seed) for name in RANKED]
            findings.series[setting.name] = {kind: values["per_shift"] for kind, values in measured.items()}
    findings.notes += [
        f"The first {len(dataset):,} test images of {dataset.name}; one training run of each network "
        f"({', '.join(run.name for run in present.values())}); CCNet under {SEQUENCES} sequences, dealt out among "
        "the images. They speak of these very networks, and not of what another training would give. Rankings compare "
        "image by image and draw a sequence anew with all of its images; an SNR is then the mean over images of each "
        "image's own. Intervals of single figures are over images alone. All by 95% bootstrap.",
        *(missing_note(kind) for kind in KINDS if kind not in present),
    ]
    return findings


def measure(context: Context, run: Trained, dataset: ImageDataset, setting: Setting, reach: int) -> dict[str, Any]:
    """One network under one set of shifts: a step."""

    def compute() -> dict[str, Any]:
        checkpoint = run.checkpoint
        report = shift_report(
            checkpoint.model, checkpoint.preprocess(dataset.images), shift_grid(reach, setting.step),
            labels=torch.from_numpy(dataset.labels), seed=context.seed, ensemble_size=SEQUENCES, border=setting.border,
            fill=checkpoint.preprocessing.black,
        )  # fmt: skip
        shown = ("dy", "dx", "feature_cosine", "consistency")
        return {
            "measures": report.as_json()["measures"],
            "per_image": report.per_image,
            "per_shift": [{name: row[name] for name in shown} for row in report.per_shift],
        }

    found: dict[str, Any] = context.step(
        f"{run.name}-{setting.name}", compute, samples=len(dataset), reach=reach, data=dataset.name,
        sequences=SEQUENCES, step=str(setting.step), protocol=Protocol(border=setting.border).describe(),
        **run.settings,
    )  # fmt: skip
    return found


def rows_of(measured: dict[str, dict[str, Any]], title: str) -> list[Row]:
    """A line a measure, a column a network."""
    rows = []
    for name, words in MEASURES.items():
        for kind, found in measured.items():
            one = Measure(**found["measures"][name])
            rows.append(Row(words, kind, shown(name, one), value=one.value, part=title))
    return rows


def shown(name: str, measure: Measure) -> str:
    """A value with its interval, for people."""
    if measure.value is None:
        return "-"
    factor, digits, unit = (1.0, 1, " dB") if name.endswith("_db") else (1.0, 3, "")
    if "accuracy" in name or "consistency" in name:
        factor, digits, unit = 100.0, 1, "%"
    value = f"{factor * measure.value:.{digits}f}{unit}"
    if measure.ci95 is None:
        return value
    low, high = (f"{factor * end:.{digits}f}" for end in measure.ci95)
    return f"{value} ({low} to {high})"


def ranking(name: str, measured: dict[str, dict[str, Any]], title: str, seed: int) -> Claim:
    """The networks in the order in which they are hoped to stand, in one measure."""
    order = [kind for kind in reversed(KINDS) if kind in measured]
    text = f"(ours) of these networks {', then '.join(order)}: {MEASURES[name]}, {title[0].lower()}{title[1:]}"
    sign, factor = -1 if name in LESS_IS_BETTER else 1, 100.0 if "accuracy" in name or "consistency" in name else 1.0
    leads = {}
    for first, second in pairwise(order):
        left, right = (sign * values_of(measured[kind], name)[None] for kind in (first, second))
        leads[f"{first} - {second}"] = lead_over(left, right, seed)
    verdicts = [lead.above_zero for lead in leads.values()]
    holds = False if False in verdicts else None if None in verdicts else True
    unit = " points" if factor != 1 else " dB" if name.endswith("_db") else ""
    better = ", less is better, so that + is better here too" if sign < 0 else ""
    evidence = "; ".join(f"{pair} {lead.shown(factor, 2 if factor != 1 else 3)}{unit}" for pair, lead in leads.items())
    return judged(text, holds, evidence + better)


def values_of(found: dict[str, Any], name: str) -> Tensor:
    """Each image's own value, float64 [N], NaN where it has none."""
    return torch.tensor([float("nan") if one is None else one for one in found["per_image"][name]], dtype=torch.float64)


def plot(document: dict[str, Any]) -> "Figure":
    """The cosine of the maps and the consistency of the labels over the length of the shift."""
    from ccnet.paper.drawing import COLOURS, figure

    drawn, panels = figure(2, 2)
    for row, setting in enumerate(SETTINGS):
        for axes, (name, words) in zip(
            panels[2 * row :],
            (("feature_cosine", "cosine of the maps"), ("consistency", "same label as unshifted")),
            strict=False,
        ):
            for kind, per_shift in document["series"][setting.name].items():
                by_length: dict[float, list[float]] = {}
                for one in per_shift:
                    by_length.setdefault(max(abs(one["dy"]), abs(one["dx"])), []).append(one[name])
                lengths = sorted(by_length)
                means = [sum(by_length[length]) / len(by_length[length]) for length in lengths]
                axes.plot(lengths, means, marker="o", color=COLOURS[kind], label=kind)
            axes.set_ylim(min(axes.get_ylim()[0], 0.9), 1.01)
            axes.set_ylabel(words)
            axes.set_xlabel("larger of the two shifts, px")
            axes.set_title("black enters" if setting.border == "zero" else "the picture goes round")
    panels[0].legend(fontsize="small")
    return drawn
