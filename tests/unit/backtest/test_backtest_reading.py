"""What is read of files of history, and what is said of lines that are no events."""

from __future__ import annotations

import codecs
import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.backtest.reading import History, Refusal
from shared.contracts.events import Event

AT = "2026-03-02T12:00:00Z"


def written(folder: Path, *lines: dict[str, Any] | str) -> Path:
    path = folder / "events.ndjson"
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    path.write_text("\n".join(texts) + "\n")
    return path


def track(**fields: Any) -> dict[str, Any]:
    return {"type": "track", "userId": "ann", "event": "Order Completed", "timestamp": AT, **fields}


def only_event(path: Path) -> Event:
    (event,) = History(path)
    assert isinstance(event, Event)
    return event


def only_refusal(path: Path) -> Refusal:
    (refusal,) = History(path)
    assert isinstance(refusal, Refusal)
    return refusal


def test_an_event_without_more_times_was_received_when_it_happened(tmp_path: Path) -> None:
    event = only_event(written(tmp_path, track(properties={"total": 5})))
    assert event.occurred_at == event.received_at == datetime(2026, 3, 2, 12, tzinfo=UTC)
    assert (event.key, event.name, bytes(event.properties)) == ("ann", "Order Completed", b'{"total": 5}')


def test_an_event_that_says_when_it_was_received_took_its_time(tmp_path: Path) -> None:
    event = only_event(written(tmp_path, track(receivedAt="2026-03-02T15:00:00+01:00")))
    assert event.received_at == datetime(2026, 3, 2, 14, tzinfo=UTC)
    assert event.occurred_at == datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_an_event_that_says_when_it_was_sent_came_then(tmp_path: Path) -> None:
    event = only_event(written(tmp_path, track(sentAt="2026-03-02T12:05:00Z")))
    assert event.received_at == datetime(2026, 3, 2, 12, 5, tzinfo=UTC)
    assert event.occurred_at == datetime(2026, 3, 2, 12, tzinfo=UTC)


def test_what_was_marked_for_an_import_is_lived_through_as_it_happened(tmp_path: Path) -> None:
    assert not only_event(written(tmp_path, track(context={"historical": True}))).historical
    assert only_event(written(tmp_path, track(context={"historical": True}, receivedAt=AT))).historical


def test_an_exported_event_has_the_source_that_it_had(tmp_path: Path) -> None:
    event = only_event(written(tmp_path, track(_metadata={"rapport_source": "rapport/mailer", "rapport_hops": 2})))
    assert (event.source, event.hops) == ("rapport/mailer", 2)


def test_a_packed_file_reads_like_a_plain_one(tmp_path: Path) -> None:
    plain = written(tmp_path, track(messageId="1"), track(messageId="2"))
    packed = tmp_path / "events.ndjson.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert list(History(packed)) == list(History(plain))


def test_a_byte_order_mark_before_the_first_line_is_no_part_of_it(tmp_path: Path) -> None:
    path = written(tmp_path, track(), track(userId="bob"))
    path.write_bytes(codecs.BOM_UTF8 + path.read_bytes())
    history = History(path)
    assert [event.key for event in history if isinstance(event, Event)] == ["ann", "bob"]
    messages = [message for part in range(2) for message in history.messages(part, 2)]
    assert [json.loads(message)["userId"] for message in messages] == ["ann", "bob"]


def test_a_packed_file_that_ends_too_early_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    packed = tmp_path / "events.gz"
    text = "\n".join(json.dumps(track(messageId=str(number) * 20, n=number)) for number in range(2000))
    whole = gzip.compress(text.encode())
    packed.write_bytes(whole[: len(whole) // 2])
    *events, last = History(packed)
    assert isinstance(last, Refusal)
    assert last.code == "invalid_gzip"
    assert all(isinstance(event, Event) for event in events)


def test_a_bad_line_tells_its_place_its_code_and_what_to_do_and_the_next_is_read(tmp_path: Path) -> None:
    path = written(tmp_path, track(), "", '{"type": "track"', track(userId="undefined"), track(messageId="last"))
    first, broken, nobody, last = History(path)
    assert isinstance(first, Event)
    assert isinstance(last, Event)
    assert isinstance(broken, Refusal)
    assert (broken.place, broken.code) == (f"{path}:3", "invalid_json")
    assert isinstance(nobody, Refusal)
    assert (nobody.place, nobody.code) == (f"{path}:4", "refused_id")


def test_an_event_without_a_time_is_refused(tmp_path: Path) -> None:
    refusal = only_refusal(written(tmp_path, {"type": "track", "userId": "ann", "event": "Order Completed"}))
    assert refusal.code == "invalid_timestamp"
    assert "Write timestamp" in refusal.message


def test_a_list_in_a_line_is_answered_with_how_to_unfold_it(tmp_path: Path) -> None:
    assert "jq" in only_refusal(written(tmp_path, json.dumps([track()]))).message


def test_a_line_without_an_end_takes_no_memory(tmp_path: Path) -> None:
    path = written(tmp_path, track(properties={"text": "x" * 1_000_000}), track())
    too_large, event = History(path)
    assert isinstance(too_large, Refusal)
    assert isinstance(event, Event)
