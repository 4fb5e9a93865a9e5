"""What the streams carry: examples that are read, schemas that are in step, versions that are told apart."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from jsonschema import Draft202012Validator

from services.journeys.worker import JourneysProcessor
from services.mailer.worker import MailerProcessor
from services.segmenter.worker import SegmenterProcessor
from shared.contracts import customers, events, messages
from shared.contracts.schema import CONTRACTS, EXAMPLES, SCHEMAS, schema_of
from shared.contracts.streams import READ_BY, partition_of

ALL = sorted(EXAMPLES.rglob("*.json"))


def named(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


@pytest.mark.parametrize("path", ALL, ids=named)
def test_an_example_is_read_and_written_without_loss(path: Path) -> None:
    stream = path.parent.name
    record = msgspec.json.decode(path.read_bytes(), type=CONTRACTS[stream])
    again = msgspec.json.decode(msgspec.json.encode(record), type=CONTRACTS[stream])
    assert again == record
    written = json.loads(msgspec.json.encode(record))
    for name, value in json.loads(path.read_text()).items():
        # Fields at their defaults are not written.
        assert written.get(name, value) == value


@pytest.mark.parametrize("path", ALL, ids=named)
def test_an_example_fits_its_schema(path: Path) -> None:
    schema = json.loads((SCHEMAS / f"{path.parent.name}.json").read_text())
    Draft202012Validator(schema).validate(json.loads(path.read_text()))


@pytest.mark.parametrize("stream", list(CONTRACTS))
def test_the_schema_that_is_kept_is_that_of_the_structs(stream: str) -> None:
    assert (SCHEMAS / f"{stream}.json").read_text() == schema_of(stream), "run python -m shared.contracts.schema"


@pytest.mark.parametrize("stream", list(CONTRACTS))
def test_every_kind_of_record_has_an_example(stream: str) -> None:
    kinds = {kind.__struct_config__.tag for kind in CONTRACTS[stream].__args__}
    shown = {json.loads(path.read_text())["kind"] for path in ALL if path.parent.name == stream}
    assert shown == kinds


def test_what_a_client_sent_stays_as_its_bytes() -> None:
    raw = b'{"price": 1.10, "big": 123456789012345678901234567890}'
    now = datetime(2026, 1, 1, tzinfo=UTC)
    event = events.Event(
        id="1", source="shop", key="ann", occurred_at=now, received_at=now, properties=msgspec.Raw(raw)
    )
    read = msgspec.json.decode(msgspec.json.encode(event), type=events.EventRecord)
    assert isinstance(read, events.Event)
    assert bytes(read.properties) == raw


def test_an_unknown_field_of_a_newer_minor_release_is_no_error() -> None:
    record = b'{"kind":"tick","as_of":"2026-03-02T12:00:00Z","after":1,"colour":"blue"}'
    assert msgspec.json.decode(record, type=customers.CustomerRecord) == customers.Tick(
        as_of=datetime(2026, 3, 2, 12, tzinfo=UTC), after=1
    )
    assert msgspec.json.decode(record, type=messages.MessageRecord)


def test_partitions_are_those_of_librdkafkas_default_partitioner() -> None:
    # zlib's crc32 of "ann" is 0xe7207273, as librdkafka computes it.
    assert partition_of("ann", 12) == 0xE7207273 % 12


def test_each_service_reads_the_stream_that_is_said_to_be_its() -> None:
    processors = (SegmenterProcessor, JourneysProcessor, MailerProcessor)
    assert {processor.service: processor.stream for processor in processors} == READ_BY
