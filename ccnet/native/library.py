"""Loading the native kernels, and what they are told: the mirror of `layer.h` and of the C interface in `kernels.cpp`.

Tensors are passed by address; whoever calls keeps them alive, contiguous as the layouts say, and of one dtype, float32
or float64. No kernel runs under Python's lock, so several threads may compute at once.
"""

import ctypes
import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

PANEL = 16  # output channels of a panel, as in layer.h
INSTRUCTION_SETS = ("portable", "avx2", "avx512")
_VERSION = 2
logger = logging.getLogger(__name__)


class Layer(ctypes.Structure):
    """`struct Layer` of layer.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("in_h", "in_w", "c_in", "out_h", "out_w", "c_out")),
        *((name, ctypes.c_int64) for name in ("k_h", "k_w", "p_h", "p_w", "relu")),
        *((name, ctypes.c_void_p) for name in ("starts_h", "starts_w", "weights", "bias", "features", "basis")),
        ("hidden", ctypes.c_int64),
    )
    keep: tuple[Tensor, ...]  # tensors that a structure's addresses belong to


class Node(ctypes.Structure):
    """`struct Node` of kernels.cpp: a layer applied to some images."""

    _fields_ = (
        ("layer", ctypes.POINTER(Layer)),
        ("x", ctypes.c_void_p),
        ("y", ctypes.c_void_p),
        ("images", ctypes.c_int64),
    )


class Kernels:
    """The loaded library.

    Args:
        library: the shared library.

    Attributes:
        instruction_set: which of `INSTRUCTION_SETS` its kernels use; the best that this processor has.
    """

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library
        self._best = int(library.ccnet_instruction_set())
        self.instruction_set = INSTRUCTION_SETS[self._best]

    @property
    def instruction_sets(self) -> tuple[str, ...]:
        """Those that run on this processor, the slowest first."""
        return INSTRUCTION_SETS[: self._best + 1]

    def use(self, instruction_set: str) -> None:
        """Use another of `instruction_sets` from now on, for comparisons."""
        self.instruction_sets.index(instruction_set)
        self.instruction_set = instruction_set

    def run(self, nodes: Sequence[tuple[Layer, int, int, int]], levels: Sequence[int], dtype: torch.dtype) -> None:
        """Apply layers: nodes of a level are independent and run side by side, levels one after the other.

        Args:
            nodes: (layer, address of x, address of y, images, at least 1).
            levels: for each level, the number of nodes up to its end.
            dtype: of x, y, weights and biases.

        Raises:
            MemoryError: no room for the threads' small buffers.
        """
        array = (Node * len(nodes))(*(Node(ctypes.pointer(layer), x, y, images) for layer, x, y, images in nodes))
        ends = (ctypes.c_int64 * len(levels))(*levels)
        if self._library.ccnet_run(array, ends, ctypes.c_int64(len(levels)), *self._options(dtype)):
            raise MemoryError("no memory left for the native kernels' buffers")

    def gradients(
        self, layer: Layer, x: Tensor, grad_y: Tensor, grad_x: Tensor | None, grad_w: Tensor | None, images: int
    ) -> None:
        """Fill dL/dx and dL/dW (packed), where given.

        Raises:
            MemoryError: no room for a transposed copy of the weights.
        """
        addresses = [
            ctypes.c_void_p(None if tensor is None else tensor.data_ptr()) for tensor in (x, grad_y, grad_x, grad_w)
        ]
        options = self._options(x.dtype)
        if self._library.ccnet_gradients(ctypes.byref(layer), *addresses, ctypes.c_int64(images), *options):
            raise MemoryError("no memory left for the native kernels' buffers")

    def generate(self, features: Tensor, basis: Tensor, out: Tensor) -> None:
        """out [M, columns] = features [M, H] @ basis [H, columns]; columns a multiple of `PANEL`, all contiguous."""
        sizes = (ctypes.c_int64(size) for size in (*features.shape, basis.shape[1]))
        addresses = (ctypes.c_void_p(tensor.data_ptr()) for tensor in (features, basis, out))
        self._library.ccnet_generate(*addresses, *sizes, *self._options(out.dtype))

    def _options(self, dtype: torch.dtype) -> tuple[int, int, int]:
        """is_double, instruction_set, threads."""
        is_double = {torch.float32: 0, torch.float64: 1}[dtype]
        return is_double, INSTRUCTION_SETS.index(self.instruction_set), torch.get_num_threads()


def kernels() -> Kernels | None:
    """The native kernels, None where they were not built or cannot be loaded (see `why_missing`)."""
    loaded = _load()
    return loaded if isinstance(loaded, Kernels) else None


def why_missing() -> str | None:
    """Why there are no native kernels here, with what to do about it; None where there are."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


@lru_cache(maxsize=1)
def _load() -> Kernels | str:
    built = sorted(Path(__file__).parent.glob("_kernels*.so"))
    if not built:
        reason = "they were not built: install a C++ compiler (g++) and install the package again"
    else:
        reason = "they were built by another version of the package: install it again"
        try:
            library = ctypes.CDLL(str(built[0]))  # finds OpenMP's symbols in the library that torch has loaded
            if library.ccnet_version() == _VERSION:
                found = Kernels(library)
                logger.debug("native kernels loaded, %s", found.instruction_set)
                return found
        except (OSError, AttributeError) as error:
            reason = f"they cannot be loaded here: {error}"
    logger.info("no native kernels, the slower pure torch paths run: %s", reason)
    return reason
