"""Signatures of webhooks, after the Standard Webhooks specification. Pure. https://www.standardwebhooks.com/"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence

from shared.errors import RapportError

_PREFIX = "whsec_"


def secret_of(text: str) -> bytes:
    """The key that a secret is written for: `whsec_` and 24 to 64 bytes in base64. Raises RapportError."""
    try:
        key = b64decode(text.removeprefix(_PREFIX), validate=True)
    except ValueError:
        key = b""
    if not text.startswith(_PREFIX) or not 24 <= len(key) <= 64:
        raise RapportError(
            "a webhook secret is whsec_ and 24 to 64 bytes in base64. Make one: openssl rand -base64 32."
        )
    return key


def written(key: bytes) -> str:
    return _PREFIX + b64encode(key).decode()


def derived(installation: bytes) -> bytes:
    """The key of an installation that was given none."""
    return hmac.digest(installation, b"webhooks", hashlib.sha256)


def headers(keys: Sequence[bytes], id: str, timestamp: int, body: bytes) -> Mapping[str, str]:
    """What a receiver verifies. `timestamp` is that of the attempt (Unix seconds); `id` stays over all attempts. There
    is a signature for each key, so that one can be changed for another."""
    signed = f"{id}.{timestamp}.".encode() + body
    signatures = (b64encode(hmac.digest(key, signed, hashlib.sha256)).decode() for key in keys)
    return {
        "webhook-id": id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
