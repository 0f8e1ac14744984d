"""The power of dynamic Scale-Ensembles (Sec. 4, 6): what k sequences gain, beside k views of the input.

The paper compares an ensemble with one sequence alone. Whoever can afford k passes can also look at a picture k times,
mirrored and moved, with any network; so both are measured at equal numbers of passes, image by image.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ccnet.paper.context import Context
from ccnet.paper.ensemble_logits import FULL, QUICK, Extent, Logits, compute
from ccnet.paper.ensemble_scores import averaged, correct, disagreement, over_draws, subsets, surprise
from ccnet.paper.findings import Claim, Findings, Row, judged
from ccnet.paper.intervals import Estimate, paired_interval
from ccnet.paper.networks import KINDS, images_of, missing_note, needed, runs_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

POINTS = 100.0
PAPER_GAIN = {2: 1.7, 3: 2.4}  # points over one sequence, CIFAR-10
PAPER_ACCURACY = {"CCNet": "87.81%", "ConvNet": "87.14%"}
LEADS = "What k sequences gain over the alternatives, points"
MEANS = "Averages of logits and of probabilities, and how often two ensembles of k disagree"
SPREAD_PART = "Other spreads of the scales than in training, on the first {:,} images"


@dataclass(frozen=True)
class Scores:
    """Right answers of each image, the mean over draws; float64 [N] by size k.

    Attributes:
        ensemble: of k sequences.
        views: of k views under one sequence.
        both: of k / 2 sequences, picture and mirror image under each; even k alone.
        baselines: of k views with the networks without sequences, by kind.
    """

    ensemble: dict[int, Tensor]
    views: dict[int, Tensor]
    both: dict[int, Tensor]
    baselines: dict[str, dict[int, Tensor]]


def find(context: Context) -> Findings:
    """Run it."""
    extent = QUICK if context.quick else FULL
    ccnet = needed(context, "CCNet")[0]
    found = {kind: runs_of(context, kind) for kind in ("ConvNet", "BlurConvNet")}
    baselines = [runs[0] for runs in found.values() if runs]
    dataset = images_of(context, [ccnet, *baselines])
    logits = compute(context, extent, ccnet, baselines, dataset)
    findings = Findings()
    summarise(findings, logits, extent, context.seed)
    findings.notes += [
        f"The first {len(logits.labels):,} test images of {dataset.name} (the paper: CIFAR-10); {ccnet.name}; "
        f"{len(logits.pool)} sequences drawn as in training {ccnet.checkpoint.sampler or ''}. One sequence is each of "
        f"them alone, k are {extent.draws} different random subsets; ± is the standard deviation over these. Subsets "
        "share members, which narrows it as k nears the pool.",
        "Intervals: 95%, bootstrap over images, both sides of a difference on the same images; one training run of "
        "each network.",
        f"Views: the picture, its mirror image, then both moved by a pixel (ccnet/views.py); CCNet's under each of "
        f"{extent.viewed} sequences, of which the mean is taken.",
        *(missing_note(kind) for kind, runs in found.items() if not runs),
    ]
    return findings


def summarise(findings: Findings, logits: Logits, extent: Extent, seed: int) -> None:
    """Rows, claims and series of all that was computed."""
    scores = score(logits, extent, seed)
    compare_rows(findings, logits, scores, extent, seed)
    aggregation_rows(findings, logits, extent, seed)
    spread_rows(findings, logits, extent, seed)
    judge(findings, scores, seed)


def score(logits: Logits, extent: Extent, seed: int) -> Scores:
    """Right answers of everything that is compared."""
    labels = logits.labels
    draws = {k: subsets(len(logits.pool), k, extent.draws, seed) for k in extent.sizes}
    ensemble = {k: correct(over_draws(logits.pool, draws[k]), labels).mean(dim=0) for k in extent.sizes}
    views = {k: correct(logits.views[:, :k].double().mean(dim=1), labels).mean(dim=0) for k in extent.sizes}
    paired = logits.mirrored.double().mean(dim=1)  # a picture and its mirror image under one sequence: two passes
    both = {
        k: correct(over_draws(paired, subsets(len(paired), k // 2, extent.draws, seed)), labels).mean(dim=0)
        for k in extent.sizes
        if k % 2 == 0 and k // 2 <= len(paired)
    }
    baselines = {
        kind: {k: correct(averaged(seen[:k]), labels) for k in extent.sizes} for kind, seen in logits.baselines.items()
    }
    return Scores(ensemble, views, both, baselines)


def difference(first: Tensor, second: Tensor, seed: int) -> Estimate:
    """Of two accuracies on the same images."""
    return paired_interval(first[None], second[None], seed=seed)


def points(estimate: Estimate) -> str:
    """In points, with its interval."""
    return estimate.shown(POINTS, 2)


def compare_rows(findings: Findings, logits: Logits, scores: Scores, extent: Extent, seed: int) -> None:
    """The main table, and what is drawn of it."""
    series: dict[str, dict[str, list[float]]] = {}
    for k in extent.sizes:
        case = f"{k} pass{'es' if k > 1 else ''}"
        of_draws = correct(
            over_draws(logits.pool, subsets(len(logits.pool), k, extent.draws, seed)), logits.labels
        ).mean(dim=1)
        spread = float(of_draws.std()) if len(of_draws) > 1 else 0.0
        accuracy = float(of_draws.mean())
        findings.rows.append(
            Row(case, "k sequences", f"{accuracy:.2%} ± {spread:.2%}", PAPER_ACCURACY["CCNet"] * (k == 1), accuracy)
        )
        add(series, "CCNet: k sequences", k, accuracy, spread)
        for name, by_size in alternatives(scores).items():
            if k in by_size:
                value = float(by_size[k].mean())
                baseline = k == 1 and name == "ConvNet: k views"
                findings.rows.append(Row(case, name, f"{value:.2%}", PAPER_ACCURACY["ConvNet"] * baseline, value))
                add(series, name, k, value)
        if k > 1:
            lead_rows(findings, scores, k, case, seed)
    findings.series["accuracy"] = series


def alternatives(scores: Scores) -> dict[str, dict[int, Tensor]]:
    """What else k passes can be spent on, by name."""
    found = {"CCNet: k views": scores.views, "CCNet: k / 2 sequences, each mirrored": scores.both}
    return found | {f"{kind}: k views": by_size for kind, by_size in scores.baselines.items()}


def lead_rows(findings: Findings, scores: Scores, k: int, case: str, seed: int) -> None:
    """What k sequences gain over one, and over everything else at k passes, image by image."""
    others = {"one sequence": {k: scores.ensemble[1]}, **alternatives(scores)}
    for name, by_size in others.items():
        if k in by_size:
            lead = difference(scores.ensemble[k], by_size[k], seed)
            printed = f"{PAPER_GAIN[k]:+.1f}" if k in PAPER_GAIN and name == "one sequence" else ""
            findings.rows.append(Row(case, f"over {name}", points(lead), printed, lead.mean, LEADS))


def add(series: dict[str, dict[str, list[float]]], name: str, k: int, value: float, spread: float = 0.0) -> None:
    """A point of a curve."""
    curve = series.setdefault(name, {"k": [], "accuracy": [], "std": []})
    for key, number in (("k", k), ("accuracy", value), ("std", spread)):
        curve[key].append(number)


def aggregation_rows(findings: Findings, logits: Logits, extent: Extent, seed: int) -> None:
    """Means of logits beside means of probabilities, negative log-likelihood, churn."""
    for k in extent.sizes:
        draws = subsets(len(logits.pool), k, extent.draws, seed)
        by_logits = over_draws(logits.pool, draws)
        by_probabilities = over_draws(logits.pool, draws, "probabilities")
        case = f"{k} sequence{'s' if k > 1 else ''}"
        for name, ensembles in (("logits", by_logits), ("probabilities", by_probabilities)):
            accuracy = float(correct(ensembles, logits.labels).mean())
            nll = float(sum(surprise(one, logits.labels).mean() for one in ensembles)) / len(ensembles)
            findings.rows += [
                Row(case, f"accuracy, mean of {name}", f"{accuracy:.2%}", value=accuracy, part=MEANS),
                Row(case, f"NLL, mean of {name}", f"{nll:.4f}", value=nll, part=MEANS),
            ]
        lead = difference(
            correct(by_probabilities, logits.labels).mean(dim=0), correct(by_logits, logits.labels).mean(dim=0), seed
        )
        churn = disagreement(by_logits.argmax(dim=-1))
        findings.rows += [
            Row(case, "probabilities - logits, points", points(lead), value=lead.mean, part=MEANS),
            Row(case, "churn", f"{churn:.2%}", value=churn, part=MEANS),
        ]


def spread_rows(findings: Findings, logits: Logits, extent: Extent, seed: int) -> None:
    """Narrower and wider spreads of the scales than the network was trained with, and the other sampler."""
    part = SPREAD_PART.format(extent.spread_images)
    labels = logits.labels[: extent.spread_images]
    for name, members in logits.spreads.items():
        alone = correct(members, labels).mean(dim=0)
        findings.rows.append(
            Row(name, "one sequence", f"{float(alone.mean()):.2%}", value=float(alone.mean()), part=part)
        )
        for k in (2, 4):
            draws = subsets(len(members), k, extent.draws, seed)
            gain = difference(correct(over_draws(members, draws), labels).mean(dim=0), alone, seed)
            findings.rows.append(Row(name, f"gain of {k}, points", points(gain), value=gain.mean, part=part))
        churn = disagreement(members.argmax(dim=-1))
        findings.rows.append(Row(name, "churn between members", f"{churn:.2%}", value=churn, part=part))


def judge(findings: Findings, scores: Scores, seed: int) -> None:
    """The paper's claims and ours."""
    one = scores.ensemble[1]
    text = (
        "this CCNet, one sequence, is more accurate than this ConvNet, as the paper's CC-Net is than its Baseline "
        "(87.81% and 87.14%)"
    )
    if "ConvNet" in scores.baselines:
        lead = difference(one, scores.baselines["ConvNet"][1], seed)
        evidence = (
            f"{float(one.mean()):.2%} and {float(scores.baselines['ConvNet'][1].mean()):.2%}; {points(lead)} points"
        )
        findings.claims.append(judged(text, lead.above_zero, evidence))
    else:
        findings.claims.append(judged(text, None, "no ConvNet to compare with"))
    for k, printed in PAPER_GAIN.items():
        gain = difference(scores.ensemble[k], one, seed)
        findings.claims += [gains(gain, k), reaches(gain, k, printed)]
    findings.claims += [beats(scores, k, seed) for k in scores.ensemble if k > 1]
    most = max(scores.ensemble)
    findings.claims.append(beats_all(scores, most, seed))
    more = difference(scores.ensemble[most], scores.ensemble[3], seed)
    findings.claims.append(
        judged("larger ensembles gain more", more.above_zero, f"{most} over 3 sequences: {points(more)} points")
    )


def gains(gain: Estimate, k: int) -> Claim:
    """Whether an ensemble is better than one sequence at all."""
    never = gain.mean == gain.low == gain.high == 0  # the same answers for every image
    text = f"an ensemble of {k} gains over one sequence"
    return judged(text, False if never else gain.above_zero, f"{points(gain)} points (ours)")


def reaches(gain: Estimate, k: int, printed: float) -> Claim:
    """Whether a gain is at least the paper's: decided where the whole interval lies on one side of that."""
    low, high = gain.low * POINTS, gain.high * POINTS
    holds = True if low >= printed else False if high < printed else None
    text = f"an ensemble of {k} gains at least the paper's {printed:+.1f} points over one sequence"
    return judged(text, holds, f"{points(gain)} points (ours)")


def beats(scores: Scores, k: int, seed: int) -> Claim:
    """Whether k sequences are better than k views with the same network."""
    lead = difference(scores.ensemble[k], scores.views[k], seed)
    means = f"{float(scores.ensemble[k].mean()):.2%} and {float(scores.views[k].mean()):.2%}"
    text = f"(ours) {k} sequences beat {k} views of the input, with the same network"
    return judged(text, lead.above_zero, f"{means}; {points(lead)} points")


def beats_all(scores: Scores, k: int, seed: int) -> Claim:
    """Whether k sequences are better than whatever else k passes can be spent on without them.

    It fails where one alternative is surely better, and holds only where each of the three is there and surely worse.
    """
    views = {name: by_size[k] for name, by_size in alternatives(scores).items() if name.endswith(": k views")}
    leads = {name.partition(":")[0]: difference(scores.ensemble[k], right, seed) for name, right in views.items()}
    missing = [kind for kind in KINDS if kind not in leads]
    verdicts = [lead.above_zero for lead in leads.values()]
    holds = False if False in verdicts else None if None in verdicts or missing else True
    evidence = "; ".join(
        [f"over {kind}'s {points(lead)} points" for kind, lead in leads.items()]
        + [f"no {kind} to compare with" for kind in missing]
    )
    text = f"(ours) {k} sequences beat {k} views of the input with every network: CCNet, ConvNet and BlurConvNet"
    return judged(text, holds, evidence)


def plot(document: dict[str, Any]) -> "Figure":
    """Accuracy over the number of passes."""
    from ccnet.paper.drawing import COLOURS, figure

    drawn, (axes,) = figure(1, panel=(7.0, 4.6))
    styles = {"k sequences": ("o", "-"), "k views": ("s", "--"), "k / 2 sequences, each mirrored": ("^", "-.")}
    for name, curve in document["series"]["accuracy"].items():
        kind, _, how = name.partition(": ")
        marker, line = styles[how]
        values = [POINTS * value for value in curve["accuracy"]]
        colour = COLOURS[kind]
        axes.plot(curve["k"], values, marker=marker, linestyle=line, color=colour, label=name)
        if any(curve["std"]):
            low, high = ([v + sign * POINTS * s for v, s in zip(values, curve["std"], strict=True)] for sign in (-1, 1))
            axes.fill_between(curve["k"], low, high, color=colour, alpha=0.15, linewidth=0)
    sizes = max((curve["k"] for curve in document["series"]["accuracy"].values()), key=len)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("passes an image, k")
    axes.set_ylabel("accuracy, % (band: ± std over draws)")
    axes.set_title("Scale ensembles beside views of the input, at equal passes")
    axes.legend(fontsize="small")
    return drawn
