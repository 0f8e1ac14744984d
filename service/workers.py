"""A bounded pool of threads for the work of single requests: parsing bodies, decoding images, sampling sequences.

The event loop itself computes next to nothing; what waits here is bounded, so that a flood is refused and not stored.
"""

import asyncio
import threading
from collections.abc import Callable, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from service.errors import QueueFull

Group = TypeVar("Group", bound=Sized)
Result = TypeVar("Result")


class WorkerPool:
    """Threads and a bound on the tasks that wait for them or run on them.

    Args:
        threads: Worker threads.
        max_images: Images, and other tasks, that may wait or run at once.
        work: What is done with them, for the refusal: "decoded", "drawn".
    """

    def __init__(self, threads: int, max_images: int, work: str = "decoded") -> None:
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="worker")
        self._max_images, self._work = max_images, work
        self._images = 0
        self._lock = threading.Lock()

    async def run(self, function: Callable[..., Result], *arguments: object) -> Result:
        """One call on a worker thread.

        Raises:
            QueueFull: Too many tasks wait already.
            Exception: Whatever the function raises.
        """
        self._admit(1)
        return await asyncio.wrap_future(self._start(1, function, *arguments))

    async def map(self, function: Callable[[Group], Result], groups: Sequence[Group]) -> list[Result]:
        """`function(group)` for every group of images, spread over the threads; results in order.

        The first failure is raised and calls that have not started are dropped.

        Raises:
            QueueFull: Too many tasks wait already; then none of these is started.
            Exception: Whatever the function raises.
        """
        self._admit(sum(map(len, groups)))
        futures = [self._start(len(group), function, group) for group in groups]
        try:
            return [await asyncio.wrap_future(future) for future in futures]
        finally:
            for future in futures:
                future.cancel()

    def close(self) -> None:
        """Drop what waits and let the threads end."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _admit(self, images: int) -> None:
        with self._lock:
            if self._images and self._images + images > self._max_images:
                raise QueueFull(
                    f"{images} images came while {self._images} wait to be {self._work}; at most {self._max_images} "
                    "may wait: try again later",
                    retry_after_s=1,
                )
            self._images += images

    def _start(self, images: int, function: Callable[..., Result], *arguments: object) -> "Future[Result]":
        future = self._executor.submit(function, *arguments)
        future.add_done_callback(lambda _: self._finished(images))
        return future

    def _finished(self, images: int) -> None:
        with self._lock:
            self._images -= images
