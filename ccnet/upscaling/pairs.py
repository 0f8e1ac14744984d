"""Training pairs: a patch of a picture, and the same patch reduced.

The degradation, stated because everything that is learned and measured depends on it: luma of 8 bits, reduced with the
antialiased bicubic filter of Pillow (Keys, a = -1/2, as wide as the reduction asks), which is what torch's
`interpolate(antialias=True)` computes, then rounded to 8 bits again. Along each axis by a factor of its own, an exact
fraction p/q: p k pixels become q k, so that small and large picture have the same borders.

Pictures are split into training and validation as wholes: two patches of one picture are too much alike.
"""

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ccnet.augmentation import generator
from ccnet.data import load_dataset
from ccnet.errors import CcnetError, DataError
from ccnet.pictures import read_picture
from ccnet.upscaling.recipe import UpscalerTraining, training_factors

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
SMALLEST_SIDE = 24  # px: below it hardly a factor leaves anything to learn from
VALIDATION_EVERY = 8  # of the pictures in order of their names, the last of every so many is for validation


@dataclass(frozen=True)
class Pictures:
    """Grey pictures, uint8 [H, W] each, of any sizes, for training and for validation."""

    training: tuple[NDArray[np.uint8], ...]
    validation: tuple[NDArray[np.uint8], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of sizes and pixels, in order: what a run that goes on compares."""
        digest = hashlib.sha256()
        for part in (self.training, self.validation):
            digest.update(f"{len(part)} pictures\n".encode())
            for picture in part:
                digest.update(f"{picture.shape}\n".encode() + picture.tobytes())
        return digest.hexdigest()

    @property
    def smallest_side(self) -> int:
        """px, over all pictures and both axes."""
        return min(int(side) for picture in (*self.training, *self.validation) for side in picture.shape)


def luma(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """[H, W, 1 or 3] -> [H, W] (ITU-R BT.601, as in JPEG), rounded."""
    return pixels[:, :, 0] if pixels.shape[2] == 1 else np.asarray(Image.fromarray(pixels).convert("L"))


def read_pictures(source: str, max_side: int) -> Pictures:
    """The luma of the pictures of a folder (not of the folders in it), or of a data set's training images.

    Args:
        source: a folder, or a name for `load_dataset`.
        max_side: px; larger pictures are reduced to it.

    Raises:
        DataError: neither a folder nor a data set, too few pictures, or too small ones.
        PictureError: a file that cannot be decoded.
    """
    if Path(source).is_dir():
        paths = sorted(path for path in Path(source).iterdir() if path.suffix.lower() in SUFFIXES)
        grey = [_reduced(luma(read_picture(path, max_pixels=2**26)), max_side) for path in paths]
    else:
        try:
            images = load_dataset(source, "train").images
        except DataError as error:
            raise DataError(f"{source} is no folder, and as a data set: {error}") from error
        grey = [luma(image) for image in images]
    if len(grey) < VALIDATION_EVERY:
        raise DataError(
            f"{source} holds {len(grey)} PNG, JPEG or WebP pictures; at least {VALIDATION_EVERY} are needed, one of "
            "which is kept for validation"
        )
    held_back = [number % VALIDATION_EVERY == VALIDATION_EVERY - 1 for number in range(len(grey))]
    pictures = Pictures(
        tuple(picture for picture, held in zip(grey, held_back, strict=True) if not held),
        tuple(picture for picture, held in zip(grey, held_back, strict=True) if held),
    )
    if pictures.smallest_side < SMALLEST_SIDE:
        raise DataError(
            f"{source} holds a picture with a side of {pictures.smallest_side} px; at least {SMALLEST_SIDE} are needed"
        )
    return pictures


def _reduced(picture: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    height, width = picture.shape
    if max(height, width) <= max_side:
        return picture
    size = tuple(max(1, round(side * max_side / max(height, width))) for side in (width, height))
    return np.asarray(Image.fromarray(picture).resize((size[0], size[1]), Image.Resampling.BICUBIC))


def reduce(pictures: Tensor, out_size: tuple[int, int]) -> Tensor:
    """Degrade [N, 1, H, W] in [0, 1]: antialiased bicubic (a = -1/2), clipped, rounded to 8 bits."""
    small = F.interpolate(pictures, size=out_size, mode="bicubic", antialias=True, align_corners=False)
    return (small.clamp(0, 1) * 255).round() / 255


class TrainingPairs:
    """Batches of pairs; every one a function of the seed and the step.

    Args:
        pictures: what is learned from.
        config: the run.

    Raises:
        CcnetError: the pictures are too small for any factor.
    """

    def __init__(self, pictures: Pictures, config: UpscalerTraining) -> None:
        self.pictures, self.config = pictures, config
        side = pictures.smallest_side
        self.factors = tuple(s for s in training_factors(config.max_denominator) if s.numerator <= side)
        if not self.factors:
            raise CcnetError(f"no factor p/q has a p up to {side}, the smallest side of the pictures")

    def describe(self) -> str:
        """What the pictures allow, for people: the smallest of them sets the patches and factors of all."""
        side = self.pictures.smallest_side
        allowed = training_factors(self.config.max_denominator)
        counts = f"{len(self.pictures.training):,} pictures to train on, {len(self.pictures.validation):,} held back"
        limits = f"patches of at most {side} px, the smallest side of any of them"
        left_out = len(allowed) - len(self.factors)
        return f"{counts}; {limits}" + (f", which leaves out {left_out} of {len(allowed)} factors" if left_out else "")

    def batch(self, step: int) -> tuple[Tensor, Tensor, tuple[Fraction, Fraction]]:
        """(small [N, 1, h, w], large [N, 1, s_v h, s_h w], (s_v, s_h)) of a step, values 0 to 1."""
        random = generator(self.config.seed, "pairs", step)

        def below(limit: int) -> int:
            return int(torch.randint(limit, (), generator=random))

        scale = self.factors[below(len(self.factors))], self.factors[below(len(self.factors))]
        repeats = [self._repeats(s) for s in scale]
        large_size = (repeats[0] * scale[0].numerator, repeats[1] * scale[1].numerator)
        small_size = (repeats[0] * scale[0].denominator, repeats[1] * scale[1].denominator)
        patches = []
        for _ in range(self.config.batch_size):
            picture = self.pictures.training[below(len(self.pictures.training))]
            turned, mirrored, flipped = below(2), below(2), below(2)
            height, width = large_size[::-1] if turned else large_size
            top, left = below(picture.shape[0] - height + 1), below(picture.shape[1] - width + 1)
            patch = picture[top : top + height, left : left + width][:: 1 - 2 * flipped, :: 1 - 2 * mirrored]
            patches.append(np.ascontiguousarray(patch.T if turned else patch))
        large = torch.from_numpy(np.stack(patches))[:, None].float() / 255
        return reduce(large, small_size), large, scale

    def _repeats(self, s: Fraction) -> int:
        """k, where p k pixels become q k: about `low_size`, and no more than the smallest picture has."""
        return max(1, min(self.config.low_size // s.denominator, self.pictures.smallest_side // s.numerator))
