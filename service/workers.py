"""A bounded pool of threads for the work of single requests: parsing bodies, decoding images, sampling sequences.

The event loop computes nothing itself; what waits here is bounded, so that a flood is refused rather than stored.
"""

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from service.errors import QueueFull

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool:
    """Threads and a bound on the tasks that wait for them or run on them.

    Args:
        threads: Worker threads.
        max_tasks: Tasks that may wait or run at once.
    """

    def __init__(self, threads: int, max_tasks: int) -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._max_tasks = max_tasks
        self._tasks = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """One call on a worker thread.

        Raises:
            QueueFull: Too many tasks wait already.
            Exception: Whatever the function raises.
        """
        self._admit(1)
        return await asyncio.wrap_future(self._start(function, *arguments))

    async def map(self, function: Callable[[int, Item], Result], items: Sequence[Item]) -> list[Result]:
        """`function(index, item)` for every item, spread over the threads; results in order.

        The first failure is raised and calls that have not started are dropped.

        Raises:
            QueueFull: Too many tasks wait already; then none of these is started.
            Exception: Whatever the function raises.
        """
        self._admit(len(items))
        futures = [self._start(function, index, item) for index, item in enumerate(items)]
        try:
            return list(await asyncio.gather(*map(asyncio.wrap_future, futures)))
        finally:
            _cancel(futures)

    def close(self) -> None:
        """Drop what waits and let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _admit(self, tasks: int) -> None:
        with self._lock:
            if self._tasks and self._tasks + tasks > self._max_tasks:
                raise QueueFull(
                    f"{tasks} images came while {self._tasks} wait to be decoded; at most {self._max_tasks} may wait: "
                    "try again later",
                    retry_after_s=1,
                )
            self._tasks += tasks

    def _start(self, function: Callable[..., Result], *arguments: object) -> "Future[Result]":
        future = self._executor.submit(function, *arguments)
        future.add_done_callback(self._finished)
        return future

    def _finished(self, _: "Future[Result]") -> None:
        with self._lock:
            self._tasks -= 1


def _cancel(futures: "Iterable[Future[Result]]") -> None:
    for future in futures:
        future.cancel()
