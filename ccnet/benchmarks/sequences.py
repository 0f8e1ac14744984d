"""What the scale sequences of each sampler cost: prepared weights, multiply-adds of a pass and of its weights, phases.

Nothing is timed: the costs are counted (`counting.py`) for CCNet at 32x32 px with three channels.
"""

import statistics
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from ccnet.benchmarks.counting import PassCost, pass_cost
from ccnet.benchmarks.report import Result, Row, Settings, Unit
from ccnet.sequences import sample_scale_sequences

SEQUENCES, IN_SIZE = 200, (32, 32)
SAMPLERS: dict[str, dict[str, Any]] = {
    "corrected": {"method": "corrected"},
    "conditioned": {"method": "conditioned"},
    "conditioned, 2/3 to 9/10": {
        "method": "conditioned",
        "min_scale": Fraction(2, 3),
        "max_scale": Fraction(9, 10),
    },
    "conditioned, numerator <= 7": {"method": "conditioned", "max_numerator": 7},
}


def measure(settings: Settings, result: Result) -> None:
    """Count."""
    count = 10 if settings.quick else SEQUENCES
    for name, options in SAMPLERS.items():
        drawn = sample_scale_sequences(count, seed=settings.seed, in_size=IN_SIZE, **options)
        for row in rows(name, [pass_cost(sequence, IN_SIZE) for sequence in drawn]):
            result.add(row)
    result.notes.append(f"{count} sequences of each sampler, seed {settings.seed}")


def rows(sampler: str, costs: Sequence[PassCost]) -> list[Row]:
    """Median, mean and largest of every count."""
    counts: dict[str, tuple[Unit, list[float]]] = {
        "prepared": ("MB", [cost.prepared_bytes / 1e6 for cost in costs]),
        "pass": ("M", [cost.multiply_adds / 1e6 for cost in costs]),
        "generation": ("M", [cost.generation_multiply_adds / 1e6 for cost in costs]),
        "first / next": ("x", [(c.generation_multiply_adds + c.multiply_adds) / c.multiply_adds for c in costs]),
    }
    for j in range(1, len(costs[0].layers)):
        counts[f"phases of layer {j + 1}"] = ("", [cost.layers[j].phases for cost in costs])
    kinds: dict[str, Callable[[list[float]], float]] = {
        "median": statistics.median,
        "mean": statistics.fmean,
        "largest": max,
    }
    return [
        Row(f"{sampler}: {kind}", what, summary(values), unit)
        for kind, summary in kinds.items()
        for what, (unit, values) in counts.items()
    ]
