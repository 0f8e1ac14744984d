"""Every number that an operator may change: one field each, read from the environment as `CCNET_<NAME>`.

`python -m service.settings` prints `docs/settings.md`, so the documentation cannot drift from the code.
"""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MAX_ENSEMBLE_SIZE = 64  # members; part of the HTTP contract, so not a setting
HASHED = "sha256:"  # what a key begins with that is given as its hash
PILLOW_BOMB_PIXELS = 89_478_485  # above this Pillow itself refuses an image


class Settings(BaseSettings):
    """The settings of one service process; units stand in the names."""

    model_config = SettingsConfigDict(
        env_prefix="CCNET_", env_ignore_empty=True, extra="ignore", frozen=True, hide_input_in_errors=True
    )

    checkpoints: Path = Field(
        default=Path("checkpoints"), description="Folder whose sub-folders are the checkpoints to load."
    )
    model: str | None = Field(
        default=None,
        description="Name of the model used when a request names none; without it, the first CCNet by name.",
    )
    reload_s: float = Field(
        default=5.0,
        ge=0,
        le=3600,
        description="Time between two looks at the folder of checkpoints; one that came, changed or went is loaded, "
        "replaced or unloaded once it has been still from one look to the next. 0 never looks.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        default="auto", description="Where the models run; `auto` takes a GPU when there is one."
    )
    data_dir: Path | None = Field(
        default=None,
        description="Folder of the data sets for `input=dataset` probes; without it, where the system keeps them.",
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on; `0.0.0.0` for every interface.")
    port: int = Field(default=8000, ge=0, le=65535, description="TCP port to listen on; 0 takes a free one.")
    api_keys: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        default=(),
        description="Comma-separated keys, one of which `/v1` and `/v2` then demand; several allow rotation. Each as "
        "it is, or as `sha256:` and the 64 hex digits of its SHA-256. Empty: no key.",
    )
    metrics_key: bool = Field(default=False, description="Whether `/metrics` demands a key too.")
    metrics_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="TCP port for `/metrics` alone, 0 for a free one; `CCNET_PORT` then has no `/metrics`.",
    )
    metrics_host: str = Field(default="127.0.0.1", description="Address that `CCNET_METRICS_PORT` listens on.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is logged, as one JSON object a line."
    )
    tracing: Literal["off", "otlp"] = Field(
        default="off",
        description="`otlp` sends OpenTelemetry spans of requests and batches over HTTP to a collector, which "
        "`OTEL_EXPORTER_OTLP_ENDPOINT` names; needs `pip install 'ccnet[tracing]'`.",
    )
    ensemble_size: int = Field(
        default=4, ge=1, le=MAX_ENSEMBLE_SIZE, description="Members used when a request names none."
    )
    seed_pool: int = Field(
        default=2,
        ge=0,
        le=65_536,
        description="Seeds, from 0 on, of which a request without one gets any, so that prepared weights are used "
        "again; 0 draws a fresh seed for each. A request with a seed always gets the sequences of that seed.",
    )
    prepared_members: int = Field(
        default=8,
        ge=1,
        le=MAX_ENSEMBLE_SIZE,
        description="Members of each seed of the pool whose weights are prepared before the service is ready, at least "
        "`CCNET_ENSEMBLE_SIZE`; larger ensembles generate those of the rest while they are answered.",
    )
    plan_cache_bytes: int = Field(
        default=768 * 2**20,
        ge=0,
        description="Most bytes of prepared weights kept, for all models together; 0 keeps none. A scale sequence has "
        "about 42 MB, and requests that name no seed use `CCNET_SEED_POOL` x `CCNET_PREPARED_MEMBERS` of them. "
        "An evaluation that runs keeps as many of its own beside them, but at most 134 MB.",
    )
    top_k: int = Field(default=5, ge=1, description="Classes listed per image when a request names no number.")
    request_timeout_ms: int = Field(
        default=120_000,
        ge=1,
        le=600_000,
        description="Deadline of a request that names none, reading the body included.",
    )
    inference_threads: int = Field(
        default=0, ge=0, description="Threads inside one forward pass on a CPU; 0 leaves the choice to torch."
    )
    worker_threads: int = Field(default=2, ge=1, le=64, description="Threads that decode and normalise images.")
    max_waiting_images: int = Field(
        default=512, ge=1, description="Images that may wait for or be in decoding; beyond that requests get 429."
    )
    max_head_bytes: int = Field(
        default=2**16, ge=1024, description="Largest first line and headers of a request together; beyond that 431."
    )
    max_headers: int = Field(default=100, ge=10, description="Most headers of a request; beyond that 431.")
    head_timeout_s: float = Field(
        default=20.0,
        gt=0,
        le=600,
        description="Time in which the head of a request must arrive, on an open connection; then it is closed.",
    )
    max_body_bytes: int = Field(default=16 * 2**20, ge=1, description="Largest request body; beyond that 413.")
    max_held_bytes: int = Field(
        default=2**28,
        ge=1,
        description="Most bytes of bodies held at one time, each from its arrival to its answer; beyond that 429.",
    )
    max_images_per_request: int = Field(default=64, ge=1, description="Most images in one request; beyond that 413.")
    max_image_pixels: int = Field(
        default=2**24,
        ge=1,
        le=PILLOW_BOMB_PIXELS,
        description="Most pixels in one image, read from its header; beyond it 413.",
    )
    max_request_passes: int = Field(
        default=1024, ge=1, description="Most passes (images x members) that one request may cost; beyond that 413."
    )
    max_queue_passes: int = Field(
        default=4096, ge=1, description="Most passes that may wait for the inference thread; beyond that 429."
    )
    max_batch_passes: int = Field(
        default=128,
        ge=1,
        description="Passes up to which waiting requests are batched together. With more, on a CPU, answers come "
        "in larger bursts, and refusals wait for these; a GPU has not been measured.",
    )
    batch_wait_ms: float = Field(
        default=2.0,
        ge=0,
        le=1000,
        description="Longest wait of a batch for more requests, only after one that held several.",
    )
    stall_timeout_s: float = Field(
        default=300.0,
        gt=0,
        description="Running time of a batch after which `GET /health/live` says 503, so that the process is replaced.",
    )
    max_probe_passes: int = Field(
        default=8192, ge=1, description="Most passes that one equivariance probe may cost; beyond that 413."
    )
    probe_samples: int = Field(default=64, ge=2, description="Images in a `GET /v1/equivariance` that names no number.")
    state_dir: Path | None = Field(
        default=None,
        description="Folder in which evaluation jobs and their results are kept, for one process alone; without it "
        "`ccnet` in the user's folder for state (`$XDG_STATE_HOME`, else `~/.local/state`). Where it cannot be "
        "written `/v1/evaluations` answers 503, and all else is served.",
    )
    evaluation_slice_passes: int = Field(
        default=16,
        ge=1,
        description="Passes that an evaluation makes in one go, only while no request waits; one that comes meanwhile "
        "waits for these at most. More make evaluations faster and such a request slower.",
    )
    evaluation_rest_ms: float = Field(
        default=50.0,
        ge=0,
        le=60_000,
        description="Time after a request in which no evaluation makes passes, so that those who ask again and again "
        "do not wait for it each time.",
    )
    max_waiting_evaluations: int = Field(
        default=16, ge=1, description="Most evaluations that wait behind the one that runs; beyond that 429."
    )
    max_evaluation_passes: int = Field(
        default=2**21, ge=1, description="Most passes that one evaluation may cost; beyond that 413."
    )
    max_evaluation_images: int = Field(
        default=20_000, ge=1, description="Most pictures in an uploaded data set; beyond that 413."
    )
    max_evaluation_bytes: int = Field(
        default=64 * 2**20, ge=1, description="Largest uploaded data set, as it is sent; beyond that 413."
    )
    max_evaluation_unpacked_bytes: int = Field(
        default=2**28,
        ge=1,
        description="Most bytes of an uploaded data set when unpacked, and of its pixels in memory; beyond that 413.",
    )
    kept_evaluations: int = Field(
        default=100, ge=1, description="Finished evaluations whose results are kept, those that ended last."
    )
    keep_alive_s: int = Field(
        default=65, ge=1, le=3600, description="Time an idle connection stays open; more than a load balancer's 60."
    )
    drain_delay_s: float = Field(
        default=0.0,
        ge=0,
        le=600,
        description="Time after SIGTERM in which requests are still taken while readiness is false.",
    )
    drain_timeout_s: float = Field(
        default=30.0, gt=0, le=3600, description="Time that admitted requests have to finish after SIGTERM."
    )

    @field_validator("api_keys", mode="before")
    @classmethod
    def _split_keys(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(key.strip() for key in value.split(",") if key.strip())
        return value

    @field_validator("api_keys", mode="after")
    @classmethod
    def _check_hashes(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, key in enumerate(keys, 1):
            value = key.get_secret_value()
            if value.startswith(HASHED) and not re.fullmatch("[0-9a-fA-F]{64}", value.removeprefix(HASHED)):
                raise ValueError(
                    f"key {number} begins with {HASHED} and must go on with the 64 hex digits of a SHA-256"
                )
        return keys

    @field_validator("tracing")
    @classmethod
    def _tracing_is_installed(cls, value: str) -> str:
        if value == "otlp" and not (_is_there("opentelemetry.sdk") and _is_there("opentelemetry.exporter.otlp.proto")):
            raise ValueError("tracing needs more packages: pip install 'ccnet[tracing]'")
        return value

    @model_validator(mode="after")
    def _metrics_key_exists(self) -> Self:
        if self.metrics_key and not self.api_keys:
            raise ValueError("metrics_key=true was given without any key: set CCNET_API_KEYS, or leave it out")
        return self

    @model_validator(mode="after")
    def _one_request_fits(self) -> Self:
        if self.max_body_bytes > self.max_held_bytes:
            raise ValueError(
                f"max_body_bytes={self.max_body_bytes} was given; it may be at most "
                f"max_held_bytes={self.max_held_bytes}: raise CCNET_MAX_HELD_BYTES or lower the other"
            )
        if self.max_request_passes > self.max_queue_passes:
            raise ValueError(
                f"max_request_passes={self.max_request_passes} was given; it may be at most "
                f"max_queue_passes={self.max_queue_passes}: raise CCNET_MAX_QUEUE_PASSES or lower the other"
            )
        return self


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # not even its package
        return False


def _default_text(field: FieldInfo) -> str:
    default = field.default
    if default is None or default is PydanticUndefined or default == ():
        return "-"
    return f"`{default}`"


def _allowed_text(schema: dict[str, Any]) -> str:
    """What a field takes, read from its JSON schema."""
    schema = next((part for part in schema.get("anyOf", []) if part.get("type") != "null"), schema)
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("format") == "path":
        return "path"
    bounds = [
        f"{sign} {schema[key]}"
        for key, sign in (("minimum", ">="), ("exclusiveMinimum", ">"), ("maximum", "<="))
        if key in schema
    ]
    names = {
        "boolean": "`true` or `false`",
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "array": "comma-separated text",
    }
    return " ".join([names[schema["type"]], ", ".join(bounds)]).strip()


def settings_markdown() -> str:
    """`docs/settings.md`: one row a setting, with the variable, what it takes, the default and what it does."""
    properties = Settings.model_json_schema()["properties"]
    rows = [
        f"| `CCNET_{name.upper()}` | {_allowed_text(properties[name])} | {_default_text(field)} | {field.description} |"
        for name, field in Settings.model_fields.items()
    ]
    return "\n".join(
        [
            "# Settings",
            "",
            "The service reads these environment variables. This page is generated: `python -m service.settings >"
            " docs/settings.md`.",
            "",
            "| variable | takes | default | what it does |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
        ]
    )


def settings_summary(settings: Settings) -> dict[str, Any]:
    """The settings in force as plain JSON values, keys hidden; for the line that is logged at start."""
    summary: dict[str, Any] = json.loads(settings.model_dump_json())
    return {**summary, "api_keys": len(settings.api_keys)}


if __name__ == "__main__":
    import sys

    sys.stdout.write(settings_markdown())
