"""The README.md of a checkpoint, made from its config.json and from nothing else, so that the two cannot disagree."""

from typing import Any


def model_card(config: dict[str, Any]) -> str:
    """A model card in Markdown.

    Args:
        config: all of config.json; parts that a checkpoint need not have are left out of the card.
    """
    sections = [
        _head(config),
        _measurements(config.get("metrics")),
        _training(config),
        _use(config),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(config: dict[str, Any]) -> str:
    preprocessing = config["preprocessing"]
    content, whole = preprocessing["content_size"], preprocessing["input_size"]
    kind = "grey" if preprocessing["channels"] == 1 else "RGB"
    lines = [
        f"# {config['name']}",
        "",
        "*This card is written by the program from `config.json`; do not edit it.*",
        "",
        f"A `{config['architecture']['name']}` with {config['parameters']:,} parameters for {kind} pictures of "
        f"{content[0]} x {content[1]} px, centred on black in {whole[0]} x {whole[1]}.",
        "",
        f"Classes: {', '.join(config['labels'])}.",
    ]
    return "\n".join(lines)


def _measurements(metrics: dict[str, Any] | None) -> str:
    if not metrics:
        return "## Measurements\n\nNone yet."
    lines = [
        "## Measurements",
        "",
        f"{metrics['n']:,} images of {metrics['dataset']} ({metrics['split']}). {metrics['method']}",
        "",
        "| | accuracy | negative log-likelihood |",
        "| --- | --- | --- |",
    ]
    if "ensembles" not in metrics:
        lines.append(f"| one pass | {metrics['accuracy']:.2%} | {metrics['nll']:.4f} |")
    for row in metrics.get("ensembles", []):
        members = "1 sequence" if row["size"] == 1 else f"{row['size']} sequences"
        lines.append(
            f"| {members} | {row['accuracy_mean']:.2%} ± {row['accuracy_std']:.2%} "
            f"| {row['nll_mean']:.4f} ± {row['nll_std']:.4f} |"
        )
    lines += [
        "",
        f"Seed {metrics['seed']}, {metrics['hardware']}, torch {metrics['versions']['torch']}, "
        f"commit {metrics['git_commit']}, {metrics['date']}, {metrics['seconds']:.0f} s.",
    ]
    return "\n".join(lines)


def _training(config: dict[str, Any]) -> str:
    lines = ["## Training", ""]
    if data := config.get("data"):
        lines.append(f"- data: {data['dataset']}, {data['train_images']:,} images")
    if training := config.get("training"):
        recipe = training["config"]
        lines.append(
            f"- recipe `{recipe['recipe']}`: {training['epochs_done']} of {recipe['epochs']} epochs, "
            f"{training['steps']:,} steps of {recipe['batch_size']} images, "
            f"{training['seconds'] / 60:.0f} min on {training['hardware']}"
        )
        lines.append(f"- seed {recipe['seed']}, {recipe['optimizer']}, learning rate {recipe['learning_rate']}")
    if scales := config.get("scale_distribution"):
        pool = "a fresh one a batch" if not scales["pool_size"] else f"from a pool of {scales['pool_size']}"
        lines.append(f"- scale sequences: std {scales['std']}, {scales['method']}, {pool}")
    lines.append(f"- torch {config['versions']['torch']}, commit {config['git_commit']}, {config['created']}")
    return "\n".join(lines)


def _use(config: dict[str, Any]) -> str:
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
