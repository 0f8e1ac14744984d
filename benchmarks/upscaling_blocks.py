"""The measured blocks of docs/upscaling.md, and the README's sentence, from what `benchmarks.upscaling` kept."""

import json
from typing import Any

from benchmarks.blocks import markdown, source
from benchmarks.report import RESULTS

UPSCALING = RESULTS / "upscaling.json"
SHOWN_MEMBERS = 8


def upscaling_blocks() -> dict[str, str]:
    """Text of every block by its name."""
    results = json.loads(UPSCALING.read_text(encoding="utf-8"))
    return {
        "upscaling": readme_block(results["comparison"]),
        "upscaling comparison": comparison_block(results["comparison"]),
        "upscaling neighbours": neighbours_block(results["neighbours"]),
        "upscaling ensembles": ensembles_block(results["ensembles"]),
    }


def readme_block(comparison: dict[str, Any]) -> str:
    """One sentence: the range of gains at factors that were held out."""
    gains = [row["difference_db"] for row in comparison["rows"] if not row["seen"]]
    return (
        "`ccnet upscale in.png out.png --scale 1.6x2.37` (width x height) enlarges a picture by a network whose last\n"
        f"layer is a CC layer: {min(gains):.1f} to {max(gains):.1f} dB above bicubic interpolation at factors held\n"
        f"out from its training, means of {comparison['pictures']} pictures that were reduced as in training\n"
        "([docs/upscaling.md](docs/upscaling.md))."
    )


def comparison_block(comparison: dict[str, Any]) -> str:
    """PSNR beside bicubic's; the pictures that lose are named."""
    columns = ["factor (vertical x horizontal)", "in training", "bicubic", "CC upscaler", "difference (95% interval)"]
    lines = [
        [
            row["factor"], "yes" if row["seen"] else "no", f"{row['bicubic_db']:.2f}", f"{row['ours_db']:.2f}",
            interval(row["difference_db"], row["difference_ci95"], 2), losers(row["by_picture"]),
        ]
        for row in comparison["rows"]
    ]  # fmt: skip
    command = "python -m benchmarks.upscaling --pictures FOLDER --save"
    return "\n".join([markdown([*columns, "worse on"], lines), "", source(command, comparison)])


def neighbours_block(neighbours: dict[str, Any]) -> str:
    """Gains at held-out factors between those of their trained neighbours."""
    columns = [
        "held out",
        "nearest trained",
        "gain below, dB",
        "gain held out",
        "gain above",
        "held out minus the mean",
    ]
    lines = [
        [
            row["factor"], f"{row['below']}, {row['above']}", *(f"{gain:+.3f}" for gain in row["gains_db"]),
            interval(row["excess_db"], row["excess_ci95"], 3),
        ]
        for row in neighbours["rows"]
    ]  # fmt: skip
    lines.append(["all four", "-", "-", "-", "-", interval(neighbours["excess_db"], neighbours["excess_ci95"], 3)])
    command = "python -m benchmarks.upscaling --pictures FOLDER --save"
    return "\n".join(
        [markdown([*columns[:-1], f"{columns[-1]} (95% interval)"], lines), "", source(command, neighbours)]
    )


def ensembles_block(ensembles: dict[str, Any]) -> str:
    """Ensembles of eight beside one pass."""
    columns = ["factor", "members", "aggregate", "one pass", "ensemble", "difference (95% interval)"]
    lines = [
        [
            row["factor"], f"{row['size']} {row['members']}", row["aggregate"], f"{row['single_db']:.2f}",
            f"{row['ensemble_db']:.2f}", interval(row["difference_db"], row["difference_ci95"], 3),
        ]
        for row in ensembles["rows"]
        if row["size"] == SHOWN_MEMBERS
    ]  # fmt: skip
    command = "python -m benchmarks.upscaling --pictures FOLDER --save --blocks ensembles"
    return "\n".join([markdown(columns, lines), "", source(command, ensembles)])


def interval(value: float, bounds: list[float], digits: int) -> str:
    """A difference with its sign and interval."""
    return f"{value:+.{digits}f} ({bounds[0]:+.{digits}f} to {bounds[1]:+.{digits}f})"


def losers(by_picture: dict[str, float]) -> str:
    """The pictures with a negative difference, and it."""
    return ", ".join(f"`{name}` {loss:+.2f}" for name, loss in by_picture.items() if loss < 0) or "none"
