"""The README.md of an upscaler's checkpoint, made from its config.json and from nothing else."""

from typing import Any


def upscaler_card(config: dict[str, Any]) -> str:
    """A model card in Markdown; a section is there when the config has what it tells."""
    sections = [_head(config), _measurements(config.get("metrics")), _training(config)]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(config: dict[str, Any]) -> str:
    return (
        f"# {config['name']}\n\n*This card is written by the program from `config.json`; do not edit it.*\n\n"
        f"A `CCUpscaler` of {config['parameters']:,} parameters: grey pictures enlarged by any factor from 1 to 4, "
        "another along each axis if so desired. Colours are enlarged with it by `ccnet upscale`; see docs/upscaling.md."
    )


def _measurements(metrics: dict[str, Any] | None) -> str:
    if not metrics:
        return "## Measurements\n\nNone yet."
    lines = [
        "## Measurements",
        "",
        f"{metrics['pictures']} pictures ({metrics['source']}). {metrics['method']}",
        "",
        "| factor | seen in training | bicubic, dB | this, dB | difference, dB (95% interval) |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in metrics["rows"]:
        low, high = row["difference_ci95"]
        lines.append(
            f"| {row['factor']} | {'yes' if row['seen'] else 'no'} | {row['bicubic_db']:.2f} | {row['ours_db']:.2f} | "
            f"{row['difference_db']:+.2f} ({low:+.2f} to {high:+.2f}) |"
        )
    return "\n".join(lines)


def _training(config: dict[str, Any]) -> str:
    training, data = config.get("training"), config.get("data")
    if not training or not data:
        return ""
    held_out = training["held_out"]
    recipe = training["config"]
    lines = [
        "## Training",
        "",
        f"- pictures: {data['source']}, {data['training_pictures']:,} for training and "
        f"{data['validation_pictures']:,} held back",
        f"- pairs: {training['degradation']}",
        f"- factors p/q, q up to {recipe['max_denominator']}, without those nearer than {held_out['distance']} to "
        f"{', '.join(held_out['factors'])}",
        f"- {training['steps']:,} steps of {recipe['batch_size']} pairs, L1, Adam, learning rate "
        f"{recipe['learning_rate']}, seed {recipe['seed']}",
        f"- {training['seconds'] / 60:.0f} min on {training['hardware']}",
        f"- torch {config['versions']['torch']}, commit {config['git_commit']}, {config['created']}",
    ]
    return "\n".join(lines)
