"""Batches that fail: halved until what fails is alone, and smaller from then on where memory was short."""

from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

from service.queueing import Slice

Job = TypeVar("Job")
Part = TypeVar("Part")


class Containment(Generic[Job, Part]):
    """Runs batches, on one thread, so that a job that fails takes no other with it.

    Args:
        run: Takes the slices of a batch, one a job, and returns for each a result a unit, in order. `MemoryError` says
            that the batch was too large.
        max_passes: Of a batch.

    Attributes:
        budget: Passes that the next batch may have: at most half of what had no room, and an eighth more with every
            full batch that has.
    """

    def __init__(self, run: Callable[[Sequence[Slice[Job]]], Sequence[Sequence[Part]]], max_passes: int) -> None:
        self._run = run
        self._max_passes = max_passes
        self.budget = max_passes

    def run(self, slices: Sequence[Slice[Job]]) -> list[Sequence[Part] | Exception]:
        """For each slice the results of its units, or the error with which it fails when it runs alone."""
        budget = self.budget
        results = self._run_or_halve(slices)
        failed = any(isinstance(result, Exception) for result in results)
        full = _passes(slices) >= budget and not slices[0].cost.alone
        if full and not failed and self.budget == budget:
            self.budget = min(self._max_passes, budget + max(1, budget // 8))
        return results

    def _run_or_halve(self, slices: Sequence[Slice[Job]]) -> list[Sequence[Part] | Exception]:
        try:
            results = list(self._run(slices))
            if [len(result) for result in results] != [each.units for each in slices]:
                raise RuntimeError(f"a batch of {len(slices)} slices gave results of other lengths")
            return [*results]
        except MemoryError as error:
            self.budget = max(1, min(self.budget, _passes(slices) // 2))
            if len(slices) == 1:
                return [self._halve(slices[0], error)]
        except Exception as error:
            if len(slices) == 1:
                return [error]
        half = len(slices) // 2
        return [*self._run_or_halve(slices[:half]), *self._run_or_halve(slices[half:])]

    def _halve(self, whole: Slice[Job], error: Exception) -> Sequence[Part] | Exception:
        """The units of a slice that is too large, in two parts."""
        if whole.units == 1:
            return error
        middle = (whole.first + whole.last) // 2
        parts: list[Part] = []
        for first, last in ((whole.first, middle), (middle, whole.last)):
            (result,) = self._run_or_halve([Slice(whole.job, whole.cost, first, last)])
            if isinstance(result, Exception):
                return result
            parts.extend(result)
        return parts


def _passes(slices: Sequence[Slice[Any]]) -> int:
    return sum(each.passes for each in slices)
