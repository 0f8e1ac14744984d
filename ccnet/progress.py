"""Progress of anything longer than two seconds: a bar on a terminal, a line now and then in a log file."""

import sys
import time
from collections import deque
from types import TracebackType
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

_RATE_WINDOW = 200  # steps over which the rate is taken


class ProgressReport:
    """Counts work done and shows it, with the rate and the time left. Use it as a context manager.

    Args:
        title: what is being done.
        total: how much there is to do, in `unit`s.
        done: how much was done before this process, in `unit`s.
        unit: what is counted.
        enabled: False shows nothing.
        every_s: seconds between two lines where the stream is no terminal.
        stream: where to write; None is stdout.
    """

    def __init__(
        self,
        title: str,
        total: int,
        *,
        done: int = 0,
        unit: str = "images",
        enabled: bool = True,
        every_s: float = 30.0,
        stream: TextIO | None = None,
    ) -> None:
        self._title, self._total, self._done, self._unit = title, total, done, unit
        self._enabled, self._every_s = enabled, every_s
        self._stream = stream or sys.stdout
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)], maxlen=_RATE_WINDOW)
        self._last_line = time.monotonic()
        self._bar: Progress | None = None

    def __enter__(self) -> "ProgressReport":
        if self._enabled and self._stream.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TextColumn("{task.percentage:>5.1f}%"),
                TimeElapsedColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(file=self._stream),
                refresh_per_second=2,
            )
            self._task = self._bar.add_task(self._title, total=self._total, completed=self._done, note="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units a second over the last steps."""
        (start, first), (end, last) = self._marks[0], self._marks[-1]
        return (last - first) / (end - start) if end > start else 0.0

    def advance(self, amount: int, note: str = "") -> None:
        """Count `amount` more units done; `note` says how it goes, for example the loss."""
        self._done += amount
        self._marks.append((time.monotonic(), self._done))
        if self._bar is not None:
            self._bar.update(self._task, completed=self._done, note=f"{note}  {self._pace()}")
        elif time.monotonic() - self._last_line >= self._every_s:
            share = 100 * self._done / max(1, self._total)
            self.line(f"{self._title}: {self._done:,} of {self._total:,} ({share:.1f}%)  {note}  {self._pace()}")

    def line(self, text: str) -> None:
        """Write a line of its own, above the bar where there is one."""
        if not self._enabled:
            return
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            print(text, file=self._stream, flush=True)
        self._last_line = time.monotonic()

    def _pace(self) -> str:
        if self.rate <= 0:
            return ""
        left = int((self._total - self._done) / self.rate)
        return f"{self.rate:,.0f} {self._unit}/s  {left // 3600}:{left // 60 % 60:02}:{left % 60:02} left"
