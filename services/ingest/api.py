"""Ingest's HTTP face: a thin ASGI application takes the calls, and FastAPI everything else (pages for operators)."""

from __future__ import annotations

import math
import re
from base64 import b64decode
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
import structlog
from fastapi import FastAPI

from services.ingest.admission import Envelope, admit, admit_usual, instant
from services.ingest.batching import OpenBatches
from services.ingest.calls import BATCH, CALLS, MAX_BATCH_BYTES, MAX_EVENT_BYTES, Definition, UsualBatch
from services.ingest.documentation import document
from services.ingest.reading import cut, open_batch, open_usual_batch, unpack, written_key
from services.ingest.refusals import Rejection
from services.ingest.sources import Sources, Writer
from shared.clock import Clock
from shared.contracts.events import Event, Refused
from shared.contracts.streams import partition_of
from shared.errors import Unavailable
from shared.http import face
from shared.log.port import Entry, RecordTooLarge
from shared.telemetry import INGEST_EVENTS, INGEST_REFUSED, INGEST_REQUESTS

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Ready = Callable[[], Awaitable[list[str]]]

ROUTES: dict[str, Definition | None] = {
    f"/v1/{name}{slash}": call
    for names, call in [(BATCH, None), *(((call.type, call.letter), call) for call in CALLS)]
    for name in names
    for slash in ("", "/")
}
"""From each path, with and without a slash at its end, to its call; None for a batch."""

# Any page may post: that is what a write key in a page is for. No cookie and no login is ever looked at.
_ANY_ORIGIN = (b"access-control-allow-origin", b"*")
_HEADERS = [(b"content-type", b"application/json"), _ANY_ORIGIN]
_PREFLIGHT = [
    _ANY_ORIGIN,
    (b"access-control-allow-methods", b"POST"),
    (b"access-control-allow-headers", b"authorization, content-type, content-encoding, traceparent"),
    (b"access-control-max-age", b"86400"),
]
_RETRY_AFTER = 2
"""Seconds. Longer than a leader election or a restart of PostgreSQL usually takes; the clients wait and go on."""

_PACKINGS = (b"", b"gzip", b"x-gzip", b"identity")
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
_entry = tuple.__new__
"""Makes a named tuple; its own constructor is a function of Python's, which takes twice as long."""
_encode = msgspec.json.Encoder().encode
_logger = structlog.get_logger("rapport.ingest")


_Said = tuple[datetime | None, Mapping[str, msgspec.Raw], Mapping[str, Any]]
"""What a batch says of all its events: when it was sent, and their common context and integrations."""


class Answer(NamedTuple):
    """What a client gets."""

    status: int
    body: bytes
    headers: list[tuple[bytes, bytes]]

    @classmethod
    def of(cls, status: int, body: bytes, headers: list[tuple[bytes, bytes]] = _HEADERS) -> Answer:
        return cls(status, body, [*headers, (b"content-length", b"%d" % len(body))])


class _Post(msgspec.Struct):
    """A request that was read: what goes to the log, by partition, and what its answer will say.

    `refused` is set where the request as a whole is refused, once its bytes are kept.
    """

    entries: Mapping[int, list[Entry]]
    source: str
    accepted: int
    rejected: Sequence[tuple[int, Rejection]] = ()
    refused: Rejection | None = None


class Intake:
    """An ASGI application that takes the calls and passes everything else on to `rest`."""

    def __init__(self, rest: FastAPI, sources: Sources, batches: OpenBatches, clock: Clock, partitions: int) -> None:
        self._rest, self._sources, self._batches, self._clock = rest, sources, batches, clock
        self._partitions = partitions
        self.open = False
        """Whether calls are taken: between start and stop. A key that is not known yet must not be answered 401."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._rest(scope, receive, send)
            return
        path = scope["path"]
        if root := scope.get("root_path"):
            path = path.removeprefix(root)
        if path not in ROUTES:
            await self._rest(scope, receive, send)
            return
        if scope["method"] == "POST":
            try:
                answer = await self._take(ROUTES[path], scope["headers"], receive)
            except Exception:
                _logger.exception("call failed", path=path)
                answer = _refuse(Rejection("internal_error", "Rapport failed; its log says why. Send the same again."))
        elif scope["method"] == "OPTIONS":
            answer = Answer(204, b"", _PREFLIGHT)
        else:
            answer = _refuse(Rejection("method_not_allowed", f"{path} takes POST only. Post to it."))
        if answer is not None:
            await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
            await send({"type": "http.response.body", "body": answer.body})

    async def _take(
        self, call: Definition | None, raw_headers: Iterable[tuple[bytes, bytes]], receive: Receive
    ) -> Answer | None:
        """Read, admit, wait for the log, answer; None where the client has gone."""
        if not self.open:
            return _refuse(_NOT_READY)
        said = dict(raw_headers)
        packed = said.get(b"content-encoding")
        if packed is not None and packed.strip().lower() not in _PACKINGS:
            return _refuse(Rejection("unsupported_encoding", "The body is packed in another way than gzip. Use gzip."))
        writer = None
        authorization = said.get(b"authorization")
        key = None if authorization is None else _basic_user(authorization)
        if key is not None:
            writer = self._sources.find(key)
            if writer is None:
                return _refuse(_UNKNOWN_KEY)
            # Nothing is read of what could not be taken: the larger its body, the more that spares.
            spent = writer.bucket is not None and writer.bucket.spent
            if spent and (limited := _limited(writer, 0, self._clock.now())):
                return _refuse(limited)
        # Only a hint: what comes is counted as it comes.
        length = said.get(b"content-length", b"")
        if length.isdigit() and len(length) < 19 and int(length) > MAX_BATCH_BYTES:
            return _refuse(_BODY_TOO_LARGE)
        message = await receive()
        # Nearly every body comes in one piece.
        whole = message["type"] == "http.request" and not message.get("more_body", False)
        body = message.get("body", b"") if whole else await self._body(message, receive)
        if not isinstance(body, bytes):
            return body and _refuse(body)
        if len(body) > MAX_BATCH_BYTES:
            return _refuse(_BODY_TOO_LARGE)
        trace = said.get(b"traceparent")
        post = self._read(call, writer, None if trace is None else _trace(trace), body)
        if isinstance(post, Rejection):
            return _refuse(post)
        done = self._batches.append(post.entries)
        if done is None:
            return _refuse(_NOT_READY if self._batches.closed else _OVERLOADED)
        try:
            await done
        except Unavailable as trouble:
            return _refuse(Rejection("log_unavailable", f"{trouble} Send the same again; it counts once."))
        except RecordTooLarge as refused:
            return _refuse(Rejection("event_too_large", f"The log takes no record of this size: {refused}"))
        return _taken(post)

    async def _body(self, message: Mapping[str, Any], receive: Receive) -> bytes | Rejection | None:
        """The body that begins with this message, bounded as it comes in; None where the client has gone."""
        parts: list[bytes] = []
        size = held = 0
        try:
            while message["type"] != "http.disconnect":
                part = message.get("body", b"")
                size += len(part)
                if size > MAX_BATCH_BYTES:
                    return _BODY_TOO_LARGE
                parts.append(part)
                if not message.get("more_body", False):
                    return b"".join(parts)
                if not self._batches.reserve(len(part)):
                    return _OVERLOADED
                held += len(part)
                message = await receive()
            return None
        finally:
            self._batches.release(held)

    def _read(
        self, call: Definition | None, writer: Writer | None, trace: str | None, packed: bytes
    ) -> _Post | Rejection:
        """Everything between the last byte of the request and the log; nothing here waits."""
        now = self._clock.now()
        body = unpack(packed)
        if isinstance(body, Rejection):
            return self._kept(packed, body, writer, now, trace)
        items: Sequence[bytes] = ()
        usual: UsualBatch | None = None
        if call is not None:
            if len(body) > MAX_EVENT_BYTES:
                return Rejection("event_too_large", f"The event has {len(body)} bytes; {MAX_EVENT_BYTES} are allowed.")
            count, said = 1, _NOTHING_SAID
            key = None if writer else written_key(body)
        elif (usual := open_usual_batch(body)) is not None:
            count, said = len(usual.batch), (instant(usual.sent_at), {}, {})
            key = usual.write_key
        else:
            posted = open_batch(body)
            if isinstance(posted, Rejection):
                return self._kept(body, posted, writer, now, trace)
            items, count, key = posted.items, len(posted.items), posted.write_key
            said = (instant(posted.sent_at), posted.context, posted.integrations)
        if writer is None:
            if key is None or isinstance(key, Rejection):
                return key or _MISSING_KEY
            writer = self._sources.find(key) if type(key) is str else None
            if writer is None:
                return _UNKNOWN_KEY
        if limited := _limited(writer, count, now):
            return limited
        envelope = Envelope(writer.source, now, *said)
        if call is not None:
            return self._admit_one(body, call, envelope, trace)
        if usual is not None:
            events = admit_usual(usual.batch, envelope)
            if events is not None:
                return self._all_taken(events, writer.source, trace)
            items = cut(body)
        return self._admit(items, envelope, trace)

    def _admit_one(self, body: bytes, call: Definition, envelope: Envelope, trace: str | None) -> _Post:
        """The event of a single call, or the call's bytes and the reason for which there is none."""
        admitted = admit(body, call, envelope)
        if not isinstance(admitted, Event):
            return self._nothing_taken(body, admitted, envelope.source, envelope.received_at, trace)
        key = admitted.key
        entry = _entry(Entry, (key, _encode(admitted), None, trace))
        return _Post({partition_of(key, self._partitions): [entry]}, envelope.source, 1)

    def _all_taken(self, events: Sequence[Event], source: str, trace: str | None) -> _Post:
        """What `_admit` makes of events none of which is refused."""
        partitions = self._partitions
        entries: defaultdict[int, list[Entry]] = defaultdict(list)
        for event in events:
            key = event.key
            entries[partition_of(key, partitions)].append(_entry(Entry, (key, _encode(event), None, trace)))
        return _Post(entries, source, len(events))

    def _admit(self, items: Sequence[bytes], envelope: Envelope, trace: str | None) -> _Post:
        """A batch's good events, and the bad ones with their bytes and the reason, each for its partition."""
        partitions = self._partitions
        entries: defaultdict[int, list[Entry]] = defaultdict(list)
        rejected: list[tuple[int, Rejection]] = []
        for place, item in enumerate(items):
            admitted = admit(item, None, envelope, place)
            if isinstance(admitted, Event):
                entry = Entry(admitted.key, _encode(admitted), None, trace)
            else:
                rejected.append((place, admitted))
                entry = _refused(item, admitted, envelope.source, envelope.received_at, trace)
            entries[partition_of(entry.key, partitions)].append(entry)
        return _Post(entries, envelope.source, len(items) - len(rejected), rejected)

    def _kept(
        self, body: bytes, why: Rejection, writer: Writer | None, now: datetime, trace: str | None
    ) -> _Post | Rejection:
        """A body in which no event can be found, kept as a whole, since clients throw away what is answered 400.

        Not what is merely too large, nor where the body was to say whose it is: that cannot be known now."""
        if writer is None or why.status != 400:
            return why
        if limited := _limited(writer, 1, now):
            return limited
        return self._nothing_taken(body, why, writer.source, now, trace)

    def _nothing_taken(self, body: bytes, why: Rejection, source: str, now: datetime, trace: str | None) -> _Post:
        """A request that is refused as a whole, and kept."""
        entry = _refused(body, why, source, now, trace)
        return _Post({partition_of(source, self._partitions): [entry]}, source, 0, [(0, why)], why)


def create(sources: Sources, batches: OpenBatches, clock: Clock, partitions: int, ready: Ready) -> Intake:
    """Ingest's application: the calls, `/docs`, and the operators' pages."""
    rest = face("Rapport ingest", "Takes what customers did, in the manner of Segment's HTTP tracking API.", ready)
    document(rest)
    return Intake(rest, sources, batches, clock, partitions)


_NOTHING_SAID: _Said = (None, {}, {})
_UNKNOWN_KEY = Rejection("unknown_key", "The write key belongs to no source. Check it, and where it is posted to.")
_MISSING_KEY = Rejection("missing_key", "There is no write key. Send it as Basic auth's user, or as `writeKey`.")
_BODY_TOO_LARGE = Rejection("batch_too_large", f"The body is larger than {MAX_BATCH_BYTES} bytes. Send less at once.")
_OVERLOADED = Rejection("overloaded", "Too much waits for the log already. Send the same again in a moment.")
_NOT_READY = Rejection("not_ready", "This process is starting or stopping. Send the same again in a moment.")
_ONE_TAKEN = Answer.of(200, b'{"success":true,"accepted":1,"rejected":[]}')


def _trace(said: bytes) -> str | None:
    """A W3C `traceparent` as text; None where it is none."""
    return said.decode() if _TRACEPARENT.fullmatch(said) else None


@lru_cache(maxsize=64)
def _basic_user(value: bytes) -> str | None:
    """The user of `Basic base64(user:password)` (RFC 7617); None for another scheme. The password says nothing here."""
    scheme, _, credentials = value.partition(b" ")
    if scheme.lower() != b"basic":
        return None
    try:
        return b64decode(credentials).decode().partition(":")[0]
    except ValueError:
        return ""


def _limited(writer: Writer, events: int, now: datetime) -> Rejection | None:
    """Why these events of a write key may not come now; None where they may, and are counted."""
    if writer.bucket is None or not (wait := writer.bucket.take(events, now)):
        return None
    rate = f"{writer.bucket.rate.events:g} events a second"
    return Rejection(
        "rate_limited", f"This write key may post {rate}. Wait {wait:.1f} s, then send it again.", wait=wait
    )


def _refused(item: bytes, why: Rejection, source: str, now: datetime, trace: str | None) -> Entry:
    record = Refused(source=source, received_at=now, code=why.code, message=why.message, body=item, id=why.event_id)
    return Entry(source, _encode(record), None, trace)


def _taken(post: _Post) -> Answer:
    """The log has everything: what was taken and what was not."""
    INGEST_EVENTS.add(post.accepted, post.source)
    for _, why in post.rejected:
        INGEST_REFUSED.labels(post.source, why.code).inc()
    if post.refused is not None:
        return _refuse(post.refused)
    INGEST_REQUESTS.add(1, "ok")
    if post.accepted == 1 and not post.rejected:
        return _ONE_TAKEN
    rejected = [{"index": place, "code": why.code, "message": why.message} for place, why in post.rejected]
    return Answer.of(200, _encode({"success": True, "accepted": post.accepted, "rejected": rejected}))


def _refuse(why: Rejection) -> Answer:
    INGEST_REQUESTS.add(1, why.code)
    headers = _HEADERS
    if why.status in (429, 503):
        after = max(1, math.ceil(why.wait)) if why.wait else _RETRY_AFTER
        headers = [*headers, (b"retry-after", b"%d" % after), (b"access-control-expose-headers", b"retry-after")]
    elif why.status == 405:
        headers = [*headers, (b"allow", b"POST, OPTIONS")]
    return Answer.of(why.status, _encode({"code": why.code, "message": why.message}), headers)
