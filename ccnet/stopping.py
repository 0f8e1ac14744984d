"""Stopping a long run politely, and running it with a given number of threads."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from ccnet.errors import CcnetError


class StopRequest:
    """A context in which the first SIGINT or SIGTERM is a request to stop; a second one acts as usual.

    Attributes:
        requested: whether a signal has come.
    """

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        if threading.current_thread() is threading.main_thread():  # Python lets no other thread set handlers
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        self._put_back()

    def _handle(self, *_: object) -> None:
        self.requested = True
        self._put_back()

    def _put_back(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """Make SIGTERM what SIGINT is, a KeyboardInterrupt: for work that may be left at any moment."""
    if threading.current_thread() is not threading.main_thread():  # Python lets no other thread set handlers
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def torch_threads(count: int | None) -> Iterator[None]:
    """Run with `count` CPU threads of torch (None: as many as now), and put the old number back.

    Raises:
        CcnetError: a count below 1.
    """
    before = torch.get_num_threads()
    if count is not None:
        if count < 1:
            raise CcnetError(f"threads {count}; at least 1 is needed")
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
