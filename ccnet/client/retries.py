"""When to ask again: after 429 and 503, and when the connection failed; never longer than a call may take.

`Retry-After` is honoured in both forms (RFC 9110, 10.2.3). Pauses grow exponentially and hold some chance, so that
clients that were turned away together do not come back together.
"""

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from ccnet.errors import CcnetError

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0
MAX_DIGITS = 9  # of a Retry-After in seconds: thirty years
LONGEST_TIMEOUT_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back, whatever its status.

    Attributes:
        status: HTTP status.
        body: all of it.
        headers: lower-case names.
    """

    status: int
    body: bytes
    headers: dict[str, str]


@dataclass(frozen=True, slots=True)
class Failure:
    """No whole answer came.

    Attributes:
        reason: what happened, in words.
        passing: whether it may go better another time.
    """

    reason: str
    passing: bool = True


Outcome = Reply | Failure


@dataclass(frozen=True, slots=True)
class Patience:
    """How long and how often a call is tried.

    Attributes:
        timeout_s: for all attempts and the pauses between them, in seconds.
        retries: attempts after the first; None tries until time runs out.
        attempt_s: longest time of one attempt, in seconds.
        statuses: after which it is tried again.
        longest_pause_s: between two attempts, but for what Retry-After asks.
    """

    timeout_s: float
    retries: int | None
    attempt_s: float = LONGEST_TIMEOUT_S
    statuses: frozenset[int] = frozenset({429, 503})
    longest_pause_s: float = LONGEST_PAUSE_S

    def __post_init__(self) -> None:
        if not 0 < self.timeout_s <= LONGEST_TIMEOUT_S:
            raise CcnetError(
                f"timeout_s={self.timeout_s!r} was given; allowed is more than 0 and at most "
                f"{LONGEST_TIMEOUT_S:,.0f} seconds"
            )
        if self.retries is not None and (not isinstance(self.retries, int) or self.retries < 0):
            raise CcnetError(f"retries={self.retries!r} was given; allowed is a whole number, 0 or more")


def until_ready(timeout_s: float) -> Patience:
    """For a service that starts: nothing listens at first, then it is unready, or what stands before it says so."""
    return Patience(timeout_s, None, attempt_s=5.0, statuses=frozenset(range(500, 600)) | {429}, longest_pause_s=1.0)


class Attempts:
    """One call: counts its attempts and says how long to pause after each.

    Args:
        patience: How long and how often.
        clock: Seconds that only ever grow.
        chance: A number from 0 to 1, drawn anew at every call.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.made = 0
        self.patience = patience
        self._clock = clock
        self._chance = chance
        self._deadline = clock() + patience.timeout_s

    @property
    def left_s(self) -> float:
        """Time left for the whole call; not above 0 when it has run out."""
        return self._deadline - self._clock()

    @property
    def attempt_s(self) -> float:
        """Time that the next attempt may take; a little even when all has run out, so that it can fail properly."""
        return max(0.001, min(self.left_s, self.patience.attempt_s))

    def pause_after(self, outcome: Outcome) -> float | None:
        """Seconds to wait before the next attempt; None when the outcome stands."""
        self.made += 1
        again = outcome.passing if isinstance(outcome, Failure) else outcome.status in self.patience.statuses
        if not again or (self.patience.retries is not None and self.made > self.patience.retries):
            return None
        asked_s = retry_after_s(outcome.headers) if isinstance(outcome, Reply) else None
        pause_s = (asked_s or 0.0) + self._backoff_s()
        return pause_s if pause_s < self.left_s else None

    def _backoff_s(self) -> float:
        """Doubled with every attempt up to the longest; between half of that and all of it."""
        # Past 30 doublings every bound is reached, and the number would outgrow a float.
        whole_s: float = min(self.patience.longest_pause_s, FIRST_PAUSE_S * 2 ** min(self.made - 1, 30))
        return whole_s * (1 + self._chance()) / 2


def retry_after_s(headers: dict[str, str]) -> float | None:
    """Seconds after which the service wants to be asked again, or None where the header is missing or means nothing.

    A date is compared with that of the answer, where there is one, since the clocks of two machines differ.

    Source: RFC 9110, 10.2.3.
    """
    text = headers.get("retry-after", "").strip()
    if text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS:
        return float(text)
    then = _date(text)
    if then is None:
        return None
    now = _date(headers.get("date", "")) or datetime.now(UTC)
    return max(0.0, (then - now).total_seconds())


def _date(text: str) -> datetime | None:
    """An HTTP date; None for anything else."""
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
