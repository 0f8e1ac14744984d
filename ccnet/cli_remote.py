"""`ccnet classify --url`: the same answer as without it, from a running service, through `ccnet.Client`."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import typer

from ccnet.cli_support import progress
from ccnet.client import Classification, Client
from ccnet.client.images import encode_images
from ccnet.errors import CcnetError

TIMEOUT_S = 120.0  # of one request: the deadline that the service gives it by itself
GROUP_IMAGES = 16  # a quarter of the 64 images and, with 64 members, all of the 1,024 passes that a request may have
GROUP_BYTES = 8 * 2**20  # half of what a body may have; one picture alone may have more

UrlOption = typer.Option("--url", help="Ask a running service instead, such as http://127.0.0.1:8000.")
KeyOption = typer.Option("--api-key-env", help="Environment variable that holds a key of the service.", metavar="NAME")


def classify_remotely(
    url: str, pictures: Sequence[Path], model: str | None, size: int | None, seed: int | None, top: int,
    key_variable: str | None,
) -> dict[str, Any]:  # fmt: skip
    """What `ccnet classify` prints, as JSON values, from the answers of a service.

    Args:
        url: address of the service.
        pictures: files; they are sent in groups, under one seed.
        model, size, seed, top: as its `classify` takes them; None leaves the choice to the service.
        key_variable: name of the environment variable with the key; None sends none.

    Raises:
        CcnetError: a picture or the variable cannot be read.
        ServiceError, ConnectionFailed: as `ccnet.Client.classify`.
    """
    answers: list[Classification] = []
    groups = list(_groups(pictures))
    with (
        Client(url, api_key=_key(key_variable), timeout_s=TIMEOUT_S) as client,
        progress("classifying", len(pictures), "pictures", shown=len(groups) > 1) as report,
    ):
        for group in groups:
            answer = client.classify(group, ensemble_size=size, seed=seed, top_k=top, model=model)
            seed, model, size = answer.seed, answer.model, answer.ensemble_size  # the rest is asked for the same
            answers.append(answer)
            report.advance(len(group))
    results = [result for answer in answers for result in answer.results]
    return {
        "model": answers[0].model,
        "ensemble_size": answers[0].ensemble_size,
        "seed": answers[0].seed,
        "results": [
            {
                "picture": str(path),
                "label": result.label,
                "probability": result.probability,
                "agreement": result.agreement,
                "top": [{"label": best.label, "probability": best.probability} for best in result.top],
            }
            for path, result in zip(pictures, results, strict=True)
        ],
    }


def require_one_place(url: str | None, key_variable: str | None, device: str) -> None:
    """Refuse options that would be ignored: those of a service without one, and those of this machine with one.

    Raises:
        CcnetError: one was given.
    """
    if url is None and key_variable is not None:
        raise CcnetError(f"--api-key-env {key_variable} was given without --url; add the address of the service")
    if url is not None and device != "auto":
        raise CcnetError(f"--device {device} was given with --url; the service has its own: leave one of the two out")


def _groups(pictures: Sequence[Path]) -> Iterator[list[Path]]:
    """Pictures as they fit into requests; every one is looked at before the first is sent.

    Raises:
        PictureError: one cannot be read, or is no PNG, JPEG or WebP file.
    """
    group: list[Path] = []
    held_bytes = 0
    for path in pictures:
        size_bytes = sum(len(data) for data in encode_images(path))
        if group and (len(group) == GROUP_IMAGES or held_bytes + size_bytes > GROUP_BYTES):
            yield group
            group, held_bytes = [], 0
        group.append(path)
        held_bytes += size_bytes
    yield group


def _key(variable: str | None) -> str | None:
    if variable is None:
        return None
    key = os.environ.get(variable)
    if not key:
        raise CcnetError(f"--api-key-env {variable} was given; there is no such environment variable, or it is empty")
    return key
