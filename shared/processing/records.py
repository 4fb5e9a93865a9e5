"""The records of a stream as messages: of a version that this release knows, or not at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from shared.processing.port import NewerContract, Poison


class _Versioned(msgspec.Struct):
    v: int = 1


_decode_version = msgspec.json.Decoder(_Versioned).decode


def decoder(stream: str, contract: Any, newest: int) -> Callable[[str, bytes], Any]:
    """What makes a message of a record's key and value, for `Processor.decode`.

    `contract` is what the stream's records are, `newest` the latest version of it that this release knows. The function
    raises NewerContract beyond that, whether or not the record looks familiar, and Poison where nobody can read it.
    """
    read = msgspec.json.Decoder(contract).decode

    def decode(key: str, value: bytes) -> Any:
        try:
            message = read(value)
            version = message.v
        except msgspec.DecodeError as error:
            version = _version(value)
            if version <= newest:
                raise Poison(f"{stream}, key {key!r}: {error}. Look at what wrote this record.") from None
        if version > newest:
            raise NewerContract(
                f"{stream}: version {version} is newer than {newest}, the newest that this release knows. Update it."
            )
        return message

    return decode


def _version(value: bytes) -> int:
    """The version that a record claims, or 0 where it is no record at all."""
    try:
        return _decode_version(value).v
    except msgspec.DecodeError:
        return 0
