"""Right before fast: outputs beside the `standard` backend in float64, and caches as warm as they should be."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ccnet.layer import CCConv2d
from ccnet.models import CCNet
from ccnet.plan_cache import PlanCache
from ccnet.sequences import ScaleSequence

TOLERANCE = 1e-4  # largest difference over the largest value expected, fp32
CHECKED_IMAGES = 2  # `standard` forms the whole product of Eq. 3 and cannot take a batch


class WrongResult(Exception):
    """A benchmark whose outputs are not what they should be; its times mean nothing."""


@dataclass
class Checks:
    """Comparisons made in one run.

    Attributes:
        tolerance: largest relative error allowed.
        errors: what was compared, and its relative error; of repeated comparisons the largest.
    """

    tolerance: float = TOLERANCE
    errors: dict[str, float] = field(default_factory=dict)

    @property
    def largest(self) -> float:
        """Largest relative error so far."""
        return max(self.errors.values(), default=0.0)

    def require(self, what: str, actual: Tensor, expected: Tensor) -> None:
        """Compare.

        Args:
            what: is compared, for the report.
            actual, expected: of one shape.

        Raises:
            WrongResult: another shape, a value that is no number, or a difference beyond the tolerance.
        """
        if actual.shape != expected.shape:
            raise WrongResult(f"{what}: the shape is {list(actual.shape)} and should be {list(expected.shape)}")
        self.record(what, relative_error(actual, expected))

    def record(self, what: str, error: float) -> None:
        """Take note of a relative error.

        Raises:
            WrongResult: it is no number or beyond the tolerance.
        """
        if not error <= self.tolerance:  # NaN is not
            raise WrongResult(f"{what}: the relative error is {error:.1e}; {self.tolerance:.0e} is allowed")
        self.errors[what] = max(error, self.errors.get(what, 0.0))


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value expected; of an expected 0 the difference itself."""
    actual, expected = actual.detach().double(), expected.detach().double()
    return float((actual - expected).abs().max()) / (float(expected.abs().max()) or 1.0)


def exact_copy(module: nn.Module) -> nn.Module:
    """The same layers in float64 on the `standard` backend."""
    exact = copy.deepcopy(module).double()
    for part in exact.modules():
        if isinstance(part, CCConv2d):
            part.backend = "standard"
    return exact


def checked_rows(images: int) -> list[int]:
    """The images of a batch that are compared: the first and the last."""
    return sorted({0, images - 1})[:CHECKED_IMAGES]


@torch.no_grad()
def exact_logits(model: CCNet, x: Tensor, sequences: list[ScaleSequence]) -> Tensor:
    """[k, N, classes] in float64, for few images."""
    exact = exact_copy(model)
    return torch.stack([exact(x.double(), sequence) for sequence in sequences])


class Probe:
    """Two images, and what `standard` in float64 says of them; computed once a sequence, since it takes seconds."""

    def __init__(self, model: CCNet) -> None:
        self._model = model
        self._images = torch.randn(CHECKED_IMAGES, model.in_channels, *model.in_size)
        self._logits: dict[ScaleSequence, Tensor] = {}

    def batch(self, images: int) -> Tensor:
        """Random images, of which the first and the last (`checked_rows`) are the probe's."""
        x = torch.randn(images, *self._images.shape[1:])
        rows = checked_rows(images)
        x[rows] = self._images[: len(rows)]
        return x

    def expected(self, sequence: ScaleSequence, images: int) -> Tensor:
        """Logits of `checked_rows` of such a batch."""
        if sequence not in self._logits:
            self._logits[sequence] = exact_logits(self._model, self._images, [sequence])[0]
        return self._logits[sequence][: len(checked_rows(images))]


@contextmanager
def no_misses(cache: PlanCache, what: str) -> Iterator[None]:
    """Whatever runs inside finds all its plans.

    Raises:
        WrongResult: a plan was made inside.
    """
    before = cache.stats.misses
    yield
    missed = cache.stats.misses - before
    if missed:
        raise WrongResult(f"{what}: {missed} plans were made while a warm pass was measured")
