"""Checkpoints of upscalers: a folder of safetensors and JSON, as those of classifiers, and never a pickle.

    model.safetensors   weights, float32
    config.json         architecture, training, data, metrics, versions, commit
    README.md           the card, made from config.json

They have a format of their own and live in a folder of their own (`checkpoints/upscalers/`): what looks for classifiers
does not find them, and says so when it is given one.
"""

import shutil
from pathlib import Path
from typing import Any

import torch

from ccnet import provenance
from ccnet.checkpoint import CONFIG_FILE, WEIGHTS_FILE, read_json, read_weights, write_description, write_folder
from ccnet.errors import CheckpointError
from ccnet.files import replaced_folder
from ccnet.upscaling.card import upscaler_card
from ccnet.upscaling.model import CCUpscaler

FORMAT, FORMAT_VERSION = "ccnet-upscaler", 1
_MAX_DIMENSION = 512  # of any number in an architecture
_MAX_NUMBERS = 32  # in an architecture, most of them hidden widths
_KEYS = ("width", "depth", "kernel_size", "kernel_input", "hidden")


def save_upscaler(
    model: CCUpscaler,
    folder: Path | str,
    *,
    training: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
) -> None:
    """Write a checkpoint folder, or replace one, atomically.

    Args:
        model: what is saved.
        folder: the folder to write.
        training, data, metrics: JSON-able; the recipe and how far it went, the pictures, what was measured.

    Raises:
        CheckpointError: values that are not JSON, or weights that are not finite.
    """
    folder = Path(folder)
    weights = {name: tensor.detach().cpu().float().contiguous() for name, tensor in model.state_dict().items()}
    if not all(bool(torch.isfinite(tensor).all()) for tensor in weights.values()):
        raise CheckpointError("the upscaler to be saved has weights that are not finite")
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": folder.resolve().name,
        "architecture": {"name": "CCUpscaler", "kwargs": model.config},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": training,
        "data": data,
        "metrics": metrics,
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "created": provenance.now(),
    }
    write_folder(folder, weights, config, upscaler_card)


def write_upscaler_metrics(folder: Path | str, metrics: dict[str, Any], **changes: Any) -> None:
    """Put what was measured into the config and the card of a checkpoint, atomically.

    Raises:
        CheckpointError: no valid config in the folder, or metrics that are not JSON.
    """
    folder = Path(folder)
    config = read_upscaler_config(folder) | changes | {"metrics": metrics}
    with replaced_folder(folder) as temporary:
        shutil.copyfile(folder / WEIGHTS_FILE, temporary / WEIGHTS_FILE)
        write_description(temporary, config, upscaler_card)


def load_upscaler(folder: Path | str) -> tuple[CCUpscaler, dict[str, Any]]:
    """The network, in eval mode and without gradients, and all of its config.

    Raises:
        CheckpointError: anything missing, damaged, of another network, not finite, or a pickle.
    """
    folder = Path(folder)
    config = read_upscaler_config(folder)
    kwargs = config["architecture"]["kwargs"]
    numbers = [number for value in kwargs.values() for number in (value if isinstance(value, list) else [value])]
    too_large = len(numbers) > _MAX_NUMBERS or any(isinstance(n, int) and n > _MAX_DIMENSION for n in numbers)
    if kwargs.keys() != set(_KEYS) or too_large:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: 'kwargs' is {repr(kwargs)[:200]}; it has {', '.join(_KEYS)}, none above "
            f"{_MAX_DIMENSION}, and at most {_MAX_NUMBERS} numbers in all"
        )
    try:
        with torch.device("meta"):  # neither memory nor initial weights, whatever a config asks for
            model = CCUpscaler(**(kwargs | {"hidden": tuple(kwargs["hidden"])}))
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: no CCUpscaler can be built from {kwargs!r}: {error}") from error
    model.load_state_dict(read_weights(folder / WEIGHTS_FILE, model.state_dict()), assign=True)
    return model.requires_grad_(False).eval(), config


def read_upscaler_config(folder: Path | str) -> dict[str, Any]:
    """The checked config.json of an upscaler, without loading any weights.

    Raises:
        CheckpointError: the folder or a file is missing, or it is no upscaler's.
    """
    config = read_json(folder)
    found = (config.get("format"), config.get("format_version"))
    if found != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(
            f"{Path(folder) / CONFIG_FILE} is {found[0]} version {found[1]}; an upscaler is {FORMAT} version "
            f"{FORMAT_VERSION}. Make one with `ccnet upscale --train FOLDER`"
        )
    architecture = config.get("architecture")
    if not isinstance(architecture, dict) or architecture.get("name") != "CCUpscaler":
        raise CheckpointError(f"{Path(folder) / CONFIG_FILE}: 'architecture' is {architecture!r}, not a CCUpscaler's")
    if not isinstance(config.get("name"), str):
        raise CheckpointError(f"{Path(folder) / CONFIG_FILE}: 'name' is {config.get('name')!r}; it is a text")
    if not isinstance(architecture.get("kwargs"), dict):
        raise CheckpointError(f"{Path(folder) / CONFIG_FILE}: 'kwargs' of the architecture is no object")
    return config
