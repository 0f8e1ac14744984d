"""The shift probe as a picture for people: PNG drawn from the very document that the JSON form answers.

matplotlib's objects are used and not its `pyplot`, which keeps every figure in one global table and belongs to the main
thread. Drawing takes a quarter of a second, so it is work for a thread; the package is imported when it is first asked
for.
"""

import io
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from service.schemas import ModelProbe, ProbeResponse, ShiftMap, TableResponse

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.cm import ScalarMappable
    from matplotlib.figure import Figure

MEDIA_TYPE = "image/png"
DPI = 144
MOST_COLUMNS = 4  # of models side by side
PANEL_INCHES = 2.9
MISSING = "0.8"  # grey of a shift under which every map was zero
SKIPPED_ALL = float("nan")


def draw_maps(answer: ProbeResponse) -> bytes:
    """The cosine at every shift, models side by side under one colour scale: a PNG file."""
    probes = answer.models
    columns = min(len(probes), MOST_COLUMNS)
    rows = math.ceil(len(probes) / columns)
    figure = _figure(PANEL_INCHES * max(columns, 1.6) + 1.1, PANEL_INCHES * rows + 1.0)
    panels = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    lowest = _lowest(probes)
    for panel, probe in zip(panels, probes, strict=False):
        shown = _draw_map(panel, probe, lowest)
    for panel in panels[len(probes) :]:
        panel.set_axis_off()
    figure.colorbar(shown, ax=panels, label="cosine of the last maps")
    _title(figure, "How far the last map moves along with the picture (1: wholly)", _about_upload(answer))
    return _png(figure)


def draw_table(answer: TableResponse) -> bytes:
    """The rows of the table with their 95% intervals: a PNG file."""
    figure = _figure(6.0, 4.2)
    axes: Axes = figure.subplots()
    rows = sorted(answer.rows, key=lambda row: row.max_shift)
    shifts, means = [row.max_shift for row in rows], [row.cosine_mean for row in rows]
    below = [max(0.0, row.cosine_mean - row.ci95[0]) for row in rows]
    above = [max(0.0, row.ci95[1] - row.cosine_mean) for row in rows]
    axes.errorbar(shifts, means, yerr=[below, above], marker="o", capsize=4, color="#205493")
    for shift, mean in zip(shifts, means, strict=True):
        axes.annotate(f"{mean:.3f}", (shift, mean), (7, 5), textcoords="offset points", fontsize="small")
    axes.set_xticks(shifts)
    axes.margins(x=0.12, y=0.15)
    axes.set_xlabel("largest shift, pixels of the input")
    axes.set_ylabel("mean cosine of the last maps")
    axes.grid(alpha=0.3)
    _title(figure, f"{answer.model}: shift equivariance (1: whole)", _about_table(answer))
    return _png(figure)


def _draw_map(panel: "Axes", probe: ModelProbe, lowest: float) -> "ScalarMappable":
    """One model's map; what the colour bar is made for."""
    reach = probe.map.max_shift + 0.5
    values = [[SKIPPED_ALL if value is None else value for value in line] for line in probe.map.cosine]
    panel.set_facecolor(MISSING)
    shown = panel.imshow(values, extent=(-reach, reach, reach, -reach), vmin=lowest, vmax=1.0, cmap="viridis")
    panel.set_title(f"{probe.model}\nmean cosine {_mean(probe.map):.3f}", fontsize="medium", parse_math=False)
    panel.set_xlabel("shift to the right, px")
    panel.set_ylabel("shift downwards, px")
    ticks = range(-probe.map.max_shift, probe.map.max_shift + 1, max(1, probe.map.max_shift // 2))
    panel.set_xticks(list(ticks))
    panel.set_yticks(list(ticks))
    return shown


def _values(similarity: ShiftMap) -> list[float]:
    return [value for line in similarity.cosine for value in line if value is not None]


def _mean(similarity: ShiftMap) -> float:
    """Over all shifts that could be measured."""
    values = _values(similarity)
    return sum(values) / len(values) if values else SKIPPED_ALL


def _lowest(probes: Sequence[ModelProbe]) -> float:
    """Where the colours begin: at the lowest cosine of any model, and below 1 in any case."""
    return min((value for probe in probes for value in _values(probe.map)), default=0.0) - 1e-6


def _about_upload(answer: ProbeResponse) -> str:
    images = "1 picture" if answer.samples == 1 else f"{answer.samples} pictures"
    skipped = sum(probe.map.skipped for probe in answer.models)
    return f"{images}, seed {answer.seed}" + (f", {skipped} pairs skipped (grey where all were)" if skipped else "")


def _about_table(answer: TableResponse) -> str:
    skipped = sum(row.skipped for row in answer.rows)
    about = f"{answer.samples} images ({answer.input}), 95% bootstrap intervals over images"
    return about + (f", {skipped} pairs skipped" if skipped else "")


def _figure(width: float, height: float) -> "Figure":
    """Inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _title(figure: "Figure", title: str, about: str) -> None:
    """Names of models are shown as they are, whatever signs are in them."""
    figure.suptitle(title, fontsize="large", parse_math=False)
    figure.supxlabel(about, fontsize="small", color="0.35", parse_math=False)


def _png(figure: "Figure") -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    stream = io.BytesIO()
    FigureCanvasAgg(figure)  # makes itself the figure's canvas
    figure.savefig(stream, format="png")
    return stream.getvalue()
