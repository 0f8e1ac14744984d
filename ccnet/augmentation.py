"""What every training step sees: order, crops, flips and scale sequences, each a function of (seed, step).

Every draw comes from a generator of its own, seeded by what it is for and when. So nothing has to be remembered
between steps, and a resumed run sees the very batches that an uninterrupted one does.
"""

import hashlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ccnet.data import ImageDataset
from ccnet.errors import DataError
from ccnet.preprocessing import Preprocessing
from ccnet.recipes import TrainingConfig
from ccnet.sequences import ScaleSequence, sample_scale_sequences


def derived_seed(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit seed for one draw, far from those of all others: the same on every machine and version of Python."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{index}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 1


def generator(seed: int, purpose: str, index: int = 0) -> torch.Generator:
    """A CPU generator seeded by `derived_seed`."""
    return torch.Generator().manual_seed(derived_seed(seed, purpose, index))


class TrainingBatches:
    """Augmented batches of one data set.

    Args:
        dataset: the training images.
        preprocessing: gives the input size, the mean and the std.
        config: gives batch size, crop padding, flips and seed.
        device: where the images are kept and the batches made.
    """

    def __init__(
        self, dataset: ImageDataset, preprocessing: Preprocessing, config: TrainingConfig, device: torch.device
    ) -> None:
        if len(dataset) < config.batch_size:
            raise DataError(
                f"{len(dataset)} training images fill no batch of {config.batch_size}; give more or ask for less"
            )
        if dataset.channels != preprocessing.channels:
            raise DataError(f"images of {dataset.channels} channel(s), preprocessing for {preprocessing.channels}")
        self._config = config
        self._input_size = preprocessing.input_size
        self._images = _padded(dataset, preprocessing.input_size, config.crop_padding).to(device)
        self._labels = torch.from_numpy(dataset.labels).to(device)
        self._mean = torch.tensor(preprocessing.mean, device=device).view(1, -1, 1, 1) * 255
        self._std = torch.tensor(preprocessing.std, device=device).view(1, -1, 1, 1) * 255
        self.steps_per_epoch = len(dataset) // config.batch_size
        self._first_flips = torch.rand(len(dataset), generator=generator(config.seed, "flip")) < 0.5
        self._order_epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of step `step`, counted from 0 over all epochs.

        Returns:
            (images float32 [N, C, H, W], labels int64 [N]).
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            self._order = torch.randperm(len(self._labels), generator=generator(self._config.seed, "order", epoch))
            self._order_epoch = epoch
        size = self._config.batch_size
        chosen = self._order[position * size : (position + 1) * size]
        offsets = torch.randint(
            0, 2 * self._config.crop_padding + 1, (2, size), generator=generator(self._config.seed, "crop", step)
        )
        return self._cut(chosen, offsets, self._flips(chosen, epoch, step))

    def _flips(self, chosen: Tensor, epoch: int, step: int) -> Tensor:
        """bool [N]: which images of the batch are mirrored."""
        if self._config.flip == "none":
            return torch.zeros(len(chosen), dtype=torch.bool)
        if self._config.flip == "random":
            return torch.rand(len(chosen), generator=generator(self._config.seed, "flip", step)) < 0.5
        # Alternating: two epochs in a row show every image once each way round (airbench's derandomised flip).
        return self._first_flips[chosen] ^ bool(epoch % 2)

    def _cut(self, chosen: Tensor, offsets: Tensor, flips: Tensor) -> tuple[Tensor, Tensor]:
        """Crop, mirror and normalise in one gather: a mirrored crop reads its columns from right to left."""
        height, width = self._input_size
        rows = offsets[0, :, None] + torch.arange(height)  # [N, H]
        columns = torch.arange(width).expand(len(chosen), width)
        columns = offsets[1, :, None] + torch.where(flips[:, None], width - 1 - columns, columns)  # [N, W]
        device = self._images.device
        chosen, rows, columns = chosen.to(device), rows.to(device), columns.to(device)
        channels = torch.arange(self._images.shape[1], device=device)[None, :, None, None]
        pixels = self._images[chosen[:, None, None, None], channels, rows[:, None, :, None], columns[:, None, None, :]]
        return (pixels.float() - self._mean) / self._std, self._labels[chosen]


class TrainingSequences:
    """Scale augmentation (A.2): the scale sequence of every step, a function of (seed, step).

    Args:
        config: gives std, method and largest numerator of the sampler, pool size and seed.
        in_size: (height, width) of the network's input, px.
    """

    def __init__(self, config: TrainingConfig, in_size: tuple[int, int]) -> None:
        self._config, self._in_size = config, in_size
        self._pool = self._draw(config.pool_size, "pool", 0) if config.pool_size else []

    def at(self, step: int) -> ScaleSequence:
        """The sequence of step `step`: a fresh one, or one of the pool."""
        if self._pool:
            return self._pool[derived_seed(self._config.seed, "sequence", step) % len(self._pool)]
        return self._draw(1, "sequence", step)[0]

    def fixed(self) -> ScaleSequence:
        """The sequence that every epoch is measured with."""
        return self._draw(1, "fixed sequence", 0)[0]

    def _draw(self, count: int, purpose: str, step: int) -> list[ScaleSequence]:
        config = self._config
        seed = derived_seed(config.seed, purpose, step)
        method: Any = config.sequence_method
        return sample_scale_sequences(
            count,
            seed=seed,
            std=config.sequence_std,
            in_size=self._in_size,
            method=method,
            max_numerator=config.sequence_max_numerator,
        )


def _padded(dataset: ImageDataset, input_size: tuple[int, int], crop_padding: int) -> Tensor:
    """uint8 [N, C, H + 2 p, W + 2 p]: every image centred in the input size, with p px of black around that."""
    height, width = dataset.image_size
    missing = (input_size[0] - height, input_size[1] - width)
    if min(missing) < 0:
        raise DataError(f"images of {dataset.image_size} are larger than the input of {input_size}")
    top, left = missing[0] // 2, missing[1] // 2
    padding = (left, missing[1] - left, top, missing[0] - top)
    images = torch.from_numpy(dataset.images).permute(0, 3, 1, 2)
    return F.pad(images, tuple(side + crop_padding for side in padding)).contiguous()
