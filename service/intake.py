"""From a request with images to tensors: reads the body, finds the images, decodes and prepares them in worker threads.

Every route that takes images takes them through here, so limits and errors are the same everywhere.
"""

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import Request
from numpy.typing import NDArray
from torch import Tensor

from service.context import Service
from service.images import ImageLimits, decode_image
from service.served import ServedModel
from service.uploads import PART_NAME, read_body, split_images

Pixels = NDArray[np.uint8]

# One black pixel.
_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
_BINARY = {"type": "string", "format": "binary"}

# OpenAPI's description of the three forms; the body is read by hand, so the framework cannot know them.
IMAGES_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "description": (
            "PNG, JPEG or WebP files in one of three forms: a raw body, multipart parts named `images`, or base64 in "
            "JSON. Options are query parameters in all of them."
        ),
        "content": {
            "image/png": {"schema": _BINARY},
            "image/jpeg": {"schema": _BINARY},
            "image/webp": {"schema": _BINARY},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": [PART_NAME],
                    "properties": {PART_NAME: {"type": "array", "items": _BINARY, "minItems": 1}},
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["images"],
                    "additionalProperties": False,
                    "properties": {
                        "images": {
                            "type": "array",
                            "minItems": 1,
                            "items": {"type": "string", "contentEncoding": "base64"},
                        }
                    },
                },
                "example": {"images": [_EXAMPLE]},
            },
        },
    }
}


async def receive_images(request: Request, service: Service) -> list[bytes]:
    """The encoded images of a request, at least one.

    Raises:
        Malformed, TooLarge, UnsupportedImage, OptionOutOfRange: As `service.uploads` says.
    """
    settings = service.settings
    body = await read_body(request.stream(), request.headers.get("content-length"), settings.max_body_bytes)
    content_type = request.headers.get("content-type", "")
    return await service.workers.run(split_images, body, content_type, settings.max_images_per_request)


async def decode_images(service: Service, encoded: Sequence[bytes]) -> list[Pixels]:
    """uint8 pixels of every image.

    Raises:
        Malformed, TooLarge, UnsupportedImage: As `service.images.decode_image` says; the message names the image.
    """
    limits = ImageLimits(service.settings.max_image_pixels)
    return await service.workers.map(lambda index, data: decode_image(data, limits, f"image {index}"), encoded)


async def decode_and_prepare(service: Service, model: ServedModel, encoded: Sequence[bytes]) -> tuple[Tensor, ...]:
    """Each image as the model wants it, float32 [1, C, H, W]; its pixels are let go at once.

    Raises:
        Malformed, TooLarge, UnsupportedImage: As `service.images.decode_image` says; the message names the image.
    """
    limits = ImageLimits(service.settings.max_image_pixels)

    def one(index: int, data: bytes) -> Tensor:
        return model.prepare([decode_image(data, limits, f"image {index}")])

    return tuple(await service.workers.map(one, encoded))


def chosen_seed(seed: int | None) -> int:
    """The seed of a request, or a fresh one of 32 bits."""
    return secrets.randbits(32) if seed is None else seed
