"""Timing by turns: the alternatives are called one after the other, round after round, so that all see one machine."""

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

WARM_UP_AFTER_CHECKS = 1  # calls: checking has used the plans three times
TRAINING_WARM_UP = 2  # calls: a training step prepares nothing
WARM_UP = 4  # calls: the first use of a plan keeps nothing, the second keeps it, and the caches fill behind it
LEAST_ROUNDS = 5
BLOCK_S = 0.005  # seconds that a turn lasts at least: shorter calls are repeated within it
MOST_CALLS = 200  # in one turn


def median_and_spread(values: list[float]) -> tuple[float, float]:
    """Median, and half the distance between the quartiles; a single value has no spread."""
    if len(values) == 1:
        return values[0], 0.0
    quartiles = statistics.quantiles(values, n=4)
    return statistics.median(values), (quartiles[2] - quartiles[0]) / 2


@dataclass(frozen=True)
class Times:
    """Seconds a call, one value a round.

    Attributes:
        seconds: in the order of the rounds, which the alternatives of one `take_turns` share.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return median_and_spread(list(self.seconds))[0]

    @property
    def spread(self) -> float:
        """Half the interquartile range, seconds."""
        return median_and_spread(list(self.seconds))[1]

    def scaled(self, factor: float) -> "Times":
        """The same rounds with every time multiplied."""
        return Times(tuple(second * factor for second in self.seconds))

    def ratio(self, other: "Times") -> tuple[float, float]:
        """Median and half the interquartile range of this time over the other's, round by round.

        Both times of a round stand next to each other, so a machine that slows down for a while moves both.
        """
        return median_and_spread([a / b for a, b in zip(self.seconds, other.seconds, strict=True)])


@dataclass(frozen=True)
class Rounds:
    """How long to measure.

    Attributes:
        most: rounds at most; fewer, but at least 5, when `budget_s` is over before.
        budget_s: seconds after which no further round begins.
        warm_up: calls of each alternative before the first round.
    """

    most: int = 25
    budget_s: float = 8.0
    warm_up: int = WARM_UP

    @staticmethod
    def of(quick: bool, warm_up: int = WARM_UP) -> "Rounds":
        """Those of a full run, or a few."""
        return Rounds(LEAST_ROUNDS, 0.5, warm_up) if quick else Rounds(warm_up=warm_up)


def take_turns(
    calls: Mapping[str, Callable[[], object]],
    rounds: Rounds,
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Times]:
    """Time alternatives in turns.

    Args:
        calls: the alternatives by name.
        rounds: how long to measure.
        clock: seconds.

    Returns:
        Seconds a call of each; the n-th values of all were measured next to each other.
    """
    repeats = {name: _warm_up(call, rounds.warm_up, clock) for name, call in calls.items()}
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        begin = clock()
        for done in range(rounds.most):
            if done >= LEAST_ROUNDS and clock() - begin > rounds.budget_s:
                break
            for name, call in calls.items():
                start = clock()
                for _ in range(repeats[name]):
                    call()
                seconds[name].append((clock() - start) / repeats[name])
    finally:
        if collecting:
            gc.enable()
    return {name: Times(tuple(values)) for name, values in seconds.items()}


def _warm_up(call: Callable[[], object], times: int, clock: Callable[[], float]) -> int:
    """Call it until it is warm; how often it fits into a turn, at least once."""
    for _ in range(times):
        start = clock()
        call()
    took = clock() - start
    return max(1, min(MOST_CALLS, math.ceil(BLOCK_S / max(took, 1e-9))))
