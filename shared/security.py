"""Keys and signed tokens."""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from binascii import b2a_base64
from functools import lru_cache
from hashlib import blake2b, sha256


def hash_key(key: str) -> str:
    """The form in which write and read keys are stored. Keys are long and random, so a plain SHA-256 suffices."""
    # JSON can spell halves of characters, which no key has: they hash to what no key does.
    return sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def same(left: str, right: str) -> bool:
    """Equality that takes the same time wherever the texts differ."""
    return hmac.compare_digest(left.encode(), right.encode())


def sign(secret: bytes, payload: bytes) -> str:
    """A URL-safe token that carries `payload` and a 128-bit keyed BLAKE2b tag (RFC 7693)."""
    text = b2a_base64(_tag(secret, payload) + payload, newline=False)
    return text.translate(_URL_SAFE).rstrip(b"=").decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")
"""RFC 4648, 5. The standard library takes a function more for it, and a mail has ten such links."""


def unsign(secret: bytes, token: str) -> bytes | None:
    """The payload of a token that `sign` made with this secret; None for anything else."""
    try:
        raw = urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
    except (Base64Error, UnicodeEncodeError, ValueError):
        return None
    tag, payload = raw[:16], raw[16:]
    if not hmac.compare_digest(tag, _tag(secret, payload)):
        return None
    # Base64 is read leniently; ours has one spelling, so that what was altered is never the same link.
    return payload if hmac.compare_digest(token, sign(secret, payload)) else None


def _tag(secret: bytes, payload: bytes) -> bytes:
    tag = _keyed(secret).copy()
    tag.update(payload)
    return tag.digest()


@lru_cache(8)
def _keyed(secret: bytes) -> blake2b:
    """The key is worked in once, and not for each link of each mail."""
    return blake2b(key=secret[:64], digest_size=16)
