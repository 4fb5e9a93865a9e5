"""Events as the segmenter keeps them, as lines that `rapport simulate` reads and Segment clients could send. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from services.segmenter.history import Row, unpack_body
from shared.contracts.events import SEGMENTER_SOURCE

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode
_NAMED_BY = {"track": "event", "page": "name", "screen": "name"}


def message(row: Row) -> bytes | None:
    """An event's row as a Segment message; None for what segmenter made itself, which comes about anew."""
    if row.source == SEGMENTER_SOURCE:
        return None
    body = unpack_body(row.body)
    told: dict[str, Any] = _decode(body.extra) if body.extra else {}
    told |= {"type": body.type, "messageId": row.id}
    if body.type in _NAMED_BY:
        told[_NAMED_BY[body.type]] = row.name
    if body.anonymous_id is not None:
        told["anonymousId"] = body.anonymous_id
    # What Rapport reports itself names its customer by the key alone.
    if body.user_id is not None or body.anonymous_id is None:
        told["userId"] = body.user_id or row.customer
    told["timestamp"], told["receivedAt"] = row.occurred_at, body.received_at
    for name in ("properties", "traits", "context"):
        raw = getattr(body, name)
        if raw:
            told[name] = msgspec.Raw(raw)
    metadata = told.get("_metadata")
    kept = metadata if isinstance(metadata, dict) else {}
    told["_metadata"] = {**kept, "rapport_source": row.source, "rapport_hops": body.hops}
    return _encode(told) + b"\n"
