"""From the bytes of a request to the events in it. Pure; the sizes before and after unpacking are bounded."""

from __future__ import annotations

import json
import zlib
from typing import Any, NamedTuple

import msgspec
from msgspec import Raw

from services.ingest.calls import (
    ABSENT,
    MAX_BATCH_BYTES,
    MAX_BATCH_EVENTS,
    MAX_EVENT_BYTES,
    MAX_MERGED_BYTES,
    NULL,
    BatchCall,
    UsualBatch,
)
from services.ingest.refusals import Rejection

GZIP = b"\x1f\x8b"

_batch = msgspec.json.Decoder(BatchCall).decode
_usual = msgspec.json.Decoder(UsualBatch).decode
_object = msgspec.json.Decoder(dict[str, Raw]).decode


class _WriteKey(msgspec.Struct, rename="camel"):
    write_key: Any = None


_write_key = msgspec.json.Decoder(_WriteKey).decode


class Posted(NamedTuple):
    """A batch, opened: its events as bytes, and what its envelope says of all of them.

    `context` and `integrations` are empty where every event speaks for itself.
    """

    items: list[bytes]
    sent_at: Any
    write_key: Any
    context: dict[str, Raw]
    integrations: dict[str, Any]


def unpack(body: bytes) -> bytes | Rejection:
    """The body as the client meant it, never more than 500 KB of it.

    Told by gzip's first two bytes and not by a header: no JSON begins so, some clients do not say it, and some
    proxies unpack and leave the header.
    """
    if not body.startswith(GZIP):
        return body
    stream = zlib.decompressobj(wbits=31)
    try:
        unpacked = stream.decompress(body, MAX_BATCH_BYTES + 1)
    except zlib.error:
        return Rejection("invalid_gzip", "The body begins like gzip and is damaged. Pack it again.")
    if len(unpacked) > MAX_BATCH_BYTES:
        return Rejection("batch_too_large", f"Unpacked, the body exceeds {MAX_BATCH_BYTES} bytes. Send less at once.")
    if not stream.eof:
        return Rejection("invalid_gzip", "The packed body ends too early. Send all of it.")
    if stream.unused_data:
        # RFC 1952 allows several members in a row; no client sends them, and unpacking thousands takes a while.
        return Rejection("invalid_gzip", "Something follows the packed body. Pack everything in one piece.")
    return unpacked


def open_batch(body: bytes) -> Posted | Rejection:
    """The events of a batch, each still as bytes, so that one bad event spoils no other."""
    try:
        call = _batch(body)
        context = _object(call.context) if call.context not in (ABSENT, NULL) else {}
    except msgspec.ValidationError as error:
        return Rejection("invalid_batch", f"{in_words(error)} A batch is an object with a list named `batch`.")
    except RecursionError:
        return Rejection("too_deep", "The body is nested deeper than anything can read. Flatten it.")
    except ValueError as error:
        return _salvage(body) or Rejection("invalid_json", f"The body is not JSON: {why_not(error)}.")
    integrations = call.integrations
    if integrations is None:
        integrations = {}
    elif type(integrations) is not dict:
        return Rejection("invalid_batch", "`integrations` of a batch is an object, or is left away.")
    items = [bytes(item) for item in call.batch]
    return _within_limits(Posted(items, call.sent_at, call.write_key, context, integrations))


def open_usual_batch(body: bytes) -> UsualBatch | None:
    """The batch, where all of it can be read at once, and nothing in it is too large; else None.

    No event is cut out here, but what is known of the others' bytes may leave no room for one that is too large."""
    try:
        posted = _usual(body)
    except (ValueError, RecursionError):
        return None
    if len(posted.batch) > MAX_BATCH_EVENTS:
        return None
    if len(body) > MAX_EVENT_BYTES:
        sizes = [len(call.properties) + len(call.context) + len(call.traits) for call in posted.batch]
        if len(body) - sum(sizes) + max(sizes, default=0) > MAX_EVENT_BYTES:
            return None
    return posted


def cut(body: bytes) -> list[bytes]:
    """The events of a batch that can be read."""
    return [bytes(item) for item in _batch(body).batch]


def written_key(body: bytes) -> Any:
    """The `writeKey` in the body of a single call; None where there is none, a Rejection where there is no JSON."""
    try:
        return _write_key(body).write_key
    except msgspec.ValidationError as error:
        return Rejection("invalid_field", in_words(error))
    except RecursionError:
        return Rejection("too_deep", "The body is nested deeper than anything can read. Flatten it.")
    except ValueError as error:
        return Rejection("invalid_json", f"The body is not JSON: {why_not(error)}.")


def why_not(error: ValueError) -> str:
    """Why bytes are no JSON. Where a text in them is not UTF-8, the decoder's place is that within the text."""
    if isinstance(error, UnicodeDecodeError):
        return f"a text in it is not UTF-8 (byte 0x{error.object[error.start]:02x}). Encode it as UTF-8"
    return str(error)


def in_words(error: msgspec.ValidationError) -> str:
    """A decoding error with its place first: `` `properties.total`: expected `str`, got `int`. ``"""
    what, _, where = str(error).partition(" - at ")
    place = where.strip("`").removeprefix("$").removeprefix(".")
    what = what[:1].lower() + what[1:]
    what = what.replace("`int | float | str | null`", "text or a number").replace("`str | null`", "text")
    return f"`{place}`: {what}." if place else f"What was posted: {what}."


def _within_limits(posted: Posted) -> Posted | Rejection:
    count = len(posted.items)
    if count > MAX_BATCH_EVENTS:
        return Rejection("too_many_events", f"The batch has {count} events, more than {MAX_BATCH_EVENTS}. Split it.")
    if posted.context or posted.integrations:
        shared = len(msgspec.json.encode(posted.context)) + len(msgspec.json.encode(posted.integrations))
        if shared > MAX_EVENT_BYTES or count * shared > MAX_MERGED_BYTES:
            return Rejection(
                "batch_too_large",
                f"`context` and `integrations` of the batch take {shared} bytes, for each of {count} events. Send less "
                f"context, or fewer events at once.",
            )
    return posted


def _salvage(body: bytes) -> Posted | Rejection | None:
    """Read with Python's lenient parser what is nearly JSON, so that only the event at fault is refused.

    Python's own clients write `NaN` for a price that is not a number, and lone surrogates as they are; a refused
    batch is one that they throw away. Each event is written out as it was, and fails alone when it is admitted.
    """
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(call, dict) or not isinstance(call.get("batch"), list):
        return None
    rest = {name: call[name] for name in ("context", "integrations") if call.get(name) is not None}
    try:
        envelope = msgspec.json.decode(json.dumps(rest), type=_Envelope)
    except (ValueError, RecursionError):
        return None
    items = [json.dumps(item, separators=(",", ":")).encode() for item in call["batch"]]
    posted = Posted(items, call.get("sentAt"), call.get("writeKey"), envelope.context, envelope.integrations)
    return _within_limits(posted)


class _Envelope(msgspec.Struct):
    context: dict[str, Raw] = {}
    integrations: dict[str, Any] = {}
