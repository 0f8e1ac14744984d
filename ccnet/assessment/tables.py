"""The tables of a report as text, which Markdown and the HTML page show in their own ways."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ccnet.assessment.verdict import row_of
from ccnet.assessment.wording import (
    NONE,
    duration,
    number,
    of_kind,
    percent,
    percent_interval,
    points,
    points_interval,
    score,
)

Document = dict[str, Any]


@dataclass(frozen=True)
class Table:
    """Text in rows and columns.

    Attributes:
        caption: what the table tells.
        columns: their heads.
        rows: the cells; the first of each names its row.
        names: leading columns that hold words, not numbers.
    """

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1


def accuracy_table(document: Document) -> Table:
    """One row for each number of sequences and of views."""
    rows = []
    for row in document["rows"]:
        accuracy = score(row, "accuracy")
        rows.append(
            (
                of_kind(row["kind"], row["size"]),
                str(row["passes"]),
                percent(accuracy["mean"], 2),
                percent_interval(accuracy["interval"]),
                NONE if accuracy["std"] is None else f"±{percent(accuracy['std'], 2)}",
                percent(row["gained"]),
                percent(row["lost"]),
                percent(row["churn"]),
            )
        )
    columns = ("averaged", "passes", "accuracy", "95% interval", "std of draws", "gained", "lost", "churn")
    return Table("Accuracy, and how steady the answers are", columns, tuple(rows))


def comparison_table(document: Document) -> Table:
    """Paired differences."""
    rows = []
    for one in document["comparisons"]:
        accuracy, nll = one["accuracy"], one["scaled_nll"]
        ends = None if nll is None else nll["interval"]
        rows.append(
            (
                f"{of_kind(**one['of'])} − {of_kind(**one['minus'])}",
                points(accuracy["difference"]),
                NONE if accuracy["interval"] is None else points_interval(accuracy["interval"]),
                NONE if nll is None else _signed(nll["difference"]),
                NONE if ends is None else f"{_signed(ends[0])} to {_signed(ends[1])}",
            )
        )
    columns = ("difference", "accuracy, points", "95% interval", "scaled NLL", "95% interval of it")
    return Table("Differences, paired over images", columns, tuple(rows))


def probability_table(document: Document) -> Table:
    """Likelihood and calibration, before and after temperature scaling, under both ways to average."""
    rows = [cells for row in document["rows"] for cells in _probability_rows(row)]
    columns = (
        "averaged", "mean of", "NLL", "Brier", "ECE", "equal-mass ECE", "ECE by chance",
        "temperature", "scaled NLL", "scaled Brier", "scaled ECE",
    )  # fmt: skip
    return Table("Probabilities, before and after temperature scaling", columns, tuple(rows), names=2)


def _probability_rows(row: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for averaged in ("logits", "probabilities"):
        scores = row.get(f"mean_of_{averaged}")
        if scores is None:
            continue
        scaled = scores["scaled"]
        after = (NONE,) * 4
        if scaled is not None:
            after = (
                number(scaled["temperature"], 2),
                number(scaled["nll"]["mean"], 4),
                number(scaled["brier"]["mean"], 4),
                percent(scaled["ece"]["mean"]),
            )
        yield (
            of_kind(row["kind"], row["size"]),
            averaged if row["size"] > 1 else NONE,
            number(scores["nll"]["mean"], 4),
            number(scores["brier"]["mean"], 4),
            percent(scores["ece"]["mean"]),
            percent(scores["ece_equal_mass"]["mean"]),
            percent(scores["ece"]["by_chance"]),
            *after,
        )


def shift_table(document: Document) -> Table | None:
    """Table 1; None where it was left out."""
    if document["equivariance"] is None:
        return None
    rows = [
        (
            {"dataset": "pictures", "noise": "noise"}[name],
            f"±{row['max_shift']} px",
            number(row["cosine_mean"]),
            f"{number(row['ci95'][0])} to {number(row['ci95'][1])}",
            percent(row["consistency"]),
        )
        for name, table in document["equivariance"].items()
        for row in table["rows"]
    ]
    columns = ("input", "largest shift", "cosine", "95% interval", "same label")
    return Table("Shift-equivariance of the last map (Table 1)", columns, tuple(rows), names=2)


def cost_table(document: Document) -> Table:
    """What each size costs."""
    rows = [
        (
            of_kind(cost["kind"], cost["size"]),
            str(row_of(document, cost["kind"], cost["size"])["passes"]),
            duration(cost["seconds_an_image"]),
            number(cost["images_a_second"], 1),
        )
        for cost in document["cost"]["rows"]
    ]
    return Table("Cost of an image", ("averaged", "passes", "time", "images a second"), tuple(rows))


def class_table(document: Document) -> Table:
    """Accuracy of each class, in the draw that is shown."""
    rows = [
        (
            row["label"],
            f"{row['images']:,}",
            percent(row["accuracy"]),
            percent_interval(row["interval"]),
            percent(row["precision"]),
        )
        for row in document["shown"]["per_class"]
    ]
    return Table("Classes", ("class", "images", "accuracy", "95% interval", "precision"), tuple(rows))


def confusion_table(document: Document) -> Table:
    """The most frequent confusions."""
    rows = [(row["label"], row["predicted"], f"{row['images']:,}") for row in document["shown"]["most_confused"]]
    return Table("Most frequent confusions", ("label", "taken for", "images"), tuple(rows), names=2)


def error_table(document: Document) -> Table:
    """The most confident errors."""
    rows = [
        (
            f"{row['index']:,}: {row['file']}" if row.get("file") else f"{row['index']:,}",
            row["label"],
            row["predicted"],
            percent(row["probability"], 2),
            percent(row["probability_of_label"], 2),
        )
        for row in document["shown"]["errors"]
    ]
    columns = ("image", "label", "prediction", "its probability", "the label's probability")
    return Table("Most confident errors (images counted from 0)", columns, tuple(rows), names=3)


def facts_table(document: Document) -> Table:
    """What was assessed, where, when."""
    model, dataset, options, origin = (document[key] for key in ("model", "dataset", "options", "provenance"))
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    rows = [
        ("model", f"{model['name']}, a {model['architecture']} of {model['parameters']:,} parameters"),
        ("data set", f"{dataset['name']} ({dataset['split']}), {dataset['n']:,} images"),
        ("classes", f"{len(model['classes'])}, matched by {dataset['classes_matched_by']}"),
        ("SHA-256 of the data", dataset["sha256"]),
        ("seed", str(options["seed"])),
        ("draws", document["method"]["draws"]),
        ("views", document["method"]["views"]),
        ("intervals", document["method"]["intervals"]),
        ("temperature", document["method"]["scaled"]),
        ("calibration error", document["method"]["ece"]),
        ("time", document["method"]["cost"]),
        ("hardware", origin["hardware"]),
        ("versions", versions),
        ("commit", origin["git_commit"] or NONE),
        ("date", f"{origin['date']}, {duration(origin['seconds'])}"),
    ]
    return Table("How it was measured", ("", ""), tuple(row for row in rows if row[0] != "views" or options["views"]))


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")
