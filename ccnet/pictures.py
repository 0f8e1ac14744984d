"""An encoded picture becomes uint8 pixels [H, W, C], as a viewer would show it; limits before work.

Only PNG, JPEG and WebP are taken, recognised by their first bytes, whatever name or type came with them. The size is
read from the header and checked before a pixel is decoded. Of an animation the first frame counts; the orientation in
the EXIF data is applied; what is transparent is laid over white, the paper of a viewer; 16 bits are scaled to 8, not
clipped. Grey pictures have one channel, all others three.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ccnet.errors import PictureError, PictureFormatError, PictureSizeError

# Filters are process-wide and not safe to switch in threads, so this one is set once.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)

MAX_PIXELS = 2**24  # default limit on width x height
WHITE = 255
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L", "I;16N"})
EXIF_ORIENTATION = 0x0112
# EXIF 2.32, tag Orientation: how a stored picture must be turned to stand upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def sniff_format(data: bytes) -> str | None:
    """The format that the first bytes tell: "PNG", "JPEG", "WEBP", or None."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    return None


def decode_picture(
    data: bytes, *, max_pixels: int = MAX_PIXELS, name: str = "picture", keep_alpha: bool = False
) -> NDArray[np.uint8]:
    """Decode one picture.

    Args:
        data: a whole PNG, JPEG or WebP file.
        max_pixels: most pixels, width times height; read from the header, before decoding.
        name: what error messages call it.
        keep_alpha: return what is transparent as one more channel instead of laying it over white.

    Returns:
        uint8 [H, W, 1] for a grey picture, else [H, W, 3] (red, green, blue); with `keep_alpha` and transparency
        [H, W, 2] or [H, W, 4], opacity last.

    Raises:
        PictureError: no bytes, or a damaged or truncated file.
        PictureFormatError: not one of the three formats.
        PictureSizeError: more pixels than allowed.
    """
    if not data:
        raise PictureError(f"{name}: no bytes were given; send a PNG, JPEG or WebP file")
    picture_format = sniff_format(data)
    if picture_format is None:
        raise PictureFormatError(
            f"{name}: the bytes given begin like no PNG, JPEG or WebP file; only these three are taken, "
            "whatever the file's name or type says"
        )
    if picture_format == "WEBP" and (size := _webp_size(data)) is not None:
        _require_size(size, max_pixels, name)  # Pillow makes canvases of this size before it tells it
    try:
        with Image.open(io.BytesIO(data), formats=[picture_format]) as picture:
            _require_size(picture.size, max_pixels, name)
            picture.load()  # the first frame
            return _pixels(_upright(picture), keep_alpha)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureSizeError(f"{name}: too many pixels; at most {max_pixels:,} are allowed") from error
    except (PictureError, MemoryError):
        raise
    except Exception as error:  # decoders raise anything from OSError to SyntaxError on damaged files
        raise PictureError(
            f"{name}: the {picture_format} file is damaged or truncated and cannot be decoded; send the whole file"
        ) from error


def read_picture(path: Path | str, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """Decode the file at `path`; see `decode_picture`.

    Raises:
        PictureError: the file cannot be read, or as `decode_picture`.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise PictureError(f"{path}: {error.strerror or error}; give the path of a PNG, JPEG or WebP file") from error
    return decode_picture(data, max_pixels=max_pixels, name=str(path))


def _webp_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) as the first chunk of a WebP file has it (RFC 9649); None where there is no such chunk."""
    chunk, head = data[12:16], data[20:30]
    if len(head) < 10:
        return None
    if chunk == b"VP8X":
        return 1 + int.from_bytes(head[4:7], "little"), 1 + int.from_bytes(head[7:10], "little")
    if chunk == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if chunk == b"VP8 ":
        return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF
    return None


def _require_size(size: tuple[int, int], max_pixels: int, name: str) -> None:
    width, height = size
    if width * height > max_pixels:
        raise PictureSizeError(
            f"{name}: {width} x {height} = {width * height:,} pixels were given; "
            f"at most {max_pixels:,} are allowed: scale it down"
        )


def _upright(picture: Image.Image) -> Image.Image:
    """Apply the EXIF orientation; EXIF data that cannot be read is ignored, as viewers do."""
    try:
        orientation = picture.getexif().get(EXIF_ORIENTATION)
    except Exception:  # the EXIF parser raises anything on damaged data
        return picture
    method = UPRIGHT.get(orientation) if isinstance(orientation, int) else None
    return picture if method is None else picture.transpose(method)


def _pixels(picture: Image.Image, keep_alpha: bool) -> NDArray[np.uint8]:
    """Pixels of a decoded picture of any mode: grey [H, W, 1] or colour [H, W, 3], with opacity 2 or 4 channels."""
    if picture.mode.startswith("I"):
        return _eight_bits(picture)[:, :, np.newaxis]
    mode = "L" if picture.mode in GREY_MODES else "RGB"
    if picture.has_transparency_data and keep_alpha:
        mode = "LA" if mode == "L" else "RGBA"
    elif picture.has_transparency_data:
        picture = _over_white(picture, mode)
    pixels = np.array(picture if picture.mode == mode else picture.convert(mode), dtype=np.uint8)
    return pixels.reshape(picture.height, picture.width, -1)


def _eight_bits(picture: Image.Image) -> NDArray[np.uint8]:
    """Grey of 16 bits scaled to 8: 65535 becomes 255. Pillow's own conversion would clip at 255."""
    wide = np.array(picture, dtype=np.int32)
    grey = ((np.clip(wide, 0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):  # the one grey value that the file declares invisible
        grey[wide == transparent] = WHITE
    return grey


def _over_white(picture: Image.Image, mode: str) -> Image.Image:
    """Lay a partly transparent picture over white; `mode` is that of the result, "L" or "RGB"."""
    layer = picture.convert("LA" if mode == "L" else "RGBA")
    paper = Image.new(mode, layer.size, WHITE if mode == "L" else (WHITE, WHITE, WHITE))
    paper.paste(layer.convert(mode), mask=layer.getchannel("A"))
    return paper
