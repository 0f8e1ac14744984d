"""A picture file enlarged into another: limits before work, 8 bits in and out, nothing overwritten unasked."""

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from ccnet.errors import CcnetError, PictureError, PictureSizeError
from ccnet.files import write_atomically
from ccnet.grid import ScalePair, exact_scales
from ccnet.pictures import MAX_PIXELS, decode_picture, sniff_format
from ccnet.upscaling import cubic
from ccnet.upscaling.axes import Axes, whole_axes
from ccnet.upscaling.cubic import bicubic_tile
from ccnet.upscaling.ensembles import ImageAggregate, Members, enlarge_ensemble
from ccnet.upscaling.model import CCUpscaler
from ccnet.upscaling.pixels import Residual, visible_luma
from ccnet.upscaling.tiles import TILE_SIDE, enlarge_pixels, tile_side

MAX_OUTPUT_PIXELS = 2**26  # width times height
MAX_ENSEMBLE_INPUT_PIXELS = 2**22  # an ensemble holds its luma as floats


@dataclass(frozen=True)
class Format:
    """How a suffix is written.

    Attributes:
        name: Pillow's.
        max_side: longest side that its encoder takes, px.
        options: of Pillow's `save`.
    """

    name: str
    max_side: int
    options: dict[str, Any]


_JPEG = Format("JPEG", 65_500, {"quality": 95, "subsampling": 0})  # libjpeg's JPEG_MAX_DIMENSION
FORMATS = {
    ".png": Format("PNG", 2**20, {}),  # ours: the format has 2**31 - 1, and few viewers open them
    ".jpg": _JPEG,
    ".jpeg": _JPEG,
    ".webp": Format("WEBP", 16_383, {"lossless": True}),  # libwebp's WEBP_MAX_DIMENSION
}
OPAQUE = 255
_PNG_DEPTH_AT = 24  # byte of the bit depth in a PNG file (ISO/IEC 15948, IHDR)


@dataclass(frozen=True)
class Target:
    """What a picture is to become: a factor, or a size.

    Attributes:
        scale: a number or a pair (vertical, horizontal), None where the size is given.
        size: (height, width) in px, None where the scale is given.
    """

    scale: ScalePair | None = None
    size: tuple[int, int] | None = None

    def resolve(self, in_size: tuple[int, int]) -> tuple[tuple[Fraction, Fraction], tuple[int, int]]:
        """(scale, (height, width)) for a picture of `in_size`."""
        if self.size is not None:
            return (Fraction(self.size[0], in_size[0]), Fraction(self.size[1], in_size[1])), self.size
        scale = exact_scales(1 if self.scale is None else self.scale)
        return scale, (math.ceil(scale[0] * in_size[0]), math.ceil(scale[1] * in_size[1]))


@dataclass(frozen=True)
class Ensemble:
    """Several ways to enlarge; see `ccnet.upscaling.ensembles`."""

    size: int
    members: Members = "steps"
    aggregate: ImageAggregate = "median"
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Job:
    """A picture that was read, found within all limits, and can be enlarged.

    Attributes:
        source, target: the files.
        pixels: uint8 [H, W, C], C = 1 to 4.
        profile: its colour profile (ICC), which goes into the target.
        scale: (vertical, horizontal).
        out_size: (height, width), px.
    """

    source: Path
    target: Path
    pixels: NDArray[np.uint8]
    profile: bytes | None
    scale: tuple[Fraction, Fraction]
    out_size: tuple[int, int]

    def run(
        self,
        model: CCUpscaler | None,
        ensemble: Ensemble | None = None,
        advance: Callable[[int], None] = lambda _: None,
    ) -> None:
        """Enlarge and write the picture; the target is the old file or the whole new one.

        Args:
            model: None interpolates.
            ensemble: None is one pass.
            advance: called with output px that were finished; in all those of the picture, times one more than an
                ensemble has members.

        Raises:
            CcnetError: a factor out of range, or an ensemble that is too large.
        """
        height, width, channels = self.pixels.shape
        reach = cubic.REACH if model is None else model.reach
        whole = whole_axes((height, width), self.scale, self.out_size, reach)
        residual: Residual | None = None if model is None else model.residual
        if model is not None and ensemble is not None:
            residual = self._ensemble_residual(model, ensemble, advance)
        side = tile_side(model) if ensemble is None else TILE_SIDE
        out = np.empty((*self.out_size, channels), dtype=np.uint8)
        for (vertical, horizontal), tile in enlarge_pixels(self.pixels, whole, residual, reach, side):
            rows, columns = vertical.outputs, horizontal.outputs
            out[rows.start : rows.stop, columns.start : columns.stop] = tile
            advance(tile.shape[0] * tile.shape[1])
        write_atomically(self.target, _encoded(out, FORMATS[self.target.suffix.lower()], self.profile))

    def _ensemble_residual(self, model: CCUpscaler, ensemble: Ensemble, advance: Callable[[int], None]) -> Residual:
        """What tiles add to the bicubic picture, taken out of the ensemble's whole picture."""
        height, width = self.pixels.shape[:2]
        if height * width > MAX_ENSEMBLE_INPUT_PIXELS:
            raise PictureSizeError(
                f"{self.source}: {width} x {height} pixels were given; an ensemble takes at most "
                f"{MAX_ENSEMBLE_INPUT_PIXELS:,}: leave --ensemble out"
            )
        luma = visible_luma(torch.from_numpy(self.pixels).permute(2, 0, 1)[None].float() / 255)
        enlarged = enlarge_ensemble(
            model, luma, self.scale, self.out_size, size=ensemble.size, members=ensemble.members,
            aggregate=ensemble.aggregate, seed=ensemble.seed, advance=advance,
        )  # fmt: skip

        def residual(luma_of_tile: torch.Tensor, axes: Axes) -> torch.Tensor:
            rows, columns = (slice(axis.outputs.start, axis.outputs.stop) for axis in axes)
            return enlarged[:, :, rows, columns] - bicubic_tile(luma_of_tile, axes)

        return residual


def prepare(source: Path, target: Path, wanted: Target, *, force: bool = False) -> Job:
    """Read a picture that is to be enlarged into another file, whose suffix says its format.

    Args:
        source: PNG, JPEG or WebP of 8 bits a channel: grey or colour, with transparency or without.
        target: .png, .jpg, .jpeg or .webp; lossless but for JPEG, whose quality is 95.
        wanted: factor or size.
        force: replace a file that is there.

    Raises:
        PictureError: no picture, or one that cannot be enlarged as it is.
        PictureSizeError: too many pixels, in or out, or a side that is too long for the target's format.
        CcnetError: a target that is there or of an unknown suffix, or a factor out of range.
    """
    _check_target(target, force)
    pixels, profile = _read(source)
    to = FORMATS[target.suffix.lower()]
    if to.name == "JPEG" and pixels.shape[2] in (2, 4):
        if not (pixels[:, :, -1] == OPAQUE).all():
            raise PictureError(f"{source} is partly transparent, which JPEG cannot say; write a .png or .webp file")
        pixels = pixels[:, :, :-1]
    height, width = pixels.shape[:2]
    scale, out_size = wanted.resolve((height, width))
    whole_axes((height, width), scale, out_size, cubic.REACH)  # refuses factors out of range
    if math.prod(out_size) > MAX_OUTPUT_PIXELS:
        raise PictureSizeError(
            f"{source} would become {out_size[1]} x {out_size[0]} = {math.prod(out_size):,} pixels; at most "
            f"{MAX_OUTPUT_PIXELS:,} are allowed: use a smaller factor"
        )
    if max(out_size) > to.max_side:
        raise PictureSizeError(
            f"{source} would become {out_size[1]} x {out_size[0]} pixels; {to.name} files have at most "
            f"{to.max_side:,} along a side: use a smaller factor" + ("" if to.name == "PNG" else ", or write a .png")
        )
    return Job(source, target, pixels, profile, scale, out_size)


def _check_target(target: Path, force: bool) -> None:
    if target.suffix.lower() not in FORMATS:
        raise CcnetError(f"{target} has the suffix {target.suffix!r}; allowed are {', '.join(FORMATS)}")
    if not target.parent.is_dir():
        raise CcnetError(f"{target}: there is no folder {target.parent}; make it first")
    if target.is_dir():
        raise CcnetError(f"{target} is a folder; give the name of a file")
    if target.exists() and not force:
        raise CcnetError(f"{target} is there already; give another name, or --force to replace it")


def _read(source: Path) -> tuple[NDArray[np.uint8], bytes | None]:
    """(pixels uint8 [H, W, C], colour profile) of a file."""
    try:
        data = source.read_bytes()
    except OSError as error:
        raise PictureError(f"{source}: {error.strerror or error}; give the path of a PNG, JPEG or WebP file") from error
    if sniff_format(data) == "PNG" and data[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == b"\x10":
        raise PictureError(
            f"{source} has 16 bits a channel, of which 8 would be lost; convert it to 8 bits first if that will do"
        )
    pixels = decode_picture(data, max_pixels=MAX_PIXELS, name=str(source), keep_alpha=True)
    with Image.open(io.BytesIO(data)) as picture:
        profile = picture.info.get("icc_profile")
        kept = isinstance(profile, bytes) and picture.mode not in ("CMYK", "LAB", "YCbCr")  # of the colours written
    return pixels, profile if kept else None


def _encoded(pixels: NDArray[np.uint8], to: Format, profile: bytes | None) -> bytes:
    stream = io.BytesIO()
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
    picture.save(stream, to.name, icc_profile=profile, **to.options)
    return stream.getvalue()
