"""CSV with a mapping file."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.backtest.columns import MappingInvalid, read_mapping
from services.backtest.reading import History, Refusal
from shared.contracts.events import Event
from shared.errors import RapportError

MAPPING = """
event: Order Completed
userId: {column: customer}
timestamp: {column: paid, format: "%d.%m.%Y %H:%M", timezone: Europe/Oslo}
messageId: {column: order}
properties:
  order_id: {column: order}
  total: {column: amount, as: number}
  gift: {column: gift, as: boolean}
  channel: shop
delimiter: ";"
"""
HEADER = "order;customer;paid;amount;gift"


def read(folder: Path, *rows: str, mapping: str = MAPPING) -> list[Event | Refusal]:
    (folder / "mapping.yaml").write_text(mapping)
    (folder / "orders.csv").write_text("\n".join((HEADER, *rows)) + "\n")
    return list(History(folder / "orders.csv", read_mapping(folder / "mapping.yaml")))


def test_a_row_becomes_an_event(tmp_path: Path) -> None:
    (event,) = read(tmp_path, "17;ann;02.03.2026 13:30;1 249,50;yes")
    assert isinstance(event, Event)
    assert (event.id, event.key, event.name) == ("17", "ann", "Order Completed")
    assert event.occurred_at == datetime(2026, 3, 2, 12, 30, tzinfo=UTC)
    properties = {"order_id": "17", "total": 1249.5, "gift": True, "channel": "shop"}
    assert json.loads(bytes(event.properties)) == properties


def test_an_empty_cell_is_a_field_that_is_absent(tmp_path: Path) -> None:
    (event,) = read(tmp_path, "17;ann;02.03.2026 13:30;;")
    assert isinstance(event, Event)
    assert json.loads(bytes(event.properties)) == {"order_id": "17", "channel": "shop"}


def test_a_bad_cell_tells_its_line_its_column_and_its_text(tmp_path: Path) -> None:
    bad, short, good = read(tmp_path, "1;ann;02.03.2026 13:30;ten;", "2;ann", "3;ann;02.03.2026 13:30;10;")
    assert isinstance(bad, Refusal)
    assert (bad.place, bad.code) == (f"{tmp_path}/orders.csv:2", "invalid_field")
    assert bad.message == "Column amount: “ten” is no number."
    assert isinstance(short, Refusal)
    assert short.code == "invalid_csv"
    assert isinstance(good, Event)


def test_a_column_that_is_not_there_is_told_with_the_one_that_was_meant(tmp_path: Path) -> None:
    (refusal,) = read(tmp_path, mapping=MAPPING.replace("column: amount", "column: amout"))
    assert isinstance(refusal, Refusal)
    assert 'Did you mean "amount"?' in refusal.message


def test_a_text_that_names_a_column_was_meant_as_one(tmp_path: Path) -> None:
    (refusal,) = read(tmp_path, mapping=MAPPING.replace("userId: {column: customer}", "userId: customer"))
    assert isinstance(refusal, Refusal)
    assert refusal.message.endswith("Write userId: {column: customer}.")


def test_a_mapping_tells_every_mistake_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(MappingInvalid) as raised:
        read(tmp_path, mapping="evnt: Order Completed\nproperties:\n  total: {colum: amount}\n")
    lines = str(raised.value).splitlines()
    assert any(':1:1: "evnt" is unknown. Did you mean "event"?' in line for line in lines)
    assert any("nothing says whose a row is" in line for line in lines)
    assert any("nothing says when a row happened" in line for line in lines)
    assert any(":3:" in line and '"colum" cannot stand here' in line for line in lines)


def test_csv_without_a_mapping_is_refused_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "orders.csv"
    path.write_text(HEADER)
    with pytest.raises(RapportError, match="--mapping"):
        History(path)
