"""Loading the native kernels, and what they are told: the mirror of `layer.h` and of the C interface in `kernels.cpp`.

Tensors are passed by address; whoever calls keeps them alive, contiguous as the layouts say, and of one dtype, float32
or float64. No kernel runs under Python's lock, so several threads may compute at once.
"""

import ctypes
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import torch
from torch import Tensor

PANEL = 16  # output channels of a panel, as in layer.h
INSTRUCTION_SETS = ("portable", "avx2", "avx512")
_VERSION = 5
logger = logging.getLogger(__name__)


class Net(ctypes.Structure):
    """`struct Net` of layer.h: the hidden layers of an Internal-Net."""

    _fields_ = (
        ("widths", ctypes.POINTER(ctypes.c_int64)),
        ("parameters", ctypes.POINTER(ctypes.c_void_p)),
        ("layers", ctypes.c_int64),
        ("slope", ctypes.c_double),
    )
    keep: tuple[Tensor, ...]  # tensors that its addresses belong to

    @staticmethod
    def of(parameters: Sequence[Sequence[Tensor]], slope: float) -> "Net":
        """A net of fully connected layers, each (weights [out, in], biases [out]), contiguous and of one dtype."""
        flat = [tensor for layer in parameters for tensor in layer]
        widths = (2, *(len(layer[1]) for layer in parameters))
        addresses = (ctypes.c_void_p * len(flat))(*(tensor.data_ptr() for tensor in flat))
        net = Net((ctypes.c_int64 * len(widths))(*widths), addresses, len(parameters), slope)
        net.keep = tuple(flat)
        return net


class Layer(ctypes.Structure):
    """`struct Layer` of layer.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("in_h", "in_w", "c_in", "out_h", "out_w", "c_out")),
        *((name, ctypes.c_int64) for name in ("k_h", "k_w", "p_h", "p_w")),
        *((name, ctypes.c_void_p) for name in ("starts_h", "starts_w", "weights", "bias", "offsets_h", "offsets_w")),
        *((name, ctypes.c_void_p) for name in ("net", "basis")),
    )
    keep: tuple[object, ...]  # what its addresses belong to


@dataclass(frozen=True, eq=False)
class Step:
    """A layer applied to maps in one of a call's buffers: `struct Step` of kernels.cpp.

    Attributes:
        layer: it.
        source, target: the buffers it reads and writes, and where in them, in values an image.
        maps: inputs an image.
        relu: whether negative outputs become 0.
    """

    layer: Layer
    source: tuple[int, int]
    target: tuple[int, int]
    maps: int = 1
    relu: bool = False


class Program:
    """Steps as the kernels read them, for any number of images and any buffers.

    Args:
        levels: the steps of each level, which are independent of each other; levels run one after the other.
    """

    def __init__(self, levels: Sequence[Sequence[Step]]) -> None:
        steps = [step for level in levels for step in level]
        numbers = [
            number
            for step in steps
            for number in (ctypes.addressof(step.layer), *step.source, *step.target, step.maps, step.relu)
        ]
        self.steps = (ctypes.c_int64 * len(numbers))(*numbers)
        self.ends = (ctypes.c_int64 * len(levels))(*accumulate(map(len, levels)))
        self.layers = tuple(step.layer for step in steps)  # kept for as long as they are pointed to

    @staticmethod
    def of(layer: Layer, *, relu: bool = False) -> "Program":
        """One layer, from the first of two buffers to the second."""
        return Program([[Step(layer, (0, 0), (1, 0), relu=relu)]])


@dataclass(frozen=True, eq=False, slots=True)
class Call:
    """A program over some images.

    Attributes:
        program: the steps.
        buffers: contiguous, of the dtype of weights and biases, as large as the steps need, and not those of a call
            that runs together with this one.
        images: at least 1.
    """

    program: Program
    buffers: Sequence[Tensor]
    images: int


class _Call(ctypes.Structure):
    """`struct Call` of kernels.cpp."""

    _fields_ = (
        ("steps", ctypes.POINTER(ctypes.c_int64)),
        ("ends", ctypes.POINTER(ctypes.c_int64)),
        ("level_count", ctypes.c_int64),
        ("buffers", ctypes.POINTER(ctypes.c_void_p)),
        ("images", ctypes.c_int64),
    )

    @staticmethod
    def of(call: Call) -> "_Call":
        program = call.program
        addresses = (ctypes.c_void_p * len(call.buffers))(*(buffer.data_ptr() for buffer in call.buffers))
        return _Call(program.steps, program.ends, len(program.ends), addresses, call.images)


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

    def run(self, *calls: Call) -> None:
        """Run programs of one dtype, all of them together: the threads share the steps of a level among them.

        Raises:
            MemoryError: no room for the threads' small buffers.
        """
        given = (_Call * len(calls))(*map(_Call.of, calls))
        if self._library.ccnet_run(given, ctypes.c_int64(len(calls)), *self._options(calls[0].buffers[0].dtype)):
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

    def generate(self, layer: Layer, out: Tensor) -> None:
        """Fill the packed weights of a layer that generates them, [P, panels, K_h, K_w, C_in, 16].

        Raises:
            MemoryError: no room for the phases' features.
        """
        if self._library.ccnet_generate(
            ctypes.byref(layer), ctypes.c_void_p(out.data_ptr()), *self._options(out.dtype)
        ):
            raise MemoryError("no memory left for the native kernels' buffers")

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
