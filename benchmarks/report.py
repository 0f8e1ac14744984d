"""Where results are kept, and how the benchmark of a GPU reports: rows of its own, one JSON line last."""

import json
import os
from pathlib import Path
from typing import Any

import torch

from ccnet.benchmarks.compare import path_of
from ccnet.benchmarks.report import where

__all__ = ["RESULTS", "report", "where"]

RESULTS = Path(__file__).resolve().parent / "results"  # HARDWARE/BENCHMARK.json, and published.json


def report(benchmark: str, rows: list[dict[str, Any]], *, save: bool, device: torch.device | None = None) -> None:
    """Print the measured rows as one JSON line, with where and on what they were measured; keep them if asked to."""
    document = {"benchmark": benchmark, "rows": rows, "load_average": os.getloadavg()[0], **where(device)}
    print(json.dumps(document))
    if save:
        path = path_of(RESULTS, document["hardware"], benchmark)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
