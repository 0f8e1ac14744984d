"""Table 6: chains of CC layers of s = 1 beside as many conv layers; and the time of an epoch (B.2)."""

import re
from typing import TYPE_CHECKING, Any

from ccnet.benchmarks.table_6 import LAYERS
from ccnet.paper.benchmarked import Benchmark, beyond, load, over, sources, times, undecided
from ccnet.paper.context import Context
from ccnet.paper.findings import Findings, Row, judged
from ccnet.paper.table_5 import BACKWARD, MIB

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# (ms, GiB) on a V100 by number of layers: clear memory, by discrete convs, Conv. CC (standard) held one layer.
PAPER = {
    1: ((158.7, 3.8), (3.5, 0.3), (1.3, 0.2)),
    2: ((317.9, 3.9), (7.0, 0.3), (2.8, 0.3)),
    4: ((635.0, 4.0), (14.1, 0.4), (6.0, 0.4)),
    8: ((1270.2, 4.2), (27.1, 0.7), (12.5, 0.6)),
    16: ((2538.7, 4.6), (54.6, 1.1), (25.2, 1.0)),
    32: ((5074.7, 5.5), (111.3, 2.0), (51.6, 1.8)),
}
STANDARD = {1: "71.7 ms, 7.5 GiB"}  # and then out of memory
EPOCH = 90 / 6  # seconds of CCNet and of ConvNet, B.2
CHAIN = r", (\d+) layers of s = 1, forward \+ backward$"  # as the benchmark names one
TIMES, MEMORY, STEP = (
    "Time of CC layers by discrete convs (the default backend) over conv2d's",
    "Peak memory, forward and backward, GiB",
    "Training step of CCNet over ConvNet's (B.2)",
)


def find(context: Context) -> Findings:
    """Run it."""
    findings = Findings()
    chains, memory = load(context, "table_6"), load(context, "memory")
    training = load(context, "training_step")
    time_rows(findings, chains)
    memory_rows(findings, memory)
    step_rows(findings, training)
    judge_time(findings, chains)
    judge_depth(findings, memory)
    judge_epoch(findings, training)
    findings.notes += [
        "Layers of 32 to 32 channels, 3x3, s = 1, batch 50, 64x64. The paper's columns are its V100's milliseconds "
        "divided, ours a CPU's. A dash: it would need more memory than is free, or take too long.",
        "An epoch is a number of steps that is the same for both networks; so the ratio of steps is that of epochs.",
        sources(chains, memory, training),
    ]
    if context.quick:
        undecided(findings)
    return findings


def numbers(benchmark: Benchmark, pattern: str) -> dict[int, str]:
    """Number of layers -> case, of the cases that look like this."""
    found = ((re.search(pattern, case), case) for case in benchmark.cases)
    return {int(match[1]): case for match, case in found if match}


def time_rows(findings: Findings, chains: Benchmark) -> None:
    """Ratios of warm calls in turns."""
    series: dict[str, list[float | None]] = {"layers": [], "ours": []}
    for count, case in numbers(chains, rf"^(\d+) layers, {re.escape(BACKWARD)}$").items():
        value, spread = chains.value(case, "CC / conv2d"), chains.spread(case, "CC / conv2d")
        printed = times(PAPER[count][1][0] / PAPER[count][2][0]) if count in PAPER else ""
        name = f"{count} layer{'s' if count > 1 else ''}"
        findings.rows.append(Row(name, BACKWARD, times(value, spread), printed, value, TIMES))
        inference = f"{count} layers, inference"
        value_alone = chains.value(inference, "CC / conv2d")
        shown = times(value_alone, chains.spread(inference, "CC / conv2d"))
        findings.rows.append(Row(name, "inference alone", shown, "", value_alone, TIMES))
        series["layers"].append(count)
        series["ours"].append(value)
    findings.series.update(series)


def memory_rows(findings: Findings, memory: Benchmark) -> None:
    """Peaks of chains."""
    for count, case in numbers(memory, CHAIN).items():
        name = f"{count} layer{'s' if count > 1 else ''}"
        printed = {
            "standard": STANDARD.get(count, "out of memory").rpartition(", ")[2].removesuffix(" GiB"),
            **dict(zip(("chunked", "discrete", "conv2d"), (str(gib) for _, gib in PAPER.get(count, ())), strict=False)),
        }
        titles = {
            "standard": "CC (standard)",
            "chunked": "CC (clear memory)",
            "discrete": "CC (by discrete convs)",
            "conv2d": "Conv",
            "native": "ours, native",
        }
        for backend, title in titles.items():
            value = memory.value(case, backend)
            shown = "-" if value is None else f"{value / MIB:.2f}"
            findings.rows.append(Row(name, title, shown, printed.get(backend, ""), value, MEMORY))


def step_rows(findings: Findings, training: Benchmark) -> None:
    """Ratios of a training step."""
    for case in training.cases:
        for method in ("corrected", "conditioned"):
            what = f"{method} / ConvNet"
            value, spread = training.value(case, what), training.spread(case, what)
            printed = times(EPOCH) if case == "batch 64" and method == "corrected" else ""
            findings.rows.append(Row(case, f"sequences {method}", times(value, spread), printed, value, STEP))


def judge_time(findings: Findings, chains: Benchmark) -> None:
    """Table 6's last two columns."""
    cases = numbers(chains, rf"^(\d+) layers, {re.escape(BACKWARD)}$")
    ends = over(chains, cases, "CC / conv2d")
    findings.claims.append(
        judged(
            "by discrete convolutions CC layers take more than twice Conv's time (Table 6: 2.7 to 2.2 times)",
            beyond(ends, 2),
            ", ".join(f"{times(*pair)} of {count}" for count, pair in ends.items()) or "not measured at any length",
        )
    )


def judge_depth(findings: Findings, memory: Benchmark) -> None:
    """Whether a chain takes less memory when it is cleared, so that a longer one fits into as much.

    What the benchmark left out for want of memory was not run: it is told, and decides nothing.
    """
    peaks = {
        backend: {
            count: peak / MIB
            for count, case in numbers(memory, CHAIN).items()
            if (peak := memory.value(case, backend)) is not None
        }
        for backend in ("chunked", "standard")
    }
    refused = [note for note in memory.document["notes"] if "layers of s = 1" in note and "standard left out" in note]
    cleared, standard = peaks["chunked"], peaks["standard"]
    told = [f"clearing memory: {gib:.2f} GiB for {count}" for count, gib in list(cleared.items())[-1:]]
    told += [f"standard: {gib:.2f} GiB for {count}" for count, gib in standard.items()]
    told += [f"standard was not run, one layer of it needs {refused[0].rpartition('it needs ')[2]}"] if refused else []
    smaller = [cleared[count] < standard[count] for count in cleared if count in standard]
    holds = all(smaller) if smaller else None
    text = "clearing memory allows deeper networks than CC (standard) (B.1)"
    findings.claims.append(judged(text, holds, "; ".join(told) or "memory was not measured"))


def judge_epoch(findings: Findings, training: Benchmark) -> None:
    """B.2: 90 seconds an epoch beside 6."""
    text = f"an epoch of CCNet takes at least {EPOCH:.0f} times as long as one of ConvNet (B.2: 90 s and 6 s)"
    case = next((case for case in ("batch 64", *training.cases) if case in training.cases), "")
    value, spread = training.value(case, "corrected / ConvNet"), training.spread(case, "corrected / ConvNet")
    if value is None:
        findings.claims.append(judged(text, None, "a step of training was not measured"))
        return
    evidence = f"a step of CCNet takes {times(value, spread)} ConvNet's ({case})"
    holds = True if value - spread >= EPOCH else False if value + spread < EPOCH else None
    findings.claims.append(judged(text, holds, evidence))


def plot(document: dict[str, Any]) -> "Figure":
    """Ratios of time over the number of layers."""
    from ccnet.paper.drawing import figure

    drawn, (axes,) = figure(1)
    series = document["series"]
    axes.plot(series["layers"], series["ours"], marker="o", label="ours, CPU")
    axes.plot(LAYERS, [PAPER[n][1][0] / PAPER[n][2][0] for n in LAYERS], marker="x", linestyle=":", label="paper, V100")
    axes.axhline(1, color="gray", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(LAYERS, [str(count) for count in LAYERS])
    axes.minorticks_off()
    axes.set_ylim(0, None)
    axes.set_xlabel("layers in a row")
    axes.set_ylabel("time / conv2d's, forward + backward")
    axes.set_title("CC layers of s = 1 by discrete convs")
    axes.legend()
    return drawn
