"""Records as messages: what is newer than this release waits, and what nobody can read is poison."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from shared.contracts.customers import Tick
from shared.contracts.messages import VERSION, MessageRecord
from shared.contracts.streams import MESSAGES
from shared.processing.port import NewerContract, Poison
from shared.processing.records import decoder

decode = decoder(MESSAGES, MessageRecord, VERSION)
TICK = Tick(as_of=datetime(2026, 3, 1, tzinfo=UTC))


def test_what_was_written_is_read() -> None:
    assert decode("", msgspec.json.encode(TICK)) == TICK


def test_a_newer_version_waits_even_where_it_looks_familiar() -> None:
    with pytest.raises(NewerContract, match="messages: version 3 is newer than 2"):
        decode("", msgspec.json.encode(msgspec.structs.replace(TICK, v=3)))


def test_a_newer_version_of_another_shape_waits_too() -> None:
    with pytest.raises(NewerContract, match="Update it"):
        decode("ann", b'{"kind": "postponed", "v": 7}')


@pytest.mark.parametrize(
    "value",
    [b"", b"{", b"[]", b"null", b'{"kind": "tick"}', b'{"kind": "new"}', b'{"kind": "tick", "v": "9"}'],
)
def test_what_nobody_can_read_is_poison_with_its_place(value: bytes) -> None:
    with pytest.raises(Poison, match=r"messages, key 'ann': .* Look at what wrote this record"):
        decode("ann", value)
