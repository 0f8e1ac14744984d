"""Table 4: the printed scales, run through Eq. 4, give the printed sizes; and what spread can have drawn them.

The text says that scales have the standard deviation 0.01. The likelihood of the printed scales under a normal
distribution that is rounded to fractions with denominators up to 10 says which spread they were drawn with.
"""

import math
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.sequences import ScaleSequence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEAN = 0.25 ** (1 / 7)
MOST = 10  # largest denominator
TEXT_STD = 0.01
SPREADS = tuple(step / 1000 for step in range(5, 121))
ONE = "1/1"
# Scales as printed, (vertical, horizontal), and the sizes beside them. The one scale of an axis that was set so that
# the product is 1/4 is not a draw; in the first example's horizontal axis it cannot be told which one that was.
EXAMPLES = {
    "example 1": (
        (ONE, "5/6", "5/6", "8/9", "189/250", "6/7", "5/6", "3/4"),
        (ONE, "7/9", "4/5", "5/6", "3/4", "6/7", "7/8", "6/7"),
        ((32, 32), (27, 25), (23, 20), (20, 17), (15, 13), (13, 11), (11, 10), (8, 8)),
    ),
    "example 2": (
        (ONE, "75/98", "4/5", "4/5", "7/8", "5/6", "7/9", "9/10"),
        (ONE, "7/8", "2/3", "3/4", "5/6", "5/6", "864/875", "5/6"),
        ((32, 32), (25, 28), (20, 19), (16, 14), (14, 12), (12, 10), (9, 10), (8, 8)),
    ),
}


def find(context: Context) -> Findings:
    """Run it."""
    findings = Findings()
    agree, products = 0, []
    for name, (vertical, horizontal, printed) in EXAMPLES.items():
        sequence = ScaleSequence(tuple(map(Fraction, vertical)), tuple(map(Fraction, horizontal)))
        sizes = sequence.shapes((32, 32))
        products += [math.prod(sequence.vertical), math.prod(sequence.horizontal)]
        for layer, (mine, theirs) in enumerate(zip(sizes, printed, strict=True), 1):
            scales = f"{vertical[layer - 1]}, {horizontal[layer - 1]}"
            findings.rows.append(Row(f"layer {layer}", f"{name}, scales", scales))
            findings.rows.append(Row(f"layer {layer}", f"{name}, size", str(list(mine)), str(list(theirs))))
            agree += sum(a == b for a, b in zip(mine, theirs, strict=True))
    total = 2 * sum(len(printed) for *_, printed in EXAMPLES.values())
    findings.claims.append(
        judged("the printed scales give the printed sizes by Eq. 4", agree == total, f"{agree} of {total} sizes agree")
    )
    findings.claims.append(
        judged(
            "the scales of each axis multiply to 1/4 exactly",
            all(product == Fraction(1, 4) for product in products),
            f"{sum(product == Fraction(1, 4) for product in products)} of {len(products)} products",
        )
    )
    judge_spread(findings)
    return findings


def judge_spread(findings: Findings) -> None:
    """Which spread the printed scales speak for."""
    drawn = [Fraction(scale) for *axes, _ in EXAMPLES.values() for axis in axes for scale in axis[1:]]
    drawn = [scale for scale in drawn if scale.denominator <= MOST]
    likelihoods = {spread: log_likelihood(drawn, spread) for spread in SPREADS}
    best = max(SPREADS, key=lambda spread: likelihoods[spread])
    within = [spread for spread in SPREADS if likelihoods[spread] > likelihoods[best] - 1.92]  # chi-square, 1 degree
    behind = likelihoods[best] - log_likelihood(drawn, TEXT_STD)
    evidence = (
        f"the {len(drawn)} printed scales that can be draws are likeliest at {best:.3f} "
        f"({within[0]:.3f} to {within[-1]:.3f}); at {TEXT_STD} their likelihood is e^{behind:.0f} times smaller"
    )
    findings.claims.append(
        judged(f"scales have the standard deviation {TEXT_STD}", within[0] <= TEXT_STD <= within[-1], evidence)
    )
    findings.notes.append(
        "The printed examples may be hand-picked. One of the horizontal scales of example 1 was set and not drawn; it "
        "cannot be told which, and so all of them count as draws."
    )
    findings.series = {"spreads": list(SPREADS), "log_likelihood": list(likelihoods.values()), "best": best}


def log_likelihood(drawn: list[Fraction], spread: float) -> float:
    """Of fractions that are the nearest ones (denominators up to 10) to normal draws."""
    ends = torch.tensor([nearest_to(scale) for scale in drawn], dtype=torch.float64)
    low, high = ((ends - MEAN) / spread).unbind(dim=1)
    return float(log_probability(low, high).sum())


def log_probability(low: Tensor, high: Tensor) -> Tensor:
    """Logarithm of the probability that a standard normal variable lies in [low, high], however far that is from 0.

    The interval is mirrored into the lower tail, where both ends' probabilities are small and their logarithms exact:
    log(P(high) - P(low)) = log P(high) + log(1 - P(low) / P(high)). Probabilities themselves are 0 beyond 38 sigma in
    float64, and next to 1 their difference is 0 beyond 8.

    Args:
        low, high: float64 of one shape, in standard deviations, low < high.
    """
    upper = low + high > 0
    low, high = torch.where(upper, -high, low), torch.where(upper, -low, high)
    below: Tensor = torch.special.log_ndtr(low)
    above: Tensor = torch.special.log_ndtr(high)
    return above + torch.log(-torch.expm1(below - above))


def nearest_to(scale: Fraction) -> tuple[float, float]:
    """The interval of numbers whose nearest fraction with a denominator up to 10 is this one."""
    fractions = sorted({Fraction(p, q) for q in range(1, MOST + 1) for p in range(2 * q + 1)})
    place = fractions.index(scale)
    below, above = fractions[place - 1], fractions[place + 1]
    return float((below + scale) / 2), float((scale + above) / 2)


def plot(document: dict[str, Any]) -> "Figure":
    """The likelihood over the spread."""
    from ccnet.paper.drawing import figure

    series = document["series"]
    drawn, (axes,) = figure(1)
    axes.plot(series["spreads"], series["log_likelihood"])
    axes.axvline(TEXT_STD, linestyle=":", color="gray")
    axes.annotate("the text: 0.01", (TEXT_STD, 0.05), xycoords=("data", "axes fraction"), rotation=90, ha="right")
    axes.set_ylim(max(series["log_likelihood"]) - 60, max(series["log_likelihood"]) + 5)
    axes.set_xlabel("standard deviation of the scales before rounding")
    axes.set_ylabel("log-likelihood of Table 4's scales")
    axes.set_title(f"Table 4 was drawn with a spread near {series['best']:.2f}")
    return drawn
