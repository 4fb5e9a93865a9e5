"""The protocol as it is spoken over HTTP: what is sent, what is answered, and what the log has then."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import msgspec
import pytest
from fakes.memory_log import MemoryLog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from patience import PATIENCE

from services.ingest.calls import CALLS, Definition
from services.ingest.main import Ingest, build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources, Writer
from shared.clock import ManualClock
from shared.contracts.events import Event, EventRecord, Refused
from shared.contracts.streams import partition_of
from shared.errors import RapportError
from shared.runtime import Runtime

NOW = datetime(2025, 3, 1, 12, 30, tzinfo=UTC)
KEY, WEB_KEY = "key-of-the-shop", "key-of-the-web"
TAKEN = {"success": True, "accepted": 1, "rejected": []}
ORDER = {"userId": "ada", "event": "Order Completed", "messageId": "m1"}


@pytest.fixture
def log() -> MemoryLog:
    return MemoryLog()


@pytest.fixture
async def ingest(log: MemoryLog) -> AsyncIterator[Ingest]:
    sources = GivenSources({"shop": [KEY], "web": [WEB_KEY]})
    some = IngestSettings.read(ingest_bytes_in_flight=8 * 1024 * 1024)
    service = build(Runtime(log, ManualClock(NOW), None), some, sources)
    await service.start()
    yield service
    log.resume()
    await service.stop()


@pytest.fixture
async def http(ingest: Ingest) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(ingest.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as client:
        yield client


def kept(log: MemoryLog) -> list[Event | Refused]:
    records = [msgspec.json.decode(record.value, type=EventRecord) for record in log.records("events")]
    return [record for record in records if isinstance(record, Event | Refused)]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


# Who may post.


async def test_the_key_comes_as_the_user_of_basic_auth(http: httpx.AsyncClient, log: MemoryLog) -> None:
    answer = await http.post("/v1/track", json=ORDER, auth=(KEY, ""))
    assert (answer.status_code, answer.json()) == (200, TAKEN)
    assert answer.headers["content-type"] == "application/json"
    (event,) = kept(log)
    assert isinstance(event, Event)
    assert (event.id, event.source, event.key, event.received_at) == ("m1", "shop", "ada", NOW)


async def test_the_key_comes_in_the_body_where_there_is_no_basic_auth(http: httpx.AsyncClient, log: MemoryLog) -> None:
    assert (await http.post("/v1/t", json={**ORDER, "writeKey": WEB_KEY})).status_code == 200
    assert (await http.post("/v1/b", json={"batch": [{"type": "track", **ORDER}], "writeKey": KEY})).status_code == 200
    bearer = {"Authorization": "Bearer something"}
    assert (await http.post("/v1/t", json={**ORDER, "writeKey": KEY}, headers=bearer)).status_code == 200
    assert sorted(record.source for record in kept(log)) == ["shop", "shop", "web"]
    assert not any(KEY.encode() in record.value for record in log.records("events"))


async def test_basic_auth_counts_before_the_body(http: httpx.AsyncClient, log: MemoryLog) -> None:
    assert (await http.post("/v1/t", json={**ORDER, "writeKey": WEB_KEY}, auth=(KEY, ""))).status_code == 200
    assert (await http.post("/v1/t", json={**ORDER, "writeKey": WEB_KEY}, auth=("wrong", ""))).status_code == 401
    assert [record.source for record in kept(log)] == ["shop"]


@pytest.mark.parametrize(
    ("headers", "body", "code"),
    [
        ({}, {}, "missing_key"),
        ({}, {"writeKey": None}, "missing_key"),
        ({}, {"writeKey": "wrong"}, "unknown_key"),
        ({}, {"writeKey": 7}, "unknown_key"),
        ({}, {"writeKey": "a\0b"}, "unknown_key"),
        ({"Authorization": "Basic !!!"}, {}, "unknown_key"),
        ({"Authorization": "Basic " + base64.b64encode(b"\xff:").decode()}, {}, "unknown_key"),
        ({"Authorization": "Basic " + base64.b64encode(b"wrong:").decode()}, {"writeKey": KEY}, "unknown_key"),
    ],
)
async def test_nobody_posts_without_a_key(
    http: httpx.AsyncClient, log: MemoryLog, headers: dict[str, str], body: dict[str, Any], code: str
) -> None:
    for path, call in (("/v1/track", {**ORDER, **body}), ("/v1/batch", {"batch": [], **body})):
        answer = await http.post(path, json=call, headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (401, code)
    assert kept(log) == []


async def test_half_a_character_is_no_key(http: httpx.AsyncClient) -> None:
    # Python's clients write NaN, so the body is read by a parser that lets this through as well.
    answer = await http.post("/v1/batch", content=b'{"batch":[{"x":NaN}],"writeKey":"\\ud800"}')
    assert (answer.status_code, answer.json()["code"]) == (401, "unknown_key")


# How it may be sent.


@pytest.mark.parametrize("call", CALLS, ids=lambda call: call.type)
@pytest.mark.parametrize("form", ["/v1/{type}", "/v1/{type}/", "/v1/{letter}", "/v1/{letter}/"])
async def test_every_call_has_its_path_and_its_letter(
    http: httpx.AsyncClient, log: MemoryLog, call: Definition, form: str
) -> None:
    path = form.format(type=call.type, letter=call.letter)
    answer = await http.post(path, json=call.example, auth=(KEY, ""))
    assert (answer.status_code, answer.json()) == (200, TAKEN)
    (event,) = kept(log)
    assert isinstance(event, Event)
    assert event.type == call.type


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "image/png", ""])
async def test_no_content_type_matters(http: httpx.AsyncClient, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    assert (await http.post("/v1/t", content=json.dumps(ORDER), headers=headers, auth=(KEY, ""))).status_code == 200


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "x-gzip", "identity", None])
async def test_gzip_is_taken_whether_or_not_the_headers_say_so(http: httpx.AsyncClient, encoding: str | None) -> None:
    headers = {"Content-Encoding": encoding} if encoding else {}
    for body in (gzip.compress(json.dumps(ORDER).encode()), json.dumps(ORDER).encode()):
        answer = await http.post("/v1/t", content=body, headers=headers, auth=(KEY, ""))
        assert (answer.status_code, answer.json()) == (200, TAKEN)


async def test_other_packing_is_refused(http: httpx.AsyncClient) -> None:
    answer = await http.post("/v1/t", content=b"...", headers={"Content-Encoding": "br"}, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_encoding")


async def test_a_body_may_come_in_pieces(http: httpx.AsyncClient, ingest: Ingest) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for byte in json.dumps(ORDER).encode():
            yield bytes([byte])

    assert (await http.post("/v1/t", content=pieces(), auth=(KEY, ""))).json() == TAKEN


async def test_a_page_of_any_origin_may_post(http: httpx.AsyncClient) -> None:
    asked = {"Origin": "https://shop.example", "Access-Control-Request-Method": "POST"}
    preflight = await http.options("/v1/t", headers={**asked, "Access-Control-Request-Headers": "content-type"})
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-origin"] == "*"
    assert "content-type" in preflight.headers["access-control-allow-headers"]
    for call in ({**ORDER, "writeKey": KEY}, {}):
        answer = await http.post("/v1/t", content=json.dumps(call), headers={"Origin": "https://shop.example"})
        assert answer.headers["access-control-allow-origin"] == "*"


async def test_the_trace_of_a_request_goes_with_its_events(http: httpx.AsyncClient, log: MemoryLog) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    for header in (trace, "nonsense\u00e9"):
        await http.post("/v1/t", json=ORDER, auth=(KEY, ""), headers=[(b"traceparent", header.encode())])
    assert [record.trace for record in log.records("events")] == [trace, None]


async def test_calls_are_posted(http: httpx.AsyncClient) -> None:
    answer = await http.get("/v1/track")
    assert (answer.status_code, answer.json()["code"]) == (405, "method_not_allowed")
    answer = await http.post("/v1/trak", json=ORDER, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


async def test_the_calls_are_found_under_a_prefix(ingest: Ingest) -> None:
    transport = httpx.ASGITransport(ingest.app, root_path="/in")
    async with httpx.AsyncClient(transport=transport, base_url="http://ingest") as client:
        assert (await client.post("/in/v1/t", json=ORDER, auth=(KEY, ""))).json() == TAKEN


# What is taken of it.


async def test_a_batch_takes_the_good_events_keeps_the_bad_ones_and_names_them(
    http: httpx.AsyncClient, log: MemoryLog
) -> None:
    batch = [
        {"type": "track", **ORDER},
        {"type": "track", "event": "X", "messageId": "m2", "secret": "y"},
        {"type": "identify", "userId": 7, "traits": {"a": 1}},
        {"type": "nonsense", "userId": "ada"},
        {"type": "page", "userId": "undefined"},
    ]
    answer = await http.post("/v1/batch", json={"batch": batch}, auth=(KEY, ""))
    assert answer.status_code == 200
    assert answer.json()["success"] is True
    assert answer.json()["accepted"] == 2
    assert [(r["index"], r["code"]) for r in answer.json()["rejected"]] == [
        (1, "missing_id"),
        (3, "unknown_type"),
        (4, "refused_id"),
    ]
    refused = [record for record in kept(log) if isinstance(record, Refused)]
    assert [(r.code, r.source, r.received_at, r.id) for r in refused] == [
        ("missing_id", "shop", NOW, "m2"),
        ("unknown_type", "shop", NOW, ""),
        ("refused_id", "shop", NOW, ""),
    ]
    assert json.loads(refused[0].body) == batch[1]
    assert [r.message for r in refused] == [r["message"] for r in answer.json()["rejected"]]
    lane = log.records("events", partition_of("shop", log.partitions))
    assert [record.key for record in lane if record.key == "shop"] == ["shop"] * 3


async def test_nan_from_a_python_client_spoils_only_its_own_event(http: httpx.AsyncClient, log: MemoryLog) -> None:
    batch = [{"type": "track", **ORDER, "properties": {"total": total}} for total in (59.9, float("nan"), 60)]
    body = json.dumps({"batch": batch, "writeKey": KEY})
    assert "NaN" in body
    answer = await http.post("/v1/batch", content=body)
    assert (answer.status_code, answer.json()["accepted"]) == (200, 2)
    assert [(r["index"], r["code"]) for r in answer.json()["rejected"]] == [(1, "invalid_json")]


async def test_a_bad_single_call_is_answered_400_and_kept(http: httpx.AsyncClient, log: MemoryLog) -> None:
    answer = await http.post("/v1/track", json={"userId": "ada"}, auth=(KEY, ""))
    assert answer.status_code == 400
    assert answer.json() == {"code": "missing_field", "message": "`event` is missing: track requires it."}
    (refused,) = kept(log)
    assert isinstance(refused, Refused)
    assert (refused.code, json.loads(refused.body)) == ("missing_field", {"userId": "ada"})


@pytest.mark.parametrize("path", ["/v1/track", "/v1/batch"])
async def test_what_cannot_be_read_is_kept_where_it_is_known_whose_it_is(
    http: httpx.AsyncClient, log: MemoryLog, path: str
) -> None:
    answer = await http.post(path, content=b"{nonsense", auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    (refused,) = kept(log)
    assert isinstance(refused, Refused)
    assert refused.body == b"{nonsense"
    answer = await http.post(path, content=b"{nonsense")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_json")
    assert len(kept(log)) == 1


async def test_an_empty_batch_is_taken(http: httpx.AsyncClient, log: MemoryLog) -> None:
    answer = await http.post("/v1/batch", json={"batch": []}, auth=(KEY, ""))
    assert answer.json() == {"success": True, "accepted": 0, "rejected": []}


async def test_what_the_batch_says_is_said_of_each_event(http: httpx.AsyncClient, log: MemoryLog) -> None:
    hour_ago = NOW - timedelta(hours=1)
    body = {
        "batch": [{"type": "track", **ORDER, "timestamp": hour_ago.isoformat(), "context": {"ip": "::1"}}],
        "sentAt": (hour_ago + timedelta(seconds=5)).isoformat(),
        "context": {"historical": True, "ip": "::2"},
    }
    await http.post("/v1/batch", json=body, auth=(KEY, ""))
    (event,) = kept(log)
    assert isinstance(event, Event)
    assert event.occurred_at == NOW - timedelta(seconds=5)
    assert event.historical
    assert json.loads(bytes(event.context)) == {"historical": True, "ip": "::1"}


async def test_a_customers_events_keep_their_order(http: httpx.AsyncClient, log: MemoryLog) -> None:
    for request in range(5):
        names = [f"{request}.{n}" for n in range(20)]
        batch = [{"type": "track", "userId": f"u{n % 3}", "event": name} for n, name in enumerate(names)]
        assert (await http.post("/v1/batch", json={"batch": batch}, auth=(KEY, ""))).status_code == 200
    for customer in ("u0", "u1", "u2"):
        lane = log.records("events", partition_of(customer, log.partitions))
        events = [msgspec.json.decode(record.value, type=Event) for record in lane if record.key == customer]
        assert [event.name for event in events] == sorted(
            (event.name for event in events), key=lambda name: [int(part) for part in name.split(".")]
        )


# Limits.


async def test_a_single_event_past_32_kb_is_413_and_in_a_batch_it_is_named(
    http: httpx.AsyncClient, log: MemoryLog
) -> None:
    large = {**ORDER, "properties": {"x": "y" * 32_768}}
    answer = await http.post("/v1/track", json=large, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (413, "event_too_large")
    assert kept(log) == []
    batch = [{"type": "track", **large}, {"type": "track", **ORDER}]
    answer = await http.post("/v1/batch", json={"batch": batch}, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["accepted"]) == (200, 1)
    assert answer.json()["rejected"][0]["code"] == "event_too_large"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{" + b" " * 512_000 + b"}", "batch_too_large"),
        (gzip.compress(b'{"batch":[' + b" " * 10_000_000 + b"]}"), "batch_too_large"),
        (json.dumps({"batch": [{}] * 2501}).encode(), "too_many_events"),
        (json.dumps({"batch": [{}] * 2500, "context": {"x": "y" * 2000}}).encode(), "batch_too_large"),
    ],
)
async def test_a_batch_past_its_size_is_413(http: httpx.AsyncClient, log: MemoryLog, body: bytes, code: str) -> None:
    answer = await http.post("/v1/batch", content=body, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (413, code)
    assert kept(log) == []


async def test_a_body_without_a_length_is_cut_off_at_the_limit(http: httpx.AsyncClient, ingest: Ingest) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b" " * 10_000

    answer = await http.post("/v1/batch", content=endless(), auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (413, "batch_too_large")
    assert await ingest.ready() == []


@pytest.mark.parametrize("length", [b"9" * 5000, b"-1", b"1e3", b"\xb2", b""])
async def test_what_is_said_of_a_bodys_length_does_no_harm(ingest: Ingest, length: bytes) -> None:
    """Servers refuse most of it before us; not all do."""
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": json.dumps({**ORDER, "writeKey": KEY}).encode()}

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [(b"content-length", length)]
    await ingest.app({"type": "http", "path": "/v1/track", "method": "POST", "headers": headers}, receive, send)
    assert sent[0]["status"] == 200


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"[" * 400_000, "invalid_batch"),
        (b'{"batch":' + b"[" * 400_000, "too_deep"),
        (b'{"batch":[' + b'{"a":' * 80_000 + b"NaN", "too_deep"),
        (b'{"batch":[],"context":' + b'{"a":' * 80_000, "too_deep"),
        (b'{"batch":[{"x":NaN}],"x":' + b"1" * 400_000 + b"}", "invalid_json"),
        (b'{"batch":[{"x":NaN}],"context":{"x":"\\ud800"}}', "invalid_json"),
        (gzip.compress(gzip.compress(b"{}")), "invalid_json"),
        (gzip.compress(b"{}") * 1000, "invalid_gzip"),
        (gzip.compress(b"[" * 500_000), "invalid_batch"),
    ],
    ids=[
        "lists in lists",
        "a batch of lists in lists",
        "an event of objects in objects",
        "a context of objects in objects",
        "a number of many digits",
        "half a character",
        "packed twice",
        "a thousand packings",
        "packed lists in lists",
    ],
)
async def test_bombs_are_refused_at_once(http: httpx.AsyncClient, body: bytes, code: str) -> None:
    answer = await http.post("/v1/batch", content=body, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (400, code)


async def test_ten_thousand_properties_are_an_event_like_any_other(http: httpx.AsyncClient) -> None:
    many = {f"{n:x}": 1 for n in range(3_500)}
    taken = await http.post("/v1/track", json={**ORDER, "properties": many}, auth=(KEY, ""))
    assert taken.json() == TAKEN
    many |= {f"{n:x}": 1 for n in range(10_000)}
    answer = await http.post("/v1/track", json={**ORDER, "properties": many}, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (413, "event_too_large")


async def test_a_full_batch_of_the_largest_size_is_taken(http: httpx.AsyncClient, log: MemoryLog) -> None:
    event = {"type": "track", **ORDER, "properties": {"x": "y" * 100}}
    batch = [{**event, "messageId": f"m{n}"} for n in range(2500)]
    body = json.dumps({"batch": batch}, separators=(",", ":")).encode()
    assert 480_000 < len(body) < 512_000
    answer = await http.post("/v1/batch", content=body, auth=(KEY, ""))
    assert answer.json() == {"success": True, "accepted": 2500, "rejected": []}
    assert len(kept(log)) == 2500


# How fast.


class Limited(NamedTuple):
    """A service that lets each key post two events a second, and five at once."""

    http: httpx.AsyncClient
    clock: ManualClock


@pytest.fixture
async def limited(log: MemoryLog) -> AsyncIterator[Limited]:
    clock = ManualClock(NOW)
    some = IngestSettings.read(ingest_rate=2, ingest_burst=5)
    service = build(Runtime(log, clock, None), some, GivenSources({"shop": [KEY, "another"]}, some.rate))
    await service.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest") as client:
        yield Limited(client, clock)
    await service.stop()


async def test_who_posts_too_fast_is_told_how_long_to_wait(limited: Limited, log: MemoryLog) -> None:
    batch = {"batch": [{"type": "track", **ORDER, "messageId": f"m{n}"} for n in range(9)]}
    assert (await limited.http.post("/v1/batch", json=batch, auth=(KEY, ""))).status_code == 200
    for path, call in (("/v1/batch", batch), ("/v1/track", ORDER), ("/v1/track", {})):
        answer = await limited.http.post(path, json=call, auth=(KEY, ""))
        assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
        assert answer.json() == {
            "code": "rate_limited",
            "message": "This write key may post 2 events a second. Wait 2.5 s, then send it again.",
        }
    assert len(kept(log)) == 9
    # The other key of the same source has a bucket of its own, and waiting as told is enough.
    assert (await limited.http.post("/v1/track", json=ORDER, auth=("another", ""))).status_code == 200
    limited.clock.advance(timedelta(seconds=3))
    assert (await limited.http.post("/v1/track", json=ORDER, auth=(KEY, ""))).status_code == 200


async def test_a_key_in_the_body_has_the_same_bucket(limited: Limited) -> None:
    for auth in ((KEY, ""), None, None, (KEY, ""), None):
        answer = await limited.http.post("/v1/track", json={**ORDER, "writeKey": KEY}, auth=auth)
        assert answer.status_code == 200
    answer = await limited.http.post("/v1/track", json={**ORDER, "writeKey": KEY})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")


async def test_refused_events_count_like_the_others(limited: Limited, log: MemoryLog) -> None:
    for body in (b"{nonsense", b"{}", b"[]", b"\x1f\x8b nonsense", b"{nonsense"):
        assert (await limited.http.post("/v1/track", content=body, auth=(KEY, ""))).status_code == 400
    assert (await limited.http.post("/v1/track", content=b"{nonsense", auth=(KEY, ""))).status_code == 429
    assert len(kept(log)) == 5


async def test_what_is_limited_is_not_even_read(limited: Limited) -> None:
    read = 0

    async def large() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield b" " * 10_000

    for _ in range(5):
        await limited.http.post("/v1/track", json=ORDER, auth=(KEY, ""))
    answer = await limited.http.post("/v1/batch", content=large(), auth=(KEY, ""))
    assert (answer.status_code, read) == (429, 0)


async def test_a_wrong_key_is_told_so_however_often_it_is_tried(limited: Limited) -> None:
    for _ in range(20):
        assert (await limited.http.post("/v1/track", json=ORDER, auth=("wrong", ""))).status_code == 401


# The log.


async def test_200_comes_only_after_the_log_has_it(http: httpx.AsyncClient, log: MemoryLog) -> None:
    log.hold()
    call = asyncio.create_task(http.post("/v1/track", json=ORDER, auth=(KEY, "")))
    await until(lambda: log.waiting)
    assert not call.done()
    log.resume()
    assert (await call).json() == TAKEN
    assert len(kept(log)) == 1


async def test_a_log_that_is_away_is_503_with_retry_after(
    http: httpx.AsyncClient, ingest: Ingest, log: MemoryLog
) -> None:
    log.away = "events[3]: no leader."
    answer = await http.post("/v1/track", json=ORDER, auth=(KEY, ""))
    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) > 0
    assert answer.json() == {
        "code": "log_unavailable",
        "message": "events[3]: no leader. Send the same again; it counts once.",
    }
    assert (await http.get("/readyz")).status_code == 503
    log.away = None
    assert (await http.get("/readyz")).status_code == 200


async def test_what_is_sent_again_after_a_lost_answer_has_the_same_id(http: httpx.AsyncClient, log: MemoryLog) -> None:
    call = {"userId": "ada", "event": "X", "timestamp": "2025-03-01T12:00:00Z"}
    log.answers_to_lose = 1
    assert (await http.post("/v1/track", json=call, auth=(KEY, ""))).status_code == 503
    assert (await http.post("/v1/track", json=call, auth=(KEY, ""))).status_code == 200
    first, second = kept(log)
    assert first.id == second.id != ""


async def test_beyond_the_bytes_in_flight_it_is_503_at_once(
    http: httpx.AsyncClient, ingest: Ingest, log: MemoryLog
) -> None:
    log.hold()
    batch = [{"type": "track", "userId": "ada", "event": "X", "properties": {"x": "y" * 30_000}}] * 16
    calls = [asyncio.create_task(http.post("/v1/batch", json={"batch": batch}, auth=(KEY, ""))) for _ in range(18)]
    done, waiting = await asyncio.wait(calls, return_when=asyncio.FIRST_COMPLETED)
    (refused,) = (call.result() for call in done)
    assert (refused.status_code, refused.json()["code"]) == (503, "overloaded")
    assert refused.headers["retry-after"]
    log.resume()
    assert {call.result().status_code for call in (await asyncio.wait(waiting))[0]} == {200}
    assert (await http.post("/v1/batch", json={"batch": batch}, auth=(KEY, ""))).status_code == 200


async def test_stopping_answers_what_was_taken_and_takes_no_more(
    http: httpx.AsyncClient, ingest: Ingest, log: MemoryLog
) -> None:
    log.hold()
    call = asyncio.create_task(http.post("/v1/track", json=ORDER, auth=(KEY, "")))
    await until(lambda: log.waiting)
    stop = asyncio.create_task(ingest.stop())
    while not await ingest.ready():
        await asyncio.sleep(0)
    answer = await http.post("/v1/track", json=ORDER, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
    log.resume()
    await stop
    assert (await call).status_code == 200


async def test_before_it_has_started_nobody_is_turned_away_for_good(log: MemoryLog) -> None:
    service = build(Runtime(log, ManualClock(NOW), None), IngestSettings.read(), GivenSources({"shop": [KEY]}))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest") as client:
        assert (await client.post("/v1/track", json=ORDER, auth=(KEY, ""))).status_code == 503
        assert (await client.get("/readyz")).status_code == 503
        await service.start()
        assert (await client.post("/v1/track", json=ORDER, auth=(KEY, ""))).status_code == 200


async def test_a_record_that_the_log_never_takes_is_413(
    ingest: Ingest, log: MemoryLog, http: httpx.AsyncClient
) -> None:
    log.largest_record = 100
    answer = await http.post("/v1/track", json=ORDER, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (413, "event_too_large")


async def test_a_defect_is_500_with_a_code_and_never_200(log: MemoryLog) -> None:
    class Broken(GivenSources):
        def find(self, key: str) -> Writer | None:
            raise ZeroDivisionError

    service = build(Runtime(log, ManualClock(NOW), None), IngestSettings.read(), Broken({}))
    await service.start()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(service.app), base_url="http://ingest") as client:
        answer = await client.post("/v1/track", json=ORDER, auth=(KEY, ""))
    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")


# The rest.


async def test_the_pages_for_operators_and_developers_are_there(http: httpx.AsyncClient) -> None:
    await http.post("/v1/track", json=ORDER, auth=(KEY, ""))
    assert (await http.get("/healthz")).status_code == 200
    assert (await http.get("/docs")).status_code == 200
    assert "/v1/batch" in (await http.get("/openapi.json")).json()["paths"]
    metrics = (await http.get("/metrics")).text
    assert 'rapport_ingest_events_total{source="shop"}' in metrics


def test_without_sources_there_is_no_service() -> None:
    with pytest.raises(RapportError, match="RAPPORT_INGEST_SOURCES"):
        build(Runtime(MemoryLog(), ManualClock(NOW), None), IngestSettings.read())


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(body=st.binary(max_size=200), path=st.sampled_from(["/v1/track", "/v1/i", "/v1/batch", "/v1/b/"]))
async def test_no_body_is_ever_answered_with_a_fault_of_ours(http: httpx.AsyncClient, body: bytes, path: str) -> None:
    for content in (body, gzip.compress(body), b"\x1f\x8b" + body):
        for auth in ((KEY, ""), None):
            answer = await http.post(path, content=content, auth=auth)
            assert answer.status_code in (200, 400, 401, 413)
            if answer.status_code != 200:
                assert set(answer.json()) == {"code", "message"}
