"""Training recipes: every number that decides what a run produces, and the learning rate at every step.

There are two presets.

    fast    AdamW, one cycle (linear warm-up over 15% of the steps, cosine to zero), label smoothing, averaged weights,
            initial maps of variance 1, crops of 2 px, flips that alternate from epoch to epoch. The default.
    paper   A.2: Adam with weight decay 5e-4 in the gradient, batches of 64, crops of 4 px, random flips, 400 epochs;
            CCNet at 5e-4 divided by 10 at epochs 200 and 300, ConvNet at 1e-3 divided by 10 at 150 and 250.
"""

import math
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from ccnet.errors import CcnetError

_CHOICES = {
    "arch": ("ccnet", "convnet", "blurconvnet"),
    "recipe": ("fast", "paper"),
    "optimizer": ("adamw", "adam"),
    "schedule": ("one-cycle", "steps"),
    "flip": ("alternating", "random", "none"),
    "sequence_method": ("corrected", "conditioned"),
    "kernel_input": ("distance", "offset"),
    "init": ("default", "unit-variance"),
}


@dataclass(frozen=True)
class TrainingConfig:
    """One training run. Two runs with equal configs on the same machine give equal weights.

    Attributes:
        arch: "ccnet", "convnet" or "blurconvnet".
        dataset: name for `load_dataset`.
        data_dir: folder of the data, None for the standard place.
        recipe: the preset that the other values started from.
        epochs: passes over the training images; each leaves out the remainder that fills no batch.
        batch_size: images a step.
        optimizer: "adamw" (decoupled weight decay) or "adam" (decay added to the gradient, as A.2).
        learning_rate: the highest, per step.
        schedule: "one-cycle" or "steps" (divided by 10 at each milestone).
        warmup_share: share of all steps in which the rate rises linearly (one-cycle).
        milestones: epochs at which the rate is divided by 10 (steps).
        weight_decay: of every parameter.
        label_smoothing: share of the target that is spread over all classes, [0, 1).
        gradient_clip: largest norm of the whole gradient, 0 for no limit.
        ema_decay: of the average of the weights, which is what is evaluated and saved; it warms up as
            (1 + t) / (10 + t). 0 for none.
        crop_padding: px of black on every side from which a crop of the input size is cut.
        flip: "alternating" (a random half, the other half next epoch), "random" or "none".
        sequence_std: standard deviation of the scale sampler (A.2 prints 0.01; its own Table 4 fits 0.05).
        sequence_method: of the scale sampler, "corrected" (A.2) or "conditioned" (no corrected layer).
        sequence_max_numerator: largest numerator of a scale, "conditioned" alone; None for no limit.
        pool_size: 0 draws a fresh scale sequence for every batch, n draws from n fixed ones.
        kernel_input: input of the Internal-Nets, "offset" (as the paper's CCNet) or "distance".
        init: initial weights as the layers have them ("default"), or scaled so that every map has variance 1
            ("unit-variance", `ccnet.initialisation`).
        seed: of initial weights, order, crops, flips and sequences.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        threads: CPU threads of torch, None leaves them as they are.
        backend: of the CC layers.
        save_every_s: seconds between two saved states, besides one at the end of every epoch.
        epoch_test_images: test images on which the averaged weights are measured after every epoch.
    """

    arch: str = "ccnet"
    dataset: str = "fashion-mnist"
    data_dir: str | None = None
    recipe: str = "fast"
    epochs: int = 8
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "one-cycle"
    warmup_share: float = 0.15
    milestones: tuple[int, ...] = ()
    weight_decay: float = 5e-3
    label_smoothing: float = 0.05
    gradient_clip: float = 1.0
    ema_decay: float = 0.999
    crop_padding: int = 2
    flip: str = "alternating"
    sequence_std: float = 0.05
    sequence_method: str = "corrected"
    sequence_max_numerator: int | None = None
    pool_size: int = 0
    kernel_input: str = "offset"
    init: str = "unit-variance"
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    backend: str = "auto"
    save_every_s: float = 120.0
    epoch_test_images: int = 2000

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise CcnetError(f"{name} {getattr(self, name)!r}; allowed are {', '.join(allowed)}")
        least = {"epochs": 1, "batch_size": 1, "crop_padding": 0, "pool_size": 0, "epoch_test_images": 1, "seed": 0}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                raise CcnetError(f"{name} {getattr(self, name)}; at least {lowest} is needed")
        numerator = self.sequence_max_numerator
        if numerator is not None and (numerator < 1 or self.sequence_method != "conditioned"):
            raise CcnetError(
                f"sequence_max_numerator {numerator} with sequence_method {self.sequence_method!r}; allowed are "
                "numbers from 1, with 'conditioned'"
            )
        shares = {"label_smoothing": 1, "ema_decay": 1, "warmup_share": 1, "weight_decay": math.inf}
        for name, limit in shares.items():
            if not 0 <= getattr(self, name) < limit:
                raise CcnetError(f"{name} {getattr(self, name)}; allowed are values from 0 to below {limit}")
        if not 0 < self.learning_rate < math.inf or not 0 <= self.gradient_clip < math.inf:
            raise CcnetError(
                f"learning_rate {self.learning_rate} must be above 0, gradient_clip {self.gradient_clip} 0 or more"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values of every attribute."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainingConfig":
        """The inverse of `to_dict`."""
        return cls(**{**values, "milestones": tuple(values.get("milestones", ()))})


# What decides the weights is compared when a run is resumed; this does not decide them, or only by rounding.
FREE_TO_CHANGE = frozenset({"data_dir", "device", "threads", "backend", "save_every_s"})


def recipe(name: str = "fast", arch: str = "ccnet", **changes: Any) -> TrainingConfig:
    """The config of a preset.

    Args:
        name: "fast" or "paper".
        arch: "ccnet", "convnet" or "blurconvnet".
        changes: values of `TrainingConfig` that differ from the preset; None keeps the preset's.

    Raises:
        CcnetError: an unknown preset, or a value out of range.
    """
    config = TrainingConfig(arch=arch, recipe=name)
    if name == "paper":
        config = replace(
            config,
            epochs=400,
            optimizer="adam",
            learning_rate=5e-4 if arch == "ccnet" else 1e-3,
            schedule="steps",
            milestones=(200, 300) if arch == "ccnet" else (150, 250),
            weight_decay=5e-4,
            label_smoothing=0.0,
            gradient_clip=0.0,
            ema_decay=0.0,
            crop_padding=4,
            flip="random",
            init="default",
        )
    known = {field.name for field in fields(TrainingConfig)}
    if not changes.keys() <= known:
        raise CcnetError(f"unknown training option(s) {sorted(changes.keys() - known)}; known are {sorted(known)}")
    return replace(config, **{key: value for key, value in changes.items() if value is not None})


def learning_rate_at(config: TrainingConfig, step: int, steps_per_epoch: int) -> float:
    """The learning rate of step `step`, counted from 0."""
    if config.schedule == "steps":
        passed = sum(step >= milestone * steps_per_epoch for milestone in config.milestones)
        return config.learning_rate * 0.1**passed
    total = config.epochs * steps_per_epoch
    warmup = max(1, round(config.warmup_share * total))
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    # The last step is still above zero: a step at rate zero would be wasted.
    return config.learning_rate * (1 + math.cos(math.pi * (step - warmup + 1) / (total - warmup + 1))) / 2
