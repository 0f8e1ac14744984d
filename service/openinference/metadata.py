"""What a server and its models say of themselves: metadata, Triton's model configuration, the repository's index."""

from collections.abc import Iterable, Sequence
from typing import Any

from ccnet import __version__
from service.openinference.answers import VERSION
from service.openinference.messages import INPUT
from service.served import ServedModel
from service.settings import Settings
from service.statistics import ModelStatistics, Statistics, Times

PLATFORM = "ccnet_pytorch"
EXTENSIONS = (
    "binary_tensor_data",
    "classification",
    "model_configuration",
    "model_repository",
    "parameters",
    "statistics",
)


def server_metadata() -> dict[str, Any]:
    """Of the server."""
    return {"name": "ccnet", "version": __version__, "extensions": [*EXTENSIONS]}


def model_metadata(model: ServedModel) -> dict[str, Any]:
    """Of a model. `images` may come in two other forms too; this one has a datatype and sizes that can be declared."""
    return {
        "name": model.name,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [{"name": INPUT, "datatype": "FP32", "shape": [-1, model.channels, *model.in_size]}],
        "outputs": [
            {"name": name, "datatype": datatype, "shape": [-1, *sizes]} for name, datatype, sizes in _outputs(model)
        ],
    }


def model_config(model: ServedModel, settings: Settings) -> dict[str, Any]:
    """Of a model, as Triton's ModelConfig; its `dims` leave out the axis of the images."""
    return {
        "name": model.name,
        "platform": PLATFORM,
        "backend": "ccnet",
        "version_policy": {"latest": {"num_versions": 1}},
        "max_batch_size": settings.max_images_per_request,
        "input": [{"name": INPUT, "data_type": "TYPE_FP32", "dims": [model.channels, *model.in_size]}],
        "output": [
            {"name": name, "data_type": "TYPE_STRING" if datatype == "BYTES" else "TYPE_FP32", "dims": [*sizes]}
            for name, datatype, sizes in _outputs(model)
        ],
        "instance_group": [{"name": model.name, "kind": _kind(model), "count": 1}],
        "dynamic_batching": {"max_queue_delay_microseconds": round(settings.batch_wait_ms * 1000)},
        "parameters": {
            "ensemble_size": {"string_value": str(settings.ensemble_size if model.takes_sequences else 1)},
            "max_batch_passes": {"string_value": str(settings.max_batch_passes)},
            "labels": {"string_value": ",".join(model.labels)},
        },
    }


def repository_index(models: Sequence[ServedModel]) -> list[dict[str, Any]]:
    """Every model; only loaded ones are known."""
    return [{"name": model.name, "version": VERSION, "state": "READY", "reason": ""} for model in models]


def _outputs(model: ServedModel) -> list[tuple[str, str, tuple[int, ...]]]:
    classes = (len(model.labels),)
    return [
        ("logits", "FP32", classes),
        ("probabilities", "FP32", classes),
        ("labels", "BYTES", ()),
        ("agreement", "FP32", ()),
        ("entropy", "FP32", ()),
    ]


def _kind(model: ServedModel) -> str:
    return "KIND_GPU" if str(model.facts["device"]).startswith("cuda") else "KIND_CPU"


def statistics(of_all: Statistics, models: Iterable[ServedModel]) -> dict[str, Any]:
    """What was measured of these models."""
    found = of_all.snapshot(model.name for model in models)
    return {"model_stats": [_model_statistics(name, of_model) for name, of_model in found.items()]}


def _model_statistics(name: str, measured: ModelStatistics) -> dict[str, Any]:
    nothing = _times(Times())
    return {
        "name": name,
        "version": VERSION,
        "last_inference": measured.last_ms,
        "inference_count": measured.images,
        "execution_count": sum(times.count for times in measured.executions.values()),
        "inference_stats": {kind: _times(times) for kind, times in measured.times.items()},
        "response_stats": {},
        "batch_stats": [
            {"batch_size": images, "compute_input": nothing, "compute_infer": _times(times), "compute_output": nothing}
            for images, times in sorted(measured.executions.items())
        ],
        "memory_usage": [],
    }


def _times(times: Times) -> dict[str, int]:
    return {"count": times.count, "ns": times.ns}
