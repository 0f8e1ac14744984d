"""What images were classified as -> the tensors that were asked for -> a body."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from service.engine import Classified
from service.openinference.messages import Question, Wanted
from service.openinference.tensors import to_binary
from service.served import ServedModel

VERSION = "1"  # the only version of every model


@dataclass(frozen=True, slots=True)
class Body:
    """A body, and how many of its first bytes are JSON; None when all are."""

    data: bytes
    header_length: int | None


def answer_body(question: Question, model: ServedModel, outcome: Classified, asked_members: int) -> Body:
    """The answer to a question, in the form that it asks for."""
    outputs: list[dict[str, Any]] = []
    binary: list[bytes] = []
    for wanted in question.outputs:
        entry, raw = _output(wanted, model, outcome)
        outputs.append(entry)
        binary += raw
    parameters: dict[str, Any] = {"ensemble_size": outcome.members}
    if outcome.seed is not None:
        parameters["seed"] = outcome.seed
    if outcome.members < asked_members:
        parameters["asked_ensemble_size"] = asked_members
    document: dict[str, Any] = {"model_name": model.name, "model_version": VERSION}
    if question.id is not None:
        document["id"] = question.id
    text = orjson.dumps(document | {"parameters": parameters, "outputs": outputs}, option=orjson.OPT_SERIALIZE_NUMPY)
    return Body(b"".join((text, *binary)), len(text) if binary else None)


def _output(wanted: Wanted, model: ServedModel, outcome: Classified) -> tuple[dict[str, Any], list[bytes]]:
    """An output's entry, and its bytes where it is binary."""
    data = _data(wanted, model, outcome)
    images = len(outcome.answer.logits)
    datatype = "FP32" if isinstance(data, np.ndarray) else "BYTES"
    shape: tuple[int, ...] = data.shape if isinstance(data, np.ndarray) else (images,)
    if wanted.classes:
        shape = (images, wanted.classes)
    entry: dict[str, Any] = {"name": wanted.name, "datatype": datatype, "shape": shape}
    if wanted.binary:
        raw = to_binary(data)
        return entry | {"parameters": {"binary_data_size": len(raw)}}, [raw]
    assert math.prod(shape) == (data.size if isinstance(data, np.ndarray) else len(data))
    return entry | {"data": data.ravel() if isinstance(data, np.ndarray) else data}, []


def _data(wanted: Wanted, model: ServedModel, outcome: Classified) -> NDArray[np.float32] | list[str]:
    answer = outcome.answer
    if wanted.name == "labels":
        return [model.labels[best] for best in answer.ranking[:, 0].tolist()]
    values = {
        "logits": answer.logits,
        "probabilities": answer.probabilities,
        "agreement": answer.agreement,
        "entropy": answer.entropy,
    }[wanted.name]
    if wanted.classes:
        return _best(values, answer.ranking[:, : wanted.classes], model.labels)
    return values.astype("<f4")


def _best(values: NDArray[np.float64], ranking: NDArray[np.intp], labels: Sequence[str]) -> list[str]:
    """The best classes of every image, the best first, as Triton writes them: "score:index:label"."""
    return [
        f"{scores[index]:f}:{index}:{labels[index]}"
        for scores, indices in zip(values, ranking.tolist(), strict=True)
        for index in indices
    ]
