"""The official Python clients of Segment and RudderStack, as a shop uses them, against a real server."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
import uvicorn
from fakes.memory_log import MemoryLog
from rudderstack.analytics.client import Client as RudderStack
from segment.analytics.client import Client as Segment

from services.ingest.main import build
from services.ingest.settings import IngestSettings
from services.ingest.sources import GivenSources
from shared.clock import SystemClock
from shared.contracts.events import Event, EventRecord, Refused
from shared.runtime import Runtime

KEY = "key-of-the-shop"


class Server:
    """Ingest behind uvicorn, in a thread of its own."""

    def __init__(self, log: MemoryLog) -> None:
        self.log = log
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._up = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        service = build(Runtime(self.log, SystemClock(), None), IngestSettings.read(), GivenSources({"shop": [KEY]}))
        self._server = uvicorn.Server(uvicorn.Config(service.app, log_level="warning", lifespan="off"))
        await service.start()
        self._up.set()
        await self._server.serve(sockets=[self._socket])
        await service.stop()

    def __enter__(self) -> Server:
        self._thread.start()
        assert self._up.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(10)
        self._socket.close()

    def events(self) -> dict[str, Event]:
        """What the log has, by message id."""
        records = [msgspec.json.decode(record.value, type=EventRecord) for record in self.log.records("events")]
        return {record.id: record for record in records if isinstance(record, Event)}

    def refused(self) -> list[Refused]:
        records = [msgspec.json.decode(record.value, type=EventRecord) for record in self.log.records("events")]
        return [record for record in records if isinstance(record, Refused)]


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(MemoryLog()) as server:
        yield server


@pytest.fixture(params=["segment", "segment-gzip", "rudderstack", "rudderstack-plain"])
def shop(request: pytest.FixtureRequest, server: Server) -> Iterator[Any]:
    """Each client, in the ways in which it can be set up."""
    wrong: list[object] = []
    make = Segment if request.param.startswith("segment") else RudderStack
    client = make(
        KEY,
        host=server.url,
        gzip=request.param in ("segment-gzip", "rudderstack"),
        on_error=lambda error, items: wrong.append(error),
        max_retries=1,
        upload_interval=0.05,
    )
    client.wrong = wrong
    yield client
    client.shutdown()


def said(raw: msgspec.Raw) -> Any:
    return json.loads(bytes(raw))


def test_what_a_shop_reports_arrives_once_and_as_it_was_said(shop: Any, server: Server) -> None:
    before = datetime.now(UTC)
    shop.identify("ada", {"email": "ada@example.com", "birthday": "1990-12-10"}, message_id="i")
    shop.track("ada", "Order Completed", {"total": Decimal("59.90"), "products": [{"sku": "s"}]}, message_id="t")
    shop.page(anonymous_id="a1", category="Shoes", name="Boots", properties={"url": "/boots"}, message_id="p")
    shop.screen("ada", name="Wishlist", message_id="s")
    shop.group("ada", "club", {"name": "Gold"}, message_id="g")
    shop.alias("a1", "ada", message_id="a")
    shop.track(4711, "Cart Viewed", message_id="n")
    shop.flush()
    assert shop.wrong == []
    events = server.events()
    assert {id: (event.type, event.key, event.name) for id, event in events.items()} == {
        "i": ("identify", "ada", ""),
        "t": ("track", "ada", "Order Completed"),
        "p": ("page", "a1", "Boots"),
        "s": ("screen", "ada", "Wishlist"),
        "g": ("group", "ada", ""),
        "a": ("alias", "ada", ""),
        "n": ("track", "4711", "Cart Viewed"),
    }
    assert said(events["i"].traits) == {"email": "ada@example.com", "birthday": "1990-12-10"}
    assert said(events["t"].properties) == {"total": 59.9, "products": [{"sku": "s"}]}
    assert said(events["g"].traits) == {"name": "Gold"}
    assert said(events["p"].extra)["category"] == "Shoes"
    assert said(events["g"].extra)["groupId"] == "club"
    assert said(events["a"].extra)["previousId"] == "a1"
    assert said(events["t"].context)["library"]["name"] == "analytics-python"
    assert events["p"].anonymous_id == "a1"
    assert events["p"].user_id is None
    for event in events.values():
        assert event.source == "shop"
        assert abs((event.occurred_at - before).total_seconds()) < 5
        assert not event.historical
    assert len(server.log.records("events")) == 7


def test_history_is_imported_with_its_own_time(shop: Any, server: Server) -> None:
    ordered = datetime(2024, 5, 1, 10, tzinfo=UTC)
    shop.track("ada", "Order Completed", timestamp=ordered, context={"historical": True}, message_id="h")
    shop.flush()
    event = server.events()["h"]
    assert event.historical
    # The time of sending and that of receipt differ by the way that the request took.
    assert 0 <= (event.occurred_at - ordered).total_seconds() < 5


def test_a_bad_event_does_not_stop_the_client(shop: Any, server: Server) -> None:
    shop.track("undefined", "Order Completed", message_id="bad")
    shop.track("ada", "Order Completed", {"total": float("nan")}, message_id="nan")
    shop.track("ada", "Order Completed", message_id="good")
    shop.flush()
    assert shop.wrong == []
    assert set(server.events()) == {"good"}
    assert sorted(refused.code for refused in server.refused()) == ["invalid_json", "refused_id"]


def test_what_the_log_has_and_did_not_confirm_is_sent_again_under_the_same_id(shop: Any, server: Server) -> None:
    server.log.answers_to_lose = 1
    shop.track("ada", "Order Completed", message_id="once")
    shop.flush()
    shop.shutdown()
    assert shop.wrong == []
    assert [record.key for record in server.log.records("events")] == ["ada", "ada"]
    assert set(server.events()) == {"once"}


def test_a_wrong_key_is_told_and_not_tried_again(server: Server) -> None:
    for make in (Segment, RudderStack):
        wrong: list[Any] = []
        client = make("wrong", host=server.url, on_error=lambda error, items, wrong=wrong: wrong.append(error))
        client.track("ada", "Order Completed")
        client.flush()
        client.shutdown()
        assert [(error.status, error.code) for error in wrong] == [(401, "unknown_key")]
    assert server.log.records("events") == []


def test_what_is_refused_before_it_was_read_is_still_answered(server: Server) -> None:
    with httpx.Client(base_url=server.url) as http:
        for auth, status in (((KEY, ""), 413), (("wrong", ""), 401), ((KEY, ""), 413)):
            assert http.post("/v1/batch", content=b"x" * 5_000_000, auth=auth).status_code == status
        assert http.post("/v1/page", json={"userId": "ada"}, auth=(KEY, "")).status_code == 200
        assert http.options("/v1/page").status_code == 204
