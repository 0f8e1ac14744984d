"""Checkpoints: a trained network as a folder that says what it is, and that no pickle ever touches.

    model.safetensors   weights, float16 unless asked otherwise
    config.json         architecture, labels, preprocessing, scale distribution, training, data, metrics, versions,
                        commit
    README.md           the model card, made from config.json

Saving is atomic: whatever moment the process dies at, the folder is the old one or the new one. Loading
checks the config, then every tensor's name, shape and values against the network that the config describes.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from ccnet import provenance
from ccnet.errors import CcnetError, CheckpointError
from ccnet.files import replaced_folder
from ccnet.model_card import model_card
from ccnet.models import BlurConvNet, CCNet, ConvNet
from ccnet.preprocessing import Picture, Preprocessing

UPSCALERS_FOLDER = "upscalers"  # beside the classifiers' folders: those of `ccnet.upscaling`, which classify nothing
Card = Callable[[dict[str, Any]], str]  # config -> text of the README
WEIGHTS_FILE, CONFIG_FILE, CARD_FILE = "model.safetensors", "config.json", "README.md"
FORMAT, FORMAT_VERSION = "ccnet-checkpoint", 1
Network = CCNet | ConvNet
ARCHITECTURES: dict[str, type[CCNet] | type[ConvNet]] = {
    "CCNet": CCNet,
    "ConvNet": ConvNet,
    "BlurConvNet": BlurConvNet,
}

_DTYPES = {"float16": torch.float16, "float32": torch.float32}
_PICKLE_SUFFIXES = (".pt", ".pth", ".bin", ".pkl", ".ckpt")
_SAMPLER_ARGUMENTS = ("std", "method", "max_numerator")
_REQUIRED = {
    "format": str, "format_version": int, "name": str, "architecture": dict, "labels": list, "preprocessing": dict,
}  # fmt: skip
_MAX_CONFIG_BYTES = 16 << 20
_MAX_DIMENSION = 4096  # of any number in an architecture: a damaged config must not ask for terabytes


@dataclass(frozen=True)
class Checkpoint:
    """A network that is ready to classify.

    Attributes:
        name: of the checkpoint, the folder's name unless its config says otherwise.
        model: in eval mode, float32, without gradients.
        labels: the name of every class, in the order of the logits.
        config: all of config.json.
        preprocessing: from pictures to the network's input.
        device: where the model is.
    """

    name: str
    model: Network
    labels: tuple[str, ...]
    config: dict[str, Any]
    preprocessing: Preprocessing
    device: torch.device

    def preprocess(self, images: Picture | Sequence[Picture]) -> Tensor:
        """uint8 [N, H, W, C], or a list of uint8 [H, W, C] -> float32 [N, C, H', W'] on the model's device."""
        return self.preprocessing(images).to(self.device)

    @property
    def sampler(self) -> dict[str, Any]:
        """How its scale sequences are drawn, as arguments of `sample_scale_sequences` and `ScaleEnsemble`.

        Those of std, method and max_numerator that the config's `scale_distribution` gives a value; what is left out
        is a default. Empty for a network without scale sequences.

        Raises:
            CheckpointError: `scale_distribution` is no object.
        """
        distribution = self.config.get("scale_distribution") or {}
        if not isinstance(distribution, dict):
            raise CheckpointError(f"'scale_distribution' of {self.name} is {distribution!r}, which is no object")
        return {key: distribution[key] for key in _SAMPLER_ARGUMENTS if distribution.get(key) is not None}


def save_checkpoint(
    model: nn.Module,
    folder: Path | str,
    *,
    labels: Sequence[str],
    preprocessing: Preprocessing,
    name: str | None = None,
    scale_distribution: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    metrics: dict[str, Any] | None = None,
    dtype: str = "float16",
) -> None:
    """Write a checkpoint folder, or replace one, atomically.

    Args:
        model: a `CCNet` or `ConvNet`; its `config` (keyword arguments of its class, JSON-able) goes into config.json.
        folder: the folder to write.
        labels: the name of every class, in the order of the logits.
        preprocessing: what the network was trained with.
        name: None takes the folder's name.
        scale_distribution: how scale sequences were drawn in training (CCNet alone).
        training: the recipe and how far it went.
        data: what it was trained on.
        metrics: what was measured, usually added later by `evaluation.write_metrics`.
        dtype: of the weights in the file, "float16" or "float32".

    Raises:
        CheckpointError: another class of model, another number of labels, an unknown dtype, values that are not JSON,
            or a weight that is not finite in that dtype.
    """
    folder = Path(folder)
    architecture = type(model).__name__
    if not isinstance(model, Network) or architecture not in ARCHITECTURES:
        raise CheckpointError(f"cannot save a {architecture}; known architectures are {', '.join(ARCHITECTURES)}")
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder} is a file; a checkpoint is a folder")
    if dtype not in _DTYPES:
        raise CheckpointError(f"cannot save weights as {dtype!r}; allowed are {', '.join(_DTYPES)}")
    if len(labels) != model.config["classes"]:
        raise CheckpointError(f"{len(labels)} labels for a network of {model.config['classes']} classes")
    weights = {key: tensor.detach().cpu().to(_DTYPES[dtype]).contiguous() for key, tensor in model.state_dict().items()}
    _check_finite(weights, f"the model to be saved, as {dtype},")
    config = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "name": name or folder.resolve().name,
        "architecture": {"name": architecture, "kwargs": model.config},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "weights": {"file": WEIGHTS_FILE, "dtype": dtype},
        "labels": list(labels),
        "preprocessing": preprocessing.to_dict(),
        "scale_distribution": scale_distribution,
        "training": training,
        "data": data,
        "metrics": metrics,
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "created": provenance.now(),
    }
    write_folder(folder, weights, config, model_card)


def write_metrics(folder: Path | str, metrics: dict[str, Any]) -> None:
    """Put what was measured into the config and the card of a checkpoint, atomically.

    Args:
        folder: a checkpoint folder; the weights stay as they are.
        metrics: JSON-able, for example the result of `evaluation.evaluate`; replaces the metrics that were there.

    Raises:
        CheckpointError: no valid config in the folder, or metrics that are not JSON.
    """
    folder = Path(folder)
    config = read_config(folder) | {"metrics": metrics}
    with replaced_folder(folder) as temporary:
        shutil.copyfile(folder / WEIGHTS_FILE, temporary / WEIGHTS_FILE)
        write_description(temporary, config, model_card)


def write_folder(folder: Path, weights: dict[str, Tensor], config: dict[str, Any], card: Card) -> None:
    """Weights, config and card of any network as a folder, atomically.

    Raises:
        CheckpointError: as `write_description`.
    """
    with replaced_folder(folder) as temporary:
        save_file(weights, temporary / WEIGHTS_FILE)
        (temporary / WEIGHTS_FILE).chmod(0o644)  # safetensors makes it private to its writer
        write_description(temporary, config, card)


def write_description(folder: Path, config: dict[str, Any], card: Card) -> None:
    """Config and card.

    Raises:
        CheckpointError: the config holds what JSON has not.
    """
    try:
        text = json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"what describes the checkpoint cannot be written as JSON: {error}") from error
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / CARD_FILE).write_text(card(json.loads(text)), encoding="utf-8")


def load_checkpoint(folder: Path | str, device: torch.device | str = "cpu") -> Checkpoint:
    """Load a checkpoint folder.

    Args:
        folder: as written by `save_checkpoint`.
        device: where the model goes.

    Returns:
        The network, in eval mode and float32, with all that its config says.

    Raises:
        CheckpointError: anything missing, damaged, of another network, not finite, or a pickle.
    """
    folder = Path(folder)
    config = read_config(folder)
    try:
        preprocessing = Preprocessing.from_dict(config["preprocessing"])
    except CcnetError as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: {error}") from error
    model = _build(config["architecture"], folder)
    if len(config["labels"]) != model.config["classes"]:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {len(config['labels'])} labels for a network of {model.config['classes']} classes"
        )
    weights = read_weights(folder / WEIGHTS_FILE, model.state_dict())
    model.load_state_dict(weights, assign=True)
    model.requires_grad_(False).eval().to(device)
    return Checkpoint(config["name"], model, tuple(config["labels"]), config, preprocessing, torch.device(device))


def read_config(folder: Path | str) -> dict[str, Any]:
    """The checked config.json of a checkpoint folder, without loading any weights.

    Raises:
        CheckpointError: the folder or a file is missing, or the config is not one.
    """
    config = read_json(folder)
    path = Path(folder) / CONFIG_FILE
    if isinstance(config.get("format"), str) and config["format"] != FORMAT:
        raise CheckpointError(
            f"{path} is {config['format']}; what needs a classifier reads {FORMAT} version {FORMAT_VERSION}"
        )
    for key, kind in _REQUIRED.items():
        if key not in config:
            raise CheckpointError(f"{path} has no {key!r}; needed are {', '.join(_REQUIRED)}")
        if not isinstance(config[key], kind):
            raise CheckpointError(f"{path}: {key!r} is {config[key]!r}, which is no {kind.__name__}")
    if (config["format"], config["format_version"]) != (FORMAT, FORMAT_VERSION):
        raise CheckpointError(
            f"{path} is {config['format']} version {config['format_version']}; "
            f"this program reads {FORMAT} version {FORMAT_VERSION}"
        )
    if not config["labels"] or not all(isinstance(label, str) for label in config["labels"]):
        raise CheckpointError(f"{path}: 'labels' must be a list of names, at least one; it is {config['labels']!r}")
    return config


def read_json(folder: Path | str) -> dict[str, Any]:
    """The object in the config.json of a folder that holds a config and weights; what it says is not looked at.

    Raises:
        CheckpointError: the folder or a file is missing, too long, or no JSON object.
    """
    folder = Path(folder)
    _check_files(folder)
    path = folder / CONFIG_FILE
    if path.stat().st_size > _MAX_CONFIG_BYTES:
        raise CheckpointError(f"{path} has {path.stat().st_size:,} bytes; at most {_MAX_CONFIG_BYTES:,} are read")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"{path} holds a {type(config).__name__}; a JSON object is needed")
    return config


def _check_files(folder: Path) -> None:
    pickles = [folder] if folder.suffix in _PICKLE_SUFFIXES else []
    if folder.is_dir() and not (folder / WEIGHTS_FILE).is_file():
        pickles += sorted(path for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if pickles:
        raise CheckpointError(
            f"{pickles[0]} is a pickle, which can run any code when it is opened, so pickles are never loaded. Convert "
            "one that you made yourself: model.load_state_dict(torch.load(file, weights_only=True)), then "
            "ccnet.save_checkpoint(model, folder, ...)"
        )
    if not folder.is_dir():
        raise CheckpointError(f"no checkpoint folder {folder}")
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder} has no {name}; a checkpoint needs {CONFIG_FILE} and {WEIGHTS_FILE}")


def _build(architecture: dict[str, Any], folder: Path) -> Network:
    """The network that the config describes, with weights that `load_checkpoint` replaces."""
    name, kwargs = architecture.get("name"), architecture.get("kwargs")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: unknown architecture {name!r}; known are {', '.join(ARCHITECTURES)}"
        )
    if not isinstance(kwargs, dict):
        raise CheckpointError(f"{folder / CONFIG_FILE}: 'kwargs' of the architecture is {kwargs!r}, which is no object")
    numbers = [number for value in kwargs.values() for number in _as_list(value) if isinstance(number, int)]
    if max(numbers, default=0) > _MAX_DIMENSION:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: {kwargs!r} has a number above {_MAX_DIMENSION:,}, the largest allowed"
        )
    try:
        # The random weights that a constructor draws must not move the random numbers of the caller.
        with torch.random.fork_rng(devices=[]):
            return ARCHITECTURES[name](**{key: _as_tuple(value) for key, value in kwargs.items()})
    except (TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder / CONFIG_FILE}: no {name} can be built from {kwargs!r}: {error}") from error


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def read_weights(path: Path, expected: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor in float32, once names and shapes have been found equal to `expected`."""
    try:
        with safe_open(path, framework="pt") as stream:
            shapes = {name: list(stream.get_slice(name).get_shape()) for name in stream.keys()}  # noqa: SIM118
            _check_shapes(path, shapes, {name: list(tensor.shape) for name, tensor in expected.items()})
            weights = {name: stream.get_tensor(name) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    for name, tensor in weights.items():
        if not tensor.is_floating_point():
            raise CheckpointError(f"{path}: tensor {name} is {tensor.dtype}; floating point is needed")
    weights = {name: tensor.float() for name, tensor in weights.items()}
    _check_finite(weights, str(path))
    return weights


def _check_shapes(path: Path, found: dict[str, list[int]], expected: dict[str, list[int]]) -> None:
    if missing := sorted(expected.keys() - found.keys()):
        raise CheckpointError(f"{path} has no tensor {missing[0]} ({len(missing)} missing of {len(expected)})")
    if unexpected := sorted(found.keys() - expected.keys()):
        raise CheckpointError(f"{path} has a tensor {unexpected[0]} that the network has not ({len(unexpected)} such)")
    for name, shape in expected.items():
        if found[name] != shape:
            raise CheckpointError(
                f"{path}: tensor {name} has shape {found[name]}; the network of its config needs {shape}"
            )


def _check_finite(weights: dict[str, Tensor], where: str) -> None:
    for name, tensor in weights.items():
        if not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"{where} has values in tensor {name} that are not finite")
