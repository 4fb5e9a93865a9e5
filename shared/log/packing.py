"""Many entries as one row: msgpack, compressed. One definition for the streams in PostgreSQL and for the outbox."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import cramjam
import msgspec

from shared.errors import RapportError
from shared.log.port import Entry

# The first byte says what follows, so that another form can come beside these without a migration.
_PLAIN = b"\x00"
_ZSTD = b"\x01"

# Below this size a compressed form is hardly smaller, and a frame costs more time than it saves.
_WORTH_COMPRESSING = 512

# zstd at its fastest packs our JSON to 0.3 of its size, lz4 to 0.55; the time is regained in what PostgreSQL writes.
_LEVEL = 1

_BESIDE = 64
"""About how many bytes an entry takes beside its key and its value."""

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Entry])


def pack(entries: Sequence[Entry]) -> bytes:
    """The entries in their order, as bytes that `unpack` reads."""
    raw = _encoder.encode(entries)
    if len(raw) < _WORTH_COMPRESSING:
        return _PLAIN + raw
    return _ZSTD + bytes(cramjam.zstd.compress(raw, level=_LEVEL))


def unpack(packed: bytes) -> list[Entry]:
    """What `pack` was given. Raises RapportError where the bytes are none of ours."""
    form = packed[:1]
    try:
        if form == _ZSTD:
            return _decoder.decode(cramjam.zstd.decompress(packed[1:]))
        if form == _PLAIN:
            return _decoder.decode(packed[1:])
    except (msgspec.DecodeError, cramjam.DecompressionError) as error:
        raise RapportError(f"a packed row cannot be read: {error}. Restore it from a backup.") from error
    raise RapportError(
        f"a packed row begins with {form!r}, a form that this release does not know. Run the newer release."
    )


def size_of(entry: Entry) -> int:
    """About how many bytes an entry takes in memory and on the wire."""
    return len(entry.key) + len(entry.value) + _BESIDE


def in_portions(entries: Sequence[Entry], *, limit: int) -> Iterator[tuple[Sequence[Entry], int]]:
    """The entries in order, in portions of about `limit` bytes at most, each with its size (`size_of`, summed up); a
    larger entry is a portion of its own."""
    sizes = [len(entry.key) + len(entry.value) + _BESIDE for entry in entries]
    if entries and (whole := sum(sizes)) <= limit:
        yield entries, whole
        return
    start = size = 0
    for index, taken in enumerate(sizes):
        if index > start and size + taken > limit:
            yield entries[start:index], size
            start, size = index, 0
        size += taken
    if start < len(entries):
        yield entries[start:], size
