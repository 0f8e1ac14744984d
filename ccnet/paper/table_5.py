"""Table 5: time and memory of one CC layer as its input grows, over those of a conv layer, beside the paper's V100.

Times are ratios to `conv2d` on the same machine. The two implementations that nobody would run, `standard` and
`chunked` ("clear memory"), are called once each, cold, by what measures memory, and compared among themselves.
"""

import math
from typing import TYPE_CHECKING, Any

from ccnet.benchmarks.memory import SIZES
from ccnet.paper.benchmarked import Benchmark, beyond, load, over, sources, times, undecided
from ccnet.paper.context import Context
from ccnet.paper.findings import Claim, Findings, Row, judged

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# (ms, GiB) on a V100: CC standard, clear memory, by discrete convs, and Conv.
PAPER = {
    32: ((8.7, 0.9), (19.7, 1.8), (3.5, 0.1), (0.8, 0.1)),
    64: ((30.0, 3.4), (76.1, 3.7), (3.6, 0.2), (1.3, 0.2)),
    96: ((72.3, 7.6), (155.4, 3.9), (5.1, 0.4), (2.7, 0.5)),
    128: ((131.5, 13.6), (285.9, 4.1), (7.6, 0.7), (4.0, 0.4)),
}
# (name in the paper, ours, column of PAPER)
KINDS = (
    ("CC (standard)", "standard", 0),
    ("CC (clear memory)", "chunked", 1),
    ("CC (by discrete convs)", "discrete", 2),
)
CONV, BACKWARD = 3, "forward + backward"
MIB = 1024.0  # in a GiB
LITTLE = 0.5  # of the memory of CC (standard), at most, is what "significantly reduces" is taken for
UNMEASURED = "not measured at any size"
TIMES, COLD, MEMORY = (
    "Time, forward and backward, over conv2d's: warm calls in turns (by discrete convs: the default backend)",
    "Time, forward and backward, over that of CC (standard): one cold call each",
    "Peak memory, GiB",
)


def find(context: Context) -> Findings:
    """Run it."""
    findings = Findings()
    layer, memory = load(context, "table_5"), load(context, "memory")
    sizes = [int(case.partition("x")[0]) for case in layer.cases if case.endswith(BACKWARD)]
    ratios = warm_rows(findings, layer, sizes)
    measured = [case for case in memory.cases if case.endswith(BACKWARD) and "layers" not in case]
    others = [int(case.partition("x")[0]) for case in measured]
    cold_rows(findings, memory, others)
    memory_rows(findings, memory, others)
    judge_time(findings, layer, memory, sizes, others)
    judge_memory(findings, memory, others)
    findings.series = {"sizes": sizes, "ours": ratios, "peak_gib": peaks(memory, others), "memory_sizes": others}
    findings.notes += [
        "One layer of 32 to 32 channels, 3x3, s = 2/3, batch 50; Conv has stride 1 on the same input. The paper's "
        "columns are its V100's milliseconds divided, ours a CPU's; ratios of small figures that it prints with one "
        "digit are rough.",
        "Cold calls prepare what later ones find: up to 0.7 s of a backward pass by discrete convolutions, which makes "
        "these look slower than they are. A dash: it would need more memory than is free.",
        "The paper's memory of CC (standard) is that of our forward pass alone: the product of Eq. 3, which backward "
        "keeps twice.",
        sources(layer, memory),
    ]
    if context.quick:
        undecided(findings)
    return findings


def paper_ratio(size: int) -> float:
    """Of the paper's times, by discrete convs over Conv; NaN for a size that it has not."""
    return PAPER[size][2][0] / PAPER[size][CONV][0] if size in PAPER else math.nan


def case_of(size: int, passes: str = BACKWARD) -> str:
    """As the benchmarks name it."""
    return f"{size}x{size}, {passes}"


def warm_rows(findings: Findings, layer: Benchmark, sizes: list[int]) -> list[float | None]:
    """Ratios of warm calls."""
    ratios: list[float | None] = []
    for size in sizes:
        value, spread = layer.value(case_of(size), "CC / conv2d"), layer.spread(case_of(size), "CC / conv2d")
        printed = times(paper_ratio(size)) if size in PAPER else ""
        findings.rows.append(
            Row(f"{size}x{size}", "CC (by discrete convs)", times(value, spread), printed, value, TIMES)
        )
        inference = layer.value(case_of(size, "inference"), "CC / conv2d")
        spread = layer.spread(case_of(size, "inference"), "CC / conv2d")
        findings.rows.append(Row(f"{size}x{size}", "inference alone", times(inference, spread), "", inference, TIMES))
        ratios.append(value)
    return ratios


def cold_rows(findings: Findings, memory: Benchmark, sizes: list[int]) -> None:
    """Ratios of single calls, where CC (standard) was measured."""
    for size in sizes:
        for name, backend, column in KINDS[1:]:
            value = memory.ratio(case_of(size), f"{backend}, one cold call", "standard, one cold call")
            printed = times(PAPER[size][column][0] / PAPER[size][0][0]) if size in PAPER else ""
            findings.rows.append(Row(f"{size}x{size}", name, times(value) or "-", printed, value, COLD))


def memory_rows(findings: Findings, memory: Benchmark, sizes: list[int]) -> None:
    """Peaks, forward and backward, and of the forward pass alone."""
    for size in sizes:
        for name, backend, column in (*KINDS, ("Conv", "conv2d", CONV), ("ours, native", "native", None)):
            printed = f"{PAPER[size][column][1]}" if column is not None and size in PAPER else ""
            for passes, what in ((BACKWARD, name), ("forward", f"{name}, forward")):
                value = memory.value(case_of(size, passes), backend)
                if what.endswith(", forward") and backend != "standard":
                    continue
                shown = "-" if value is None else f"{value / MIB:.2f}"
                findings.rows.append(Row(f"{size}x{size}", what, shown, printed, value, MEMORY))


def peaks(memory: Benchmark, sizes: list[int]) -> dict[str, list[float | None]]:
    """GiB by backend and size."""
    found: dict[str, list[float | None]] = {}
    for backend in ("standard", "chunked", "discrete", "native", "conv2d"):
        values = [memory.value(case_of(size), backend) for size in sizes]
        found[backend] = [None if value is None else value / MIB for value in values]
    return found


def judge_time(findings: Findings, layer: Benchmark, memory: Benchmark, sizes: list[int], others: list[int]) -> None:
    """What Appendix B.1 says of time."""
    cold = "{}, one cold call"
    faster = ratios_over(memory, others, cold.format("discrete"), cold.format("standard"))
    slower = ratios_over(memory, others, cold.format("chunked"), cold.format("standard"))
    findings.claims += [
        compared(
            "discrete convolutions further speed up the layer (B.1): faster than CC (standard), one cold call each",
            faster,
            below=True,
        ),
        compared(
            "clearing memory comes at some extra cost of time (Sec. 5): slower than CC (standard), one cold call each",
            slower,
            below=False,
        ),
    ]
    ends = over(layer, {size: case_of(size) for size in sizes}, "CC / conv2d")
    findings.claims.append(
        judged(
            "by discrete convolutions a CC layer takes longer than Conv (Table 5: 4.4 to 1.9 times as long)",
            beyond(ends, 1),
            ", ".join(f"{times(*pair)} at {size}x{size}" for size, pair in ends.items()) or UNMEASURED,
        )
    )


def ratios_over(benchmark: Benchmark, sizes: list[int], what: str, reference: str) -> dict[int, float]:
    """By size, where both were measured."""
    found = {size: benchmark.ratio(case_of(size), what, reference) for size in sizes}
    return {size: ratio for size, ratio in found.items() if ratio is not None}


def compared(text: str, ratios: dict[int, float], *, below: bool, limit: float = 1.0) -> Claim:
    """Whether ratios lie on one side of a limit at every size; at the limit they lie on neither."""
    if not ratios:
        return judged(text, None, UNMEASURED)
    holds = all(ratio < limit if below else ratio > limit for ratio in ratios.values())
    return judged(text, holds, ", ".join(f"{ratio:.3g}x at {size}x{size}" for size, ratio in ratios.items()))


def judge_memory(findings: Findings, memory: Benchmark, sizes: list[int]) -> None:
    """What Appendix B.1 says of memory."""
    for name, backend in (("clearing memory", "chunked"), ("computing by discrete convolutions", "discrete")):
        ratios = ratios_over(memory, sizes, backend, "standard")
        findings.claims.append(
            compared(
                f"{name} significantly reduces the memory of CC (standard) (B.1): to less than {LITTLE:.0%} of it",
                ratios,
                below=True,
                limit=LITTLE,
            )
        )
    ratios = ratios_over(memory, sizes, "discrete", "conv2d")
    findings.claims.append(
        judged(
            "by discrete convolutions a CC layer needs about Conv's memory (Table 5: 0.8 to 1.75 times as much)",
            all(ratio <= 1.75 for ratio in ratios.values()) if ratios else None,
            ", ".join(f"{ratio:.2f}x at {size}x{size}" for size, ratio in ratios.items()) or UNMEASURED,
        )
    )


def plot(document: dict[str, Any]) -> "Figure":
    """Ratios of time, and peaks of memory."""
    from ccnet.paper.drawing import figure

    drawn, (left, right) = figure(2)
    series = document["series"]
    left.plot(series["sizes"], series["ours"], marker="o", label="ours, CPU")
    printed = [paper_ratio(size) for size in SIZES]
    left.plot(SIZES, printed, marker="x", linestyle=":", label="paper, V100")
    left.axhline(1, color="gray", linewidth=1)
    left.set_ylim(0, None)
    left.set_ylabel("time / conv2d's, forward + backward")
    left.set_title("CC layer by discrete convs, s = 2/3")
    names = {"standard": "CC (standard)", "chunked": "CC (clear memory)", "discrete": "CC (by discrete convs)"}
    columns = {"standard": 0, "chunked": 1, "discrete": 2, "conv2d": CONV}
    for number, (backend, values) in enumerate(series["peak_gib"].items()):
        colour = f"C{number}"
        right.plot(series["memory_sizes"], values, marker="o", color=colour, label=names.get(backend, backend))
        if backend in columns:
            gib = [PAPER[size][columns[backend]][1] for size in SIZES]
            right.plot(SIZES, gib, marker="x", linestyle=":", color=colour)
    right.set_yscale("log" if series["memory_sizes"] else "linear")
    right.set_ylim(0.02, 400)  # room for the legend
    right.set_ylabel("peak memory, GiB (dotted: paper)")
    right.set_title("Memory, forward + backward")
    for axes in (left, right):
        axes.set_xlabel("side of the input, px")
        axes.set_xticks(SIZES)
    left.legend()
    right.legend(fontsize="small", loc="upper left", ncols=2)
    return drawn
