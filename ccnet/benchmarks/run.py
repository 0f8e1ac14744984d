"""Runs benchmarks, each in a process of its own: allocators, thread pools and caches of one do not touch the next."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

import torch

from ccnet.benchmarks import compare
from ccnet.benchmarks.catalogue import Benchmark, find
from ccnet.benchmarks.checks import WrongResult
from ccnet.benchmarks.report import Result, Row, Settings, document, for_people, json_line
from ccnet.errors import CcnetError

MOST_THREADS = 2  # unless told otherwise: what the published figures were measured with
EVERY_S = 30.0  # between two lines of progress where stderr is no terminal


@dataclass(frozen=True)
class Options:
    """What the command line says.

    Attributes:
        settings: of every benchmark.
        save, compare: whether to keep results, and to show what changed since the kept ones.
        folder: of kept results, as text.
        json_only: no table.
    """

    settings: Settings
    save: bool = False
    compare: bool = False
    folder: str = "benchmarks/results"
    json_only: bool = False

    def to_json(self) -> str:
        """For the process of one benchmark."""
        return json.dumps(asdict(self))

    @staticmethod
    def from_json(text: str) -> "Options":
        """The inverse of `to_json`."""
        values = json.loads(text)
        return Options(**{**values, "settings": Settings(**values["settings"])})


def default_threads() -> int:
    """Two, or one where this process may use one core only."""
    return min(MOST_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def run_all(names: list[str], options: Options) -> int:
    """Run benchmarks one after the other, whatever becomes of the ones before.

    Args:
        names: of the catalogue; none means all.
        options: of the run.

    Returns:
        0 when all of them ran and computed what they should, else 1.

    Raises:
        CcnetError: an unknown name, or options that contradict each other.
    """
    benchmarks = find(names)
    if options.save and options.settings.quick:
        raise CcnetError("a quick run is not kept: its figures mean little; leave out --quick or --save")
    failed = []
    with _terminated_with_children():
        for benchmark in benchmarks:
            if not options.json_only:
                sys.stdout.write(f"== {benchmark.name}: {benchmark.about}\n")
                sys.stdout.flush()
            command = [sys.executable, "-m", "ccnet.benchmarks", benchmark.name, options.to_json()]
            if subprocess.run(command, check=False).returncode:
                failed.append(benchmark.name)
    if failed and len(benchmarks) > 1:
        sys.stderr.write(f"failed: {', '.join(failed)}\n")
    return 1 if failed else 0


@contextmanager
def _terminated_with_children() -> Iterator[None]:
    """Make SIGTERM an exception, at which `subprocess.run` ends its child; by default the child would go on."""

    def leave(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_one(benchmark: Benchmark, options: Options, out: TextIO, log: TextIO) -> int:
    """Run a benchmark in this process.

    Args:
        benchmark: which.
        options: of the run.
        out: where the tables and, last, the JSON line go.
        log: where progress and problems go.

    Returns:
        0, or 1 when its outputs are wrong; then no figures are shown.
    """
    torch.set_num_threads(options.settings.threads)
    torch.manual_seed(options.settings.seed)
    status = Status(log)
    result = Result(tell=status)
    try:
        benchmark.measure()(options.settings, result)
    except WrongResult as error:
        log.write(f"{benchmark.name}: wrong result, so no time is worth telling: {error}\n")
        return 1
    finally:
        status.clear()
    values, folder = document(benchmark.name, result, options.settings), Path(options.folder)
    if options.settings.quick:
        result.notes.append("a quick run: small cases and few repeats, so that the figures mean little")
    text = "" if options.json_only else for_people(result) + "\n"
    if options.compare:
        stored = compare.load(folder, values["hardware"], benchmark.name)
        if stored is None:
            log.write(
                f"nothing to compare with: {compare.path_of(folder, values['hardware'], benchmark.name)} is missing\n"
            )
        else:
            changes = compare.compare(stored, values)
            values["changes"] = compare.as_json(changes)
            text += "" if options.json_only else compare.for_people(stored, changes) + "\n"
    if options.save:
        log.write(f"kept in {compare.save(folder, values)}\n")
    out.write(text + json_line(values))
    return 0


class Status:
    """Shows which figure was measured last: on one line of a terminal, now and then in a log file."""

    def __init__(self, stream: TextIO) -> None:
        self._stream, self._terminal = stream, stream.isatty()
        self._last = time.monotonic()

    def __call__(self, row: Row) -> None:
        """Take note of a row."""
        text = f"{row.case}: {row.what} {row.shown()}"
        if self._terminal:
            self._stream.write(f"\r\x1b[K{text[:100]}")
        elif time.monotonic() - self._last >= EVERY_S:
            self._stream.write(f"{text}\n")
            self._last = time.monotonic()
        self._stream.flush()

    def clear(self) -> None:
        """Leave the terminal's line empty."""
        if self._terminal:
            self._stream.write("\r\x1b[K")
