"""The two networks of Table 3, `CCNet` and `ConvNet`, and the `BlurConvNet` that users would pick instead.

All have eight convolution layers and three fully connected ones, a ReLU after each but the last. ConvNet shrinks the
maps by 4 in two strided layers; CCNet's first layer keeps the size and the seven others share the factor 1/4 in
whatever way a `ScaleSequence` says, anew at every call. BlurConvNet is ConvNet, low-pass filtered before pixels are
dropped.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, pad, relu

from ccnet.backends import resolve_backend
from ccnet.errors import CcnetError, SequenceError
from ccnet.grid import whole_number
from ccnet.layer import CCConv2d
from ccnet.sequences import TOTAL_SCALE, ScaleSequence
from ccnet.types import KernelInput

# (out channels, kernel size, ConvNet's stride) of each convolution layer, Table 3.
TABLE_3 = ((32, 3, 1), (32, 4, 2), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 3, 1), (64, 4, 2))
FULLY_CONNECTED = 512
_BINOMIAL = {3: (1, 2, 1), 5: (1, 4, 6, 4, 1)}


class CCNet(nn.Module):
    """CCNET of Table 3: eight CC layers and three fully connected ones.

    Args:
        in_channels: channels of an image.
        classes: number of logits.
        in_size: (height, width) of an image in px; each a multiple of 4.
        kernel_input: what the Internal-Nets see; the paper's network uses "offset" (A.1).
        hidden: hidden widths of the Internal-Nets.
        backend: "auto" or one of `available_backends()`.

    Source: arXiv 2006.11120, Table 3, A.2.
    """

    def __init__(
        self,
        in_channels: int = 3,
        classes: int = 10,
        *,
        in_size: tuple[int, int] = (32, 32),
        kernel_input: KernelInput = "offset",
        hidden: tuple[int, ...] = (16, 16),
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = whole_number("in_channels", in_channels), whole_number("classes", classes)
        self.in_size = _checked_size(in_size)
        channels = [self.in_channels, *(out for out, _, _ in TABLE_3)]
        self.layers = nn.ModuleList(
            CCConv2d(channels[j], out, size, kernel_input=kernel_input, hidden=hidden, backend=backend)
            for j, (out, size, _) in enumerate(TABLE_3)
        )
        self.head = _head(self.in_size, self.classes)
        self.config: dict[str, Any] = {
            "in_channels": self.in_channels,
            "classes": self.classes,
            "in_size": list(self.in_size),
            "kernel_input": kernel_input,
            "hidden": list(hidden),
        }

    moves = 0  # as `InternalNet.moves`, for the head

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "CCNet":
        self.moves += 1
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch's
        return self

    @property
    def backend(self) -> str:
        """The backend that its layers run on, "auto" resolved; several names with commas where they differ."""
        device = next(self.parameters()).device
        names = {str(layer.backend) for layer in self.layers}
        return ", ".join(sorted({resolve_backend(name, device) for name in names}))

    def forward(self, x: Tensor, sequence: ScaleSequence) -> Tensor:
        """Logits of one pass: images [N, C, H, W] and one sequence for all of them -> [N, classes]."""
        logits: Tensor = self.head(self.features(x, sequence))
        return logits

    def features(self, x: Tensor, sequence: ScaleSequence) -> Tensor:
        """The last convolution layer's map after its ReLU, [N, 64, H/4, W/4].

        Raises:
            CcnetError: images of another size or number of channels than the network's.
            SequenceError: a sequence of another length or product, or one that empties a map.
        """
        require_images(x, self.in_channels, self.in_size)
        if not isinstance(sequence, ScaleSequence):
            raise SequenceError(f"forward takes images and a ScaleSequence; got {type(sequence).__name__}")
        sequence.require_valid(layers=len(self.layers), in_size=self.in_size)
        sizes = sequence.shapes(self.in_size)
        for layer, scale, size in zip(self.layers, sequence.scales, sizes, strict=True):
            x = relu(layer(x, scale, size))
        return x


class ConvNet(nn.Module):
    """CONVNET (baseline) of Table 3: eight convolution layers, two of them strided, and three fully connected ones.

    A kernel of 4 with stride 2 and padding 1 and a kernel of 3 with padding 1 give the paper's sizes: in, in/2, in/4.

    Args:
        in_channels: channels of an image.
        classes: number of logits.
        in_size: (height, width) of an image in px; each a multiple of 4.

    Source: arXiv 2006.11120, Table 3.
    """

    def __init__(self, in_channels: int = 3, classes: int = 10, *, in_size: tuple[int, int] = (32, 32)) -> None:
        super().__init__()
        self.in_channels, self.classes = whole_number("in_channels", in_channels), whole_number("classes", classes)
        self.in_size = _checked_size(in_size)
        self.config: dict[str, Any] = {
            "in_channels": self.in_channels,
            "classes": self.classes,
            "in_size": list(self.in_size),
        }
        channels = [self.in_channels, *(out for out, _, _ in TABLE_3)]
        self.layers = nn.ModuleList(
            nn.Conv2d(channels[j], out, size, stride=stride, padding=1) for j, (out, size, stride) in enumerate(TABLE_3)
        )
        self.head = _head(self.in_size, self.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits: [N, C, H, W] -> [N, classes]."""
        logits: Tensor = self.head(self.features(x))
        return logits

    def features(self, x: Tensor) -> Tensor:
        """The last convolution layer's map after its ReLU, [N, 64, H/4, W/4].

        Raises:
            CcnetError: images of another size or number of channels than the network's.
        """
        require_images(x, self.in_channels, self.in_size)
        for layer in self.layers:
            x = relu(layer(x))
        return x


class BlurConvNet(ConvNet):
    """ConvNet without aliasing strides: where one was, a map is made at every pixel and blurred before half is dropped.

    Its parameters are those of ConvNet.
    A kernel of 4 with padding 1 makes in - 1 pixels of in, centred between those of its input; a binomial filter of odd
    length leaves them there, so that every second one lies where ConvNet's do.

    Args:
        in_channels: channels of an image.
        classes: number of logits.
        in_size: (height, width) of an image in px; each a multiple of 4, at least 8.
        blur_size: taps of the binomial filter along each axis, 3 or 5; the rim is reflected.

    Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", 2019 (arXiv 1904.11486), Sec. 3; Table 3.
    """

    blur: Tensor

    def __init__(
        self, in_channels: int = 3, classes: int = 10, *, in_size: tuple[int, int] = (32, 32), blur_size: int = 3
    ) -> None:
        super().__init__(in_channels, classes, in_size=in_size)
        if blur_size not in _BINOMIAL:
            raise CcnetError(f"blur_size is {' or '.join(map(str, _BINOMIAL))}; got {blur_size!r}")
        if min(self.in_size) < 8:
            raise CcnetError(f"in_size of a BlurConvNet is at least 8; got {in_size}")
        for layer in self.layers:
            layer.stride = (1, 1)  # type: ignore[assignment]  # nn.Module's attributes are modules and tensors to mypy
        taps = torch.tensor(_BINOMIAL[blur_size], dtype=torch.float32) / sum(_BINOMIAL[blur_size])
        self.register_buffer("blur", torch.outer(taps, taps)[None, None], persistent=False)
        self.config["blur_size"] = blur_size

    def features(self, x: Tensor) -> Tensor:
        """The last convolution layer's map after its ReLU and its blur, [N, 64, H/4, W/4].

        Raises:
            CcnetError: images of another size or number of channels than the network's.
        """
        require_images(x, self.in_channels, self.in_size)
        for layer, (channels, _, stride) in zip(self.layers, TABLE_3, strict=True):
            x = relu(layer(x))
            if stride > 1:
                x = pad(x, (self.blur.shape[-1] // 2,) * 4, mode="reflect")
                x = conv2d(x, self.blur.expand(channels, 1, -1, -1), stride=stride, groups=channels)
        return x


def _head(in_size: tuple[int, int], classes: int) -> nn.Sequential:
    """FC 512, FC 512, FC classes."""
    features = TABLE_3[-1][0] * (in_size[0] // 4) * (in_size[1] // 4)
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(features, FULLY_CONNECTED),
        nn.ReLU(),
        nn.Linear(FULLY_CONNECTED, FULLY_CONNECTED),
        nn.ReLU(),
        nn.Linear(FULLY_CONNECTED, classes),
    )


def _checked_size(in_size: tuple[int, int]) -> tuple[int, int]:
    """(height, width), each a multiple of 4."""
    multiple = TOTAL_SCALE.denominator
    pair = in_size if isinstance(in_size, (tuple, list)) else ()
    sizes = [whole_number("in_size", size) for size in pair]
    if len(sizes) != 2 or any(size % multiple for size in sizes):
        raise CcnetError(f"in_size is (height, width), each a multiple of {multiple}; got {in_size}")
    return sizes[0], sizes[1]


def require_images(x: Tensor, channels: int, in_size: tuple[int, int]) -> None:
    """Refuse images of another size or number of channels than a network's.

    Raises:
        CcnetError: saying what the network takes.
    """
    if tuple(x.shape[1:]) != (channels, *in_size):
        raise CcnetError(f"this network takes images [N, {channels}, {in_size[0]}, {in_size[1]}]; got {list(x.shape)}")
