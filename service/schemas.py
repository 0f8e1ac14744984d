"""The shapes of options and answers over HTTP; what stands here is what `/docs` shows.

No tensor is known here. Sizes are [height, width], vertical before horizontal; times are milliseconds.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

from service.settings import MAX_ENSEMBLE_SIZE

MAX_SEED = 2**53 - 1  # the largest whole number that every JSON reader keeps exact
MAX_TIMEOUT_MS = 600_000
MAX_SHIFT_PX = 16
MAX_SHIFTS = 8  # max_shift values in one request
TABLE_MEMBERS = 8  # default of a table: sequences are dealt out among the images, more of them cost no more passes
UPLOAD_MEMBERS = 4  # default of uploaded images: each sequence is used on every one and costs all passes again
UNKNOWN_OPTION = "unknown_option"  # type of the validation error
INCLUDABLE = ("members", "logits")

# What an option takes, in the words of an error message.
ALLOWED: dict[str, str] = {
    "ensemble_size": f"a whole number from 1 to {MAX_ENSEMBLE_SIZE}",
    "min_size": f"a whole number from 1 to {MAX_ENSEMBLE_SIZE}, at most the ensemble size",
    "seed": f"a whole number from 0 to {MAX_SEED} (2^53 - 1)",
    "top_k": "a whole number from 1 to 1000",
    "timeout_ms": f"a whole number of milliseconds from 1 to {MAX_TIMEOUT_MS}",
    "aggregate": "mean, median or mean_probability",
    "include": "members, logits or both with a comma between",
    "max_shift": f"up to {MAX_SHIFTS} different whole numbers of pixels from 1 to {MAX_SHIFT_PX}, with commas between",
    "samples": "a whole number from 2 to 10000",
    "input": "noise or dataset",
    "border": "zero, circular or reflect",
    "format": "json or png",
    "model": "the name of a loaded model, as GET /v1/models lists them",
    "models": "names of loaded models with commas between, as GET /v1/models lists them",
}


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _check_include(text: str) -> str:
    words = _listed(text)
    if not set(words) <= set(INCLUDABLE):
        raise ValueError(f"allowed is {ALLOWED['include']}")
    return text


def _check_max_shift(text: str) -> str:
    words = _listed(text)
    fits = all(word.isdecimal() and word.isascii() and 1 <= int(word) <= MAX_SHIFT_PX for word in words)
    if not fits or len(words) > MAX_SHIFTS or len({int(word) for word in words}) != len(words):
        raise ValueError(f"allowed is {ALLOWED['max_shift']}")
    return text


def _option(name: str, text: str, **more: Any) -> Any:
    return Field(description=f"{text} Takes {ALLOWED[name]}.", **more)


def _ensemble_size(text: str) -> Any:
    return _option("ensemble_size", text, ge=1, le=MAX_ENSEMBLE_SIZE)


ModelName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
EnsembleSize = Annotated[int | None, _ensemble_size("Members of the ensemble: scale sequences sampled.")]
Seed = Annotated[int | None, _option("seed", "Decides what is drawn; drawn and echoed when absent.", ge=0, le=MAX_SEED)]
TimeoutMs = Annotated[
    int | None, _option("timeout_ms", "Deadline of the whole request; then 504.", ge=1, le=MAX_TIMEOUT_MS)
]
MaxShift = Annotated[
    str,
    AfterValidator(_check_max_shift),
    _option("max_shift", "Rows of Table 1: shifts are drawn up to this far.", examples=["2,4,6"]),
]
Border = Annotated[
    Literal["zero", "circular", "reflect"], _option("border", "What enters an image at the side it is shifted from.")
]


class Options(BaseModel):
    """Query parameters; an unknown one is refused, so that a misspelt option cannot pass unnoticed."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _know_every_option(cls, given: Any) -> Any:
        """Name those that there are; pydantic's own message does not."""
        for name in given if isinstance(given, dict) else ():
            if name not in cls.model_fields:
                known = ", ".join(cls.model_fields)
                raise PydanticCustomError(UNKNOWN_OPTION, "there is no such option; allowed are {known}",
                                          {"name": name, "known": known})  # fmt: skip
        return given


class SequenceOptions(Options):
    """Options of `GET /v1/sequences`."""

    ensemble_size: EnsembleSize = None
    seed: Seed = None
    model: Annotated[ModelName | None, _option("model", "Which model.")] = None


class ClassifyOptions(SequenceOptions):
    """Options of `POST /v1/classify`."""

    top_k: Annotated[int | None, _option("top_k", "Classes listed for each image.", ge=1, le=1000)] = None
    aggregate: Annotated[
        Literal["mean", "median", "mean_probability"], _option("aggregate", "How members' logits become one.")
    ] = "mean"
    include: Annotated[
        str | None, AfterValidator(_check_include), _option("include", "What to add.", examples=["members,logits"])
    ] = None
    timeout_ms: TimeoutMs = None
    min_size: Annotated[
        int | None,
        _option(
            "min_size",
            "Members that are enough when time runs out; absent, all are needed.",
            ge=1,
            le=MAX_ENSEMBLE_SIZE,
        ),
    ] = None

    def includes(self, what: str) -> bool:
        """Whether "members" or "logits" was asked for."""
        return self.include is not None and what in _listed(self.include)


class ProbeOptions(Options):
    """What both forms of `/v1/equivariance` take."""

    max_shift: MaxShift = "2,4,6"
    border: Border = "zero"
    seed: Annotated[int, _option("seed", "Decides shifts, sequences, noise and bootstrap.", ge=0, le=MAX_SEED)] = 0
    timeout_ms: TimeoutMs = None
    format: Annotated[Literal["json", "png"], _option("format", "Form of the answer; png is a picture.")] = "json"

    def max_shifts(self) -> list[int]:
        """The shifts as numbers, in the order given."""
        return [int(word) for word in _listed(self.max_shift)]


class TableOptions(ProbeOptions):
    """Options of `GET /v1/equivariance`."""

    model: Annotated[ModelName | None, _option("model", "Which model.")] = None
    ensemble_size: Annotated[
        int | None, _ensemble_size(f"Scale sequences dealt out among the images; {TABLE_MEMBERS} when absent.")
    ] = None
    input: Annotated[Literal["noise", "dataset"], _option("input", "What is shifted.")] = "noise"
    samples: Annotated[int | None, _option("samples", "Images, each shifted once a row.", ge=2, le=10_000)] = None


class UploadProbeOptions(ProbeOptions):
    """Options of `POST /v1/equivariance`."""

    models: Annotated[str | None, _option("models", "Models side by side; all when absent.")] = None
    ensemble_size: Annotated[
        int | None, _ensemble_size(f"Scale sequences, each used on every image; {UPLOAD_MEMBERS} when absent.")
    ] = None


# Two numbers, said without `prefixItems`, which not every reader of OpenAPI knows.
Size = Annotated[
    tuple[int, int], WithJsonSchema({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 2})
]


class TopClass(BaseModel):
    """One class and its probability."""

    label: str
    class_index: int
    probability: float


class ImageResult(BaseModel):
    """What one image was classified as."""

    index: int = Field(description="Position of the image in the request, from 0.")
    label: str
    class_index: int
    probability: float
    top: list[TopClass] = Field(description="The most probable classes, best first.")
    agreement: float = Field(description="Share of members whose best class is the label; 1 without members.")
    entropy: float = Field(description="Of the probabilities, in nats.")
    logits: list[float] | None = Field(default=None, description="Aggregated, one a class; only with include=logits.")


class Sequence(BaseModel):
    """The scales of one member, exact, one a layer; and the maps that they give."""

    vertical: list[str] = Field(examples=[["1", "5/6", "4/5"]])
    horizontal: list[str]
    shapes: list[Size] = Field(description="[height, width] of every layer's output.")


class Member(BaseModel):
    """What one member thinks of every image."""

    sequence: Sequence
    labels: list[str] = Field(description="Its best class for each image.")
    probabilities: list[float] = Field(description="What it gives that class.")


class Timing(BaseModel):
    """Where the time went, in milliseconds."""

    decode: float
    queue: float
    inference: float
    total: float


class ClassifyResponse(BaseModel):
    """The answer of `POST /v1/classify`."""

    request_id: str
    model: str
    ensemble_size: int = Field(description="Members used; 1 for a model without scale sequences.")
    asked_ensemble_size: int | None = Field(
        default=None, description="Only when time ran out and min_size allowed fewer: the members that were asked for."
    )
    seed: int = Field(description="The same images, ensemble size, seed and model give the same answer.")
    results: list[ImageResult]
    members: list[Member] | None = Field(
        default=None, description="Only with include=members, for a model with sequences."
    )
    timing_ms: Timing


class SequencesResponse(BaseModel):
    """The answer of `GET /v1/sequences`."""

    request_id: str
    model: str
    ensemble_size: int
    seed: int
    input_size: Size = Field(description="[height, width] of the network's input, in pixels.")
    sequences: list[Sequence]


class ModelInfo(BaseModel):
    """A loaded model."""

    name: str
    default: bool = Field(description="Whether a request that names no model gets this one.")
    architecture: str
    takes_sequences: bool = Field(description="Whether it is run as an ensemble of scale sequences.")
    labels: list[str]
    input_size: Size
    device: str
    backend: str | None = Field(description="How continuous convolutions are computed; null without any.")
    instruction_set: str | None = Field(description="What the native kernels use; null under another backend.")
    parameters: int
    metrics: dict[str, Any] | None = Field(description="As its model card states them.")
    config: dict[str, Any] | None = Field(default=None, description="All of config.json; for a single model only.")


class ModelsResponse(BaseModel):
    """The answer of `GET /v1/models`."""

    models: list[ModelInfo]


class TableRow(BaseModel):
    """One row of Table 1."""

    max_shift: int = Field(description="Shifts are drawn up to this far, in input pixels.")
    cosine_mean: float
    cosine_std: float
    ci95: tuple[float, float] = Field(description="Bootstrap interval of the mean, images resampled.")
    consistency: float | None = Field(description="Share of pairs in which both images get the same label.")
    samples: int
    skipped: int = Field(description="Pairs without a cosine, because both maps are zero.")
    sequence_std: float | None = Field(description="Spread of the means of single scale sequences.")


class TableResponse(BaseModel):
    """The answer of `GET /v1/equivariance`."""

    request_id: str
    model: str
    input: str
    samples: int
    rows: list[TableRow]
    protocol: dict[str, Any] = Field(description="Every choice behind the numbers that the paper leaves open.")
    timing_ms: Timing


class ShiftMap(BaseModel):
    """Mean cosine at every shift."""

    max_shift: int
    cosine: list[list[float | None]] = Field(
        description="Row max_shift + dy, column max_shift + dx holds the shift (dy, dx); null where all was skipped."
    )
    samples: int
    skipped: int


class ModelProbe(BaseModel):
    """What one model makes of the uploaded images."""

    model: str
    rows: list[TableRow]
    map: ShiftMap
    protocol: dict[str, Any]


class ProbeResponse(BaseModel):
    """The answer of `POST /v1/equivariance`: models side by side."""

    request_id: str
    input: Literal["upload"] = "upload"
    samples: int = Field(description="Images that were uploaded.")
    seed: int
    models: list[ModelProbe]
    timing_ms: Timing


class Health(BaseModel):
    """The answer of the probes."""

    status: str


class Problem(BaseModel):
    """An error, RFC 9457."""

    type: str = Field(examples=["urn:ccnet:problem:option"])
    title: str
    status: int
    detail: str = Field(description="What was given, what is allowed and how to mend it.")
    request_id: str
