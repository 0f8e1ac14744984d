"""Every number of a training run of the upscaler, and the learning rate at every step."""

import math
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from ccnet.errors import CcnetError

# Factors that a published comparison measures and that training never sees, nor any nearer than HELD_OUT_DISTANCE.
HELD_OUT = (Fraction(137, 100), Fraction(8, 5), Fraction(237, 100), Fraction(33, 10))
HELD_OUT_DISTANCE = Fraction(1, 20)
FREE_TO_CHANGE = frozenset(
    {"threads", "save_every_s"}
)  # weights agree to rounding with other threads, exactly with the same


@dataclass(frozen=True)
class UpscalerTraining:
    """One training run. Two runs with equal numbers and pictures on the same machine give equal weights.

    Attributes:
        source: a folder of pictures, or the name of a data set.
        steps: of the optimiser.
        batch_size: pairs a step, all of one factor.
        low_size: px of the small picture of a pair along each axis, about.
        max_denominator: factors are p/q with q up to this.
        max_side: px; larger pictures are reduced to it first, which takes noise and traces of JPEG away.
        learning_rate: the highest; it rises over `warmup_steps` and falls as a cosine.
        warmup_steps: steps in which it rises.
        ema_decay: of the average of the weights, which is what is saved; it warms up as (1 + t) / (10 + t).
        gradient_clip: largest norm of the gradient.
        width, depth, kernel_size, kernel_input: of `CCUpscaler`.
        validate_every: steps between two measurements on the pictures that are held back.
        seed: of weights, pictures, places and factors.
        threads: CPU threads of torch, None leaves them as they are.
        save_every_s: seconds between two saved states.
    """

    source: str
    steps: int = 2400
    batch_size: int = 8
    low_size: int = 32
    max_denominator: int = 12
    max_side: int = 1024
    learning_rate: float = 1e-3
    warmup_steps: int = 50
    ema_decay: float = 0.99
    gradient_clip: float = 0.5
    width: int = 24
    depth: int = 4
    kernel_size: int = 4
    kernel_input: str = "offset"
    validate_every: int = 200
    seed: int = 0
    threads: int | None = None
    save_every_s: float = 60.0

    def __post_init__(self) -> None:
        whole = ("steps", "batch_size", "low_size", "max_denominator", "max_side", "warmup_steps", "validate_every")
        for name in whole:
            if getattr(self, name) < 1:
                raise CcnetError(f"{name} {getattr(self, name)}; at least 1 is needed")
        if not 0 < self.learning_rate < math.inf or not self.gradient_clip > 0 or not 0 <= self.ema_decay < 1:
            raise CcnetError(
                f"learning_rate {self.learning_rate} and gradient_clip {self.gradient_clip} must be above 0, "
                f"ema_decay {self.ema_decay} from 0 to below 1"
            )
        if self.kernel_input not in ("offset", "distance"):
            raise CcnetError(f"kernel_input {self.kernel_input!r}; allowed are 'offset' and 'distance'")
        if self.seed < 0:
            raise CcnetError(f"seed {self.seed}; at least 0 is needed")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values of every attribute."""
        return asdict(self)

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of step `step`, counted from 0."""
        if step < self.warmup_steps:
            return self.learning_rate * (step + 1) / self.warmup_steps
        done = (step - self.warmup_steps + 1) / max(1, self.steps - self.warmup_steps + 1)
        return self.learning_rate * (1 + math.cos(math.pi * done)) / 2


def training_factors(max_denominator: int, largest: int = 4) -> tuple[Fraction, ...]:
    """Every factor p/q from 1 to `largest` with q up to `max_denominator`, in order, but for those held out.

    Factor 1 is not among them: there the network gives its input by construction, and nothing is to be learned.
    """
    every = {Fraction(p, q) for q in range(1, max_denominator + 1) for p in range(q + 1, largest * q + 1)}
    return tuple(sorted(s for s in every if all(abs(s - out) >= HELD_OUT_DISTANCE for out in HELD_OUT)))
