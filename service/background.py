"""Work behind the live traffic: turns on the inference thread that are taken only while no request waits.

A caller that computes for long, such as an evaluation, cuts its passes into *turns* of a few passes each and waits for
them one by one. So a request that comes meanwhile waits for one turn at most, and goes before the next. Nothing keeps a
caller from starving while requests never cease: that is what being behind them means.

Knows neither HTTP nor tensors; what runs the turns is `service.batcher`.
"""

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

Result = TypeVar("Result")


class CalledOff(Exception):
    """The work is not wanted any more, or its thread is gone; the message says why."""


@dataclass(frozen=True, eq=False, slots=True)
class Turn(Generic[Result]):
    """What is run in one go.

    Attributes:
        passes: Its cost, at least 1.
        work: What to do.
        future: Of its result.
    """

    passes: int
    work: Callable[[], Result]
    future: "Future[Result]" = field(default_factory=Future)

    def run(self) -> None:
        """Do the work; an error in it is its caller's, but for one that ends the thread."""
        try:
            result = self.work()
        except Exception as error:
            self.future.set_exception(error)
        except BaseException as error:
            self.future.set_exception(CalledOff(f"the inference thread ended: {type(error).__name__}"))
            raise
        else:
            self.future.set_result(result)


class Background:
    """Turns that wait, first come, first served. May be used from any thread.

    Args:
        wake: Called after a turn was added; sees to it that it is taken some time.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._lock = threading.Lock()
        self._turns: deque[Turn[Any]] = deque()
        self._ended: CalledOff | None = None

    @property
    def waits(self) -> bool:
        """Whether any turn does."""
        return bool(self._turns)

    def add(self, turn: Turn[Any]) -> None:
        """Let it wait.

        Raises:
            CalledOff: Nothing is run any more.
        """
        with self._lock:
            if self._ended is not None:
                raise self._ended
            self._turns.append(turn)
        self._wake()

    def take(self) -> Turn[Any] | None:
        """The next turn that is still wanted; None when none waits."""
        with self._lock:
            while self._turns:
                turn = self._turns.popleft()
                if turn.future.set_running_or_notify_cancel():
                    return turn
        return None

    def end(self, why: str) -> None:
        """Run nothing more: whoever waits, or comes later, is told so. The turn that runs is let finish."""
        with self._lock:
            if self._ended is None:
                self._ended = CalledOff(why)
            while self._turns:
                turn = self._turns.popleft()
                if turn.future.set_running_or_notify_cancel():
                    turn.future.set_exception(self._ended)


class Errand:
    """One caller's turns, one after the other, until they are done or somebody calls them off.

    Args:
        background: Where they wait.
    """

    def __init__(self, background: Background) -> None:
        self._background = background
        self._lock = threading.Lock()
        self._present: Future[Any] | None = None
        self._why: str | None = None

    def run(self, passes: int, work: Callable[[], Result]) -> Result:
        """Wait for a turn on the inference thread and for its result. Blocks; not for the event loop.

        Args:
            passes: Its cost.
            work: What to do there.

        Raises:
            CalledOff: It was called off, before or while it waited.
            Exception: Whatever `work` raises.
        """
        turn = Turn(passes, work)
        with self._lock:
            self.go_on()
            self._present = turn.future
        self._background.add(turn)
        try:
            return turn.future.result()
        except CancelledError:
            raise CalledOff(self._why or "") from None

    @property
    def is_called_off(self) -> bool:
        """Whether somebody did."""
        return self._why is not None

    def go_on(self) -> None:
        """Return while the errand is wanted.

        Raises:
            CalledOff: It is not.
        """
        if self._why is not None:
            raise CalledOff(self._why)

    def call_off(self, why: str) -> None:
        """Let it end: what waits is not run any more, what runs is let finish. From any thread, any number of times."""
        with self._lock:
            self._why = self._why or why
            if self._present is not None:
                self._present.cancel()
