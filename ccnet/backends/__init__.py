"""The ways to compute a CC layer. All have one signature and agree to 1e-10 in float64, gradients included."""

from collections.abc import Callable

import torch
from torch import Tensor

from ccnet.backends import chunked, discrete, standard
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput

Backend = Callable[[Tensor, Kernel, AxisGrid, AxisGrid, KernelInput], Tensor]

_BACKENDS: dict[str, Backend] = {
    "standard": standard.apply,
    "chunked": chunked.apply,
    "discrete": discrete.apply,
}


def available_backends(device: torch.device | str | None = None) -> tuple[str, ...]:
    """Names that `backend=` takes on a device (all of them are plain torch and work on every device)."""
    return tuple(_BACKENDS)


def resolve_backend(name: str) -> str:
    """The name of the backend that runs: "auto" is "discrete", the fastest for every scale; others are themselves.

    Raises:
        CcnetError: no backend has that name.
    """
    if name == "auto":
        return "discrete"
    if name not in _BACKENDS:
        raise CcnetError(f'no backend {name!r}; there are "auto", {", ".join(repr(b) for b in _BACKENDS)}')
    return name


def get_backend(name: str) -> Backend:
    """The backend of a name, "auto" resolved.

    Raises:
        CcnetError: no backend has that name.
    """
    return _BACKENDS[resolve_backend(name)]
