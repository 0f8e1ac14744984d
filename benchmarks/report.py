"""What every benchmark prints: a table for people, and one JSON line last for programs."""

import json
import os
import statistics
from typing import Any

import torch

from ccnet import provenance


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Median, and half the distance between the quartiles."""
    quartiles = statistics.quantiles(values, n=4)
    return statistics.median(values), (quartiles[2] - quartiles[0]) / 2


def print_json_line(benchmark: str, rows: list[dict[str, Any]]) -> None:
    """The measured rows with where and on what they were measured."""
    print(
        json.dumps(
            {
                "benchmark": benchmark,
                "rows": rows,
                "threads": torch.get_num_threads(),
                "load_average": os.getloadavg()[0],
                "hardware": provenance.hardware(torch.device("cpu")),
                "versions": provenance.versions(),
                "git_commit": provenance.git_commit(),
                "date": provenance.now(),
            }
        )
    )
