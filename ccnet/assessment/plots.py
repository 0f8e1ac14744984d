"""The plots of a report as SVG, through matplotlib's object API: no global state, so that threads do not meet.

Colours are names of the page's style sheet, so that a plot follows the page into the dark: what is drawn in one of the
four marks below is given its name afterwards. Titles stand on the page, where they can wrap.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ccnet.assessment.verdict import main_row, row_of
from ccnet.assessment.wording import of_kind, percent, score
from ccnet.errors import CcnetError

Document = dict[str, Any]
INK, RULE, FIRST, SECOND = "#010101", "#020202", "#030303", "#040404"
_NAMES = {INK: "currentColor", RULE: "var(--rule)", FIRST: "var(--first)", SECOND: "var(--second)"}
_INCHES = (4.6, 3.3)
_POINTS = 9
PLOTTED_CLASSES = 30


@dataclass(frozen=True)
class Plot:
    """Attributes: title, what to read off; alt, the numbers in words; svg, the drawing."""

    title: str
    alt: str
    svg: str


def plots(document: Document) -> list[Plot]:
    """Every plot for which there are numbers.

    Raises:
        CcnetError: matplotlib is missing.
    """
    made = (accuracy_plot, reliability_plot, shift_plot, confusion_plot)
    return [plot for number, make in enumerate(made) if (plot := make(document, f"plot{number}-")) is not None]


def accuracy_plot(document: Document, prefix: str) -> Plot | None:
    """Accuracy over the number of passes, with intervals, sequences beside views."""
    sizes = document["options"]["sizes"]
    if len(document["rows"]) == 1:
        return None
    figure, axes = _figure()
    told = []
    for kind, colour, shift, marker in (("sequences", FIRST, -0.06, "o"), ("views", SECOND, 0.06, "s")):
        rows = [row for row in document["rows"] if row["kind"] == kind]
        if not rows:
            continue
        accuracies = [score(row, "accuracy") for row in rows]
        means = [100 * one["mean"] for one in accuracies]
        spread = [
            [mean - 100 * one["interval"][0] for mean, one in zip(means, accuracies, strict=True)],
            [100 * one["interval"][1] - mean for mean, one in zip(means, accuracies, strict=True)],
        ]
        at = [sizes.index(row["size"]) + shift for row in rows]
        axes.errorbar(at, means, yerr=spread, color=colour, marker=marker, markersize=4, capsize=3, label=kind)
        told.append(f"{kind}: " + ", ".join(f"{row['size']} {m:.2f}%" for row, m in zip(rows, means, strict=True)))
    axes.set_xticks(range(len(sizes)), [str(size) for size in sizes])
    axes.set_xlabel("passes an image")
    axes.set_ylabel("accuracy, %")
    _legend(axes)
    reached = [
        f"{of_kind(kind, sizes[-1])} {percent(score(row_of(document, kind, sizes[-1]), 'accuracy')['mean'])}"
        for kind in ("sequences", "views")
        if any(row["kind"] == kind for row in document["rows"])
    ]
    first = percent(score(document["rows"][0], "accuracy")["mean"])
    title = f"Accuracy begins at {first} with one pass; {' and '.join(reached)}"
    return Plot(title, "Accuracy. " + "; ".join(told), _svg(figure, prefix))


def reliability_plot(document: Document, prefix: str) -> Plot | None:
    """Accuracy over confidence, before and after temperature scaling."""
    shown = document["shown"]
    figure, axes = _figure()
    axes.plot([0, 100], [0, 100], color=RULE, linewidth=1)
    most = max(one["images"] for one in shown["reliability"])
    told = []
    for key, colour, marker, name in (
        ("reliability", FIRST, "o", "as it is"),
        ("reliability_scaled", SECOND, "s", "scaled"),
    ):
        filled = [one for one in shown[key] or [] if one["images"]]
        if not filled:
            continue
        x, y = ([100 * one[side] for one in filled] for side in ("confidence", "accuracy"))
        axes.plot(x, y, color=colour, linewidth=1)
        axes.scatter(x, y, s=[8 + 60 * one["images"] / most for one in filled], color=colour, marker=marker, label=name)
        told.append(f"{name}: " + ", ".join(f"{a:.0f}% sure {b:.0f}% right" for a, b in zip(x, y, strict=True)))
    axes.set_xlabel("confidence, %")
    axes.set_ylabel("right, %")
    _legend(axes)
    row = main_row(document)
    scaled = row["mean_of_logits"]["scaled"]
    after = "" if scaled is None else f", {percent(scaled['ece']['mean'])} after temperature scaling"
    title = (
        f"On the diagonal probabilities are true: calibration error {percent(score(row, 'ece')['mean'])}{after} "
        f"({of_kind(row['kind'], row['size'])})"
    )
    return Plot(title, "Reliability diagram. " + "; ".join(told), _svg(figure, prefix))


def shift_plot(document: Document, prefix: str) -> Plot | None:
    """Cosine over the largest shift, on pictures and on noise."""
    if document["equivariance"] is None:
        return None
    figure, axes = _figure()
    told = []
    for key, name, colour, marker in (("dataset", "pictures", FIRST, "o"), ("noise", "noise", SECOND, "s")):
        rows = document["equivariance"][key]["rows"]
        at, means = [row["max_shift"] for row in rows], [row["cosine_mean"] for row in rows]
        spread = [
            [row["cosine_mean"] - row["ci95"][0] for row in rows],
            [row["ci95"][1] - row["cosine_mean"] for row in rows],
        ]
        axes.errorbar(at, means, yerr=spread, color=colour, marker=marker, markersize=4, capsize=3, label=name)
        told.append(f"{name}: " + ", ".join(f"{shift} px {mean:.3f}" for shift, mean in zip(at, means, strict=True)))
    axes.set_xticks(at)
    axes.set_xlabel("largest shift, px")
    axes.set_ylabel("cosine of the maps")
    _legend(axes)
    last = document["equivariance"]["dataset"]["rows"][-1]
    title = f"Shifted by up to {last['max_shift']} px, maps of pictures keep a cosine of {last['cosine_mean']:.3f}"
    return Plot(title, "Shift-equivariance. " + "; ".join(told), _svg(figure, prefix))


def confusion_plot(document: Document, prefix: str) -> Plot | None:
    """Shares of each class's images by predicted class; None for more classes than can be read."""
    matrix, names = document["shown"]["confusion"], document["model"]["classes"]
    if matrix is None or len(names) > PLOTTED_CLASSES:
        return None
    from matplotlib.patches import Rectangle

    figure, axes = _figure(height=_INCHES[0])
    size = min(_POINTS - 2, 75 / len(names))
    for y, images in enumerate(matrix):
        for x, count in enumerate(images):
            share = count / max(1, sum(images))
            if not count:
                continue
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=FIRST, edgecolor="none", alpha=0.6 * share))
            text = f"{100 * share:.0f}" if share >= 0.005 else "<1"
            axes.text(x, y, text, color=INK, fontsize=size, ha="center", va="center")
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    short = [_short(name) for name in names]
    axes.set_xticks(range(len(names)), short, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), short, fontsize=size)
    axes.set_xlabel("predicted")
    axes.set_ylabel("label")
    axes.grid(False)
    axes.set_aspect("equal")
    worst = document["shown"]["most_confused"]
    title = "Each row: percent of a class's images by predicted class"
    if worst:
        title += f"; most often {worst[0]['label']} is taken for {worst[0]['predicted']} ({worst[0]['images']} images)"
    told = (f"{one['label']} for {one['predicted']} {one['images']} times" for one in worst)
    return Plot(title, "Confusion matrix. Most often taken: " + "; ".join(told), _svg(figure, prefix))


def require_plots() -> None:
    """Refuse before an assessment what would be refused after it.

    Raises:
        CcnetError: matplotlib is missing.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError as error:
        raise CcnetError(f"plots need the package {error.name!r}: pip install 'ccnet[figures]'") from error


def _figure(height: float = _INCHES[1]) -> tuple[Any, Any]:
    """An empty figure in the style of all, and its axes.

    Raises:
        CcnetError: matplotlib is missing.
    """
    require_plots()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_INCHES[0], height), layout="constrained", facecolor="none")
    axes = figure.add_subplot(facecolor="none")
    axes.tick_params(colors=INK, labelsize=_POINTS, length=3)
    for label in (axes.xaxis.label, axes.yaxis.label):
        label.set(color=INK, fontsize=_POINTS)
    for side, spine in axes.spines.items():
        spine.set(color=RULE, visible=side in ("left", "bottom"))
    axes.grid(True, color=RULE, linewidth=0.5)
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: Any) -> None:
    axes.legend(frameon=False, fontsize=_POINTS, labelcolor=INK)


def _short(name: str, most: int = 14) -> str:
    """A name as plain text of a bounded length; matplotlib takes what stands between dollars for formulas."""
    return (name if len(name) <= most else f"{name[: most - 1]}…").replace("$", r"\$")


def _svg(figure: Any, prefix: str) -> str:
    """The drawing for use inside a page: named colours, ids of its own, no size, no head, no style for others."""
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>", "", text, flags=re.DOTALL)
    head = re.search(r'viewBox="[^"]*"', text)
    assert head is not None
    text = re.sub(r"<svg[^>]*>", f'<svg {head[0]} role="presentation" focusable="false">', text, count=1)
    for colour, name in _NAMES.items():
        text = text.replace(colour, name)
    return _with_ids(text, prefix)


def _with_ids(text: str, prefix: str) -> str:
    """Ids made short, the same at every drawing, and different from those of other plots on the page."""
    found: Sequence[str] = list(dict.fromkeys(re.findall(r'\bid="([^"]+)"', text)))
    names = {name: f"{prefix}{index}" for index, name in enumerate(found)}
    return re.sub(r'(\bid="|#)([^"\s)]+)', lambda match: match[1] + names.get(match[2], match[2]), text)
