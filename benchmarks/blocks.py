"""The measured blocks of docs/performance.md and docs/serving.md, made from the kept results of the benchmarks.

Every block is a table of one benchmark; "targets" and "serving targets" collect the verdicts of all of them. What was
not measured yet on `HARDWARE` says so and names the command.
"""

import json
from collections.abc import Sequence
from typing import Any

from benchmarks.report import RESULTS
from ccnet.benchmarks.catalogue import BENCHMARKS
from ccnet.benchmarks.report import Row

HARDWARE = "amd-epyc-2-threads"  # the machine whose figures the documents quote
TABLES = ("table_5", "table_6", "layers", "passes", "ensembles", "first_use", "training_step", "memory")
SERVING = ("throughput", "latency", "goodput", "overload", "background", "drain", "chaos", "tensors", "schema")
MOST_CASES = 4  # of one target that a cell lists one by one
GPU_TARGETS = (
    ("H200: ensemble of 32, batch 1, bf16 or tf32, ms", "target_ms", "at most 1"),
    ("H200: k = 8, batch 256, vs the chain of conv2d under CUDA graphs", "target_ratio", "at most 1.5"),
)


def measured_blocks() -> dict[str, str]:
    """Text of every block by its name."""
    results = {benchmark.name: load(benchmark.name) for benchmark in BENCHMARKS}
    tables = {name.replace("_", " "): table_block(f"ccnet bench {name}", results[name]) for name in TABLES}
    serving = {name: load(f"serving_{name}") for name in SERVING}
    serving_tables = {
        f"serving {name}": table_block(f"python -m benchmarks.serving {name}", serving[name]) for name in SERVING
    }
    return {
        "targets": targets_block("ccnet bench --save", results, gpu_lines()),
        "serving targets": targets_block("python -m benchmarks.serving --save", serving),
        **tables,
        **serving_tables,
    }


def load(benchmark: str) -> dict[str, Any] | None:
    """The kept result of a benchmark on `HARDWARE`."""
    path = RESULTS / HARDWARE / f"{benchmark}.json"
    if not path.is_file():
        return None
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return result


def table_block(command: str, result: dict[str, Any] | None) -> str:
    """All figures of a result: a line a case, a column an alternative or quantity."""
    if result is None:
        return f"Not measured on this machine yet: `{command} --save`."
    rows = [Row(**row) for row in result["rows"]]
    columns = list(dict.fromkeys(row.what for row in rows))
    cells: dict[str, dict[str, str]] = {}
    for row in rows:
        cells.setdefault(row.case, {})[row.what] = row.shown()
    lines = [[case, *(found.get(name, "") for name in columns)] for case, found in cells.items()]
    return "\n".join([markdown(["", *columns], lines), "", source(command, result)])


def targets_block(command: str, results: dict[str, dict[str, Any] | None], more: Sequence[list[str]] = ()) -> str:
    """Every target with the paper's figure, what was measured, and whether it is met; `more` are further lines."""
    lines = []
    for result in results.values():
        names = dict.fromkeys(target["name"] for target in (result or {}).get("targets", []))
        for name in names:
            lines.append(target_line([target for target in (result or {})["targets"] if target["name"] == name]))
    lines += more
    sources = "; ".join(
        f"`{name}` at commit {result['git_commit'][:10]}" for name, result in results.items() if result is not None
    )
    missing = [name for name, result in results.items() if result is None]
    text = [
        markdown(["what", "the paper", "target", "measured", "met"], lines),
        "",
        f"Source: `{command}` ({sources or 'nothing yet'}), {HARDWARE}.",
    ]
    return "\n".join(text + ([f"Not measured on this machine yet: {', '.join(missing)}."] if missing else []))


def target_line(targets: list[dict[str, Any]]) -> list[str]:
    """One target over its cases: each of a few, else the range and the worst."""
    first = targets[0]
    at_most = first["sense"] == "at most"
    met = sum(target["met"] for target in targets)
    shown = [f"{target['measured']:.2f} ± {target['spread']:.2f} ({target['case']})" for target in targets]
    if len(targets) > MOST_CASES:
        ordered = sorted(targets, key=lambda target: target["measured"], reverse=not at_most)
        best, worst = ordered[0], ordered[-1]
        shown = [f"{best['measured']:.2f} to {worst['measured']:.2f} (worst: {worst['case']})"]
    verdict = "yes" if met == len(targets) else "no" if not met else f"{met} of {len(targets)}"
    return [first["name"], first["paper"], f"{first['sense']} {first['limit']:g}", ", ".join(shown), verdict]


def gpu_lines() -> list[list[str]]:
    """The targets of `benchmarks.gpu`, from whatever card it was run on."""
    rows: list[dict[str, Any]] = []
    for path in sorted(RESULTS.glob("*/gpu.json")):
        rows += json.loads(path.read_text(encoding="utf-8"))["rows"]
    lines = []
    for name, key, wanted in GPU_TARGETS:
        found = [row for row in rows if key in row]
        measured = [f"{gpu_figure(row):.2f} ({row['precision']})" for row in found]
        met = any(gpu_figure(row) <= row[key] for row in found)
        verdict = ("yes" if met else "no") if found else "-"
        lines.append([name, "-", wanted, ", ".join(measured) or "not run", verdict])
    return lines


def gpu_figure(row: dict[str, Any]) -> float:
    """Milliseconds of the faster tile sizes, or the ratio to the faster chain."""
    if "target_ms" in row:
        return min(float(row["default"]["median_ms"]), float(row["tuned"]["median_ms"]))
    return max(float(ratio) for ratio in row["ratio"].values())


def markdown(columns: list[str], lines: list[list[str]]) -> str:
    """A table."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |".replace("|  |", "| |") for row in rows)


def source(command: str, result: dict[str, Any]) -> str:
    """One line that says where numbers come from."""
    seed = f", seed {result['seed']}" if "seed" in result else ""
    torch_version = result["versions"]["torch"]
    return (
        f"Source: `{command}`, commit {result['git_commit'][:10]}{seed}, {result['hardware']}, torch {torch_version}."
    )
