"""What every benchmark prints: a table for people, and one JSON line last for programs; and where results are kept."""

import json
import os
import statistics
from pathlib import Path
from typing import Any

import torch

from ccnet import provenance


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Median, and half the distance between the quartiles."""
    quartiles = statistics.quantiles(values, n=4)
    return statistics.median(values), (quartiles[2] - quartiles[0]) / 2


RESULTS = Path(__file__).resolve().parent / "results"


def report(benchmark: str, rows: list[dict[str, Any]], *, save: bool, device: torch.device | None = None) -> None:
    """Print the measured rows as one JSON line, with where and on what they were measured; keep them if asked to."""
    document = {"benchmark": benchmark, "rows": rows, "load_average": os.getloadavg()[0], **where(device)}
    print(json.dumps(document))
    if save:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{benchmark}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def where(device: torch.device | None = None) -> dict[str, Any]:
    """The machine (the CPU unless told otherwise), the versions and the commit behind a result."""
    return {
        "hardware": provenance.hardware(device or torch.device("cpu")),
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit() or "unknown",
        "date": provenance.now(),
    }
