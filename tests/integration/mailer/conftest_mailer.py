"""A post office: the mailer on real PostgreSQL, with a transport that does as it is told and a clock that stands."""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest_asyncio
from patience import until

from services.mailer import page_store
from services.mailer.rendering import RenderingFailed
from services.mailer.sending import Sending
from services.mailer.store import Channel
from services.mailer.transport import Accepted, Mail, Receipt
from services.mailer.worker import MailerProcessor
from shared.clock import ManualClock
from shared.contracts import streams
from shared.contracts.customers import Activation, ConsentDecision, Tick
from shared.contracts.events import Event
from shared.contracts.messages import ConsentChanged, MessageCancelled, MessageRecord, MessageRequested, PromotionPaused
from shared.contracts.streams import partition_of
from shared.database.engine import Database
from shared.language.playbook import Cap, EventTrigger, Journey, Playbook, Topic
from shared.log.port import Entry
from shared.log.postgres import PostgresLog
from shared.processing.installation import Installation, open_installation
from shared.processing.port import Connection
from shared.processing.worker import Worker
from shared.runtime import Runtime
from shared.settings import Settings
from tests.mailer_playbook import brand

PARTITIONS = 4
NOON = datetime(2026, 3, 2, 11, 0, tzinfo=UTC)  # noon in Oslo


def playbook(caps: Sequence[Cap] = (), quiet: tuple[int, int] | None = (21, 8)) -> Playbook:
    topics = {
        "cart-reminders": Topic("cart-reminders", "Cart reminders", "", "promotional", "opt_out"),
        "newsletter": Topic("newsletter", "Newsletter", "", "promotional", "opt_in"),
        "receipts": Topic("receipts", "Receipts", "", "transactional", "opt_out"),
    }
    return Playbook("p1", {}, brand(quiet, caps), (), {}, topics, {}, {}, {})


def paused_journey(name: str) -> Journey:
    return Journey(
        name=name,
        title=name,
        version="v1",
        status="paused",
        trigger=EventTrigger("Cart Updated", None, None),
        condition=None,
        mode="single",
        again="always",
        max_age=timedelta(days=1),
        goal=None,
        exit_on=(),
        topic=None,
        first=None,
        steps={},
    )


@dataclass
class PlaybookInForce:
    """A shelf on which every hash is one playbook, but for those of `others`; `pause` holds whoever takes it."""

    playbook: Playbook
    others: dict[str, Playbook] = field(default_factory=dict)
    pause: asyncio.Event = field(default_factory=asyncio.Event)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.pause.set()

    async def get(self, connection: Connection, content_hash: str) -> Playbook:
        self.wanted.set()
        await self.pause.wait()
        return self.others.get(content_hash, self.playbook)


@dataclass
class Postbox:
    """A transport that accepts everything, unless an address was told otherwise. `open` lets mails through."""

    connections: int = 8
    mails: list[Mail] = field(default_factory=list)
    answers: dict[str, deque[Receipt]] = field(default_factory=lambda: defaultdict(deque))
    open: asyncio.Event = field(default_factory=asyncio.Event)
    in_hand: int = 0
    most_in_hand: int = 0

    def __post_init__(self) -> None:
        self.open.set()

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        self.in_hand += 1
        self.most_in_hand = max(self.in_hand, self.most_in_hand)
        self.mails.append(mail)
        await asyncio.sleep(0)
        await self.open.wait()
        self.in_hand -= 1
        answers = self.answers[mail.recipient]
        return answers.popleft() if answers else Accepted("250 ok")

    async def start(self) -> None: ...

    async def close(self) -> None: ...

    @property
    def ids(self) -> list[str]:
        return [mail.request.id for mail in self.mails]


def compose(playbook: Playbook, request: MessageRequested, now: datetime) -> Mail:
    if request.message == "broken":
        raise RenderingFailed("messages/broken/body.html:3: no such filter.")
    assert request.address is not None
    headers = {"Subject": request.message}
    return Mail(request, "hello@lamps.example", request.address, b"", None, headers, ("https://x.example/",))  # type: ignore[arg-type]


@dataclass
class PostOffice:
    database: Database
    log: PostgresLog
    clock: ManualClock
    installation: Installation
    settings: Settings
    shelf: PlaybookInForce
    postbox: Postbox
    sending: Sending | None = None
    workers: list[Worker] = field(default_factory=list)

    async def open(
        self,
        *,
        database: Database | None = None,
        postbox: Postbox | None = None,
        channel: Channel = "email",
        **settings: Any,
    ) -> Worker:
        """Start a worker of one channel. `database` is the one that its transactions go to."""
        if postbox is not None:
            self.postbox = postbox
        sending = Sending(self.postbox, compose, self.shelf, self.clock, timedelta(minutes=1), channel)
        self.sending = sending
        processor = MailerProcessor(sending, self.shelf)
        runtime = Runtime(self.log, self.clock, self.database, self.installation)
        worker = Worker(runtime, processor, self.settings.model_copy(update=settings))
        if database is not None:
            worker._frame = replace(worker._frame, database=database)
        await worker.start()
        self.workers.append(worker)
        return worker

    async def close(self) -> None:
        for worker in self.workers:
            await worker.stop()
        self.workers.clear()
        if self.sending is not None:
            await self.sending.finish()

    async def record(self, *records: MessageRecord) -> None:
        """Records on the road, to their customers' partitions; those of nobody go to all."""
        for record in records:
            customer = getattr(record, "customer", None)
            for partition in range(PARTITIONS) if customer is None else [partition_of(customer, PARTITIONS)]:
                await self.log.append(streams.MESSAGES, partition, [Entry(customer or "", msgspec.json.encode(record))])

    async def activate(self, playbook: str = "p1") -> None:
        await self.record(Activation(as_of=self.clock.now(), playbook=playbook))

    async def pause(self, *journeys: str) -> None:
        """Put a playbook in force in which these journeys are paused, and no other."""
        name = f"paused: {', '.join(journeys)}"
        paused = {journey: paused_journey(journey) for journey in journeys}
        self.shelf.others[name] = msgspec.structs.replace(self.shelf.playbook, hash=name, journeys=paused)
        await self.activate(name)

    async def pause_promotion(self, length: timedelta, customer: str = "anna") -> None:
        now = self.clock.now()
        await self.record(PromotionPaused(as_of=now, customer=customer, at=now, until=now + length, v=2))

    async def pass_time(self, by: timedelta) -> None:
        self.clock.advance(by)
        await self.record(Tick(as_of=self.clock.now()))

    def request(
        self,
        id: str,
        customer: str = "anna",
        *,
        address: str | None = "",
        topic: str = "cart-reminders",
        message: str = "cart-reminder",
        expires: timedelta = timedelta(hours=72),
        due: datetime | None = None,
        priority: int = 50,
        draft: bool = False,
        journey: str = "abandoned-cart",
    ) -> MessageRequested:
        now = self.clock.now()
        due = due or now
        return MessageRequested(
            as_of=now,
            id=id,
            customer=customer,
            address=f"{customer}@example.org" if address == "" else address,
            message=message,
            topic=topic,
            journey=journey,
            enrollment=f"e-{id}",
            step=message,
            due=due,
            expires=due + expires,
            priority=priority,
            draft=draft,
        )

    async def ask(self, *ids: str, **more: Any) -> None:
        await self.record(*(self.request(id, **more) for id in ids))

    async def cancel(self, id: str, reason: str, customer: str = "anna") -> None:
        await self.record(MessageCancelled(as_of=self.clock.now(), id=id, customer=customer, reason=reason))

    async def hear(
        self, subscribed: bool, topic: str = "cart-reminders", customer: str = "anna", address: str | None = ""
    ) -> None:
        address = f"{customer}@example.org" if address == "" else address
        now = self.clock.now()
        decision = ConsentDecision(topic=topic, subscribed=subscribed, decided_at=now, source="shop")
        await self.record(ConsentChanged(as_of=now, customer=customer, address=address, decisions=(decision,)))

    async def messages(self) -> dict[str, page_store.Listed]:
        async with self.database.connect() as connection:
            return {message.id: message for message in await page_store.listing(connection, limit=5000)}

    async def settled(self, **statuses: str) -> dict[str, page_store.Listed]:
        """Wait until messages have these statuses."""

        async def all_there() -> dict[str, page_store.Listed] | None:
            messages = await self.messages()
            there = {id: message.status for id, message in messages.items()}
            return messages if there == {**there, **statuses} else None

        found: dict[str, page_store.Listed] = await until(all_there)
        return found

    async def read_up(self) -> None:
        """Wait until every record is taken, and everything due is decided."""

        async def nothing_left() -> bool:
            ends = await self.log.ends(streams.MESSAGES)
            async with self.database.connect() as connection:
                rows = await connection.fetch(
                    "SELECT partition, next_offset FROM processing.partitions WHERE service = 'mailer'"
                )
                offsets = {row["partition"]: row["next_offset"] for row in rows}
                open_rows = await connection.fetchval(
                    "SELECT count(*) FROM mailer.messages WHERE status IN ('requested', 'sending')"
                )
            return not open_rows and all(offsets[p] >= end for p, end in ends.items())

        await until(nothing_left)

    async def events(self) -> list[tuple[str, dict[str, Any]]]:
        """The outcomes that were reported: the event's name and its properties, in order within a partition."""
        found = []
        for partition in range(PARTITIONS):
            reader = self.log.reader(streams.EVENTS)
            reader.assign({partition: 0})
            while (fetched := await reader.fetch(partition, 5000, 0.05)).records:
                for entry in fetched.records:
                    event = msgspec.json.decode(entry.value, type=Event)
                    found.append((event.name, msgspec.json.decode(event.properties)))
            await reader.close()
        return found

    async def told(self, id: str) -> list[tuple[str, str, str]]:
        """What was reported of a message: event, reason, and the instant that it was decided for."""
        return [
            (name, properties["reason"], properties["decided_for"])
            for name, properties in await self.events()
            if properties["message_id"] == id
        ]

    def caps(self, *caps: Cap) -> None:
        self.shelf.playbook = msgspec.structs.replace(self.shelf.playbook, brand=playbook(caps).brand)


@pytest_asyncio.fixture
async def post_office(database: Database) -> AsyncIterator[PostOffice]:
    log = PostgresLog(database, PARTITIONS)
    await log.start()
    async with database.connect() as connection:
        installation = await open_installation(connection, PARTITIONS, 1.0)
    # A worker that a busy machine lets wait is not to look dead.
    settings = Settings(heartbeat_seconds=0.1, expiry_seconds=120.0)
    office = PostOffice(
        database, log, ManualClock(NOON), installation, settings, PlaybookInForce(playbook()), Postbox()
    )
    yield office
    office.postbox.open.set()
    office.shelf.pause.set()
    await office.close()
    await log.close()
