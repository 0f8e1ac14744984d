"""The document in a few sentences, and what a reader should know before believing it. Both follow from its numbers."""

from typing import Any

from ccnet.assessment.comparisons import LEAST_COMPARED
from ccnet.assessment.temperature import HIGHEST, LEAST_IMAGES, LOWEST
from ccnet.assessment.wording import duration, of_kind, percent, percent_interval, points, points_interval, score

Document = dict[str, Any]
MANY_IMAGES = 1000  # fewer leave calibration errors and rare differences to chance


def verdict(document: Document) -> list[str]:
    """What the numbers say: accuracy, what more passes buy, calibration, steadiness, cost."""
    parts = (_accuracy, _gains, _calibration, _churn, _shifts, _cost)
    return [sentence for part in parts for sentence in part(document)]


def notes(document: Document) -> list[str]:
    """What limits the numbers."""
    parts = (_few_images, _missing_classes, _ties, _shared_members, _one_view_sequence, _temperature_bounds, _numbered)
    return [sentence for part in parts for sentence in part(document)]


def main_row(document: Document) -> dict[str, Any]:
    """The row of the largest ensemble, or of the plain pass: the one that is shown closely."""
    shown = document["shown"]
    return row_of(document, shown["kind"], shown["size"])


def row_of(document: Document, kind: str, size: int) -> dict[str, Any]:
    """The row of this kind and size."""
    found: dict[str, Any] = next(row for row in document["rows"] if (row["kind"], row["size"]) == (kind, size))
    return found


def _comparison(document: Document, of: str, minus: str) -> dict[str, Any] | None:
    """The comparison at the largest size, of one kind with another or with size 1 of itself."""
    size = document["options"]["sizes"][-1]
    wanted = ({"kind": of, "size": size}, {"kind": minus, "size": 1 if of == minus else size})
    found = [one for one in document["comparisons"] if (one["of"], one["minus"]) == wanted]
    return found[0] if found else None


def _accuracy(document: Document) -> list[str]:
    row = document["rows"][0]
    accuracy = score(row, "accuracy")
    who = "One sequence" if row["kind"] == "sequences" else "The network"
    spread = "" if accuracy["std"] is None else f"; {row['draws']} draws differ by ±{percent(accuracy['std'], 2)}"
    images = _images(document)
    return [
        f"{who} is right on {percent(accuracy['mean'])} of {images} ({percent_interval(accuracy['interval'])}){spread}."
    ]


def _gains(document: Document) -> list[str]:
    size = document["options"]["sizes"][-1]
    ensemble, views = _comparison(document, "sequences", "sequences"), _comparison(document, "views", "views")
    between = _comparison(document, "sequences", "views")
    sentences = []
    if document["dataset"]["n"] < LEAST_COMPARED:
        return []  # a note says so
    if ensemble is not None:
        sentences.append(f"An ensemble of {size} {_change(ensemble)} over one sequence, at {size} times the passes.")
    if views is not None:
        cost = "at the same cost" if ensemble else f"at {size} times the passes"
        sentences.append(f"{size} mirrored and moved views {_change(views)} over the plain picture, {cost}.")
    if between is not None:
        low, high = between["accuracy"]["interval"]
        by = f"({points_interval((low, high))} points)"
        if low > 0:
            sentences.append(f"The ensemble is ahead of the views {by}.")
        elif high < 0:
            sentences.append(f"The views are ahead of the ensemble {by}.")
        else:
            sentences.append(f"These images do not tell ensemble and views apart {by}.")
    return sentences


def _change(comparison: dict[str, Any]) -> str:
    """Such as "gains 0.62 points (+0.31 to +0.93)"."""
    change = comparison["accuracy"]
    low, high = change["interval"]
    verb = "gains" if comparison["of"]["kind"] == "sequences" else "gain"
    if low > 0:
        return f"{verb} {points(change['difference']).lstrip('+')} points ({points_interval((low, high))})"
    if high < 0:
        verb = verb.replace("gain", "lose")  # loses, lose
        return f"{verb} {points(change['difference']).lstrip('−')} points ({points_interval((low, high))})"
    return f"{verb} nothing that these images tell from chance ({points_interval((low, high))} points)"


def _calibration(document: Document) -> list[str]:
    row = main_row(document)
    ece, confidence = score(row, "ece"), score(row, "confidence")["mean"]
    accuracy, scaled = score(row, "accuracy")["mean"], row["mean_of_logits"]["scaled"]
    name = of_kind(row["kind"], row["size"])
    if ece["mean"] <= ece["by_chance_95"]:
        sentence = (
            f"Probabilities of {name} are as honest as so many images can tell: calibration error "
            f"{percent(ece['mean'])}, and up to {percent(ece['by_chance_95'])} would be chance."
        )
        return [sentence]
    sentence = (
        f"Probabilities of {name} are {_tendency(confidence - accuracy, ece['mean'])}: {percent(confidence)} on "
        f"average where {percent(accuracy)} are right; calibration error {percent(ece['mean'])}, where chance alone "
        f"would give {percent(ece['by_chance'])}."
    )
    if scaled is None:
        return [sentence]
    after, divided = scaled["ece"]["mean"], f"logits divided by {scaled['temperature']:.2f}"
    if after < ece["mean"]:
        return [f"{sentence} With {divided} it is {percent(after)}."]
    return [f"{sentence} A temperature does not mend that: with {divided} it is {percent(after)}."]


def _tendency(gap: float, error: float) -> str:
    """A direction where the mean gap of confidence over accuracy makes up most of the error; else there is none."""
    if abs(gap) <= error / 2:
        return "too high on some images and too low on others"
    return "over-confident" if gap > 0 else "under-confident"


def _churn(document: Document) -> list[str]:
    rows = [row for row in document["rows"] if row["kind"] == "sequences" and row["churn"] is not None]
    if not rows:
        return []
    said = [f"two of {of_kind(row['kind'], row['size'])} on {percent(row['churn'])}" for row in rows[1:][-1:]]
    first = f"Two draws of 1 sequence disagree on {percent(rows[0]['churn'])} of the images"
    return [", ".join([first, *said]) + "."]


def _shifts(document: Document) -> list[str]:
    if document["equivariance"] is None:
        return []
    row = document["equivariance"]["dataset"]["rows"][-1]
    low, high = row["ci95"]
    return [
        f"Moved by up to {row['max_shift']} px, pictures keep their label in {percent(row['consistency'])} of the "
        f"cases and their maps a cosine of {row['cosine_mean']:.3f} ({low:.3f} to {high:.3f})."
    ]


def _cost(document: Document) -> list[str]:
    row = document["shown"]
    cost = next(one for one in document["cost"]["rows"] if (one["kind"], one["size"]) == (row["kind"], row["size"]))
    each = duration(document["cost"]["seconds_a_pass"])
    name = of_kind(row["kind"], row["size"])
    took = f"{name[0].upper()}{name[1:]} took {duration(cost['seconds_an_image'])} an image"
    return [f"{took}, {each} a pass, on {document['provenance']['hardware']}."]


def _images(document: Document) -> str:
    n = document["dataset"]["n"]
    return f"{n:,} image" if n == 1 else f"{n:,} images"


def _few_images(document: Document) -> list[str]:
    found = []
    if document["dataset"]["n"] < MANY_IMAGES:
        found.append(
            f"Only {_images(document)}: intervals are wide, and calibration errors are biased upward by chance."
        )
    if document["dataset"]["n"] < LEAST_IMAGES:
        found.append(f"Nothing was scaled by a temperature: that takes {LEAST_IMAGES} images.")
    if document["dataset"]["n"] < LEAST_COMPARED and document["comparisons"]:
        found.append(f"Nothing is said of differences: {LEAST_COMPARED} images are the fewest that can tell one.")
    return found


def _missing_classes(document: Document) -> list[str]:
    counts = document["dataset"]["classes"]
    missing = [name for name, count in counts.items() if count == 0]
    if not missing:
        return []
    shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
    return [f"No image of {len(missing)} of {len(counts)} classes: {shown}."]


def _ties(document: Document) -> list[str]:
    ties = document["shown"]["ties"]
    return [f"On {ties:,} of the images several classes have the largest logit; the first counts."] if ties else []


def _shared_members(document: Document) -> list[str]:
    pool = len(document["sequences"])
    crowded = [row["size"] for row in document["rows"] if row["kind"] == "sequences" and 1 < row["size"] > pool / 2]
    if not crowded:
        return []
    return [
        f"Ensembles of {', '.join(map(str, crowded))} are drawn from a pool of {pool} sequences and share most of "
        "their members: their std and churn understate what independent draws would show. A pool of twice the largest "
        "size mends it."
    ]


def _one_view_sequence(document: Document) -> list[str]:
    if not document["sequences"] or not document["options"]["views"]:
        return []
    plain = score(row_of(document, "views", 1), "accuracy")["mean"]
    mean = score(document["rows"][0], "accuracy")["mean"]
    return [
        f"Views are seen under one sequence, the pool's first: alone {percent(plain, 2)}, where sequences have "
        f"{percent(mean, 2)} on average."
    ]


def _temperature_bounds(document: Document) -> list[str]:
    scaled = main_row(document)["mean_of_logits"]["scaled"]
    if scaled is None or all(LOWEST < one < HIGHEST for one in scaled["temperatures"]):
        return []
    return [f"A temperature reached its bound ({LOWEST:g} to {HIGHEST:g}): a half of the images fits no finite one."]


def _numbered(document: Document) -> list[str]:
    if document["dataset"]["classes_matched_by"] == "name":
        return []
    return ["Classes of the data set are numbers and were taken for those of the network, counted from 0."]
