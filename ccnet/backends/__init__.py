"""The ways to compute a CC layer. All have one signature and agree to 1e-10 in float64, gradients included."""

from collections.abc import Callable

import torch
from torch import Tensor

from ccnet.backends import chunked, discrete, native, standard
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.types import Kernel, KernelInput

Backend = Callable[[Tensor, Kernel, AxisGrid, AxisGrid, KernelInput], Tensor]

_BACKENDS: dict[str, Backend] = {
    "standard": standard.apply,
    "chunked": chunked.apply,
    "discrete": discrete.apply,
    "native": native.apply,
}


def available_backends(device: torch.device | str | None = None) -> tuple[str, ...]:
    """Names that `backend=` takes on a device, the CPU by default.

    "native" is among them on a CPU where the native kernels were built (`ccnet.native.why_missing` says why not);
    the others are plain torch and work on every device.
    """
    has_native = native.supports(torch.device("cpu" if device is None else device))
    return tuple(name for name in _BACKENDS if name != "native" or has_native)


def resolve_backend(name: str, device: torch.device | str | None = None) -> str:
    """The name of the backend that runs: "auto" is the fastest for every scale, others are themselves.

    Raises:
        CcnetError: no backend has that name.
    """
    if name == "auto":
        return "native" if "native" in available_backends(device) else "discrete"
    if name not in _BACKENDS:
        raise CcnetError(f'no backend {name!r}; there are "auto", {", ".join(repr(b) for b in _BACKENDS)}')
    return name


def get_backend(name: str, device: torch.device | str | None = None) -> Backend:
    """The backend of a name, "auto" resolved for a device.

    Raises:
        CcnetError: no backend has that name.
    """
    return _BACKENDS[resolve_backend(name, device)]
