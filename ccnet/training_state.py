"""The state of a training run on disk: one safetensors file, complete or absent, that no pickle ever touches.

Tensors are named `model.*`, `average.*` and `optimizer.<parameter>.<quantity>`; all else (step, config, history) is
JSON in the header of the same file, so that one rename replaces the whole state.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ccnet.errors import CcnetError
from ccnet.files import write_atomically

STATE_FILE = "state.safetensors"


def write_state(path: Path, tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Replace the state at `path` by these tensors and JSON-able values."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(path, save(content, metadata={"state": json.dumps(values, allow_nan=False)}))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors, on the CPU, and the values that `write_state` wrote.

    Raises:
        CcnetError: the file is damaged or no training state.
    """
    try:
        with safe_open(path, framework="pt") as stream:
            values = json.loads((stream.metadata() or {})["state"])
            return {name: stream.get_tensor(name) for name in stream.keys()}, values  # noqa: SIM118  no mapping
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError) as error:
        raise CcnetError(
            f"{path} is damaged or no training state ({error!r}); start anew with another folder or without resuming"
        ) from error


def named_tensors(model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Every tensor of a run under the name that it has in the file."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    if average is not None:
        tensors |= {f"average.{name}": tensor for name, tensor in average.state_dict().items()}
    for index, quantities in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": tensor for name, tensor in quantities.items()}
    return tensors


def restore_tensors(
    tensors: dict[str, Tensor], model: nn.Module, average: nn.Module | None, optimizer: torch.optim.Optimizer
) -> None:
    """Put the tensors of `named_tensors` back.

    Raises:
        CcnetError: they are of another network.
    """
    groups: dict[str, dict[str, Tensor]] = {"model": {}, "average": {}, "optimizer": {}}
    for name, tensor in tensors.items():
        group, _, rest = name.partition(".")
        groups.setdefault(group, {})[rest] = tensor
    try:
        model.load_state_dict(groups["model"])
        if average is not None:
            average.load_state_dict(groups["average"])
    except RuntimeError as error:
        raise CcnetError(f"the saved state is of another network: {error}") from error
    quantities: dict[int, dict[str, Tensor]] = {}
    for name, tensor in groups["optimizer"].items():
        index, _, quantity = name.partition(".")
        quantities.setdefault(int(index), {})[quantity] = tensor
    optimizer.load_state_dict({"state": quantities, "param_groups": optimizer.state_dict()["param_groups"]})
