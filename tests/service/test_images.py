"""What the library refuses to decode becomes the service's refusal with the same words; pixels are the library's."""

import numpy as np
import pytest
from PIL import Image

from ccnet.pictures import decode_picture
from service.errors import Malformed, TooLarge, UnsupportedImage
from service.images import decode_image
from tests.service.pictures import encoded

COLOUR = encoded(Image.fromarray(np.arange(72, dtype=np.uint8).reshape(4, 6, 3)))


def test_pixels_are_those_of_the_library():
    np.testing.assert_array_equal(decode_image(COLOUR, 24, "image 0"), decode_picture(COLOUR))


@pytest.mark.parametrize(
    ("data", "max_pixels", "refusal", "words"),
    [
        (b"", 24, Malformed, "image 3: no bytes"),
        (COLOUR[:50], 24, Malformed, "image 3: the PNG file is damaged or truncated"),
        (b"a text file", 24, UnsupportedImage, "image 3: .* no PNG, JPEG or WebP"),
        (COLOUR, 23, TooLarge, "image 3: 6 x 4 = 24 pixels were given; at most 23 are allowed"),
    ],
    ids=["empty", "truncated", "text", "large"],
)
def test_each_refusal_has_its_own_status_and_the_library_s_words(data, max_pixels, refusal, words):
    with pytest.raises(refusal, match=words):
        decode_image(data, max_pixels, "image 3")
