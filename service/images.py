"""An encoded image becomes uint8 pixels [H, W, C], as a viewer would show it; limits before work.

Only PNG, JPEG and WebP are taken, recognised by their first bytes, whatever name or type came with them. The size is
read from the header and checked before a pixel is decoded. Of an animation the first frame counts; the orientation in
the EXIF data is applied; what is transparent is laid over white, the paper of a viewer; 16 bits are scaled to 8, not
clipped. Grey images have one channel, all others three.
"""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import Malformed, ServiceError, TooLarge, UnsupportedImage

# Filters are process-wide and not safe to switch in threads, so this one is set once.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

WHITE = 255
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
EXIF_ORIENTATION = 0x0112
# EXIF 2.32, tag Orientation: how a stored image must be turned to stand upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, slots=True)
class ImageLimits:
    """What one image may be: at most `max_pixels` pixels, width times height."""

    max_pixels: int


def sniff(data: bytes) -> str | None:
    """The format that the first bytes tell: "PNG", "JPEG", "WEBP", or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def decode_image(data: bytes, limits: ImageLimits, name: str = "image") -> NDArray[np.uint8]:
    """Decode one image.

    Args:
        data: A whole PNG, JPEG or WebP file.
        limits: Checked against the header before decoding.
        name: What error messages call it.

    Returns:
        uint8 [H, W, 1] for a grey image, else [H, W, 3] (red, green, blue).

    Raises:
        Malformed: No bytes, or a damaged or truncated file.
        UnsupportedImage: Not one of the three formats.
        TooLarge: More pixels than allowed.
    """
    if not data:
        raise Malformed(f"{name}: no bytes were given; send a PNG, JPEG or WebP file")
    image_format = sniff(data)
    if image_format is None:
        raise UnsupportedImage(
            f"{name}: the bytes given begin like no PNG, JPEG or WebP file; only these three are taken, "
            "whatever the file's name or Content-Type says"
        )
    try:
        with Image.open(io.BytesIO(data), formats=[image_format]) as image:
            _check_size(image.size, limits, name)
            return _pixels(_upright(_loaded(image)))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise TooLarge(f"{name}: too many pixels; at most {limits.max_pixels:,} are allowed") from error
    except (ServiceError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything from OSError to SyntaxError on damaged files
        raise Malformed(
            f"{name}: the {image_format} file is damaged or truncated and cannot be decoded; send the whole file"
        ) from error


def _check_size(size: tuple[int, int], limits: ImageLimits, name: str) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise TooLarge(
            f"{name}: {width} x {height} = {width * height:,} pixels were given; "
            f"at most {limits.max_pixels:,} are allowed: scale it down"
        )


def _loaded(image: Image.Image) -> Image.Image:
    image.load()  # the first frame
    return image


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; EXIF data that cannot be read is ignored, as viewers do."""
    try:
        orientation = image.getexif().get(EXIF_ORIENTATION)
    except Exception:  # the EXIF parser raises anything on damaged data
        return image
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    if method is None:
        return image
    return image.transpose(method)


def _pixels(image: Image.Image) -> NDArray[np.uint8]:
    """Pixels of a decoded image of any mode: grey [H, W, 1] or colour [H, W, 3]."""
    if image.mode.startswith("I"):
        return _eight_bits(image)[:, :, np.newaxis]
    mode = "L" if image.mode in GREY_MODES else "RGB"
    if image.has_transparency_data:
        image = _over_white(image, mode)
    pixels = np.array(image.convert(mode), dtype=np.uint8)
    return pixels.reshape(image.height, image.width, -1)


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey of 16 bits scaled to 8: 65535 becomes 255. Pillow's own conversion would clip at 255."""
    wide = np.array(image, dtype=np.int64)
    grey = ((np.clip(wide, 0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):  # the one grey value that the file declares invisible
        grey[wide == transparent] = WHITE
    return grey


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    """Lay a partly transparent image over white; `mode` is that of the result, "L" or "RGB"."""
    layer = image.convert("LA" if mode == "L" else "RGBA")
    paper = Image.new(mode, layer.size, WHITE if mode == "L" else (WHITE, WHITE, WHITE))
    paper.paste(layer.convert(mode), mask=layer.getchannel("A"))
    return paper
