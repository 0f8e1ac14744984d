"""Prepared plans: everything of a pass that does not depend on the images, made once and kept within a bound.

In inference a layer's weights follow from its parameters, its input size and its scale alone. A `LayerPlan` holds them
in the layout that its path wants, and says which path that is; a `PlanCache` keeps plans, the least recently used ones
leaving first when their bytes exceed its budget.

Most scale sequences are met once. The native kernels can generate a few phases' weights in a core's cache just before
they apply them, which costs about what reading 42 MB of kept weights costs, and far less than writing them to fresh
memory. So a plan's first use keeps nothing, its second use keeps the weights, and later ones find them.

A plan that is kept is used only while the parameters behind it are the same tensors, unchanged: an optimiser's step
(of any optimiser: fused ones change parameters without counting it), `load_state_dict`, `.to()`, changes in place and a
replaced parameter all make it stale, and it is then made anew. The one change that torch gives no sign of is one
through `.data` (`p.data.mul_(2)`): call `PlanCache.clear` after it.
"""

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

from ccnet.backends import discrete, native, resolve_backend
from ccnet.backends.discrete import Path as DiscretePath
from ccnet.backends.phases import phase_points, phase_weights
from ccnet.errors import CcnetError
from ccnet.grid import AxisGrid
from ccnet.internal_net import InternalNet
from ccnet.native.library import PANEL, Layer

Path = Literal["native"] | DiscretePath
DEFAULT_BYTES = 512 * 2**20
_REMEMBERED = 10_000  # plans used once that a cache remembers


class Sized(Protocol):
    """What a cache keeps."""

    @property
    def nbytes(self) -> int:
        """Bytes that it holds on to."""


Plan = TypeVar("Plan", bound=Sized)


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """A CC layer prepared for one input size and scale.

    Attributes:
        vertical, horizontal: the axes' grids.
        channels: (C_in, C_out).
        weights: the phases' weights: packed for the native kernels, else [P_h, P_w, C_out, C_in, K_h, K_w]; None where
            the native kernels generate them in every pass.
        bias: [C_out], for the native kernels filled up to whole panels; None without one.
        native: what the native kernels are told, without and with a ReLU behind; None on other paths.
    """

    vertical: AxisGrid
    horizontal: AxisGrid
    channels: tuple[int, int]
    weights: Tensor | None
    bias: Tensor | None
    native: tuple[Layer, Layer] | None

    @property
    def nbytes(self) -> int:
        """Bytes of weights and bias."""
        return sum(tensor.nbytes for tensor in (self.weights, self.bias) if tensor is not None)

    @property
    def generates(self) -> bool:
        """Whether every pass generates the weights anew."""
        return self.weights is None

    def path(self, images: int) -> Path:
        """Which way a batch of this many images takes."""
        if self.weights is None or self.native is not None:
            return "native"
        return discrete.choose_path(images, self.weights.device, self.vertical, self.horizontal)

    def out_shape(self, images: int) -> tuple[int, int, int, int]:
        """[N, C_out, H', W']."""
        return images, self.channels[1], self.vertical.out_size, self.horizontal.out_size

    def values(self, images: int) -> int:
        """Numbers in the output."""
        return math.prod(self.out_shape(images))

    def __call__(self, x: Tensor, *, relu: bool = False) -> Tensor:
        """[N, C_in, H, W] -> [N, C_out, H', W'], without gradients, negative values set to 0 with `relu`."""
        with torch.no_grad():
            if self.native is None:
                assert self.weights is not None
                out = discrete.apply_weights(x, self.weights, self.vertical, self.horizontal, self.bias)
                return out.relu_() if relu else out
            out = torch.empty(self.out_shape(len(x)), dtype=x.dtype, memory_format=torch.channels_last)
            pixels = native.channels_innermost(x)
            if len(x):
                node = (self.native[relu], pixels.data_ptr(), out.data_ptr(), len(x))
                native.require_kernels(x.device).run([node], [1], x.dtype)
            return out


@dataclass(frozen=True)
class CacheStats:
    """What a cache has done and holds.

    Attributes:
        hits, misses: lookups that found a usable plan, and those after which it was made.
        evictions: plans that left because of the budget.
        plans, nbytes: what it holds now.
        max_bytes: its budget.
    """

    hits: int
    misses: int
    evictions: int
    plans: int
    nbytes: int
    max_bytes: int


@dataclass(eq=False)
class _Entry(Generic[Plan]):
    plan: Plan
    stamp: "Stamp"


class PlanCache:
    """Plans within a budget of bytes, the least recently used leaving first. Safe for threads.

    A plan is made outside the lock and by one thread: others that want the same one wait for it, those that want
    another do not. A plan that alone exceeds the budget is made and used, but not kept.

    Args:
        max_bytes: budget; 0 keeps nothing.
        on_event: told "hit", "miss" or "evict" as it happens, for metrics.

    Example:
        >>> cache = PlanCache(100 * 2**20)
        >>> cache.stats.plans
        0
    """

    def __init__(self, max_bytes: int = DEFAULT_BYTES, *, on_event: Callable[[str], None] | None = None) -> None:
        self.max_bytes = max_bytes
        self._on_event = on_event
        self._entries: OrderedDict[Hashable, _Entry[Any]] = OrderedDict()
        self._lock = threading.Lock()
        self._making: dict[Hashable, threading.Event] = {}
        self._used_once: OrderedDict[Hashable, Stamp] = OrderedDict()
        self._nbytes = 0
        self._counts = {"hit": 0, "miss": 0, "evict": 0}

    @property
    def stats(self) -> CacheStats:
        """Counters since the cache was made, and what it holds."""
        with self._lock:
            counts = self._counts
            return CacheStats(
                counts["hit"], counts["miss"], counts["evict"], len(self._entries), self._nbytes, self.max_bytes
            )

    def clear(self) -> None:
        """Forget all plans; the counters stay."""
        with self._lock:
            self._entries.clear()
            self._used_once.clear()
            self._nbytes = 0

    def get(
        self, key: Hashable, stamp: "Stamp", make: Callable[[], Plan], make_once: Callable[[], Plan] | None = None
    ) -> Plan:
        """The plan of a key, made if there is none or if it was made for another stamp.

        Args:
            key: what the plan is of.
            stamp: of the parameters it depends on, taken before `make` reads them.
            make: makes a plan to be kept.
            make_once: makes one that is not worth keeping, for the first use; None keeps at once.
        """
        if make_once is not None and self._is_first_use(key, stamp):
            return make_once()
        while True:
            with self._lock:
                entry = self._entries.get(key)
                if entry is not None and entry.stamp == stamp:
                    self._entries.move_to_end(key)
                    self._count("hit")
                    found: Plan = entry.plan
                    return found
                others = self._making.get((key, stamp))
                if others is None:
                    mine = self._making[key, stamp] = threading.Event()
                    self._count("miss")
                    break
            others.wait()
        try:
            plan = make()
            self._keep(key, _Entry(plan, stamp))
            return plan
        finally:
            with self._lock:
                del self._making[key, stamp]
            mine.set()

    def _is_first_use(self, key: Hashable, stamp: "Stamp") -> bool:
        with self._lock:
            entry = self._entries.get(key)
            if (entry is not None and entry.stamp == stamp) or self._used_once.get(key) == stamp:
                return False
            self._used_once[key] = stamp
            self._used_once.move_to_end(key)
            if len(self._used_once) > _REMEMBERED:
                self._used_once.popitem(last=False)
            self._count("miss")
            return True

    def _keep(self, key: Hashable, entry: _Entry[Any]) -> None:
        with self._lock:
            old = self._entries.pop(key, None)
            if old is not None:
                self._nbytes -= old.plan.nbytes
            if entry.plan.nbytes > self.max_bytes:
                return
            self._entries[key] = entry
            self._nbytes += entry.plan.nbytes
            while self._nbytes > self.max_bytes:
                _, evicted = self._entries.popitem(last=False)
                self._nbytes -= evicted.plan.nbytes
                self._count("evict")

    def _count(self, event: str) -> None:
        self._counts[event] += 1
        if self._on_event is not None:
            self._on_event(event)


class Stamp:
    """The state of some parameters: equal stamps mean the same tensors with the same values.

    Holds on to the parameters, so that no other tensor can take their place in memory while the stamp is compared.
    Parameters made under `torch.inference_mode` keep no count of their changes; a stamp of one equals no other.
    """

    __slots__ = ("_hash", "_parameters", "_state")

    def __init__(self, module: nn.Module, moves: int) -> None:
        parameters: list[nn.Parameter] = []
        _collect(module, parameters)
        self._parameters = tuple(parameters)
        counted = not any(parameter.is_inference() for parameter in parameters)
        self._state: tuple[object, ...] = (
            (moves, _optimizer_steps, *((p._version, p.data_ptr()) for p in parameters)) if counted else (object(),)
        )
        self._hash = hash(self._state)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Stamp)
            and self._state == other._state
            and len(self._parameters) == len(other._parameters)
            and all(mine is theirs for mine, theirs in zip(self._parameters, other._parameters, strict=True))
        )


_optimizer_steps = 0


def _count_optimizer_step(*_: object) -> None:
    global _optimizer_steps
    _optimizer_steps += 1


register_optimizer_step_post_hook(_count_optimizer_step)


def _collect(module: nn.Module, parameters: list[nn.Parameter]) -> None:
    """All parameters of a module, as `module.parameters()` but some ten times faster: this runs in every pass."""
    parameters.extend(parameter for parameter in module._parameters.values() if parameter is not None)
    for child in module._modules.values():
        if child is not None:
            _collect(child, parameters)


@dataclass(frozen=True, eq=False)
class Basis:
    """What all of an Internal-Net's packed weights are linear in; see `InternalNet.packed_basis`."""

    values: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.values.nbytes


def plan_layer(
    kernel: InternalNet,
    bias: Tensor | None,
    vertical: AxisGrid,
    horizontal: AxisGrid,
    *,
    backend: str = "auto",
    always_native: bool = False,
    generate: bool = False,
    basis: Callable[[], Basis] | None = None,
) -> LayerPlan:
    """Prepare a layer for two grids.

    Args:
        kernel, bias: of the layer.
        vertical, horizontal: the axes' grids.
        backend: "auto", "discrete" or "native".
        always_native: with the native kernels, use them for plain convolutions too: an image then gives the same bits
            in every batch.
        generate: leave it to the passes to generate the weights, where `can_generate`.
        basis: the kernel's `packed_basis`, made before; None makes it anew.

    Raises:
        CcnetError: a backend that has no plans, or native kernels that are not there.
    """
    like = kernel.last.weight
    # Ordinary tensors, whatever mode the caller is in: they outlive the call.
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(like.device.type, enabled=False):
        bias = None if bias is None else bias.detach().clone()
        channels = (kernel.in_channels, kernel.out_channels)
        is_native = uses_native(kernel, backend)
        if not is_native or (not always_native and native.choose_path(vertical, horizontal) == "convolution"):
            weights = phase_weights(kernel, vertical, horizontal, kernel.kernel_input, like=like).to(like.dtype)
            return LayerPlan(vertical, horizontal, channels, weights, bias, None)
        if bias is not None:
            bias = nn.functional.pad(bias, (0, -len(bias) % PANEL))
        if kernel.kernel_input == "distance":
            packed: Tensor | None = native.packed_weights(kernel, vertical, horizontal, "distance", like)[0]
            features = values = None
        else:
            values = kernel.packed_basis().contiguous() if basis is None else basis().values
            features = kernel.features(phase_points(vertical, horizontal, "offset", like))
            packed = None if generate else _generated(features, values)
        layers = tuple(
            native.describe_layer(
                vertical, horizontal, channels, packed, bias, features=features, basis=values, relu=relu
            )
            for relu in (False, True)
        )
        return LayerPlan(vertical, horizontal, channels, packed, bias, (layers[0], layers[1]))


def uses_native(kernel: InternalNet, backend: str) -> bool:
    """Whether plans of a layer are for the native kernels.

    Raises:
        CcnetError: a backend that has no plans, or native kernels that are not there.
    """
    weight = kernel.last.weight
    backend = resolve_backend(backend, weight.device)
    if backend not in ("discrete", "native"):
        raise CcnetError(f'plans are for the backends "discrete" and "native"; got {backend!r}')
    if backend == "discrete" or weight.dtype not in (torch.float32, torch.float64):
        return False
    native.require_kernels(weight.device)
    return True


def can_generate(kernel: InternalNet, backend: str) -> bool:
    """Whether passes can generate a layer's weights themselves."""
    return kernel.kernel_input == "offset" and uses_native(kernel, backend)


def _generated(features: Tensor, basis: Tensor) -> Tensor:
    """Packed weights of all phases, [P, columns of the basis]."""
    weights = torch.empty(len(features), basis.shape[1], dtype=basis.dtype)
    native.require_kernels(basis.device).generate(features, basis, weights)
    return weights
