"""Table 1: does the last map move along with the input? CCNet beside ConvNet, and beside the antialiased BlurConvNet.

The protocol is `ccnet.equivariance` (docs/equivariance.md). All networks see the same images under the same shifts, so
that they are compared image by image. Scale sequences are dealt out among the images, many of them, since more cost no
more passes: the images of one sequence share what it does to the cosine, and intervals take them for one cluster.
"""

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccnet.checkpoint import Network
from ccnet.data import ImageDataset
from ccnet.equivariance import noise_images, shift_similarity
from ccnet.equivariance.protocol import Protocol
from ccnet.paper.context import Context
from ccnet.paper.findings import Claim, Findings, Row, judged
from ccnet.paper.intervals import Estimate, mean_interval, paired_interval
from ccnet.paper.networks import KINDS, Trained, images_of, missing_note, needed, runs_note, runs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHIFTS = (2, 4, 6)  # largest shifts, input px
SAMPLES, QUICK_SAMPLES = 1000, 40
SEQUENCES = 32  # dealt out among the images
PICTURES, NOISE = "images", "noise"
PAPER = {  # cosine of (Baseline, CC-Net) on CIFAR-10 and on noise
    (PICTURES, 2): (0.90, 0.92), (PICTURES, 4): (0.78, 0.85), (PICTURES, 6): (0.65, 0.77),
    (NOISE, 2): (0.80, 0.91), (NOISE, 4): (0.67, 0.85), (NOISE, 6): (0.56, 0.85),
}  # fmt: skip
CONTROL = "The same networks with random initial weights (control)"

# Of one network at one shift: "per_image" cosines (None where a map was zero), "consistency", "sequence_std".
Measured = dict[str, Any]


def find(context: Context) -> Findings:
    """Run it."""
    runs = {kind: needed(context, kind) if kind != "BlurConvNet" else runs_of(context, kind) for kind in KINDS}
    runs = {kind: found for kind, found in runs.items() if found}
    dataset = images_of(context, [run for found in runs.values() for run in found])
    dataset = dataset.first(QUICK_SAMPLES if context.quick else SAMPLES)
    findings = Findings()
    similarity: dict[tuple[str, int], dict[str, Tensor]] = {}
    with context.progress("Table 1", sum(map(len, runs.values())) * 2 * (len(SHIFTS) + 1), "rows") as report:
        for source in (PICTURES, NOISE):
            for shift in SHIFTS:
                measured = {}
                for kind, found in runs.items():
                    measured[kind] = [measure(context, run, dataset, source, shift) for run in found]
                    report.advance(len(found))
                similarity[source, shift] = {kind: cosines(rows) for kind, rows in measured.items()}
                findings.rows += rows_of(case(dataset, source, shift), (source, shift), measured, context.seed)
            findings.rows += control_rows(context, runs, dataset, source)
            report.advance(sum(map(len, runs.values())))
    judge(findings, similarity, dataset, context.seed)
    describe(findings, runs, dataset)
    return findings


def case(dataset: ImageDataset, source: str, shift: int) -> str:
    """What a row is called."""
    return f"{dataset.name if source == PICTURES else 'noise'}, ±{shift} px"


def measure(
    context: Context, run: Trained, dataset: ImageDataset, source: str, shift: int, *, untrained: bool = False
) -> Measured:
    """One network at one shift: a step."""
    preprocessing = run.checkpoint.preprocessing

    def compute() -> Measured:
        if source == PICTURES:
            images, fill = run.checkpoint.preprocess(dataset.images), preprocessing.black
        else:
            images = noise_images(len(dataset), (preprocessing.channels, *preprocessing.input_size), context.seed)
            fill = (0.0,)
        network = initial(run.checkpoint.model, context.seed) if untrained else run.checkpoint.model
        row = shift_similarity(network, images, shift, seed=context.seed, ensemble_size=SEQUENCES, fill=fill)
        return {
            "per_image": row.per_image,
            "consistency": row.consistency,
            "sequence_std": row.sequence_std,
            "skipped": row.skipped,
        }

    name = f"{run.name}-{source}-{shift}" + ("-untrained" if untrained else "")
    measured: Measured = context.step(
        name, compute, samples=len(dataset), data=dataset.name, sequences=SEQUENCES, protocol=Protocol().describe(),
        **run.settings,
    )  # fmt: skip
    return measured


def initial(network: Network, seed: int) -> Network:
    """A network of the same architecture with random weights, as its layers draw them."""
    options: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in network.config.items()}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        built = type(network)(**options)
    return built.requires_grad_(False).eval()


def cosines(rows: list[Measured]) -> Tensor:
    """[runs, images]; NaN where both maps were zero."""
    values = [[math.nan if cosine is None else cosine for cosine in row["per_image"]] for row in rows]
    return torch.tensor(values, dtype=torch.float64)


def sequence_of(images: int) -> Tensor:
    """Which of the sequences each image is seen under, int64 [images]: they are dealt out in turns."""
    return torch.arange(images) % SEQUENCES


def interval(values: Tensor, seed: int) -> Estimate:
    """Of the mean of cosines [runs, images], whose sequences are drawn anew with their images."""
    return mean_interval(values, seed=seed, clusters=sequence_of(values.shape[1]))


def lead_over(first: Tensor, second: Tensor, seed: int) -> Estimate:
    """Of the difference of two networks' cosines [runs, images], image by image, otherwise as `interval`."""
    return paired_interval(first, second, seed=seed, clusters=sequence_of(first.shape[1]))


def rows_of(
    name: str, place: tuple[str, int], measured: dict[str, list[Measured]], seed: int, part: str = ""
) -> list[Row]:
    """A line of the table: each network's cosine, CCNet's lead, and the shares of images that keep their label."""
    paper = dict(zip(("ConvNet", "CCNet"), PAPER.get(place, ()), strict=False))
    found = {kind: cosines(rows) for kind, rows in measured.items()}
    rows = []
    for kind, values in found.items():
        mean = interval(values, seed)
        printed = f"{paper[kind]:.2f}" if kind in paper else ""
        rows.append(Row(name, kind, mean.shown(signed=False), printed, mean.mean, part))
    lead = lead_over(found["CCNet"], found["ConvNet"], seed)
    printed = f"{paper['CCNet'] - paper['ConvNet']:+.2f}" if paper else ""
    rows.append(Row(name, "CCNet - ConvNet, paired", lead.shown(), printed, lead.mean, part))
    for kind, of_kind in measured.items():
        share = sum(row["consistency"] for row in of_kind) / len(of_kind)
        rows.append(Row(name, f"{kind}, same label", f"{share:.1%}", value=share, part=part))
    spread = sequence_spread(measured["CCNet"])
    if spread is not None:
        rows.append(Row(name, "CCNet, std over sequences", f"{spread:.3f}", value=spread, part=part))
    return rows


def sequence_spread(rows: list[Measured]) -> float | None:
    """Standard deviation of the means of the sequences, the mean over training runs; None without sequences."""
    spreads = [row["sequence_std"] for row in rows if row["sequence_std"] is not None]
    return sum(spreads) / len(spreads) if spreads else None


def control_rows(context: Context, runs: dict[str, list[Trained]], dataset: ImageDataset, source: str) -> list[Row]:
    """The largest shift again, with networks that have learned nothing."""
    shift = SHIFTS[-1]
    measured = {
        kind: [measure(context, run, dataset, source, shift, untrained=True) for run in found[:1]]
        for kind, found in runs.items()
    }
    return rows_of(case(dataset, source, shift), ("untrained", shift), measured, context.seed, CONTROL)


def judge(
    findings: Findings, similarity: dict[tuple[str, int], dict[str, Tensor]], dataset: ImageDataset, seed: int
) -> None:
    """The paper's claim at every shift, and our ranking of the three."""
    for (source, shift), found in similarity.items():
        findings.claims.append(
            better(
                "CCNet", "ConvNet", found, f"CC-Net is more resilient to shifts ({case(dataset, source, shift)})", seed
            )
        )
        findings.series.setdefault(source, []).append(
            {kind: vars(interval(values, seed)) for kind, values in found.items()}
        )
    for source in (PICTURES, NOISE):
        places = {shift: similarity[source, shift] for shift in SHIFTS}
        findings.claims.append(ranking(places, dataset.name if source == PICTURES else NOISE, seed))
    findings.claims.append(judge_control(findings))


def better(first: str, second: str, found: dict[str, Tensor], text: str, seed: int) -> Claim:
    """Whether one network's cosine lies above another's, image by image."""
    lead = lead_over(found[first], found[second], seed)
    means = ", ".join(f"{kind} {float(found[kind].nanmean()):.3f}" for kind in (second, first))
    return judged(text, lead.above_zero, f"{means}; difference {lead.shown()}")


def ranking(places: dict[int, dict[str, Tensor]], source: str, seed: int) -> Claim:
    """CCNet before BlurConvNet before ConvNet, at every shift."""
    text = f"(ours) CCNet is more resilient than BlurConvNet, and that than ConvNet, at every shift ({source})"
    if any("BlurConvNet" not in found for found in places.values()):
        return judged(text, None, "no BlurConvNet to compare with")
    leads = {
        f"±{shift} {first} - {second}": lead_over(found[first], found[second], seed)
        for shift, found in places.items()
        for first, second in (("CCNet", "BlurConvNet"), ("BlurConvNet", "ConvNet"))
    }
    verdicts = [lead.above_zero for lead in leads.values()]
    holds = False if False in verdicts else None if None in verdicts else True
    return judged(text, holds, "; ".join(f"{name} {lead.shown()}" for name, lead in leads.items()))


def judge_control(findings: Findings) -> Claim:
    """Whether a high cosine is a sign of training at all."""
    trained = {(row.case, row.what): row.value for row in findings.rows if not row.part and row.what in KINDS}
    untrained = {(row.case, row.what): row.value for row in findings.rows if row.part and row.what in KINDS}
    lower = sum((trained[place] or 0) > (value or 0) for place, value in untrained.items())
    values = [value for value in untrained.values() if value is not None]
    return judged(
        "(ours) the cosine tells a trained network from an untrained one",
        lower == len(untrained),
        f"{lower} of {len(untrained)} trained networks score higher than with random initial weights, which score "
        f"{min(values):.3f} to {max(values):.3f} at ±{SHIFTS[-1]} px",
    )


def describe(findings: Findings, runs: dict[str, list[Trained]], dataset: ImageDataset) -> None:
    """How it was done."""
    findings.notes += [
        f"Ours: {len(dataset):,} images of {dataset.name} and as many of Gaussian noise, one shift each, the same for "
        "every network. The paper's images are CIFAR-10's and its networks were trained there: its columns are not to "
        "be met to the digit, the order and the sign are.",
        f"CCNet's images are seen under {SEQUENCES} scale sequences, dealt out in turns. 95% intervals by bootstrap: "
        "a sequence is drawn anew with all of its images, the same for all networks, so that they hold for other "
        "images and other sequences. The std over sequences is that of their means; it contains the images that were "
        "dealt to each. Images both of whose maps are zero have no cosine and are left out.",
        "The paper leaves the border, the interpolation beyond the map and the scale sequences open; "
        "docs/equivariance.md lists what we chose.",
        "Same label: the share of images whose shifted copy gets the same class. A map that hardly depends on the "
        "image has a cosine near 1, as the control shows; so read both.",
        runs_note(runs),
        *(missing_note(kind) for kind in KINDS if kind not in runs),
    ]


def plot(document: dict[str, Any]) -> "Figure":
    """Cosine over the largest shift, ours with intervals and the paper's dotted."""
    from ccnet.paper.drawing import COLOURS, figure

    drawn, panels = figure(2)
    for axes, source in zip(panels, (PICTURES, NOISE), strict=True):
        points = document["series"][source]
        for kind in points[0]:
            means = [point[kind]["mean"] for point in points]
            lows, highs = ([point[kind][end] for point in points] for end in ("low", "high"))
            colour = COLOURS[kind]
            axes.plot(SHIFTS, means, marker="o", color=colour, label=kind)
            axes.fill_between(SHIFTS, lows, highs, color=colour, alpha=0.2, linewidth=0)
        for column, kind in enumerate(("ConvNet", "CCNet")):
            printed = [PAPER[source, shift][column] for shift in SHIFTS]
            label = f"paper: {'Baseline' if kind == 'ConvNet' else 'CC-Net'}"
            axes.plot(SHIFTS, printed, linestyle=":", marker="x", color=COLOURS[kind], label=label)
        axes.set_xticks(SHIFTS, [f"±{shift}" for shift in SHIFTS])
        axes.set_xlabel("largest shift of the input, px")
        axes.set_ylabel("cosine of the last maps, shifted back")
        axes.set_title("test images (the paper: CIFAR-10)" if source == PICTURES else "Gaussian noise")
    panels[0].legend(fontsize="small")
    low = min(axes.get_ylim()[0] for axes in panels)
    for axes in panels:
        axes.set_ylim(low, 1.0)
    return drawn
