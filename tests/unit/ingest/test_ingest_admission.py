"""Which events are taken, and as what."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from services.ingest.admission import PLACEHOLDERS, Envelope, admit, admit_usual, instant
from services.ingest.calls import ALIAS, BY_TYPE, CALLS, GROUP, IDENTIFY, NAMES, PAGE, SCREEN, TRACK, Definition
from services.ingest.reading import cut, open_usual_batch
from services.ingest.refusals import REASONS, Rejection
from shared.contracts.events import EMPTY, Event

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
ENVELOPE = Envelope("shop", NOW)


def posted(call: dict[str, Any], definition: Definition | None = TRACK, envelope: Envelope = ENVELOPE) -> Event:
    admitted = admit(json.dumps(call).encode(), definition, envelope)
    assert isinstance(admitted, Event), admitted
    return admitted


def refused(call: Any, definition: Definition | None = TRACK, envelope: Envelope = ENVELOPE) -> Rejection:
    body = call if isinstance(call, bytes) else json.dumps(call).encode()
    admitted = admit(body, definition, envelope)
    assert isinstance(admitted, Rejection), admitted
    return admitted


def said(raw: Raw) -> Any:
    return msgspec.json.decode(raw)


def tracked(**fields: Any) -> dict[str, Any]:
    return {"userId": "ada", "event": "Order Completed", **fields}


# What an event becomes.


def test_an_order_becomes_an_event_of_its_customer() -> None:
    event = posted(tracked(messageId="m1", anonymousId="a1", properties={"total": 59.9}, context={"ip": "::1"}))
    assert (event.id, event.source, event.key, event.type, event.name) == (
        "m1",
        "shop",
        "ada",
        "track",
        "Order Completed",
    )
    assert (event.user_id, event.anonymous_id) == ("ada", "a1")
    assert (said(event.properties), said(event.context), event.extra) == ({"total": 59.9}, {"ip": "::1"}, EMPTY)
    assert event.received_at == event.occurred_at == NOW


def test_properties_stay_the_clients_own_bytes() -> None:
    body = b'{"userId":"ada","event":"Order Completed","properties":{"total": 59.90, "note":"\\u00e4"}}'
    event = admit(body, TRACK, ENVELOPE)
    assert isinstance(event, Event)
    assert bytes(event.properties) == b'{"total": 59.90, "note":"\\u00e4"}'


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.type)
def test_each_documented_example_is_taken(call: Definition) -> None:
    assert posted(call.example, call).type == call.type
    assert posted({"type": call.type, **call.example}, None).type == call.type


def test_the_path_says_which_call_it_is_whatever_the_body_says() -> None:
    assert posted({"type": "track", "userId": "ada"}, PAGE).type == "page"


def test_a_visitor_who_is_not_known_yet_is_keyed_by_the_anonymous_id() -> None:
    event = posted({"anonymousId": "a1", "userId": "", "name": "Home"}, PAGE)
    assert (event.key, event.user_id, event.name) == ("a1", None, "Home")


@pytest.mark.parametrize(
    ("sent", "key"),
    [(42, "42"), (42.0, "42"), (-7, "-7"), (1.5, "1.5"), (12345678901234567890, "12345678901234567890")],
)
def test_a_numeric_id_is_taken_as_text(sent: float, key: str) -> None:
    assert posted(tracked(userId=sent)).key == key


def test_rudderstacks_apps_name_a_screen_by_event() -> None:
    assert posted({"userId": "ada", "event": "Wishlist"}, SCREEN).name == "Wishlist"


def test_identify_without_traits_takes_those_of_its_context() -> None:
    event = posted({"userId": "ada", "context": {"traits": {"email": "ada@example.com"}}}, IDENTIFY)
    assert said(event.traits) == {"email": "ada@example.com"}


def test_identify_with_traits_of_its_own_keeps_to_them() -> None:
    call = {"userId": "ada", "traits": {"plan": "b"}, "context": {"traits": {"plan": "a", "email": "x"}}}
    assert said(posted(call, IDENTIFY).traits) == {"plan": "b"}


def test_a_groups_traits_are_not_taken_from_the_customers() -> None:
    call = {"userId": "ada", "groupId": 7, "context": {"traits": {"email": "ada@example.com"}}}
    event = posted(call, GROUP)
    assert (event.traits, said(event.extra)) == (EMPTY, {"groupId": "7"})


def test_an_alias_keeps_the_id_that_the_customer_had_before() -> None:
    event = posted({"userId": "ada", "previousId": 17}, ALIAS)
    assert (event.key, said(event.extra)) == ("ada", {"previousId": "17"})


def test_fields_that_the_protocol_does_not_name_are_kept_as_they_came() -> None:
    body = b'{"userId":"ada","event":"X","shard":[1.0,{"a":null}],"channel":"server","integrations":{"All":true}}'
    event = admit(body, TRACK, ENVELOPE)
    assert isinstance(event, Event)
    assert said(event.extra) == {"shard": [1.0, {"a": None}], "channel": "server", "integrations": {"All": True}}
    assert b"1.0" in bytes(event.extra)


def test_the_write_key_is_never_kept() -> None:
    event = posted(tracked(writeKey="secret", sentAt="2025-03-01T12:30:00Z", odd=1))
    assert b"secret" not in msgspec.json.encode(event)


def test_imported_history_is_marked_by_its_context() -> None:
    assert posted(tracked(context={"historical": True})).historical
    assert not posted(tracked(context={"historical": "yes"})).historical
    assert not posted(tracked(properties={"historical": True})).historical


def test_an_events_own_context_wins_over_its_batchs() -> None:
    envelope = Envelope("shop", NOW, None, {"ip": Raw(b'"1.1.1.1"'), "historical": Raw(b"true")}, {"A": 1, "B": 1})
    event = posted(tracked(context={"ip": "2.2.2.2"}, integrations={"B": 2}), TRACK, envelope)
    assert said(event.context) == {"ip": "2.2.2.2", "historical": True}
    assert event.historical
    assert said(event.extra) == {"integrations": {"A": 1, "B": 2}}


def test_traits_in_a_batchs_context_reach_its_identify() -> None:
    envelope = Envelope("shop", NOW, None, {"traits": Raw(b'{"plan":"a"}')})
    assert said(posted({"userId": "ada"}, IDENTIFY, envelope).traits) == {"plan": "a"}


# When it happened.


def test_a_clock_that_is_an_hour_behind_is_corrected() -> None:
    call = tracked(timestamp="2025-03-01T11:29:00Z", sentAt="2025-03-01T11:30:00Z")
    assert posted(call).occurred_at == NOW - timedelta(minutes=1)


def test_the_batchs_time_of_sending_counts_before_the_events() -> None:
    envelope = Envelope("shop", NOW, NOW - timedelta(hours=1))
    call = tracked(originalTimestamp="2025-03-01T11:20:00Z", sentAt="1999-01-01T00:00:00Z")
    assert posted(call, TRACK, envelope).occurred_at == NOW - timedelta(minutes=10)


def test_a_time_that_was_corrected_already_is_taken_as_it_is() -> None:
    call = tracked(
        timestamp="2024-05-01T10:00:00Z", originalTimestamp="2024-05-01T09:00:00Z", sentAt="2024-05-01T09:00:01Z"
    )
    assert posted(call).occurred_at == datetime(2024, 5, 1, 10, tzinfo=UTC)


def test_nothing_happens_after_it_was_received() -> None:
    assert posted(tracked(timestamp="2031-01-01T00:00:00Z")).occurred_at == NOW


@pytest.mark.parametrize(
    "written",
    ["2025-03-01T10:00:00Z", "2025-03-01T11:00:00+01:00", "2025-03-01T10:00:00.000000", "2025-03-01 10:00"],
)
def test_times_are_read_in_every_form_of_iso_8601(written: str) -> None:
    assert posted(tracked(timestamp=written)).occurred_at == datetime(2025, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "written", ["yesterday", "", "1740823200", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"]
)
def test_a_time_that_is_none_is_refused(written: str) -> None:
    assert refused(tracked(timestamp=written)).code == "invalid_timestamp"


@pytest.mark.parametrize(
    ("written", "why"),
    [
        ("1969-12-31T23:59:59Z", "before 1970"),
        ("0001-01-01T00:00:00+14:00", "outside the years 1 to 9999"),
        ("9999-12-31T23:59:59-01:00", "outside the years 1 to 9999"),
    ],
)
def test_it_is_said_on_which_side_a_time_lies(written: str, why: str) -> None:
    assert why in refused(tracked(timestamp=written)).message


def test_a_time_of_sending_that_is_none_corrects_nothing() -> None:
    call = tracked(timestamp="2025-03-01T11:29:00Z", sentAt=17)
    assert posted(call).occurred_at == datetime(2025, 3, 1, 11, 29, tzinfo=UTC)


# The event's id.


def test_the_same_event_without_an_id_gets_the_same_id_again() -> None:
    call = tracked(timestamp="2025-03-01T11:29:00Z")
    later = Envelope("shop", NOW + timedelta(minutes=1))
    assert posted(call).id == posted(call, TRACK, later).id
    assert posted(call).id != posted(call, TRACK, Envelope("app", NOW)).id
    assert posted(call).id != posted({**call, "userId": "bob"}).id


def test_without_a_time_each_arrival_is_an_event_of_its_own() -> None:
    body = json.dumps(tracked()).encode()
    first, second = admit(body, TRACK, ENVELOPE, 0), admit(body, TRACK, ENVELOPE, 1)
    later = admit(body, TRACK, Envelope("shop", NOW + timedelta(microseconds=1)), 0)
    assert len({event.id for event in (first, second, later) if isinstance(event, Event)}) == 3


def test_what_one_request_tells_came_in_the_order_in_which_it_is_told() -> None:
    body = json.dumps(tracked()).encode()
    first, second = admit(body, TRACK, ENVELOPE, 0), admit(body, TRACK, ENVELOPE, 1)
    assert isinstance(first, Event)
    assert isinstance(second, Event)
    assert first.received_at == NOW
    assert second.received_at > first.received_at
    assert second.occurred_at > first.occurred_at


def test_a_refusal_names_the_clients_message_id() -> None:
    assert refused({"messageId": "m1", "event": "X"}) == Rejection(
        "missing_id", "`userId` and `anonymousId` are both missing. Send at least one of them.", "m1"
    )


# What is refused.


@pytest.mark.parametrize("junk", [*sorted(PLACEHOLDERS), "NULL", " Undefined ", "[object Object]", "NaN", 0, 0.0, "  "])
def test_an_id_that_stands_for_nobody_is_refused(junk: object) -> None:
    assert refused(tracked(userId=junk)).code == "refused_id"
    assert refused({"anonymousId": junk, "event": "X"}).code == "refused_id"


# Alone they show nothing: format characters, selectors, controls, and letters and symbols that are drawn blank.
INVISIBLE = ["\u200b", "\u200d\u200d", "\ufeff", "\xad", "\u202e", "\u2800", "\u3164", "\uffa0", "\u115f", "\ufe0f"]
INVISIBLE += ["\u180e", "\u034f", "\xa0", "\u2028", "\x00", "\t\u200b ", "\U000e0020", "\u200b" * 100]


@pytest.mark.parametrize("junk", [*INVISIBLE, "\ufeffnull", "undefined\u200b", "\u200b0\u3164", "[object\xa0Object]"])
def test_an_id_that_shows_nothing_or_a_placeholder_is_refused(junk: str) -> None:
    assert refused(tracked(userId=junk)).code == "refused_id"
    assert refused({"anonymousId": junk, "event": "X"}).code == "refused_id"
    assert refused({"userId": "ada", "previousId": junk}, ALIAS).code == "refused_id"


@pytest.mark.parametrize(
    "own", ["ada\u200b", "\ufeffada", "\u3164x", "a\u200db", "\u2764\ufe0f", "\u0301", "\uc544", " ada"]
)
def test_an_id_that_shows_something_stays_as_it_is(own: str) -> None:
    assert posted(tracked(userId=own, messageId=own)).key == own
    assert posted(tracked(userId=own, messageId=own)).id == own


@pytest.mark.parametrize("junk", ["", " ", "   ", *INVISIBLE])
def test_a_message_id_that_shows_nothing_is_as_none(junk: str) -> None:
    # Else the second event that says so would be taken for the first one again.
    ids = [posted({**tracked(messageId=junk, timestamp="2025-03-01T10:00:00Z"), "name": name}).id for name in "ab"]
    assert all(len(own) == 32 and own.isalnum() for own in ids)
    assert ids[0] != ids[1]


@pytest.mark.parametrize("junk", ["undefined", "  ", "\u200b", "\x00"])
def test_a_junk_anonymous_id_does_not_lose_a_customers_order(junk: str) -> None:
    event = posted(tracked(anonymousId=junk))
    assert (event.key, event.anonymous_id) == ("ada", None)


def test_an_alias_from_nobody_is_refused() -> None:
    assert refused({"userId": "ada", "previousId": "undefined"}, ALIAS).code == "refused_id"


@pytest.mark.parametrize(
    ("call", "code"),
    [
        ({"userId": "ada"}, "missing_field"),
        ({"userId": "ada", "event": ""}, "missing_field"),
        ({"event": "X"}, "missing_id"),
        ({"event": "X", "userId": None, "anonymousId": None}, "missing_id"),
        (tracked(userId=True), "invalid_field"),
        (tracked(userId={"id": 1}), "invalid_field"),
        (tracked(event=7), "invalid_field"),
        (tracked(properties=[1]), "invalid_field"),
        (tracked(properties="none"), "invalid_field"),
        (tracked(context=1), "invalid_field"),
        (tracked(integrations=["A"]), "invalid_field"),
        (tracked(timestamp=1740823200), "invalid_field"),
        (tracked(odd=1, event=7), "invalid_field"),
        (tracked(messageId="m" * 100), "invalid_message_id"),
        (tracked(messageId="a\nb"), "invalid_message_id"),
        (tracked(userId="u" * 256), "invalid_id"),
        (tracked(userId="a\nb"), "invalid_id"),
        (tracked(userId="a\x00b"), "invalid_id"),
        (tracked(event="e" * 1001), "invalid_name"),
        (tracked(event="a\x00b"), "invalid_name"),
        (tracked(properties={"x": "y" * 40_000}), "event_too_large"),
        ([], "invalid_field"),
        (7, "invalid_field"),
    ],
)
def test_what_cannot_be_an_event_is_refused_with_its_reason(call: object, code: str) -> None:
    assert refused(call).code == code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"{", "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":{"a":NaN}}', "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":{"a":1e999}}', "invalid_json"),
        (b'{"userId":"ada","event":"X","odd":{"a":1e999}}', "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":{"a":' + b"9" * 5000 + b"}}", "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":{"a":18446744073709551616}}', "invalid_json"),
        (b'{"userId":"ada","event":"X","traits":{"a":[-9223372036854775809]}}', "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":{"a":"\xff"}}', "invalid_json"),
        (b'{"userId":"\xff","event":"X"}', "invalid_json"),
        (b'{"userId":"ada","event":"X","odd":"\xff"}', "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":{"a":"\\ud800"}}', "invalid_json"),
        (b'{"userId":"ada","event":"X","properties":' + b'{"a":' * 64 + b"1" + b"}" * 65, "too_deep"),
        (b'{"userId":"ada","event":"X","odd":' + b"[" * 15000 + b"]" * 15001 + b"}", "too_deep"),
        (b'{"userId":1e999,"properties":' + b"[" * 15000 + b"]" * 15001 + b"}", "too_deep"),
    ],
)
def test_what_nobody_could_read_later_is_refused_now(body: bytes, code: str) -> None:
    assert refused(body).code == code


def test_a_refusal_says_where_what_and_what_to_do() -> None:
    assert refused(tracked(properties=[1])).message == "`properties`: expected an object, got a list."
    assert refused(tracked(traits={"a": 2**64})).message == (
        "`traits`: an integer has more than 64 bits. Send it as text."
    )
    assert refused(tracked(userId=True)).message == "`userId`: expected text or a number, got `bool`."
    assert "“undefined”" in refused(tracked(userId="undefined")).message
    assert refused(tracked(userId="\u200b\ufeff")).message == (
        "`userId` is “\\u200b\\ufeff”, which names nobody. Send the customer's own id."
    )
    assert refused(tracked(timestamp="2025-03-01\u200b")).message == (
        "“2025-03-01\\u200b” is no time. Write ISO 8601: 2025-03-01T12:30:00Z."
    )
    assert refused({"type": "trak", "userId": "ada"}, None).message == (
        "`type` is “trak”. It is one of track, identify, page, screen, group, alias."
    )


def test_a_text_that_is_not_utf_8_is_said_to_be_so() -> None:
    said = "is not JSON: a text in it is not UTF-8 (byte 0xff). Encode it as UTF-8."
    assert refused(b'{"userId":"a\xff","event":"X"}').message == f"The event {said}"
    assert refused(b'{"userId":"a","event":"X","traits":{"a":"\xff"}}').message == f"`traits` {said}"


# Laws.

TEXT = st.text(max_size=12)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = st.sampled_from([*NAMES.values(), "odd"])
LIKELY = st.sampled_from(
    ["ada", "Order Completed", "2025-03-01T10:00:00Z", "track", {"a": 1}, {"traits": {"b": 2}}, 7, "\u200b", "\u3164"]
)
DEFINITIONS = st.sampled_from([None, *CALLS])


def holds(body: bytes, definition: Definition | None, envelope: Envelope) -> None:
    admitted = admit(body, definition, envelope)
    if isinstance(admitted, Rejection):
        assert 400 <= REASONS[admitted.code].status < 500
        msgspec.json.encode(admitted.message)
        return
    # Whoever reads the log gets the same event, and can read all of it.
    assert msgspec.json.decode(msgspec.json.encode(admitted), type=Event) == admitted
    for raw in (admitted.properties, admitted.traits, admitted.context, admitted.extra):
        assert isinstance(said(raw), dict)
        msgspec.msgpack.encode(said(raw))
    assert admitted.key == (admitted.user_id or admitted.anonymous_id)
    assert 1 <= len(admitted.key) <= 255
    assert admitted.key.strip().lower() not in PLACEHOLDERS
    assert admitted.key.strip("\u200b\u3164 ")
    assert admitted.id.strip("\u200b\u3164 ")
    assert datetime(1970, 1, 1, tzinfo=UTC) <= admitted.occurred_at <= admitted.received_at == envelope.received_at
    assert 1 <= len(admitted.id) < 100
    assert admitted == admit(body, definition, envelope)


@given(st.binary(), DEFINITIONS)
def test_no_bytes_ever_raise(body: bytes, definition: Definition | None) -> None:
    holds(body, definition, ENVELOPE)


@settings(suppress_health_check=[HealthCheck.too_slow])  # the first draw builds tables of Unicode
@given(
    st.dictionaries(FIELDS, LIKELY | JSON, max_size=8), DEFINITIONS, st.datetimes(timezones=st.just(UTC)) | st.none()
)
def test_no_call_ever_raises_and_what_is_taken_can_be_read(
    call: dict[str, Any], definition: Definition | None, sent_at: datetime | None
) -> None:
    envelope = Envelope("shop", NOW, sent_at, {"ip": Raw(b'"::1"')}, {"A": True})
    holds(json.dumps(call).encode("utf-8", "surrogatepass"), definition, envelope)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(FIELDS, LIKELY | JSON, max_size=8), DEFINITIONS, st.datetimes(timezones=st.just(UTC)) | st.none()
)
def test_what_is_usual_is_read_like_what_is_not(
    call: dict[str, Any], definition: Definition | None, sent_at: datetime | None
) -> None:
    # A field that the protocol does not name has a call read the long way; it is kept, and must change nothing else.
    envelope = Envelope("shop", NOW, sent_at)
    call = {**call, "messageId": "m1"}
    call.pop("odd", None)
    usual, unusual = (
        admit(json.dumps(one).encode("utf-8", "surrogatepass"), definition, envelope)
        for one in (call, {**call, "odd": 1})
    )
    if isinstance(unusual, Event):
        extra = said(unusual.extra)
        assert extra.pop("odd") == 1
        unusual = msgspec.structs.replace(unusual, extra=Raw(msgspec.json.encode(extra)))
    assert usual == unusual


USUAL = st.fixed_dictionaries(
    {
        "type": st.sampled_from(sorted(BY_TYPE)),
        "userId": LIKELY,
        "messageId": st.sampled_from(["m1", "m2", "ü3", "\u3164", " "]),
    },
    optional={
        "event": st.just("Order Completed"),
        "timestamp": st.sampled_from(["2025-03-01T10:00:00Z", "2025-03-01T10:00:00.123456789+02:00", "2025-03-01"]),
        "properties": st.dictionaries(TEXT, JSON, max_size=2),
        "context": st.sampled_from([None, {}, {"ip": "::1"}, {"traits": {"b": 2}}, {"historical": True}]),
        "traits": st.sampled_from([None, {}, {"email": "ada@example.com"}]),
        "anonymousId": LIKELY,
        "sentAt": LIKELY,
        "originalTimestamp": LIKELY,
        "name": LIKELY,
        "category": LIKELY,
        "previousId": LIKELY,
        "groupId": LIKELY,
        "integrations": st.sampled_from([None, {}, {"All": True}]),
    },
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(USUAL, max_size=5), st.datetimes(timezones=st.just(UTC)) | st.none())
def test_a_batch_that_is_read_at_once_becomes_what_its_calls_become_one_by_one(
    calls: list[dict[str, Any]], sent_at: datetime | None
) -> None:
    body = json.dumps({"batch": calls}).encode("utf-8", "surrogatepass")
    usual = open_usual_batch(body)
    if usual is None:
        return
    envelope = Envelope("shop", NOW, sent_at)
    at_once = admit_usual(usual.batch, envelope)
    one_by_one = [admit(item, None, envelope, place) for place, item in enumerate(cut(body))]
    assert at_once is None or at_once == one_by_one


def test_a_usual_batch_is_taken_at_once_with_each_events_own_context() -> None:
    contexts: list[Any] = [{"ip": "::1"}, {"ip": "::1"}, {"ip": "::2"}, None, {}, {"historical": True}]
    calls = [tracked(type="track", messageId=f"m{n}", context=context) for n, context in enumerate(contexts)]
    usual = open_usual_batch(json.dumps({"batch": [*calls, tracked(type="track", messageId="m6")]}).encode())
    assert usual is not None
    events = admit_usual(usual.batch, ENVELOPE)
    assert events is not None
    assert [said(event.context) for event in events] == [*contexts[:3], {}, {}, {"historical": True}, {}]
    assert [event.historical for event in events] == [False] * 5 + [True, False]


@pytest.mark.parametrize("wrong", [{"messageId": None}, {"messageId": 7}, {"type": "odd"}, {"userId": "undefined"}])
def test_a_batch_with_a_call_that_wants_a_closer_look_is_not_taken_at_once(wrong: dict[str, Any]) -> None:
    good = tracked(type="track", messageId="m1")
    usual = open_usual_batch(json.dumps({"batch": [good, {**good, **wrong}]}).encode())
    assert usual is not None
    assert admit_usual(usual.batch, ENVELOPE) is None


@pytest.mark.parametrize(
    "properties",
    [
        b'{"price":49.90,"products":[{"sku":"a","tags":["x",["y"]]},{"sku":"b"}]}',
        b'{"a":{"b":{"c":{"d":{"e":{"f":1}}}}}}',
        b'{"least":-9223372036854775808,"most":9223372036854775807,"beyond":18446744073709551615}',
        b"{ }",
        b'{"a":"\\u00e4\xc3\xa4","a":2}',
    ],
)
def test_properties_keep_their_bytes_however_they_are_nested(properties: bytes) -> None:
    event = admit(b'{"userId":"ada","event":"X","properties":' + properties + b"}", TRACK, ENVELOPE)
    assert isinstance(event, Event)
    assert bytes(event.properties) == properties


@given(st.datetimes(timezones=st.timezones()), st.timedeltas(timedelta(0), timedelta(days=30)), st.timedeltas())
def test_an_events_age_when_sent_is_its_age_when_received(sent: datetime, age: timedelta, wrong_by: timedelta) -> None:
    try:
        clock = sent.astimezone(UTC) + wrong_by
        happened = clock - age
    except OverflowError:
        return
    call = tracked(timestamp=happened.isoformat(), sentAt=clock.isoformat())
    assert posted(call).occurred_at == NOW - age


@given(st.text())
def test_an_instant_is_aware_or_none(text: str) -> None:
    moment = instant(text)
    assert moment is None or moment.tzinfo is not None


def test_every_call_has_its_type() -> None:
    assert set(BY_TYPE) == {"track", "identify", "page", "screen", "group", "alias"}
