"""The parameters of a request: what may stand there, within which range."""

import math
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

from ccnet.ensemble import Aggregate
from ccnet.errors import SequenceError
from ccnet.sequences import ScaleSequence
from service.errors import OptionOutOfRange
from service.openinference.tensors import shown
from service.schemas import ALLOWED, MAX_SEED, MAX_TIMEOUT_MS
from service.served import ServedModel
from service.settings import MAX_ENSEMBLE_SIZE

Layout = Literal["NHWC", "NCHW"]

MAX_SEQUENCE_PHASES = (
    2048  # of all layers of a sequence: the weights that a pass generates; sampled ones have up to 1000
)
MAX_SEQUENCE_TEXT = 2000  # characters; a sampled one has about 80
KNOWN = (
    "ensemble_size",
    "seed",
    "sequences",
    "aggregate",
    "min_size",
    "timeout",
    "layout",
    "binary_data_output",
)


@dataclass(frozen=True, slots=True)
class InferOptions:
    """The parameters of a request.

    Attributes:
        ensemble_size, seed, min_size: As for `/v1/classify`; None where they were left out.
        aggregate: How the members' logits become one.
        sequences: The members themselves; None where they are sampled.
        timeout_ms: Deadline; None for that of the settings.
        layout: Of the axes of `images`; None where its shape says it.
        binary: Whether outputs are binary unless they say otherwise.
    """

    ensemble_size: int | None = None
    seed: int | None = None
    min_size: int | None = None
    aggregate: Aggregate = "mean"
    sequences: tuple[ScaleSequence, ...] | None = None
    timeout_ms: int | None = None
    layout: Layout | None = None
    binary: bool = False


def infer_options(parameters: dict[str, Any], model: ServedModel) -> InferOptions:
    """The parameters of a request for a model.

    Raises:
        OptionOutOfRange: One that there is not, or a value outside what is allowed.
    """
    for name in parameters:
        if name not in KNOWN:
            raise OptionOutOfRange(f"parameter {shown(name)}: there is no such one; allowed are {', '.join(KNOWN)}")
    timeout_us = _whole(parameters, "timeout", 1, MAX_TIMEOUT_MS * 1000, "microseconds")
    ensemble_size = _whole(parameters, "ensemble_size", 1, MAX_ENSEMBLE_SIZE)
    seed = _whole(parameters, "seed", 0, MAX_SEED)
    sequences = _sequences(parameters["sequences"], model) if "sequences" in parameters else None
    if sequences is not None:
        if seed is not None:
            raise OptionOutOfRange(
                "seed: the sequences are given, so that there is nothing to draw; leave one of them out"
            )
        if ensemble_size not in (None, len(sequences)):
            raise OptionOutOfRange(
                f"ensemble_size: {ensemble_size} was given with {len(sequences)} sequences; leave it out"
            )
    return InferOptions(
        ensemble_size=ensemble_size,
        seed=seed,
        min_size=_whole(parameters, "min_size", 1, MAX_ENSEMBLE_SIZE),
        aggregate=cast(Aggregate, _one_of(parameters, "aggregate", get_args(Aggregate)) or "mean"),
        sequences=sequences,
        timeout_ms=None if timeout_us is None else math.ceil(timeout_us / 1000),
        layout=cast(Layout | None, _one_of(parameters, "layout", get_args(Layout))),
        binary=flag(parameters, "binary_data_output"),
    )


def flag(parameters: dict[str, Any], name: str) -> bool:
    """A parameter that is true or false; false where it is left out.

    Raises:
        OptionOutOfRange: It is neither.
    """
    value = parameters.get(name, False)
    if not isinstance(value, bool):
        raise OptionOutOfRange(f"{name}: {shown(value)} was given; allowed are true and false")
    return value


def _whole(parameters: dict[str, Any], name: str, low: int, high: int, unit: str = "") -> int | None:
    value = parameters.get(name)
    if value is None and name not in parameters:
        return None
    if type(value) is not int or not low <= value <= high:
        allowed = f"a whole number of {unit} from {low} to {high}" if unit else ALLOWED[name]
        raise OptionOutOfRange(f"{name}: {shown(value)} was given; allowed is {allowed}")
    return value


def _one_of(parameters: dict[str, Any], name: str, allowed: tuple[str, ...]) -> str | None:
    value = parameters.get(name)
    if name in parameters and value not in allowed:
        raise OptionOutOfRange(f"{name}: {shown(value)} was given; allowed is one of {', '.join(allowed)}")
    return cast(str | None, value)


def _sequences(text: Any, model: ServedModel) -> tuple[ScaleSequence, ...]:
    if not isinstance(text, str):
        raise OptionOutOfRange(
            f'sequences: {shown(text)} was given; allowed is a text such as "1 5/6 ... x 1 3/4 ...", with ; between '
            "several"
        )
    if not model.takes_sequences:
        raise OptionOutOfRange(f"sequences: model {model.name} takes no scale sequences; leave them out")
    if text.count(";") >= MAX_ENSEMBLE_SIZE:
        raise OptionOutOfRange(f"sequences: more than {MAX_ENSEMBLE_SIZE} were given, which are the most allowed")
    return tuple(_sequence(part, model) for part in text.split(";"))


def _sequence(text: str, model: ServedModel) -> ScaleSequence:
    if len(text) > MAX_SEQUENCE_TEXT:
        raise OptionOutOfRange(
            f"sequences: one of {len(text)} characters was given; at most {MAX_SEQUENCE_TEXT} are allowed"
        )
    try:
        sequence = ScaleSequence.parse(text)
        if max(*sequence.vertical, *sequence.horizontal) > 1:
            raise SequenceError("a scale above 1 would make a map larger than the input; allowed are scales up to 1")
        sequence.require_valid(in_size=model.in_size)
    except SequenceError as error:
        raise OptionOutOfRange(f"sequences: {error}") from error
    phases = sum(
        min(vertical.numerator, height) * min(horizontal.numerator, width)
        for (vertical, horizontal), (height, width) in zip(sequence.scales, sequence.shapes(model.in_size), strict=True)
    )
    if phases > MAX_SEQUENCE_PHASES:
        raise OptionOutOfRange(
            f"sequences: {sequence} has {phases} phases (the numerators of each layer, multiplied); at most "
            f"{MAX_SEQUENCE_PHASES} are allowed: use fractions with smaller numerators"
        )
    return sequence
