"""API keys: when any are set, everything under `/v1` demands one; probes, metrics and documentation stay open."""

import hashlib
import hmac
from typing import Annotated

from fastapi import Security
from fastapi.security import APIKeyHeader, HTTPAuthorizationCredentials, HTTPBearer

from service.context import AnyService
from service.errors import Unauthorized

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
    keys = [key.get_secret_value() for key in service.settings.api_keys]
    if not keys:
        return
    given = bearer.credentials if bearer is not None else header
    if given is None:
        raise Unauthorized("no key was given; send Authorization: Bearer <key>, or X-API-Key: <key>")
    # Every key is compared, and in constant time, so that the time taken tells nothing about any of them.
    if not any([hmac.compare_digest(_digest(given), _digest(key)) for key in keys]):  # noqa: C419
        raise Unauthorized("the key that was given is not among those set in CCNET_API_KEYS")


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
