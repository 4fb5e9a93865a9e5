"""Which events are taken. Pure: the bytes of a call and what surrounds it -> Event | Rejection; nothing raises."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from operator import attrgetter
from typing import Any

import msgspec
from msgspec import Raw

from services.ingest.calls import (
    ABSENT,
    BY_TYPE,
    IDENTIFY,
    MAX_DEPTH,
    MAX_EVENT_BYTES,
    MAX_ID,
    MAX_MESSAGE_ID,
    MAX_NAME,
    NAMES,
    NULL,
    PAGE,
    SCREEN,
    TRACK,
    Call,
    Definition,
    ExactCall,
    Identifier,
    ShallowObject,
    UsualCall,
)
from services.ingest.reading import in_words, why_not
from services.ingest.refusals import Rejection
from shared.contracts.events import EMPTY, Event

# What code writes where it has no id. One such id would join strangers into one customer.
# The list follows PostHog's (https://posthog.com/docs/data/identify, "illegal distinct ids").
PLACEHOLDERS = frozenset(
    {"null", "undefined", "0", "none", "nan", "nil", "true", "false", "[object object]", "(null)", "<null>", "n/a"}
    | {"anonymous", "guest", "unknown", "distinct_id", "distinctid", "id", "email", "not_authenticated", "-1"}
    | {"00000000-0000-0000-0000-000000000000", '""', "''"}
)
_LONGEST_PLACEHOLDER = max(map(len, PLACEHOLDERS))
# What shows nothing: white space, controls, the blank Braille pattern, and what Unicode leaves invisible
# (Default_Ignorable_Code_Point of https://www.unicode.org/Public/UCD/latest/ucd/DerivedCoreProperties.txt).
_INVISIBLE = re.compile(
    r"[\s\x00-\x1f\x7f-\x9f\u2800"
    r"\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164"
    r"\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]+"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_usual = msgspec.json.Decoder(UsualCall).decode
_shallow = msgspec.json.Decoder(ShallowObject).decode
_exact = msgspec.json.Decoder(ExactCall).decode
_call = msgspec.json.Decoder(Call).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_any = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode
_pack = msgspec.msgpack.Encoder().encode

_NAMED = frozenset(NAMES.values())
_BESIDE = ("category", "previous_id", "group_id", "channel", "version", "received_at", "metadata")
"""Fields that the protocol (or RudderStack's dialect of it) names, and for which an Event has no place of its own."""
_beside = attrgetter(*_BESIDE)
_NONE_BESIDE = (None,) * len(_BESIDE)
_BLANK = (ABSENT, EMPTY, NULL)
_NOTHING: dict[str, Any] = {}
_APART = timedelta(microseconds=1)
"""What lies between two events of one request."""

_Object = tuple[Raw, Mapping[str, Any]]
"""An object's bytes, which others can read and keep, and what they say."""

_Objects = tuple[_Object, _Object, _Object]
"""A call's context, traits and properties."""

_NO_OBJECT: _Object = (EMPTY, _NOTHING)


class Envelope(msgspec.Struct, frozen=True):
    """What surrounds an event: who sent it, when it came (UTC), and what its batch says of all. `read_from` is the text
    in which the event itself says when it came, where nobody else does."""

    source: str
    received_at: datetime
    sent_at: datetime | None = None
    context: Mapping[str, Raw] = _NOTHING
    integrations: Mapping[str, Any] = _NOTHING
    read_from: str | None = None


class _Refused(Exception):
    """Carries a Rejection out of the reading of a field; it does not leave this module."""

    def __init__(self, code: str, message: str) -> None:
        self.code, self.message = code, message


Surrounding = Callable[[Call], Envelope | None]
"""What surrounds an event, where the call itself says so; None where it does not."""


def admit(
    item: bytes, definition: Definition | None, envelope: Envelope | Surrounding, place: int = 0
) -> Event | Rejection:
    """The event that a call's bytes say, or why there is none.

    `definition` is the call that the path names; None in a batch, where each event's `type` names it. `place` counts
    the events of a request. What is accepted can be read and kept by everybody down the road: its JSON is whole, its
    numbers are in range, its depth is bounded.
    """
    event_id = ""
    try:
        if len(item) > MAX_EVENT_BYTES:
            raise _Refused("event_too_large", f"The event has {len(item)} bytes; {MAX_EVENT_BYTES} are allowed.")
        call: Call
        unnamed: Mapping[str, Raw] = _NOTHING
        objects: _Objects | None = None
        try:
            call = _usual(item)
            objects = _usual_object(call.context), _usual_object(call.traits), _usual_object(call.properties)
        except (ValueError, RecursionError):
            # Unusual, or wrong: this reading finds out which, and what is wrong.
            call, unnamed = _read(item)
        if not isinstance(envelope, Envelope):
            found = envelope(call)
            if found is None:
                raise _Refused("invalid_timestamp", "The event does not say when it came.")
            envelope = found
        event_id = _message_id(call.message_id)
        if definition is None:
            definition = BY_TYPE.get(call.type)
            if definition is None:
                raise _Refused("unknown_type", f"`type` is {_shown(call.type)}. It is one of {', '.join(BY_TYPE)}.")  # type: ignore[arg-type]
        own_id = event_id or _derived_id(item, call, envelope, place)
        # In the order in which a request tells them: else those of one moment would have none down the road.
        received_at = envelope.received_at + place * _APART if place else envelope.received_at
        return _event(call, unnamed, objects, definition, envelope, own_id, received_at)
    except _Refused as refused:
        return Rejection(refused.code, refused.message, event_id)
    except RecursionError:
        return Rejection("too_deep", f"The event is nested more than {MAX_DEPTH} deep. Flatten it.", event_id)


def admit_usual(calls: Sequence[UsualCall], envelope: Envelope) -> list[Event] | None:
    """What `admit` makes of each call of a batch, where all are taken, and each says its id. None where one does not,
    or is unusual, or wrong: read one by one, they say which, and why.

    None of the calls may have more bytes than an event may. The batch has neither context nor integrations."""
    events: list[Event] = []
    received_at = envelope.received_at
    context, of_context = ABSENT, _NO_OBJECT
    try:
        for call in calls:
            event_id = call.message_id
            if not (
                type(event_id) is str
                and event_id >= "!"
                and len(event_id) <= MAX_MESSAGE_ID
                and event_id.isascii()
                and event_id.isprintable()
            ):
                return None
            definition = BY_TYPE.get(call.type)
            if definition is None:
                return None
            if call.context != context:
                # Most often it is the same in all of them.
                context, of_context = call.context, _usual_object(call.context)
            objects = of_context, _usual_object(call.traits), _usual_object(call.properties)
            events.append(_event(call, _NOTHING, objects, definition, envelope, event_id, received_at))
            received_at += _APART
    except (_Refused, ValueError, RecursionError):
        return None
    return events


def instant(text: object) -> datetime | None:
    """A moment in ISO 8601 (without a zone: UTC); None where it is none."""
    if type(text) is not str:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _event(
    call: Call,
    unnamed: Mapping[str, Raw],
    objects: _Objects | None,
    definition: Definition,
    envelope: Envelope,
    event_id: str,
    received_at: datetime,
) -> Event:
    """`objects` are the call's context, traits and properties where they have been proven already."""
    if definition is TRACK:
        # By far the most.
        name = call.event or ""
        if not name:
            raise _missing("event", definition)
    else:
        for field in definition.required:
            if getattr(call, field) in (None, ""):
                raise _missing(field, definition)
        # RudderStack's apps send a screen's name as `event`.
        name = (call.name or call.event or "") if definition is PAGE or definition is SCREEN else ""
    user_id = _customer(call.user_id, "userId")
    anonymous_id = None
    if call.anonymous_id is not None:
        # A junk anonymous id beside a good user id is no reason to lose an order: the event is the user's.
        anonymous_id = _text(call.anonymous_id)
        if anonymous_id is not None:
            anonymous_id = None if user_id and _names_nobody(anonymous_id) else _customer(anonymous_id, "anonymousId")
    key = user_id or anonymous_id
    if key is None:
        raise _Refused("missing_id", "`userId` and `anonymousId` are both missing. Send at least one of them.")
    if objects is None or envelope.context:
        context, said = _context(call.context, envelope.context)
    else:
        context, said = objects[0]
    traits, known = objects[1] if objects is not None else _object(call.traits, "traits")
    if not known and definition is IDENTIFY and said.get("traits"):
        traits, _ = _object(_fields(context)["traits"], "context.traits")
    if len(name) > MAX_NAME:
        raise _Refused("invalid_name", f"The name has {len(name)} characters; {MAX_NAME} are allowed.")
    if "\x00" in name:
        raise _Refused("invalid_name", "The name holds U+0000. Remove it.")
    plain = (
        _beside(call) == _NONE_BESIDE
        and not (unnamed or call.integrations or envelope.integrations)
        and (call.event == name or not call.event)
        and (call.name == name or not call.name)
    )
    return Event(
        id=event_id,
        source=envelope.source,
        key=key,
        type=definition.type,
        name=name,
        user_id=user_id,
        anonymous_id=anonymous_id,
        occurred_at=_occurred_at(call, envelope, received_at),
        received_at=received_at,
        properties=(objects[2] if objects is not None else _object(call.properties, "properties"))[0],
        traits=traits,
        context=context,
        extra=EMPTY if plain else _extra(call, name, unnamed, envelope.integrations),
        historical=said.get("historical") is True,
    )


def _read(item: bytes) -> tuple[Call, Mapping[str, Raw]]:
    """The call, and the fields that the protocol does not name."""
    if item.count(b"{") + item.count(b"[") > MAX_DEPTH and _depth(item) > MAX_DEPTH:
        raise _Refused("too_deep", f"The event is nested more than {MAX_DEPTH} deep. Flatten it.")
    try:
        return _exact(item), _NOTHING
    except msgspec.ValidationError:
        pass
    except ValueError as error:
        raise _Refused("invalid_json", f"The event is not JSON: {why_not(error)}.") from None
    # The strict decoder stopped at an unknown field or at a wrong type: this one tells which.
    try:
        unnamed = {name: value for name, value in _fields(item).items() if name not in _NAMED}
        return _call(item), unnamed
    except msgspec.ValidationError as error:
        raise _Refused("invalid_field", in_words(error)) from None
    except ValueError as error:
        raise _Refused("invalid_json", f"The event is not JSON: {why_not(error)}.") from None


def _depth(item: bytes) -> int:
    """How deep the nesting goes; infinite depth is cut off where the decoder stops."""
    try:
        level = [_any(item)]
    except RecursionError:
        return MAX_DEPTH + 1
    except ValueError:
        return 0  # no JSON: refused for that by whoever reads it next
    depth = 0
    while level := [value for value in level if isinstance(value, dict | list)]:
        depth += 1
        level = [inner for value in level for inner in (value.values() if isinstance(value, dict) else value)]
    return depth


def _usual_object(raw: Raw) -> _Object:
    """Like `_object`, for what is nested no deeper than is usual. Raises ValueError where it is, or is wrong."""
    if raw is ABSENT:
        return _NO_OBJECT
    said = _shallow(raw)
    return (raw, said) if said else (EMPTY if raw in _BLANK else raw, _NOTHING)


def _object(raw: Raw, field: str) -> _Object:
    """An object's bytes and what they say; absent and null are empty. Decoding it proves that others can, and packing
    it that they can keep it."""
    if raw in _BLANK:
        return EMPTY, _NOTHING
    try:
        said = _any(raw)
        _pack(said)
    except OverflowError:
        raise _Refused("invalid_json", f"`{field}`: an integer has more than 64 bits. Send it as text.") from None
    except msgspec.ValidationError as error:
        raise _Refused("invalid_json", f"`{field}`: {str(error).partition(' - at ')[0].lower()}.") from None
    except ValueError as error:
        raise _Refused("invalid_json", f"`{field}` is not JSON: {why_not(error)}.") from None
    if type(said) is not dict:
        raise _Refused("invalid_field", f"`{field}`: expected an object, got {_shown(said)}.")
    return raw, said


def _context(raw: Raw, shared: Mapping[str, Raw]) -> _Object:
    """The event's context over its batch's: what the event says itself, wins."""
    own, said = _object(raw, "context")
    if not shared:
        return own, said
    return _object(Raw(_encode({**shared, **_fields(own)})), "context")


def _extra(call: Call, name: str, unnamed: Mapping[str, Raw], shared: Mapping[str, Any]) -> Raw:
    """What the call says beyond the places that an Event has, under the names of the wire."""
    integrations = call.integrations or _NOTHING
    if type(integrations) is not dict:
        raise _Refused("invalid_field", f"`integrations`: expected an object, got {_shown(integrations)}.")
    kept: dict[str, Any] = {}
    values = _beside(call)
    if values != _NONE_BESIDE:
        kept = {NAMES[field]: value for field, value in zip(_BESIDE, values, strict=True) if value is not None}
        if "groupId" in kept:
            kept["groupId"] = _text(call.group_id)
        if "previousId" in kept:
            kept["previousId"] = _customer(call.previous_id, "previousId")
    if call.event and call.event != name:
        kept["event"] = call.event
    if call.name and call.name != name:
        kept["name"] = call.name
    if shared or integrations:
        kept["integrations"] = {**shared, **integrations}
    if unnamed:
        kept.update(unnamed)
    return _object(Raw(_encode(kept)), "a field beside the protocol's")[0] if kept else EMPTY


def _occurred_at(call: Call, envelope: Envelope, received_at: datetime) -> datetime:
    """When it happened by our clock: `receivedAt - (sentAt - timestamp)`, never after it was received.

    Who sends both `timestamp` and `originalTimestamp` has corrected the first already (Segment's own form of it).
    """
    written, original = call.timestamp, call.original_timestamp
    if written is None and original is None:
        return received_at
    said = original if written is None else written
    if said is envelope.read_from and call.sent_at is None and received_at >= _EPOCH:
        return received_at
    moment = instant(said)
    if moment is None:
        raise _Refused("invalid_timestamp", f"{_shown(said)} is no time. Write ISO 8601: 2025-03-01T12:30:00Z.")
    if written is not None and original is not None:
        sent_at = None  # It was corrected already.
    else:
        sent_at = envelope.sent_at or (instant(call.sent_at) if call.sent_at is not None else None)
    try:
        if sent_at is not None:
            occurred_at = received_at - (sent_at - moment)
        else:
            occurred_at = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    except OverflowError:
        raise _Refused("invalid_timestamp", f"{_shown(said)} lies outside the years 1 to 9999. Correct it.") from None
    if occurred_at < _EPOCH:
        raise _Refused("invalid_timestamp", f"{_shown(said)} lies before 1970 by our clock. Correct it.")
    return occurred_at if occurred_at < received_at else received_at


def whose(user_id: Identifier, anonymous_id: Identifier) -> str | None:
    """The customer key of a call with these ids, if it is taken."""
    return _text(user_id) or _text(anonymous_id)


def _text(value: Identifier) -> str | None:
    """An id as text: numbers as they are read aloud (42, not 42.0), null and empty as absent."""
    if value is None or type(value) is str:
        return value or None
    return str(int(value)) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else str(value)


def _names_nobody(text: str) -> bool:
    if len(text) > _LONGEST_PLACEHOLDER + 8:
        return _shows_nothing(text)
    bare = _INVISIBLE.sub(" ", text).strip()
    return not bare or bare.lower() in PLACEHOLDERS


def _shows_nothing(text: str) -> bool:
    return _INVISIBLE.fullmatch(text) is not None


def _customer(value: Identifier, field: str) -> str | None:
    """A customer's id, or None where there is none."""
    if (
        # Nearly all are so, and name somebody: nothing more has to be asked.
        type(value) is str
        and value
        and len(value) <= MAX_ID
        and value.isascii()
        and value.isprintable()
        and " " not in value
        and value.lower() not in PLACEHOLDERS
    ):
        return value
    text = _text(value)
    if text is None:
        return None
    if _names_nobody(text):
        raise _Refused("refused_id", f"`{field}` is {_shown(text)}, which names nobody. Send the customer's own id.")
    if len(text) > MAX_ID:
        raise _Refused("invalid_id", f"`{field}` has {len(text)} characters; {MAX_ID} are allowed.")
    if not text.isprintable() and _has_controls(text):
        raise _Refused("invalid_id", f"`{field}` has control characters. Remove them.")
    return text


def _message_id(value: Identifier) -> str:
    """An event's id; empty where there is none."""
    # "!" is the first character that shows: nearly all ids are ASCII, and begin with one.
    if type(value) is str and value >= "!" and len(value) <= MAX_MESSAGE_ID and value.isascii() and value.isprintable():
        return value
    text = _text(value)
    if text is None or _shows_nothing(text):
        return ""
    if len(text) > MAX_MESSAGE_ID:
        raise _Refused("invalid_message_id", f"`messageId` has {len(text)} characters; {MAX_MESSAGE_ID} are allowed.")
    if not text.isprintable() and _has_controls(text):
        raise _Refused("invalid_message_id", "`messageId` has control characters. Remove them.")
    return text


def _derived_id(item: bytes, call: Call, envelope: Envelope, place: int) -> str:
    """An id for an event that brought none, from its own bytes, so that the same event sent again has it again.

    Without a time of its own an event cannot be told from the same thing happening twice: then the moment and the
    place of its arrival count as well, and a repetition is another event.
    """
    digest = blake2b(item, digest_size=16, key=envelope.source.encode()[:64])
    if call.timestamp is None and call.original_timestamp is None:
        digest.update(f"/{envelope.received_at.isoformat()}/{place}".encode())
    return digest.hexdigest()


def _missing(field: str, definition: Definition) -> _Refused:
    return _Refused("missing_field", f"`{NAMES[field]}` is missing: {definition.type} requires it.")


def _has_controls(text: str) -> bool:
    return any(char < " " or "\x7f" <= char <= "\x9f" for char in text)


def _shown(value: object) -> str:
    """A value for a message: short, and as a developer would write it."""
    if value is None:
        return "missing"
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    text = str(value)
    begin = _INVISIBLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text[:40])
    return f"“{begin}…”" if len(text) > 40 else f"“{begin}”"
