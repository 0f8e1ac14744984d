"""What a model card takes of an assessment: the report of `ccnet.evaluation.evaluate`, made of the same passes."""

from typing import Any

from ccnet.assessment.wording import score


def metrics(document: dict[str, Any]) -> dict[str, Any]:
    """What `ccnet.evaluation.evaluate` would report of the same model, pictures, sizes, draws and seed.

    Args:
        document: of `assess`.
    """
    rows = [row for row in document["rows"] if row["kind"] != "views"]
    views = [_views_row(row) for row in document["rows"] if row["kind"] == "views"]
    alone = rows[0]
    measured: dict[str, Any] = {"accuracy": score(alone, "accuracy")["mean"], "nll": score(alone, "nll")["mean"]}
    if alone["kind"] == "sequences":
        measured |= {
            "draws": document["options"]["draws"],
            "accuracy_std": score(alone, "accuracy")["std"] or 0.0,
            "ensembles": [_ensemble_row(row) for row in rows],
            "sequences": document["sequences"],
        }
    origin = document["provenance"]
    return {
        "dataset": document["dataset"]["name"],
        "split": document["dataset"]["split"],
        "n": document["dataset"]["n"],
        "seed": document["options"]["seed"],
        **measured,
        "method": document["method"]["draws"],
        **({"views": views} if views else {}),
        **{key: origin[key] for key in ("hardware", "versions", "git_commit", "date", "seconds")},
    }


def _ensemble_row(row: dict[str, Any]) -> dict[str, Any]:
    accuracy, nll = score(row, "accuracy"), score(row, "nll")
    return {
        "size": row["size"],
        "accuracy_mean": accuracy["mean"],
        "accuracy_std": accuracy["std"] or 0.0,
        "nll_mean": nll["mean"],
        "nll_std": nll["std"] or 0.0,
        "accuracies": accuracy["values"],
        "nlls": nll["values"],
        "members": row["members"],
    }


def _views_row(row: dict[str, Any]) -> dict[str, Any]:
    means = {name: score(row, name)["mean"] for name in ("accuracy", "nll")}
    return {"size": row["size"], **means, "gained": row["gained"], "lost": row["lost"]}
