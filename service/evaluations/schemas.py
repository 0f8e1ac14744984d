"""What is asked of `/v1/evaluations` and answered, as `/docs` shows it; no tensor is known here."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from service.evaluations.jobs import Job, Progress, Status
from service.schemas import MAX_SEED, MAX_SHIFT_PX, MAX_SHIFTS, ModelName, Options
from service.settings import MAX_ENSEMBLE_SIZE

MAX_SIZES = 8
MAX_DRAWS = 100
MAX_PAGE = 1000
BUILT_IN = Literal["fashion-mnist", "cifar-10"]


def _different(values: list[int]) -> list[int]:
    if len(set(values)) < len(values):
        raise ValueError("each value may stand once")
    return values


class Question(BaseModel):
    """JSON in a body: an unknown key is refused, and a text is no number."""

    model_config = ConfigDict(extra="forbid", strict=True)


Sizes = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_ENSEMBLE_SIZE)]],
    Field(min_length=1, max_length=MAX_SIZES),
    AfterValidator(_different),
]
Shifts = Annotated[
    list[Annotated[int, Field(ge=1, le=MAX_SHIFT_PX)]],
    Field(min_length=1, max_length=MAX_SHIFTS),
    AfterValidator(_different),
]


class EquivarianceOptions(Question):
    """How steadiness under shifts is measured."""

    max_shift: Shifts = Field(default=[2, 4, 6], description="Largest shifts, px of the input; a row each.")
    samples: int = Field(default=200, ge=2, le=10_000, description="Images, and as many of noise, in every row.")


class EvaluationOptions(Question):
    """What a job is to measure; docs/evaluation.md says what each number means."""

    model: ModelName | None = Field(default=None, description="Which model; the default one when absent.")
    dataset: BUILT_IN | None = Field(
        default=None, description="A data set that is installed beside the service. Left out with an upload."
    )
    ensemble_sizes: Sizes = Field(default=[1, 2, 4, 8], description="Numbers of scale sequences, a row each.")
    draws: int = Field(default=10, ge=1, le=MAX_DRAWS, description="Ensembles of each size that are measured.")
    seed: int = Field(default=0, ge=0, le=MAX_SEED, description="Decides all that is drawn.")
    limit: int | None = Field(default=None, ge=1, description="Only so many images, the first ones.")
    views: bool = Field(default=True, description="Measure averages over mirrored and moved views beside ensembles.")
    equivariance: EquivarianceOptions | None = Field(
        default=EquivarianceOptions(), description="null leaves steadiness under shifts out."
    )


class ListOptions(Options):
    """Options of `GET /v1/evaluations`."""

    limit: Annotated[int, Field(ge=1, le=MAX_PAGE, description=f"Jobs in the answer, 1 to {MAX_PAGE}.")] = 50
    before: Annotated[
        str | None,
        Field(pattern=r"^[0-9a-f]{1,64}$", description="Only jobs older than this one: `next` of an answer."),
    ] = None
    status: Annotated[Status | None, Field(description="Only jobs that stand there.")] = None


class ReportOptions(Options):
    """Options of `GET /v1/evaluations/{id}/report`."""

    format: Annotated[Literal["json", "markdown", "html"], Field(description="Form of the report.")] = "json"


class DatasetInfo(BaseModel):
    """What a job measures on."""

    name: str
    images: int = Field(description="How many are measured.")
    uploaded: bool


class JobProgress(BaseModel):
    """How far a job is, in passes: forward passes of single images."""

    done: int
    total: int
    passes: int = Field(description="What it costs, as it was reckoned when it was taken.")


class Evaluation(BaseModel):
    """A job."""

    id: str
    status: Status
    model: str
    dataset: DatasetInfo
    options: EvaluationOptions
    progress: JobProgress
    eta_s: float | None = Field(description="Seconds that a running job may still take; null when nobody knows.")
    created: datetime
    started: datetime | None = Field(description="When it was last begun.")
    finished: datetime | None
    error: str | None = Field(description="Why it failed.")


class EvaluationResponse(Evaluation):
    """The answer of `POST /v1/evaluations`, `GET /v1/evaluations/{id}` and of a `DELETE` that cancelled."""

    request_id: str
    result: dict[str, Any] | None = Field(
        default=None, description="The document of a job that succeeded; only of `GET /v1/evaluations/{id}`."
    )

    @classmethod
    def of(cls, job: Job, progress: Progress | None, request_id: str, result: dict[str, Any] | None = None) -> Self:
        """A job as an answer."""
        return cls(**described(job, progress), request_id=request_id, result=result)


class EvaluationsResponse(BaseModel):
    """The answer of `GET /v1/evaluations`."""

    request_id: str
    evaluations: list[Evaluation] = Field(description="The newest first.")
    next: str | None = Field(description="`before` of the next page; null when there is none.")


def described(job: Job, progress: Progress | None) -> dict[str, Any]:
    """The fields of `Evaluation`; `progress` is that of a job that runs."""
    order = job.order
    done = order.passes if job.status is Status.SUCCEEDED else 0
    return {
        "id": job.id,
        "status": job.status,
        "model": order.model,
        "dataset": DatasetInfo(name=order.dataset, images=order.images, uploaded=order.uploaded),
        "options": EvaluationOptions.model_validate(order.options),
        "progress": JobProgress(
            done=done if progress is None else progress.done,
            total=order.passes if progress is None else progress.total,
            passes=order.passes,
        ),
        "eta_s": None if progress is None or progress.eta_s is None else round(progress.eta_s, 1),
        "created": _moment(job.created),
        "started": _moment(job.started),
        "finished": _moment(job.finished),
        "error": job.error,
    }


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
