"""API keys: when any are set, everything under `/v1` demands one; probes, metrics and documentation stay open.

A key is given to the service as it is or as its hash, `sha256:<64 hex digits>`, so that the environment of the process
need not hold the secret. SHA-256 without salt or stretching is enough for what a machine drew at random, and for
nothing that a person thought of: hence the warning about short ones.
"""

import hashlib
import hmac
from functools import lru_cache
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer
from pydantic import SecretStr

from service.context import AnyService
from service.errors import Unauthorized
from service.settings import HASHED, Settings

SHORTEST = 16  # characters of a key that is given as it is, below which a warning is logged

_BEARER = HTTPBearer(auto_error=False, description="One of CCNET_API_KEYS.")
_HEADER = APIKeyHeader(name="X-API-Key", auto_error=False, description="The same, for clients that prefer it.")


async def require_key(
    service: AnyService,
    bearer: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)] = None,
    header: Annotated[str | None, Security(_HEADER)] = None,
) -> None:
    """Let a request with a valid key pass, and every one where no keys are set.

    Raises:
        Unauthorized: No key, or one that is not among those set.
    """
    digests = _digests(service.settings.api_keys)
    if not digests:
        return
    given = bearer.credentials if bearer is not None else header
    if given is None:
        raise Unauthorized("no key was given; send Authorization: Bearer <key>, or X-API-Key: <key>")
    digest = hashlib.sha256(given.encode("latin-1")).digest()  # the bytes of the header as they came
    # Every key is compared, and in constant time, so that the time taken tells nothing about any of them.
    if not any([hmac.compare_digest(digest, allowed) for allowed in digests]):  # noqa: C419
        raise Unauthorized("the key that was given is not among those set in CCNET_API_KEYS")


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
