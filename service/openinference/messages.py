"""The body of an inference request -> what is asked: its input, its parameters, the outputs that are wanted.

JSON                                      without the header Inference-Header-Content-Length
JSON of N bytes, then raw tensors         with that header N
one raw tensor                            with that header 0: FP32 of the network's input
"""

from dataclasses import dataclass
from typing import Any

from service.errors import Malformed, OptionOutOfRange
from service.openinference.options import InferOptions, flag, infer_options
from service.openinference.strict_json import load_object
from service.openinference.tensors import Array, Declared, declared, from_base64, from_binary, from_json, shown
from service.served import ServedModel

HEADER = "Inference-Header-Content-Length"
INPUT = "images"
OUTPUTS = ("logits", "probabilities", "labels", "agreement", "entropy")
DEFAULT_OUTPUTS = ("logits", "probabilities", "labels")
SCORED = ("logits", "probabilities")  # outputs of which `classification` gives the best classes
MAX_ID = 1024  # characters
_REQUEST = ("id", "parameters", "inputs", "outputs")
_IGNORED = ("model_name", "model_version")  # KServe's client sends them; the path says which model is asked
_SIZE = "binary_data_size"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An output that is wanted.

    Attributes:
        name: One of `OUTPUTS`.
        binary: Whether as raw bytes.
        classes: How many best classes, as texts, instead of all numbers; 0 for the numbers.
    """

    name: str
    binary: bool = False
    classes: int = 0


@dataclass(frozen=True, eq=False, slots=True)
class Question:
    """A request for inference, checked by itself.

    Attributes:
        id: Echoed in the answer; None where there is none.
        options: Its parameters.
        tensor: What is said of the input.
        data: The input: pixels or prepared images in the shape of `tensor`, or encoded files.
        outputs: In the order of the answer, at least one.
    """

    id: str | None
    options: InferOptions
    tensor: Declared
    data: Array | list[bytes]
    outputs: tuple[Wanted, ...]


def parse_question(body: bytes, header_length: str | None, model: ServedModel, max_images: int) -> Question:
    """What a body asks of a model.

    Args:
        body: All of it, not compressed.
        header_length: The value of `HEADER`, if there is one.
        model: Which is asked.
        max_images: Most images allowed.

    Raises:
        Malformed: It does not follow the protocol, or sizes do not add up.
        OptionOutOfRange: A parameter that there is not, or outside what is allowed.
        TooLarge: More images than allowed.
    """
    length = _header_length(header_length, len(body))
    if length == 0:
        return _raw_question(body, model, max_images)
    document = load_object(body[:length])
    for key in document:
        if key not in (*_REQUEST, *_IGNORED):
            raise Malformed(f"{shown(key)} was given in the request; allowed are {', '.join(_REQUEST)}")
    options = infer_options(_object(document, "parameters", "the request"), model)
    entry = _only_input(document.get("inputs"))
    tensor = declared(entry, max_images)
    return Question(
        _id(document.get("id")),
        options,
        tensor,
        _data(entry, tensor, memoryview(body)[length:]),
        _outputs(document.get("outputs"), options.binary, len(model.labels)),
    )


def _header_length(given: str | None, body_length: int) -> int:
    if given is None:
        return body_length
    if not given.isascii() or not given.isdecimal() or len(given) > 18 or int(given) > body_length:
        raise Malformed(
            f"{HEADER}: {shown(given)} was given; it is the length of the JSON, from 0 to the {body_length} bytes of "
            "the body"
        )
    return int(given)


def _raw_question(body: bytes, model: ServedModel, max_images: int) -> Question:
    shape = (model.channels, *model.in_size)
    needed = 4 * model.channels * model.in_size[0] * model.in_size[1]
    if not body or len(body) % needed:
        raise Malformed(
            f"{HEADER} 0 says that the body is one tensor, which for model {model.name} is FP32 [N, "
            f"{', '.join(map(str, shape))}] with {needed} bytes an image; {len(body)} bytes came"
        )
    tensor = declared({"name": INPUT, "datatype": "FP32", "shape": [len(body) // needed, *shape]}, max_images)
    wanted = tuple(Wanted(name) for name in DEFAULT_OUTPUTS)
    return Question(None, InferOptions(), tensor, from_binary(tensor, memoryview(body)), wanted)


def _id(value: Any) -> str | None:
    if value is not None and (not isinstance(value, str) or len(value) > MAX_ID):
        raise Malformed(f"id: {shown(value)} was given; it is a text of at most {MAX_ID} characters")
    return value


def _object(holder: dict[str, Any], key: str, what: str) -> dict[str, Any]:
    value = holder.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Malformed(f"{key} of {what} must be an object; got {shown(value)}")
    return value


def _entries(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of objects with names, all different."""
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise Malformed(f"{what} must be a list of objects; got {shown(value)}")
    names = [entry.get("name") for entry in value]
    if not all(isinstance(name, str) for name in names):
        raise Malformed(f"everything in {what} must have a name, which is a text")
    if len(set(names)) != len(names):
        raise Malformed(f"two of {what} have the same name; give each once")
    return value


def _only_input(value: Any) -> dict[str, Any]:
    entries = _entries(value, "inputs")
    if [entry["name"] for entry in entries] != [INPUT]:
        names = shown([entry["name"] for entry in entries])
        raise Malformed(f"inputs named {names} were given; there is one, {INPUT!r}, and it is needed")
    return entries[0]


def _data(entry: dict[str, Any], tensor: Declared, rest: memoryview) -> Array | list[bytes]:
    """The data of the one input, which takes all bytes that follow the JSON."""
    parameters = _object(entry, "parameters", f"input {INPUT!r}")
    for name in parameters:
        if name not in (_SIZE, "content_type"):
            raise OptionOutOfRange(
                f"input {INPUT!r}: parameter {shown(name)} was given; allowed are {_SIZE} and content_type"
            )
    content_type = parameters.get("content_type")
    if content_type is not None and (content_type != "base64" or tensor.datatype != "BYTES"):
        raise OptionOutOfRange(f"content_type: {shown(content_type)} was given; allowed is base64, for BYTES alone")
    if _SIZE in parameters:
        if "data" in entry:
            raise Malformed(f"input {INPUT!r} has both data and {_SIZE}; give one of them")
        _check_size(parameters[_SIZE], len(rest))
        data = from_binary(tensor, rest)
        return data if content_type is None else from_base64(tensor, data)  # type: ignore[arg-type]  # of BYTES
    if len(rest):
        raise Malformed(
            f"{len(rest)} bytes follow the JSON, but input {INPUT!r} has no {_SIZE} that says whose they are"
        )
    if "data" not in entry:
        raise Malformed(f"input {INPUT!r} has neither data nor {_SIZE}; give one of them")
    data = from_json(tensor, entry["data"])
    # Files are no texts, so in JSON they can only be base64, whether that is said or not.
    return from_base64(tensor, data) if isinstance(data, list) else data


def _check_size(size: Any, there: int) -> None:
    if type(size) is not int or size < 0:
        raise Malformed(f"{_SIZE}: {shown(size)} was given; it is a whole number of bytes from 0")
    if size != there:
        raise Malformed(f"{_SIZE} says {size} bytes; {there} follow the JSON")


def _outputs(value: Any, binary: bool, classes: int) -> tuple[Wanted, ...]:
    if value is None or value == []:
        return tuple(Wanted(name, binary) for name in DEFAULT_OUTPUTS)
    return tuple(_wanted(entry, binary, classes) for entry in _entries(value, "outputs"))


def _wanted(entry: dict[str, Any], binary: bool, classes: int) -> Wanted:
    name = entry["name"]
    if name not in OUTPUTS:
        raise Malformed(f"output {shown(name)} was asked for; there are {', '.join(OUTPUTS)}")
    parameters = _object(entry, "parameters", f"output {name!r}")
    for parameter in parameters:
        if parameter not in ("binary_data", "classification"):
            raise OptionOutOfRange(
                f"output {name!r}: parameter {shown(parameter)} was given; allowed are binary_data and classification"
            )
    best = parameters.get("classification", 0)
    if type(best) is not int or best < 0:
        raise OptionOutOfRange(f"classification: {shown(best)} was given; it is how many best classes, a whole number")
    if best and name not in SCORED:
        raise OptionOutOfRange(f"classification: output {name!r} has no classes; ask it of {' or '.join(SCORED)}")
    return Wanted(name, flag({"binary_data": binary} | parameters, "binary_data"), min(best, classes))
