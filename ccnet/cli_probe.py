"""`ccnet probe`: shift-equivariance, as Table 1 has it or in all measures of the literature (docs/equivariance.md)."""

from fractions import Fraction
from typing import Annotated, Any, Literal

import typer

from ccnet.checkpoint import Checkpoint
from ccnet.cli_options import DataDirOption, DeviceOption, JsonOption
from ccnet.cli_runs import measure_all_shifts, measure_shifts
from ccnet.cli_support import number_option, open_checkpoint, print_json, print_table, whole_numbers
from ccnet.equivariance import MEASURES, Measure, ShiftReport, ShiftSimilarity
from ccnet.errors import CcnetError

MAX_STEP_CHARACTERS = 20
Border = Literal["zero", "circular", "reflect"]  # "crop" needs larger pictures than the data sets hold


def probe(
    checkpoints: Annotated[
        list[str] | None, typer.Option("--checkpoint", "-c", help="Checkpoint; repeat to compare several.")
    ] = None,
    source: Annotated[str, typer.Option("--input", help="noise, or the name of a data set.")] = "noise",
    max_shift: Annotated[
        str | None,
        typer.Option(help="Largest shifts in px, comma separated; default: 2,4,6, and 2 with --report."),
    ] = None,
    samples: Annotated[int, number_option(least=1, text="Images measured.")] = 200,
    border: Annotated[Border, typer.Option(help="What enters a shifted image.")] = "zero",
    whole_report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="At every shift up to the largest: cosine and SNR of maps and logits, consistency, worst case.",
        ),
    ] = False,
    step: Annotated[str, typer.Option(help="Of the shifts of --report in px; 1/2 goes between the pixels.")] = "1",
    seed: Annotated[int, number_option(text="Of shifts, noise and sequences.")] = 0,
    data_dir: DataDirOption = None,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Measure shift-equivariance as in Table 1, or with --report as the literature does (docs/equivariance.md)."""
    if not whole_report and step != "1":
        raise CcnetError("--step belongs to --report; Table 1 draws whole shifts")
    shifts = whole_numbers(max_shift or ("2" if whole_report else "2,4,6"), "max shifts")
    models = _opened(checkpoints, device)
    if whole_report:
        if len(shifts) > 1:
            raise CcnetError(f"--report takes one --max-shift, the reach of its grid; got {max_shift}")
        grid_step = _step(step)
        reports = [
            (name, *measure_all_shifts(loaded, name, source, shifts[0], grid_step, border, samples, seed, data_dir))
            for name, loaded in models
        ]
        show_reports(reports, source, samples, as_json)
        return
    tables = [
        (name, *measure_shifts(loaded, name, source, shifts, samples, seed, data_dir, border))
        for name, loaded in models
    ]
    show_tables(tables, source, samples, as_json)


def show_tables(tables: list[tuple[str, list[ShiftSimilarity], str]], source: str, samples: int, as_json: bool) -> None:
    """Table 1 of each model."""
    if as_json:
        print_json(
            [
                {
                    "model": name,
                    "input": source,
                    "rows": [row.row() for row in rows],
                    "protocol": rows[0].protocol | {"fill_means": entering},
                }
                for name, rows, entering in tables
            ]
        )
        return
    print_table(
        f"{source}, {samples} images",
        ("model", "max shift", "cosine", "95% interval", "same label"),
        [
            (
                name,
                f"±{row.max_shift}",
                f"{row.cosine_mean:.3f}",
                f"{row.ci95[0]:.3f} to {row.ci95[1]:.3f}",
                "-" if row.consistency is None else f"{row.consistency:.1%}",
            )
            for name, rows, _ in tables
            for row in rows
        ],
    )


def show_reports(reports: list[tuple[str, ShiftReport, str]], source: str, samples: int, as_json: bool) -> None:
    """All measures, a column a model."""
    if as_json:
        documents: list[dict[str, Any]] = []
        for name, report, entering in reports:
            values = report.as_json()
            values["protocol"] |= {"fill_means": entering}
            documents.append({"model": name, "input": source, **values})
        print_json(documents)
        return
    shifts = len(reports[0][1].per_shift)
    names = [name for name in MEASURES if any(name in report.measures for _, report, _ in reports)]
    print_table(
        f"{source}, {samples} images at {shifts} shifts, border {reports[0][1].protocol['border']}",
        ("measure", *(name for name, _, _ in reports)),
        [(MEASURES[name], *(_shown(name, report.measures.get(name)) for _, report, _ in reports)) for name in names],
    )


def _opened(checkpoints: list[str] | None, device: str) -> list[tuple[str, Checkpoint]]:
    """(name as shown, model) of each; two runs may have one name, so that of several the given one is shown."""
    names: list[str | None] = list(checkpoints) if checkpoints else [None]
    opened = [(name, open_checkpoint(name, device)) for name in names]
    return [(loaded.name if len(names) == 1 else str(name), loaded) for name, loaded in opened]


def _shown(name: str, measure: Measure | None) -> str:
    if measure is None or measure.value is None:
        return "-"
    low_high = [measure.value, *(measure.ci95 or ())]
    if name.endswith("_db"):
        texts = [f"{value:.1f}" for value in low_high]
        texts[0] += " dB"
    elif "cosine" in name or "change" in name:
        texts = [f"{value:.3f}" for value in low_high]
    else:
        texts = [f"{value:.1%}" for value in low_high]
    return texts[0] + (f" ({texts[1]} to {texts[2]})" if len(texts) == 3 else "")


def _step(text: str) -> Fraction:
    try:
        if len(text) > MAX_STEP_CHARACTERS or "e" in text.lower():  # an exponent can ask for gigabytes of digits
            raise ValueError
        return Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise CcnetError(
            f"--step {text[:40]} was given; allowed is a number of px above 0, such as 1, 1/2 or 0.25"
        ) from None
