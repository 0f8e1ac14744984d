"""The README.md of a checkpoint, made from its config.json and from nothing else, so that the two cannot disagree.

What a checkpoint need not have is left out of its card: a line is there when everything that it tells is there.
"""

from typing import Any

Values = dict[str, Any]


def model_card(config: Values) -> str:
    """A model card in Markdown.

    Args:
        config: all of config.json; the keys that every checkpoint must have, and whatever else there is.
    """
    sections = [_head(config), _measurements(config.get("metrics") or {}), _training(config), _use(config)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _line(template: str, values: Values) -> list[str]:
    """The template with the values filled in, or no line where one of them is missing, null or of another kind."""
    try:
        return [template.format_map(values)]
    except (KeyError, TypeError, ValueError):
        return []


def _head(config: Values) -> str:
    preprocessing = config["preprocessing"]
    content, whole = preprocessing["content_size"], preprocessing["input_size"]
    kind = "grey" if preprocessing["channels"] == 1 else "RGB"
    parameters = "".join(_line(" with {parameters:,} parameters", config))
    lines = [
        f"# {config['name']}",
        "",
        "*This card is written by the program from `config.json`; do not edit it.*",
        "",
        f"A `{config['architecture']['name']}`{parameters} for {kind} pictures of "
        f"{content[0]} x {content[1]} px, centred on black in {whole[0]} x {whole[1]}.",
        "",
        f"Classes: {', '.join(config['labels'])}.",
    ]
    return "\n".join(lines)


def _measurements(metrics: Values) -> str:
    if not metrics:
        return "## Measurements\n\nNone yet."
    lines = [
        "## Measurements",
        "",
        *_line("{n:,} images of {dataset} ({split}).", metrics),
        *_line("{method}", metrics),
        "",
        "| | accuracy | negative log-likelihood |",
        "| --- | --- | --- |",
    ]
    if "ensembles" not in metrics:
        lines += _line("| one pass | {accuracy:.2%} | {nll:.4f} |", metrics)
    for row in metrics.get("ensembles") or []:
        members = "1 sequence" if row.get("size") == 1 else "{size} sequences"
        template = f"| {members} | {{accuracy_mean:.2%}} ± {{accuracy_std:.2%}} | {{nll_mean:.4f}} ± {{nll_std:.4f}} |"
        lines += _line(template, row)
    for row in metrics.get("views") or []:
        if row.get("size") != 1:
            lines += _line("| {size} views of the picture (mirrored, moved) | {accuracy:.2%} | {nll:.4f} |", row)
    where = "Seed {seed}, {hardware}, torch {versions[torch]}, commit {git_commit}, {date}, {seconds:.0f} s."
    return "\n".join([*lines, "", *_line(where, metrics)]).rstrip()


def _training(config: Values) -> str:
    data, training, scales = (config.get(key) or {} for key in ("data", "training", "scale_distribution"))
    recipe = training.get("config") or {}
    images = "".join(_line(", {train_images:,} images", data))
    seconds = training.get("seconds")
    time = {} if seconds is None else {"minutes": seconds / 60}
    lines = [
        *_line(f"- data: {{dataset}}{images}", data),
        *_line(
            "- recipe `{recipe}`: {epochs_done} of {epochs} epochs, {steps:,} steps of {batch_size} images, "
            "{minutes:.0f} min on {hardware}",
            recipe | training | time,
        ),
        *_line("- seed {seed}, {optimizer}, learning rate {learning_rate}", recipe),
        *_line(f"- scale sequences: std {{std}}, {{method}}, {_pool(scales.get('pool_size'))}", scales),
        *_line("- torch {versions[torch]}, commit {git_commit}, {created}", config),
    ]
    return "\n".join(["## Training", "", *lines]) if lines else ""


def _pool(size: int | None) -> str:
    return f"from a pool of {size}" if size else "a fresh one a batch"


def _use(config: Values) -> str:
    call = "ccnet.ScaleEnsemble(checkpoint.model)(x, size=4, seed=0).logits"
    if config["architecture"]["name"] != "CCNet":
        call = "checkpoint.model(x)"
    return "\n".join(
        (
            "## Use",
            "",
            "```python",
            "import ccnet",
            "",
            'checkpoint = ccnet.load_checkpoint("path/to/this/folder")',
            "x = checkpoint.preprocess(images)  # uint8 [N, H, W, C]",
            f"logits = {call}",
            "```",
        )
    )
