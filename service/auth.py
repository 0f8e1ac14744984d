"""API keys: when any are set, all under `/v1` and `/v2` demands one, and `/metrics` if told to; the rest stays open.

A key is given to the service as it is or as its hash, `sha256:<64 hex digits>`, so that the environment of the process
need not hold the secret. SHA-256 without salt or stretching is enough for what a machine drew at random, and for
nothing that a person thought of: hence the warning about short ones.
"""

import hashlib
import hmac
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from fastapi import FastAPI, Request
from pydantic import SecretStr

from service.context import service_of
from service.errors import Unauthorized
from service.settings import HASHED, Settings

SHORTEST = 16  # characters of a key that is given as it is, below which a warning is logged

SCHEMES = {
    "HTTPBearer": {"type": "http", "scheme": "bearer", "description": "One of CCNET_API_KEYS."},
    "APIKeyHeader": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same, for clients that prefer it.",
    },
}


def require_key(request: Request) -> None:
    """Let a request with a valid key pass, and every one where no keys are set.

    Raises:
        Unauthorized: No key, or one that is not among those set.
    """
    digests = _digests(service_of(request).settings.api_keys)
    if not digests:
        return
    given = _given(request)
    if given is None:
        raise Unauthorized("no key was given; send Authorization: Bearer <key>, or X-API-Key: <key>")
    digest = hashlib.sha256(given.encode("latin-1")).digest()  # the bytes of the header as they came
    # Every key is compared, and in constant time, so that the time taken tells nothing about any of them.
    if not any([hmac.compare_digest(digest, allowed) for allowed in digests]):  # noqa: C419
        raise Unauthorized("the key that was given is not among those set in CCNET_API_KEYS")


def describe_keys(app: FastAPI, paths: Collection[str]) -> None:
    """Say in the OpenAPI document that these paths demand a key."""
    plain = app.openapi

    def openapi() -> dict[str, Any]:
        known = app.openapi_schema is not None
        document = plain()
        if not known:
            document.setdefault("components", {})["securitySchemes"] = SCHEMES
            for path in document["paths"].keys() & paths:
                for operation in document["paths"][path].values():
                    operation["security"] = [{name: []} for name in SCHEMES]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's documented way to extend it


def _given(request: Request) -> str | None:
    """The key of a request: a bearer token, else X-API-Key."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    token = token.strip()
    return token if scheme.lower() == "bearer" and token else request.headers.get("x-api-key")


def short_keys(settings: Settings) -> int:
    """How many keys are given as they are and have fewer than `SHORTEST` characters."""
    keys = [key.get_secret_value() for key in settings.api_keys]
    return sum(len(key) < SHORTEST for key in keys if not key.startswith(HASHED))


@lru_cache(maxsize=8)
def _digests(keys: tuple[SecretStr, ...]) -> tuple[bytes, ...]:
    return tuple(_digest(key.get_secret_value()) for key in keys)


def _digest(key: str) -> bytes:
    if key.startswith(HASHED):
        return bytes.fromhex(key.removeprefix(HASHED))
    return hashlib.sha256(key.encode()).digest()
