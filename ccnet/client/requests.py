"""The arguments of a client's method -> one `Call`: path, options, images, and the form of the answer.

Options are checked by the service, whose messages say what is allowed; here they only become text.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar
from urllib.parse import quote

from ccnet.client.results import (
    Classification,
    Comparison,
    EquivarianceTable,
    Health,
    ModelInfo,
    Models,
    SequenceDraw,
)

Answer = TypeVar("Answer")
Words = str | Iterable[str]


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One question to the service; every one may be asked again, since none changes anything there.

    Attributes:
        path: with the slash in front.
        answer: the dataclass that the answer is read into.
        options: query parameters.
        images: encoded files; a call with images is a POST, one without a GET.
    """

    path: str
    answer: type[Answer]
    options: tuple[tuple[str, str], ...] = ()
    images: tuple[bytes, ...] = ()

    @property
    def method(self) -> str:
        """With images POST, without GET."""
        return "POST" if self.images else "GET"


LIVE = Call("/health/live", Health)
READY = Call("/health/ready", Health)
MODELS = Call("/v1/models", Models)


def classify(
    images: tuple[bytes, ...],
    ensemble_size: int | None,
    seed: int | None,
    top_k: int | None,
    model: str | None,
    aggregate: str | None,
    include: Words,
    timeout_ms: int | None,
    min_size: int | None,
) -> Call[Classification]:
    """`POST /v1/classify`."""
    options = _options(
        ensemble_size=ensemble_size,
        seed=seed,
        top_k=top_k,
        model=model,
        aggregate=aggregate,
        include=_joined(include),
        timeout_ms=timeout_ms,
        min_size=min_size,
    )
    return Call("/v1/classify", Classification, options, images)


def sequences(ensemble_size: int | None, seed: int | None, model: str | None) -> Call[SequenceDraw]:
    """`GET /v1/sequences`."""
    return Call("/v1/sequences", SequenceDraw, _options(ensemble_size=ensemble_size, seed=seed, model=model))


def model(name: str) -> Call[ModelInfo]:
    """`GET /v1/models/{name}`; a slash or a dot in the name stays part of it."""
    return Call(f"/v1/models/{quote(name, safe='')}", ModelInfo)


def equivariance(
    model: str | None,
    source: str | None,
    max_shift: int | Words | Iterable[int] | None,
    samples: int | None,
    seed: int | None,
    border: str | None,
    ensemble_size: int | None,
    timeout_ms: int | None,
) -> Call[EquivarianceTable]:
    """`GET /v1/equivariance`."""
    options = _options(
        model=model,
        input=source,
        max_shift=_joined(max_shift),
        samples=samples,
        seed=seed,
        border=border,
        ensemble_size=ensemble_size,
        timeout_ms=timeout_ms,
    )
    return Call("/v1/equivariance", EquivarianceTable, options)


def compare(
    images: tuple[bytes, ...],
    models: Words | None,
    max_shift: int | Words | Iterable[int] | None,
    seed: int | None,
    border: str | None,
    ensemble_size: int | None,
    timeout_ms: int | None,
) -> Call[Comparison]:
    """`POST /v1/equivariance`."""
    options = _options(
        models=_joined(models),
        max_shift=_joined(max_shift),
        seed=seed,
        border=border,
        ensemble_size=ensemble_size,
        timeout_ms=timeout_ms,
    )
    return Call("/v1/equivariance", Comparison, options, images)


def _options(**given: object) -> tuple[tuple[str, str], ...]:
    """Those that were given, as text."""
    return tuple((name, str(value)) for name, value in given.items() if value is not None)


def _joined(given: object) -> str | None:
    """Several values with commas between; None for none, so that the option is left out."""
    if given is None or isinstance(given, str):
        return given or None
    words = [str(word) for word in given] if isinstance(given, Iterable) else [str(given)]
    return ",".join(words) or None
