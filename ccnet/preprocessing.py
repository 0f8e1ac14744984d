"""From pictures of any size to what a network takes: grey or RGB, resized, padded, normalised.

    uint8 [N, H, W, C] -> grey or RGB -> content size -> zero padding -> (x / 255 - mean) / std -> float [N, C, H', W']

A network is trained on pictures whose *content* (28 x 28 for Fashion-MNIST) lies on black inside its *input*
(32 x 32). A picture that already has either size is taken pixel for pixel, so that a test image posted as a file gives
the very numbers that the evaluation saw. Any other size is resized with antialiasing until its longer side fits the
content.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ccnet.errors import CcnetError

Picture = Tensor | NDArray[np.uint8]

# ITU-R 601 luma in 16-bit fixed point, as Pillow's convert("L") computes it: the same grey for the same RGB.
_LUMA = (19595, 38470, 7471)


@dataclass(frozen=True)
class Preprocessing:
    """How pictures become network input; part of every checkpoint.

    Attributes:
        channels: 1 (grey) or 3 (RGB), what the network takes.
        content_size: (height, width) that a picture is fitted into, px.
        input_size: (height, width) of the network's input, px; the content is centred in it on black.
        mean: one a channel, of pixels scaled to [0, 1].
        std: one a channel, likewise.
    """

    channels: int
    content_size: tuple[int, int]
    input_size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise CcnetError(f"preprocessing for {self.channels} channels; allowed are 1 (grey) and 3 (RGB)")
        sizes_fit = all(
            1 <= content <= whole for content, whole in zip(self.content_size, self.input_size, strict=True)
        )
        if not sizes_fit:
            raise CcnetError(f"content size {self.content_size} must lie within input size {self.input_size}")
        if not len(self.mean) == len(self.std) == self.channels:
            raise CcnetError(f"{self.channels} channels need as many means and stds; given {self.mean} and {self.std}")
        if not all(np.isfinite(self.mean)) or not all(np.isfinite(value) and value > 0 for value in self.std):
            raise CcnetError(f"means must be finite and stds above zero; given {self.mean} and {self.std}")

    @classmethod
    def for_images(cls, images: NDArray[np.uint8], input_size: tuple[int, int] = (32, 32)) -> "Preprocessing":
        """Zero mean and unit variance (A.2) over the padded training images, exactly, from their histogram.

        Args:
            images: uint8 [N, H, W, C], all training images.
            input_size: (height, width) of the network's input, px.
        """
        count, height, width, channels = images.shape
        pixels = count * input_size[0] * input_size[1]
        levels = np.arange(256) / 255
        means, stds = [], []
        for channel in range(channels):
            histogram = np.bincount(images[..., channel].ravel(), minlength=256)
            mean = float(histogram @ levels) / pixels  # the padding adds zeros to the count alone
            means.append(mean)
            stds.append(float(np.sqrt(histogram @ levels**2 / pixels - mean**2)))
        return cls(channels, (height, width), input_size, tuple(means), tuple(stds))

    @property
    def black(self) -> tuple[float, ...]:
        """What a black pixel becomes, (0 - mean) / std, one value a channel: the ground of centred pictures."""
        return tuple(-mean / std for mean, std in zip(self.mean, self.std, strict=True))

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Preprocessing":
        """The inverse of `to_dict`, for what was read from JSON.

        Raises:
            CcnetError: a key is missing or unknown, or a value is not of its type.
        """
        names = {"channels", "content_size", "input_size", "mean", "std"}
        if not isinstance(values, dict) or set(values) != names:
            raise CcnetError(f"preprocessing must be an object with exactly {sorted(names)}; given {values!r}")
        try:
            return cls(
                channels=int(values["channels"]),
                content_size=_pair(values["content_size"]),
                input_size=_pair(values["input_size"]),
                mean=tuple(float(value) for value in values["mean"]),
                std=tuple(float(value) for value in values["std"]),
            )
        except (TypeError, ValueError) as error:
            raise CcnetError(f"preprocessing {values!r} is not valid: {error}") from error

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values of every attribute."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    def __call__(self, images: Picture | Sequence[Picture]) -> Tensor:
        """Prepare pictures for the network.

        Args:
            images: uint8 [N, H, W, C], or a list of uint8 [H, W, C] of any sizes; C = 1 or 3; tensors or numpy arrays.

        Returns:
            float32 [N, channels, *input_size], on the device of the pictures.

        Raises:
            CcnetError: another type or rank, another number of channels, or a picture without pixels.
        """
        if isinstance(images, Tensor | np.ndarray):
            _check(images, rank=4)
            return self._normalise(self._fit(_tensor(images)))
        for image in images:
            _check(image, rank=3)
        if not images:
            return torch.empty(0, self.channels, *self.input_size)
        arrays = [image for image in images if isinstance(image, np.ndarray)]
        same = len({tuple(image.shape) for image in images}) == 1
        if same and len(arrays) == len(images) and self._fits(*arrays[0].shape):
            return self._prepare_fitting(arrays)
        pictures = list(map(_tensor, images))
        if same:
            return self._normalise(self._fit(torch.stack(pictures)))
        return self._normalise(torch.cat([self._fit(picture[None]) for picture in pictures]))

    def _fits(self, height: int, width: int, channels: int) -> bool:
        """Whether a picture needs nothing but its place in the input; grey is the same in all channels."""
        return (height, width) in (self.content_size, self.input_size) and channels in (1, self.channels)

    def _prepare_fitting(self, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
        """As `_fit` and `_normalise`, bit for bit, but sooner: for one small picture it is calls that cost."""
        height, width = pictures[0].shape[:2]
        top, left = self._margins(height, width)
        pixels = np.zeros((len(pictures), self.channels, *self.input_size), np.float32)
        for place, picture in zip(pixels, pictures, strict=True):
            place[:, top : top + height, left : left + width] = picture.transpose(2, 0, 1)
        pixels /= 255
        pixels -= np.array(self.mean, np.float32)[:, None, None]
        pixels /= np.array(self.std, np.float32)[:, None, None]
        return torch.from_numpy(pixels)

    def _margins(self, height: int, width: int) -> tuple[int, int]:
        """Rows above and columns left of content of this size."""
        return (self.input_size[0] - height) // 2, (self.input_size[1] - width) // 2

    def _fit(self, images: Tensor) -> Tensor:
        """uint8 [N, H, W, C] -> float32 [N, channels, *input_size] in [0, 255]."""
        pixels = _with_channels(images, self.channels).permute(0, 3, 1, 2).float()
        height, width = pixels.shape[2:]
        if (height, width) not in (self.content_size, self.input_size) and len(pixels):
            pixels = F.interpolate(pixels, self._fitted_size(height, width), mode="bilinear", antialias=True)
            height, width = pixels.shape[2:]
        top, left = self._margins(height, width)
        below, right = self.input_size[0] - height - top, self.input_size[1] - width - left
        return F.pad(pixels, (left, right, top, below))

    def _fitted_size(self, height: int, width: int) -> tuple[int, int]:
        """The largest size of the same aspect ratio inside the content, at least 1 px a side."""
        shrink = min(self.content_size[0] / height, self.content_size[1] / width)
        return max(1, round(height * shrink)), max(1, round(width * shrink))

    def _normalise(self, pixels: Tensor) -> Tensor:
        mean = torch.tensor(self.mean, device=pixels.device).view(1, -1, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, -1, 1, 1)
        return (pixels / 255 - mean) / std


def _pair(values: Sequence[Any]) -> tuple[int, int]:
    height, width = values
    return int(height), int(width)


def _check(image: Picture, rank: int) -> None:
    """Require uint8 picture(s) of the wanted rank."""
    wanted = "uint8 [N, H, W, C]" if rank == 4 else "uint8 [H, W, C]"
    if not isinstance(image, Tensor | np.ndarray):
        raise CcnetError(f"a picture of type {type(image).__name__}; allowed are tensors and numpy arrays {wanted}")
    if image.dtype not in (torch.uint8, np.uint8) or image.ndim != rank:
        raise CcnetError(f"pictures of {image.dtype} {list(image.shape)}; allowed is {wanted}")
    if image.shape[-1] not in (1, 3):
        raise CcnetError(f"pictures of shape {list(image.shape)}: C, the last number, must be 1 (grey) or 3 (RGB)")
    if 0 in image.shape[-3:]:
        raise CcnetError(f"pictures of shape {list(image.shape)} hold no pixels")


def _tensor(image: Picture) -> Tensor:
    if isinstance(image, Tensor):
        return image
    return torch.from_numpy(image if image.flags.writeable and min(image.strides) >= 0 else image.copy())


def _with_channels(images: Tensor, channels: int) -> Tensor:
    """uint8 [N, H, W, 1 or 3] -> uint8 [N, H, W, channels]."""
    if images.shape[-1] == channels:
        return images
    if channels == 3:
        return images.expand(-1, -1, -1, 3)
    luma = torch.full(images.shape[:-1], 0x8000, dtype=torch.int32, device=images.device)
    for channel, weight in zip(images.unbind(-1), _LUMA, strict=True):  # one at a time: pictures may be large
        luma += channel.to(torch.int32).mul_(weight)
    return (luma >> 16).to(torch.uint8)[..., None]
