"""An encoded image becomes uint8 pixels by `ccnet.pictures`; here its refusals become those of the service."""

import numpy as np
from numpy.typing import NDArray

from ccnet.errors import PictureError, PictureFormatError, PictureSizeError
from ccnet.pictures import decode_picture
from service.errors import Malformed, TooLarge, UnsupportedImage

Pixels = NDArray[np.uint8]


def decode_image(data: bytes, max_pixels: int, name: str) -> Pixels:
    """Decode one image; arguments and pixels are those of `ccnet.pictures.decode_picture`.

    Raises:
        Malformed: No bytes, or a damaged or truncated file.
        UnsupportedImage: Not a PNG, JPEG or WebP.
        TooLarge: More pixels than allowed.
    """
    try:
        return decode_picture(data, max_pixels=max_pixels, name=name)
    except PictureSizeError as error:
        raise TooLarge(str(error)) from error
    except PictureFormatError as error:
        raise UnsupportedImage(str(error)) from error
    except PictureError as error:
        raise Malformed(str(error)) from error
