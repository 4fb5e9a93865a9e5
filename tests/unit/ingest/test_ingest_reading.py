"""From the bytes of a request to its events."""

from __future__ import annotations

import gzip
import json
import zlib
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.ingest.admission import Envelope, admit
from services.ingest.calls import MAX_BATCH_BYTES, MAX_BATCH_EVENTS, MAX_EVENT_BYTES
from services.ingest.reading import Posted, cut, open_batch, open_usual_batch, unpack, written_key
from services.ingest.refusals import REASONS, Rejection

EVENT = {"type": "track", "userId": "ada", "event": "X"}


def opened(body: bytes | dict[str, Any]) -> Posted:
    posted = open_batch(body if isinstance(body, bytes) else json.dumps(body).encode())
    assert isinstance(posted, Posted), posted
    return posted


def refused(answer: object) -> str:
    assert isinstance(answer, Rejection), answer
    return answer.code


# Unpacking.


def test_json_is_taken_as_it_is_and_gzip_is_known_by_its_first_bytes() -> None:
    body = json.dumps(EVENT).encode()
    assert unpack(body) == unpack(gzip.compress(body)) == body


def test_a_bomb_is_not_unpacked() -> None:
    assert refused(unpack(gzip.compress(b"0" * 50_000_000))) == "batch_too_large"


def test_a_body_of_exactly_the_limit_is_unpacked() -> None:
    assert unpack(gzip.compress(b"0" * MAX_BATCH_BYTES)) == b"0" * MAX_BATCH_BYTES
    assert refused(unpack(gzip.compress(b"0" * (MAX_BATCH_BYTES + 1)))) == "batch_too_large"


@pytest.mark.parametrize("damage", [lambda b: b[:-4], lambda b: b[:2], lambda b: b + b"x", lambda b: b + b, None])
def test_damaged_gzip_is_refused(damage: Any) -> None:
    packed = gzip.compress(b'{"userId":"ada"}')
    assert refused(unpack(damage(packed) if damage else packed[:12] + b"\xff\xff" + packed[14:])) == "invalid_gzip"


@given(st.binary(max_size=300))
def test_no_bytes_after_the_magic_ever_raise(tail: bytes) -> None:
    unpacked = unpack(b"\x1f\x8b" + tail)
    assert isinstance(unpacked, bytes) or REASONS[unpacked.code].status in (400, 413)


@given(st.binary(max_size=2000), st.integers(0, 9))
def test_what_was_packed_is_unpacked(body: bytes, level: int) -> None:
    packer = zlib.compressobj(level, wbits=31)
    assert unpack(packer.compress(body) + packer.flush()) == body


# Batches.


def test_a_batch_opens_into_its_events_and_its_envelope() -> None:
    posted = opened(
        {"batch": [EVENT, {}], "sentAt": "s", "writeKey": "k", "context": {"ip": "::1"}, "integrations": {"All": True}}
    )
    assert [json.loads(item) for item in posted.items] == [EVENT, {}]
    assert (posted.sent_at, posted.write_key, posted.integrations) == ("s", "k", {"All": True})
    assert bytes(posted.context["ip"]) == b'"::1"'


def test_what_a_client_leaves_out_or_sends_as_null_is_absent() -> None:
    assert opened(b'{"batch":[]}') == opened(b'{"batch":[],"context":null,"integrations":null,"sentAt":null}')


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b'{"batch":[', "invalid_json"),
        (b'{"batch":[{}]} {}', "invalid_json"),
        (b"[]", "invalid_batch"),
        (b"{}", "invalid_batch"),
        (b'{"batch":{}}', "invalid_batch"),
        (b'{"batch":[],"context":[]}', "invalid_batch"),
        (b'{"batch":[],"integrations":[]}', "invalid_batch"),
        (b'{"batch":[NaN],"context":[]}', "invalid_json"),
        (b'{"batch":NaN}', "invalid_json"),
        (b'{"batch":' + b"[" * 100_000, "too_deep"),
        (b'{"batch":[' + b"{}," * MAX_BATCH_EVENTS + b"{}]}", "too_many_events"),
    ],
)
def test_what_is_no_batch_is_refused_as_a_whole(body: bytes, code: str) -> None:
    assert refused(open_batch(body)) == code


def test_a_context_that_would_blow_the_batch_up_is_refused() -> None:
    assert refused(open_batch(json.dumps({"batch": [{}] * 2500, "context": {"x": "y" * 2000}}).encode())) == (
        "batch_too_large"
    )
    assert refused(open_batch(json.dumps({"batch": [{}], "context": {"x": "y" * 40_000}}).encode())) == (
        "batch_too_large"
    )


@pytest.mark.parametrize(
    "wrong", [b'{"price":NaN}', b'{"price":-Infinity}', b'{"name":"\\ud800"}', b'{"name":"\\udc00"}']
)
def test_what_pythons_clients_write_beside_json_spoils_only_its_own_event(wrong: bytes) -> None:
    good = json.dumps({**EVENT, "properties": {"total": 59.9, "items": [1, 2]}}).encode()
    bad = b'{"type":"track","userId":"ada","event":"X","properties":' + wrong + b"}"
    posted = opened(b'{"batch":[' + good + b"," + bad + b"," + good + b'],"writeKey":"k","context":{"ip":"::1"}}')
    envelope = Envelope("shop", datetime(2025, 3, 1, 12, 30, tzinfo=UTC))
    first, second, third = (admit(item, None, envelope) for item in posted.items)
    assert refused(second) == "invalid_json"
    assert not isinstance(first, Rejection)
    assert not isinstance(third, Rejection)
    assert json.loads(bytes(first.properties)) == {"total": 59.9, "items": [1, 2]}
    assert (posted.write_key, bytes(posted.context["ip"])) == ("k", b'"::1"')


def test_a_byte_that_is_no_utf8_spoils_only_its_own_event() -> None:
    posted = opened(b'{"batch":[{"type":"page","userId":"\xff"},{"type":"page","userId":"ada"}]}')
    assert len(posted.items) == 2


@given(st.binary(max_size=300))
def test_no_body_ever_raises(body: bytes) -> None:
    for answer in (open_batch(body), open_batch(b'{"batch":[' + body + b"]}"), written_key(body)):
        if isinstance(answer, Rejection):
            assert REASONS[answer.code].status in (400, 413)


# The key in the body.


def test_a_batch_that_says_nothing_of_all_its_events_is_read_at_once() -> None:
    batch = [{**EVENT, "properties": {"n": n}} for n in range(3)]
    body = json.dumps({"batch": batch, "sentAt": "2025-03-01T12:30:00Z", "writeKey": "k", "x": 1}).encode()
    usual = open_usual_batch(body)
    assert usual is not None
    assert [bytes(call.properties) for call in usual.batch] == [b'{"n": 0}', b'{"n": 1}', b'{"n": 2}']
    assert (usual.sent_at, usual.write_key) == ("2025-03-01T12:30:00Z", "k")
    assert [json.loads(item) for item in cut(body)] == batch


@pytest.mark.parametrize(
    "batch",
    [
        {"batch": [EVENT], "context": {"ip": "::1"}},
        {"batch": [EVENT], "integrations": {"All": True}},
        {"batch": [EVENT, {**EVENT, "odd": 1}]},
        {"batch": [EVENT, 1]},
        {"batch": [EVENT] * (MAX_BATCH_EVENTS + 1)},
        {},
    ],
)
def test_any_other_batch_is_not(batch: dict[str, Any]) -> None:
    assert open_usual_batch(json.dumps(batch).encode()) is None


@given(st.integers(-40, 40), st.integers(0, 120), st.booleans())
def test_a_batch_with_an_event_that_is_too_large_is_never_read_at_once(by: int, others: int, spaces: bool) -> None:
    bare = json.dumps({**EVENT, "properties": {"p": ""}})
    room = MAX_EVENT_BYTES - len(bare) + by
    # What makes an event large may stand in its properties, or between its fields.
    large = bare[:-1] + " " * room + "}" if spaces else bare.replace('""', '"' + "x" * room + '"')
    small = json.dumps({**EVENT, "properties": {"p": "y" * 400}})
    body = ('{"batch":[' + ",".join([small] * others + [large]) + "]}").encode()
    usual = open_usual_batch(body)
    assert max(map(len, cut(body))) == MAX_EVENT_BYTES + by
    assert by <= 0 or usual is None


def test_a_hundred_events_of_a_shop_are_read_at_once() -> None:
    body = json.dumps({"batch": [{**EVENT, "properties": {"p": "y" * 400}}] * 120}).encode()
    assert len(body) > MAX_EVENT_BYTES
    assert open_usual_batch(body) is not None


def test_the_write_key_is_found_in_a_call() -> None:
    assert written_key(b'{"userId":"ada","writeKey":"k"}') == "k"
    assert written_key(b'{"userId":"ada"}') is None


@pytest.mark.parametrize(
    ("body", "code"), [(b"x", "invalid_json"), (b"[]", "invalid_field"), (b'{"a":' + b"[" * 100_000, "too_deep")]
)
def test_without_an_object_there_is_no_key(body: bytes, code: str) -> None:
    assert refused(written_key(body)) == code
