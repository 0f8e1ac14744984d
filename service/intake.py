"""From a request with images to tensors: reads the body, finds the images, decodes and prepares them.

Every route that takes images takes them through here, so limits and errors are the same everywhere.
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch
from fastapi import Request
from torch import Tensor

from service.context import Service
from service.errors import TooLarge
from service.holding import Share
from service.images import Pixels, decode_image
from service.served import ServedModel
from service.tracing import stage_span
from service.uploads import PART_NAME, read_body, require_plain, split_images

# One black pixel.
_EXAMPLE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
_BINARY = {"type": "string", "format": "binary"}

SPLIT_AT_ONCE = 16_384  # bytes of a body up to which finding its images takes less time than handing it to a thread
# One image this small, in bytes and pixels, is decoded on the event loop: a change of thread and back takes as long.
TINY_BYTES, TINY_PIXELS = 4096, 4096
DECODED_TOGETHER = 65_536  # bytes of small images that one thread decodes in one go
PREPARED_TOGETHER = 262_144  # bytes of their pixels that are prepared in one go

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
                    "additionalProperties": False,
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


async def receive_images(request: Request, service: Service, held: Share) -> list[bytes]:
    """The encoded images of a request, at least one.

    Args:
        request: Its body must not have been read.
        service: For the limits and the worker threads.
        held: Counts the bytes of the body as long as the request holds them.

    Raises:
        Malformed, TooLarge, UnsupportedImage, OptionOutOfRange: As `service.uploads` says.
        QueueFull: Other requests hold as many bytes as may be held.
    """
    settings = service.settings
    require_plain(request.headers.get("content-encoding", ""))
    announced = request.headers.get("content-length")
    body = await read_body(request.stream(), announced, settings.max_body_bytes, held.take)
    content_type = request.headers.get("content-type", "")
    if len(body) <= SPLIT_AT_ONCE:
        return split_images(body, content_type, settings.max_images_per_request)
    return await service.workers.run(split_images, body, content_type, settings.max_images_per_request)


async def decode_and_prepare(service: Service, models: Sequence[ServedModel], encoded: Sequence[bytes]) -> list[Tensor]:
    """For every model all images as it wants them, float32 [N, C, H, W].

    Large pictures are prepared as soon as they are decoded and their pixels are let go, so that a request of many never
    holds more of them than there are worker threads.

    Raises:
        Malformed, TooLarge, UnsupportedImage: As `service.images.decode_image` says; the message names the image.
    """
    most = service.settings.max_image_pixels
    with stage_span("decode"):
        if len(encoded) == 1 and len(encoded[0]) <= TINY_BYTES:
            with suppress(TooLarge):
                return _decode(models, encoded, range(1), min(most, TINY_PIXELS))
        groups = await service.workers.map(
            lambda numbers: _decode(models, encoded, numbers, most), _decoded_together(encoded)
        )
    return groups[0] if len(groups) == 1 else [torch.cat(of_model) for of_model in zip(*groups, strict=True)]


def _decode(models: Sequence[ServedModel], encoded: Sequence[bytes], numbers: range, most: int) -> list[Tensor]:
    """The images of these numbers for every model; small ones are prepared together."""
    prepared: list[list[Tensor]] = [[] for _ in models]
    pictures: list[Pixels] = []
    for number in numbers:
        pictures.append(decode_image(encoded[number], most, f"image {number}"))
        if number == numbers[-1] or sum(picture.nbytes for picture in pictures) > PREPARED_TOGETHER:
            for model, of_model in zip(models, prepared, strict=True):
                of_model.append(model.prepare(pictures))
            pictures = []
    return [of_model[0] if len(of_model) == 1 else torch.cat(of_model) for of_model in prepared]


def _decoded_together(encoded: Sequence[bytes]) -> list[range]:
    """Numbers of the images that are decoded in one go: several small ones, or a larger one alone."""
    groups, first, size = [], 0, 0
    for number, data in enumerate(encoded):
        if number > first and size + len(data) > DECODED_TOGETHER:
            groups.append(range(first, number))
            first, size = number, 0
        size += len(data)
    return [*groups, range(first, len(encoded))]
