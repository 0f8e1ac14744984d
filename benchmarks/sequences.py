"""What the scale sequences of each sampler cost: prepared weights, multiply-adds of a pass and of its weights, phases.

Nothing is timed: the costs are counted for CCNet (Table 3) at 32x32 from the sequences, through the grids that its
layers run on.

    prepared       bytes of the weights of layers 2 to 8, P_h P_w C_out C_in K_h K_w each, in fp32
    pass           multiply-adds of an image: of the eight CC layers and of the three fully connected ones
    generation     multiply-adds of the last layer of every Internal-Net (17 a weight), once a phase
    first / next   multiply-adds of generation and pass together, over those of the pass

Layer 1 has one phase whatever the sequence, and its few weights are left out of prepared and generated ones.

    python -m benchmarks.sequences [--sequences 200] [--seed 0]
"""

import argparse
import math
import statistics
from fractions import Fraction
from typing import Any

from benchmarks.report import report
from ccnet.grid import AxisGrid
from ccnet.models import FULLY_CONNECTED, TABLE_3
from ccnet.sequences import ScaleSequence, sample_scale_sequences

IN_SIZE, IN_CHANNELS, CLASSES = (32, 32), 3, 10
HIDDEN = 16  # values that each weight is made of, and its bias
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
COUNTS = {"prepared_bytes": 1e6, "pass_multiply_adds": 1e6, "generation_multiply_adds": 1e6, "first_over_next": 1.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sequences", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save", action="store_true", help="keep the result in benchmarks/results")
    arguments = parser.parse_args()
    heads = ("prepared MB", "pass M", "generation M", "first / next")
    print(f"{'median, largest':27}", *(f"{head:>13}" for head in heads), "  phases of layers 2 to 8 (median)")
    rows = []
    for name, options in SAMPLERS.items():
        drawn = sample_scale_sequences(arguments.sequences, seed=arguments.seed, in_size=IN_SIZE, **options)
        row = summary([cost(sequence) for sequence in drawn])
        rows.append({"sampler": name, "sequences": arguments.sequences, "seed": arguments.seed, **row})
        cells = (f"{row[key]['median'] / unit:6.1f} {row[key]['largest'] / unit:6.1f}" for key, unit in COUNTS.items())
        print(f"{name:27}", *cells, " ", *(f"{phases:.0f}" for phases in row["phases_median"]))
    report("sequences", rows, save=arguments.save)


def cost(sequence: ScaleSequence) -> dict[str, Any]:
    """Counts of one sequence."""
    sequence.require_valid(in_size=IN_SIZE)
    sizes = (IN_SIZE, *sequence.shapes(IN_SIZE))
    channels = (IN_CHANNELS, *(out for out, _, _ in TABLE_3))
    phases, weights, multiply_adds = [], [], 0
    for j, ((out, kernel, _), scales) in enumerate(zip(TABLE_3, sequence.scales, strict=True)):
        axes = (AxisGrid.make(sizes[j][axis], sizes[j + 1][axis], scales[axis], kernel) for axis in (0, 1))
        phases.append(math.prod(axis.period for axis in axes))
        weights.append(channels[j] * out * kernel**2)
        multiply_adds += math.prod(sizes[j + 1]) * weights[-1]
    features = math.prod(sizes[-1]) * channels[-1]
    multiply_adds += features * FULLY_CONNECTED + FULLY_CONNECTED**2 + FULLY_CONNECTED * CLASSES
    prepared = sum(p * w for p, w in zip(phases[1:], weights[1:], strict=True))
    generation = (HIDDEN + 1) * prepared
    return {
        "prepared_bytes": 4 * prepared,
        "pass_multiply_adds": multiply_adds,
        "generation_multiply_adds": generation,
        "first_over_next": (generation + multiply_adds) / multiply_adds,
        "phases": phases[1:],
    }


def summary(costs: list[dict[str, Any]]) -> dict[str, Any]:
    """Median, mean and largest of every count; phases layer by layer."""
    row: dict[str, Any] = {}
    for key in COUNTS:
        values = [counted[key] for counted in costs]
        row[key] = {"median": statistics.median(values), "mean": statistics.fmean(values), "largest": max(values)}
    layers = list(zip(*(counted["phases"] for counted in costs), strict=True))
    row["phases_median"] = [statistics.median(layer) for layer in layers]
    row["phases_mean"] = [round(statistics.fmean(layer), 1) for layer in layers]
    row["phases_largest"] = [max(layer) for layer in layers]
    return row


if __name__ == "__main__":
    main()
