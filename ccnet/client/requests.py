"""The arguments of a client's method -> one `Call`: path, options, what is sent, and the form of the answer.

Options are checked by the service, whose messages say what is allowed; here they only become text.
"""

import operator
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from ccnet.client.evaluations import Evaluation, EvaluationPage, Upload
from ccnet.client.results import (
    Classification,
    Comparison,
    EquivarianceTable,
    Health,
    ModelInfo,
    Models,
    SequenceDraw,
)
from ccnet.errors import CcnetError

EVALUATIONS = "/v1/evaluations"

Answer = TypeVar("Answer")
Words = str | Iterable[str]


@dataclass(frozen=True, slots=True)
class Call(Generic[Answer]):
    """One question to the service.

    Attributes:
        path: with the slash in front.
        answer: the dataclass that the answer is read into; str for its text.
        options: query parameters.
        images: encoded files.
        question: what is sent as JSON, beside the upload where there is one.
        upload: a data set.
        key: by which the service knows a question that it is asked again; None where it does not matter.
        removes: whether it is a DELETE. Only that is not asked again where nobody knows whether it arrived, since it
            would do something else then.
    """

    path: str
    answer: type[Answer]
    options: tuple[tuple[str, str], ...] = ()
    images: tuple[bytes, ...] = ()
    question: Mapping[str, object] | None = None
    upload: Upload | None = None
    key: str | None = None
    removes: bool = False

    @property
    def method(self) -> str:
        """POST where something is sent."""
        if self.removes:
            return "DELETE"
        return "GET" if not self.images and self.question is None else "POST"

    @property
    def sent_bytes(self) -> int:
        """Of files."""
        return sum(len(data) for data in self.images) + (0 if self.upload is None else self.upload.size)


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


def evaluate(
    dataset: str | Upload,
    model: str | None,
    ensemble_sizes: int | Iterable[int] | None,
    draws: int | None,
    seed: int | None,
    limit: int | None,
    views: bool | None,
    max_shift: int | Iterable[int] | None,
    shift_samples: int | None,
    key: str | None,
) -> Call[Evaluation]:
    """`POST /v1/evaluations`; without a key it gets one, so that a second attempt makes no second job.

    Raises:
        CcnetError: what is to be a whole number is none.
    """
    shifts = {"max_shift": _whole("max_shift", max_shift), "samples": shift_samples}
    given = {
        "dataset": dataset if isinstance(dataset, str) else None,
        "model": model,
        "ensemble_sizes": _whole("ensemble_sizes", ensemble_sizes),
        "draws": draws,
        "seed": seed,
        "limit": limit,
        "views": views,
        "equivariance": _given(shifts) or None,
    }
    question = _given(given)
    if shifts["max_shift"] == []:  # none at all, and not those of the service
        question["equivariance"] = None
    upload = None if isinstance(dataset, str) else dataset
    key = secrets.token_hex(16) if key is None else key
    return Call(EVALUATIONS, Evaluation, question=question, upload=upload, key=key)


def evaluation(evaluation: Evaluation | str) -> Call[Evaluation]:
    """`GET /v1/evaluations/{id}`."""
    return Call(_path(evaluation), Evaluation)


def evaluations(limit: int | None, before: str | None, status: str | None) -> Call[EvaluationPage]:
    """`GET /v1/evaluations`."""
    return Call(EVALUATIONS, EvaluationPage, _options(limit=limit, before=before, status=status))


def report(evaluation: Evaluation | str, form: str | None) -> Call[str]:
    """`GET /v1/evaluations/{id}/report`."""
    return Call(f"{_path(evaluation)}/report", str, _options(format=form))


def delete_evaluation(evaluation: Evaluation | str) -> Call[Evaluation | None]:
    """`DELETE /v1/evaluations/{id}`."""
    answer: Any = Evaluation | None
    return Call(_path(evaluation), answer, removes=True)


def _path(evaluation: Evaluation | str) -> str:
    known = evaluation if isinstance(evaluation, str) else evaluation.id
    return f"{EVALUATIONS}/{quote(known, safe='')}"


def _given(values: Mapping[str, object]) -> dict[str, object]:
    """Those that were given."""
    return {name: value for name, value in values.items() if value is not None}


def _whole(name: str, given: int | Iterable[int] | None) -> list[int] | None:
    """One or several whole numbers as JSON has them, those of numpy too; None for none."""
    if given is None:
        return None
    try:
        return [operator.index(value) for value in (given if isinstance(given, Iterable) else (given,))]
    except TypeError as error:
        raise CcnetError(f"{name}={given!r:.100} was given; allowed is one whole number or several") from error


def _options(**given: object) -> tuple[tuple[str, str], ...]:
    """Those that were given, as text."""
    return tuple((name, str(value)) for name, value in given.items() if value is not None)


def _joined(given: object) -> str | None:
    """Several values with commas between; None for none, so that the option is left out."""
    if given is None or isinstance(given, str):
        return given or None
    words = [str(word) for word in given] if isinstance(given, Iterable) else [str(given)]
    return ",".join(words) or None
