"""What the segmenter keeps goes out and comes in again as it was."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from services.backtest.exporting import message
from services.backtest.reading import History
from services.segmenter.history import row
from shared.contracts.customers import Customer, CustomerUpdated
from shared.contracts.events import SEGMENTER_SOURCE, Event

NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
ORDER = Event(
    id="o1",
    source="shop",
    key="ann",
    name="Order Completed",
    user_id="ann",
    anonymous_id="browser-1",
    occurred_at=NOON.replace(hour=11),
    received_at=NOON,
    properties=msgspec.Raw(b'{"total":12.50}'),
    context=msgspec.Raw(b'{"locale":"nb-NO"}'),
)


def exported(event: Event) -> bytes | None:
    return message(row(CustomerUpdated(as_of=NOON, customer=Customer(key=event.key), event=event)))


@pytest.mark.parametrize(
    "event",
    [
        ORDER,
        msgspec.structs.replace(ORDER, type="page", name="Prices"),
        msgspec.structs.replace(ORDER, type="identify", name="", traits=msgspec.Raw(b'{"email":"a@example.com"}')),
        msgspec.structs.replace(ORDER, user_id=None, key="browser-1"),
        msgspec.structs.replace(ORDER, context=msgspec.Raw(b'{"historical":true}'), historical=True),
        msgspec.structs.replace(ORDER, source="rapport/mailer", name="Email Link Clicked", hops=2),
    ],
    ids=lambda event: f"{event.type} {event.name} of {event.source}",
)
def test_an_event_comes_back_as_it_was(event: Event, tmp_path: Path) -> None:
    line = exported(event)
    assert line is not None
    (tmp_path / "history.ndjson").write_bytes(line)
    (again,) = History(tmp_path / "history.ndjson")
    assert isinstance(again, Event)
    # What the protocol has no place for stands beside.
    assert msgspec.structs.replace(again, extra=event.extra) == event


def test_what_segmenter_made_itself_stays_at_home() -> None:
    assert exported(msgspec.structs.replace(ORDER, source=SEGMENTER_SOURCE, name="Cart Emptied")) is None
