"""CUDA graphs of a function of one input buffer: recorded once, replayed with one call for all its launches.

A pass of an ensemble is some twenty short launches; a graph spares the host's time for each. A recorded graph always
reads and writes the same memory, so whoever replays it copies the input in, replays and copies the result out, one
after the other: under a lock for the host's threads, behind an event for their streams.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

# Only one capture may be under way in a process (documented at torch.cuda.graph).
_CAPTURE = threading.Lock()


@dataclass(frozen=True)
class RecordedPass:
    """A graph with the buffer that it reads and the one that it writes."""

    graph: torch.cuda.CUDAGraph
    source: Tensor
    result: Tensor


class Recorder:
    """Records graphs whose inner buffers come from one pool; they must not be replayed at the same time."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # captures that share a pool share their stream
        self._pool = torch.cuda.graph_pool_handle()

    def record(self, run: Callable[[Tensor], Tensor], source: Tensor) -> RecordedPass:
        """Record `run(source)`.

        It is run on the side stream first, as capture demands: kernels are compiled and libraries make their handles
        there.
        """
        caller = torch.cuda.current_stream(source.device)
        with _CAPTURE:
            self._stream.wait_stream(caller)
            with torch.cuda.stream(self._stream):
                for _ in range(2):
                    run(source)
            caller.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # "thread_local": what other threads do on the device meanwhile is not an error.
            with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                result = run(source)
        return RecordedPass(graph, source, result)
