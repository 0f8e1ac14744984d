"""How long passes take, as far as it is known, and when a job would be done that came now: what admission goes by."""

import math
from dataclasses import dataclass

AT_WORST = 2.5  # times the mean that one may have to wait: with less, some of those just in time would be late
TELLING = 64  # passes from which a batch tells how fast full ones are; one of a few costs more
MAX_RETRY_AFTER_S = 60


@dataclass(frozen=True, slots=True)
class Running:
    """The batch that runs: its passes, and how long it has been running, in seconds."""

    passes: int
    seconds: float


class Pace:
    """The mean time of a pass in full batches.

    Attributes:
        seconds_per_pass: A moving average; 0 until a batch told.
    """

    def __init__(self) -> None:
        self.seconds_per_pass = 0.0

    def learn(self, passes: int, run_s: float, budget: int) -> None:
        """A batch of so many passes ran, of a budget of so many."""
        if self._tells(passes, budget):
            known, told = self.seconds_per_pass, run_s / passes
            self.seconds_per_pass = 0.8 * known + 0.2 * told if known else told

    def expected_s(self, before: int, needed: int, running: Running | None, budget: int) -> float:
        """Until a job of `needed` passes is done that has `before` in front of it.

        Waiting is reckoned as long as it is at worst: what is left of the batch that runs, and all before the job. It
        grows less all the while and does not drop when a batch ends, so that those who come are admitted one by one
        and not in bursts. A batch that is slow tells so before it ends: it may be as much later again.
        """
        pace, left_s = self.seconds_per_pass, 0.0
        if running is not None:
            left_s = running.passes * pace - running.seconds
            if left_s < 0 and pace and self._tells(running.passes, budget):
                pace, left_s = running.seconds / running.passes, -left_s
            left_s = max(0.0, left_s)
        return (left_s + before * pace) * AT_WORST + needed * pace

    def retry_after_s(self, passes: int) -> int:
        """Whole seconds after which so many passes will probably have run."""
        return min(MAX_RETRY_AFTER_S, max(1, math.ceil(passes * self.seconds_per_pass)))

    @staticmethod
    def _tells(passes: int, budget: int) -> bool:
        """Whether a batch of so many passes says how fast full ones are."""
        return passes >= min(TELLING, budget)
