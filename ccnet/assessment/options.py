"""What is asked of an assessment, checked before any work."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ccnet.errors import CcnetError
from ccnet.evaluation import default_pool
from ccnet.views import MAX_VIEWS

PROBE_SEQUENCES = 8  # dealt out among the pairs of the shift probe, as `ccnet probe` does


@dataclass(frozen=True)
class AssessmentOptions:
    """The questions, and how much is spent on the answers.

    Attributes:
        sizes: ensemble sizes k, each at least 1; also the numbers of views. Kept in rising order, each once, and 1 with
            them, which all others are compared with.
        draws: sequences measured alone, and subsets of the pool measured for each k.
        pool: sequences drawn in all. It costs its size in passes an image. None for the larger of `draws` and twice the
            largest size, which keeps the spread of large ensembles honest; size 1 alone takes `draws`.
        seed: of sequences, subsets, halves, resamples and shifts.
        limit: only the first `limit` images, None for all.
        views: measure averages over mirrored and moved views of the picture at as many passes, the baseline of
            ensembles; at most `ccnet.views.MAX_VIEWS` then.
        max_shifts: largest shifts of the equivariance table, input px; none leaves the table out.
        shift_samples: images, and as many of noise, that each row of that table measures (at most those there are).
        bins: of the calibration errors and of the reliability diagram.
        resamples: of the bootstrap.
        batch_size: images a call of `Passes`; it changes time and memory, not the answer.

    Raises:
        CcnetError: a number out of range.
    """

    sizes: tuple[int, ...] = (1, 2, 4, 8)
    draws: int = 10
    pool: int | None = None
    seed: int = 0
    limit: int | None = None
    views: bool = True
    max_shifts: tuple[int, ...] = (2, 4, 6)
    shift_samples: int = 200
    bins: int = 15
    resamples: int = 1000
    batch_size: int = 64

    def __post_init__(self) -> None:
        sizes = _rising("sizes", self.sizes, least=1)
        if not sizes:
            raise CcnetError("sizes is empty; give at least one ensemble size, each 1 or more")
        object.__setattr__(self, "sizes", _rising("sizes", (1, *sizes), least=1))
        object.__setattr__(self, "max_shifts", _rising("max_shifts", self.max_shifts, least=0))
        for name, least in (("draws", 1), ("seed", 0), ("shift_samples", 1), ("bins", 1), ("batch_size", 1)):
            _require_whole(name, getattr(self, name), least=least)
        _require_whole("resamples", self.resamples, least=100)
        if self.limit is not None:
            _require_whole("limit", self.limit, least=1)
        if self.views and self.sizes[-1] > MAX_VIEWS:
            raise CcnetError(
                f"size {self.sizes[-1]} with views; there are {MAX_VIEWS} views of a picture: leave larger sizes or "
                "the views out"
            )
        if self.pool is not None and _require_whole("pool", self.pool, least=1) < self._least_pool:
            raise CcnetError(
                f"a pool of {self.pool} sequences; {self.draws} draws and sizes up to {self.sizes[-1]} need "
                f"{self._least_pool}"
            )

    @property
    def _least_pool(self) -> int:
        return max(self.draws, self.sizes[-1])

    @property
    def pool_size(self) -> int:
        """Sequences drawn in all."""
        return self.pool or default_pool(self.draws, self.sizes)

    def describe(self) -> dict[str, Any]:
        """The options as JSON values."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def _rising(name: str, values: object, *, least: int) -> tuple[int, ...]:
    """The numbers in rising order, each once."""
    if not isinstance(values, Sequence) or isinstance(values, str):
        raise CcnetError(f"{name} is a sequence of whole numbers, each {least} or more; got {values!r}")
    return tuple(sorted({_require_whole(f"each of {name}", value, least=least) for value in values}))


def _require_whole(name: str, value: object, *, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise CcnetError(f"{name} is a whole number, {least} or more; got {value!r}")
    return value
