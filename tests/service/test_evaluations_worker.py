"""The thread of evaluation jobs: it ends when it is told to, at whatever moment that is."""

import threading
from types import SimpleNamespace
from typing import Any

from service.evaluations.worker import Worker
from service.settings import Settings


def test_a_stop_just_before_the_thread_forgets_old_calls_is_not_forgotten_with_them():
    unused: Any = None
    worker = Worker(Settings(), unused, unused, unused, on_change=lambda: None)

    class StoppedMeanwhile(threading.Event):
        def clear(self) -> None:
            worker._stopping.set()
            self.set()
            super().clear()

    worker._wake = StoppedMeanwhile()
    no_jobs: Any = SimpleNamespace(store=SimpleNamespace(next_waiting=lambda: None))
    worker.start(no_jobs)
    assert worker._thread is not None
    worker._thread.join(20)
    ended = not worker.is_alive
    worker._wake.set()  # or the process of the tests would wait for it
    assert ended
