"""Results of `ccnet bench` for Tables 5 and 6: those kept for this very hardware, else measured now, by it alone.

Times of one machine say nothing of another, so that only what was measured on equal hardware is ever shown as ours.
"""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

import torch

from ccnet import provenance
from ccnet.benchmarks import compare
from ccnet.benchmarks.report import Settings, hardware_slug
from ccnet.benchmarks.run import Options as BenchmarkOptions
from ccnet.errors import CcnetError
from ccnet.paper.context import Context
from ccnet.paper.findings import Claim, Findings


class Benchmark:
    """The figures of one benchmark.

    Args:
        document: as `ccnet bench --save` keeps it.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self._rows = {(row["case"], row["what"]): row for row in document["rows"]}

    @property
    def cases(self) -> list[str]:
        """In the order measured."""
        return list(dict.fromkeys(row["case"] for row in self.document["rows"]))

    def value(self, case: str, what: str) -> float | None:
        """A figure; None where it was not measured."""
        row = self._rows.get((case, what))
        return None if row is None else float(row["value"])

    def spread(self, case: str, what: str) -> float:
        """Half its interquartile range; 0 for what is counted, and for what was not measured."""
        row = self._rows.get((case, what))
        return 0.0 if row is None else float(row["spread"])

    def ratio(self, case: str, what: str, reference: str) -> float | None:
        """Of two figures of one case; None where one of them was not measured."""
        above, below = self.value(case, what), self.value(case, reference)
        return None if above is None or below is None else above / below

    @property
    def source(self) -> str:
        """Where and when, in a line."""
        d = self.document
        commit, *dirty = (d["git_commit"] or "unknown").partition("-")
        return f"{d['benchmark']}: {d['hardware']}, {d['date'][:10]}, commit {commit[:10]}{''.join(dirty)}"


def load(context: Context, name: str) -> Benchmark:
    """The result of a benchmark on this hardware with as many threads; a quick run is measured anew, with small cases.

    A quick run leaves out what takes dozens of processes (`memory`): that result is empty.

    Raises:
        CcnetError: it computes something wrong.
    """
    hardware = provenance.hardware(torch.device("cpu"))
    if context.quick and name == "memory":
        return Benchmark({"benchmark": name, "rows": [], "notes": []})
    kept = None if context.quick or context.fresh else compare.load(compare.default_folder(), hardware, name)
    if kept is not None:
        context.note_commit(kept["git_commit"])
        return Benchmark(kept)
    settings = Settings(context.quick, context.seed, context.options.threads)
    return Benchmark(context.step(f"bench-{name}", lambda: measure(name, settings), hardware=hardware_slug(hardware)))


def measure(name: str, settings: Settings) -> dict[str, Any]:
    """Run a benchmark in a process of its own, as `ccnet bench` does."""
    options = BenchmarkOptions(settings, json_only=True)
    command = [sys.executable, "-m", "ccnet.benchmarks", name, options.to_json()]
    finished = subprocess.run(command, check=False, capture_output=True, text=True)
    if finished.returncode:
        raise CcnetError(f"the benchmark {name} failed: {finished.stderr.strip() or finished.stdout.strip()}")
    document: dict[str, Any] = json.loads(finished.stdout.splitlines()[-1])
    return document


def sources(*benchmarks: Benchmark) -> str:
    """A note: what the figures come from."""
    measured = [benchmark.source for benchmark in benchmarks if benchmark.document["rows"]]
    return f"Measured by `ccnet bench`: {'; '.join(measured)}."


def undecided(findings: Findings) -> None:
    """Leave every claim open: a quick run measures other cases than the paper's, a few times each."""
    evidence = "a quick run measures small cases only: "
    findings.claims = [Claim(claim.text, "undecided", evidence + claim.evidence) for claim in findings.claims]


def over(benchmark: Benchmark, cases: Mapping[int, str], what: str) -> dict[int, tuple[float, float]]:
    """(ratio, spread) by size or number of layers, of the cases in which it was measured."""
    values = {key: (benchmark.value(case, what), case) for key, case in cases.items()}
    return {key: (value, benchmark.spread(case, what)) for key, (value, case) in values.items() if value is not None}


def beyond(ratios: Mapping[int, tuple[float, float]], limit: float) -> bool | None:
    """Whether every ratio lies above a limit by more than its spread; False where every one lies below by as much.

    None where they lie on both sides or too close to tell, and where nothing was measured.
    """
    if not ratios:
        return None
    if all(ratio - spread > limit for ratio, spread in ratios.values()):
        return True
    return False if all(ratio + spread < limit for ratio, spread in ratios.values()) else None


def times(value: float | None, spread: float = 0.0) -> str:
    """A ratio for people; "" for None."""
    if value is None:
        return ""
    digits = 1 if value >= 10 else 2
    return f"{value:.{digits}f}" + (f" ± {spread:.{digits}f}" if spread else "") + "x"
