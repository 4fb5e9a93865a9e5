"""What must hold of every hand-over: beside an unsubscribe, over a crash, a stop, and a database that goes away."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import msgspec
import pytest
from conftest_mailer import NOON, PARTITIONS, Postbox, PostOffice
from patience import PATIENCE, until

from services.mailer import page_store, store
from services.mailer.consent import Decision
from services.mailer.desk import Desk
from services.mailer.sitting import Sitting
from services.mailer.slots import Slots
from services.mailer.store import Channel
from services.mailer.transport import Accepted, Mail, Receipt, Rejected
from services.mailer.worker import MailerProcessor
from shared.contracts.messages import VERSION
from shared.contracts.streams import partition_of
from shared.database.clauses import execute
from shared.database.engine import Database, is_transient
from shared.processing.port import Connection, Present

ANNA = "anna@example.org"
NO = Decision("cart-reminders", False, NOON, "link")


async def unsubscribe(post_office: PostOffice, address: str = ANNA) -> None:
    async with post_office.database.connect() as connection:
        await store.decide_consent(connection, address, [NO])


# After an unsubscribe was acknowledged, no hand-over of that topic to that address begins.


async def test_what_comes_while_an_unsubscribe_is_under_way_is_decided_after_it(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.hear(True, "newsletter")
    await post_office.open()
    await post_office.read_up()
    async with post_office.database.transaction() as connection:
        await store.decide_consent(connection, ANNA, [NO])
        await post_office.ask("m1")
        await post_office.settled(m1="requested")
        # Decisions go on, about whom nobody else holds.
        await post_office.ask("m2", customer="ben")
        await post_office.settled(m1="requested", m2="sent")
    assert (await post_office.settled(m1="skipped"))["m1"].reason == "unsubscribed"
    assert post_office.postbox.ids == ["m2"]


async def test_workers_that_each_hold_an_address_which_the_other_wants_never_wait_for_each_other(
    post_office: PostOffice,
) -> None:
    await post_office.activate()
    await post_office.hear(True, "newsletter")
    await post_office.hear(True, "newsletter", "ben")
    await post_office.open()
    await post_office.read_up()
    post_office.shelf.wanted.clear()
    post_office.shelf.pause.clear()  # the sender stands inside its transaction, with anna's address locked
    await post_office.ask("m1")
    await post_office.shelf.wanted.wait()
    async with post_office.database.transaction() as other:
        await store.lock_addresses(other, ["ben@example.org"])
        assert await store.lock_free(other, [ANNA, "ben@example.org"]) == {"ben@example.org": ""}
        await post_office.ask("m2", customer="ben")
        post_office.shelf.pause.set()
        await post_office.settled(m1="sent", m2="requested")
    await post_office.settled(m1="sent", m2="sent")


async def test_an_address_that_does_not_exist_is_suppressed_once_nobody_else_holds_it(post_office: PostOffice) -> None:
    post_office.postbox.answers[ANNA].append(Rejected("550 5.1.1 no such user", True))
    post_office.postbox.open.clear()
    await post_office.activate()
    await post_office.open()
    await post_office.ask("m1")
    await post_office.settled(m1="sending")
    async with post_office.database.transaction() as other:
        await store.lock_addresses(other, [ANNA])
        post_office.postbox.open.set()
        await post_office.ask("m2", customer="ben")
        await post_office.settled(m1="sending", m2="sent")
    assert (await post_office.settled(m1="failed"))["m1"].reason == "no_such_address"
    await post_office.ask("m3")
    assert (await post_office.settled(m3="skipped"))["m3"].reason == "suppressed"


async def test_an_unsubscribe_is_not_acknowledged_while_a_hand_over_is_being_decided(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.open()
    await post_office.read_up()
    post_office.shelf.wanted.clear()
    post_office.shelf.pause.clear()  # the sender stands inside its transaction, the address locked
    await post_office.hear(True)
    await post_office.ask("m1")
    await post_office.shelf.wanted.wait()
    acknowledged = asyncio.create_task(unsubscribe(post_office))
    await until(lambda: waits_for_a_lock(post_office))
    assert not acknowledged.done()
    post_office.shelf.pause.set()
    await acknowledged
    # Its hand-over began before the answer was given; the next one does not.
    assert (await post_office.messages())["m1"].status in ("sending", "sent")
    await post_office.ask("m2")
    assert (await post_office.settled(m1="sent", m2="skipped"))["m2"].reason == "unsubscribed"


async def test_among_many_nothing_begins_after_its_unsubscribe_was_acknowledged(post_office: PostOffice) -> None:
    await post_office.activate()
    customers = [f"c{n}" for n in range(40)]
    await post_office.open()
    begun: dict[str, set[str]] = {}

    async def leave(customer: str, after: int) -> None:
        async def mails_have_gone_out() -> bool:
            return len(post_office.postbox.mails) >= after

        await until(mails_have_gone_out)
        await unsubscribe(post_office, f"{customer}@example.org")
        async with post_office.database.connect() as connection:
            listed = await page_store.listing(connection, limit=100, customer=customer)
        begun[customer] = {message.id for message in listed if message.status not in ("requested", "held", "skipped")}

    async def shop() -> None:
        for number in range(10):
            for customer in customers:
                await post_office.ask(f"{customer}-{number}", customer=customer)
            if number == 7:  # some have had mails by then, and everybody leaves before the last ones are asked for
                await until(everybody_has_left)

    async def everybody_has_left() -> bool:
        return len(begun) == len(customers)

    async with asyncio.TaskGroup() as together:
        together.create_task(shop())
        for number, customer in enumerate(customers):
            together.create_task(leave(customer, 2 * number))
    await post_office.read_up()
    for customer in customers:
        sent = {id for id in post_office.postbox.ids if id.startswith(f"{customer}-")}
        assert sent <= begun[customer]
    assert any(begun.values())
    assert len(post_office.postbox.ids) <= 320


async def waits_for_a_lock(post_office: PostOffice) -> bool:
    async with post_office.database.connect() as connection:
        return bool(await connection.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"))


# One cause, at most one mail; none vanishes.


@pytest.mark.parametrize("point", ["mailer.sending", "mailer.before_commit"])
async def test_a_process_that_dies_leaves_unknown_only_what_it_had_in_hand(
    post_office: PostOffice, database_url: str, tmp_path: Path, point: str
) -> None:
    await post_office.activate()
    await post_office.ask("m1")
    # The batches of four activations come before: the fifth COMMIT or later is the one that takes the message.
    proof = tmp_path / "proof"
    environment = {**os.environ, "RAPPORT_FAULT": point, "RAPPORT_FAULT_PROOF": str(proof)}
    environment["PYTHONPATH"] = os.pathsep.join(sys.path)
    program = Path(__file__).parent / "killed_sender.py"
    process = await asyncio.create_subprocess_exec(sys.executable, str(program), database_url, env=environment)
    async with asyncio.timeout(PATIENCE):
        assert await process.wait() == -signal.SIGKILL
    assert proof.read_text() == f"{point}\n"
    await post_office.open()
    if point == "mailer.sending":
        unknown = (await post_office.settled(m1="unknown"))["m1"]
        assert unknown.reason == "interrupted"
        assert [name for name, *_ in await post_office.told("m1")] == ["Email Unknown"]
        assert post_office.postbox.mails == []
    else:
        await post_office.settled(m1="sent")


async def test_an_orderly_stop_finishes_what_is_in_hand(post_office: PostOffice) -> None:
    await post_office.activate()
    post_office.postbox.open.clear()
    worker = await post_office.open(heartbeat_seconds=0.002)
    await post_office.ask("m1")
    await post_office.settled(m1="sending")
    stopping = asyncio.create_task(worker.stop())
    await post_office.ask("m2", customer="berit")
    post_office.postbox.open.set()
    await stopping
    post_office.workers.clear()
    assert worker.owned == frozenset()
    after = await post_office.messages()
    assert after["m1"].status == "sent"
    assert "m2" not in after or after["m2"].status == "requested"
    assert [name for name, *_ in await post_office.told("m1")] == ["Email Sent"]


async def test_an_orderly_stop_puts_back_what_has_not_begun(post_office: PostOffice) -> None:
    await post_office.activate()
    worker = await post_office.open(postbox=Postbox(connections=2))
    slow = [f"slow-{number}" for number in range(10)]
    assert post_office.sending is not None
    slots, quick = post_office.sending._slots, itertools.count()
    while slots._count < len(slow):  # more than connections, where mails have gone out soon for a while
        some = [f"quick-{next(quick)}" for _ in range(8)]
        await post_office.ask(*some, topic="receipts")
        await post_office.settled(**dict.fromkeys(some, "sent"))
    post_office.postbox.open.clear()
    await post_office.record(*(post_office.request(id, topic="receipts") for id in slow))
    await post_office.settled(**dict.fromkeys(slow, "sending"))
    stopping = asyncio.create_task(worker.stop())
    await post_office.settled(**dict.fromkeys(slow[2:], "requested"))
    post_office.postbox.open.set()
    await stopping
    post_office.workers.clear()
    after = await post_office.messages()
    assert [after[id].status for id in slow] == ["sent"] * 2 + ["requested"] * 8
    assert {after[id].attempts for id in slow[2:]} == {0}


async def test_an_orderly_stop_waits_for_what_is_being_taken(post_office: PostOffice) -> None:
    await post_office.activate()
    worker = await post_office.open()
    await post_office.read_up()
    post_office.shelf.wanted.clear()
    post_office.shelf.pause.clear()  # the sender stands inside the transaction that brings the message and takes it
    await post_office.ask("m1")
    await post_office.shelf.wanted.wait()
    stopping = asyncio.create_task(worker.stop())

    async def everybody_is_told() -> bool:
        return all(lane.leaving.is_set() for lane in worker._lanes.values())

    # Which partitions stand in the same transaction, and so cannot end before it, is chance.
    await until(everybody_is_told)
    post_office.shelf.pause.set()
    await stopping
    post_office.workers.clear()
    assert (await post_office.messages())["m1"].status == "requested"
    await post_office.open()
    await post_office.settled(m1="sent")


async def test_a_database_that_restarts_while_mails_are_in_hand_makes_none_unknown(
    post_office: PostOffice, database_url: str
) -> None:
    await post_office.activate()
    post_office.postbox.open.clear()
    await post_office.open()
    customers = [f"c{n}" for n in range(8)]
    for customer in customers:
        await post_office.ask(f"m-{customer}", customer=customer)
    await post_office.settled(**{f"m-{customer}": "sending" for customer in customers})
    await cut_every_connection(database_url)
    post_office.postbox.open.set()
    await until(lambda: all_sent(post_office, 8))
    assert sorted(post_office.postbox.ids) == sorted(f"m-{customer}" for customer in customers)
    assert sorted(name for name, _ in await post_office.events()) == ["Email Sent"] * 8


@pytest.mark.parametrize("channel", ["email", "webhook", "sms", "push"])
async def test_what_another_owner_has_ended_stays_ended_though_we_own_it_again(
    post_office: PostOffice, channel: Channel
) -> None:
    async def ask(id: str) -> None:
        request = post_office.request(id, topic="receipts")
        data = {"url": "https://shop.example/x", "traits": {"phone": "+4740000001", "push_token": "device"}}
        await post_office.record(msgspec.structs.replace(request, channel=channel, data=data, v=VERSION))

    await post_office.activate()
    post_office.postbox.open.clear()
    await post_office.open(channel=channel, heartbeat_seconds=0.05)
    await ask("m1")
    await post_office.settled(m1="sending")
    async with post_office.database.connect() as connection:
        await connection.execute("UPDATE mailer.messages SET status = 'unknown', reason = 'interrupted'")
        await connection.execute("UPDATE processing.partitions SET epoch = epoch + 1, version = version + 1")
    await ask("m2")
    await post_office.settled(m2="sending")
    post_office.postbox.open.set()
    await post_office.settled(m2="sent")
    assert post_office.sending is not None
    desks = post_office.sending._desks.values()

    async def nothing_in_hand() -> bool:
        return not any(desk.in_hand for desk in desks)

    await until(nothing_in_hand)
    assert (await post_office.messages())["m1"].status == "unknown"
    assert await post_office.told("m1") == []
    assert not any(desk.earlier for desk in desks)


async def all_sent(post_office: PostOffice, count: int) -> bool:
    try:
        messages = await post_office.messages()
    except Exception as error:
        if not is_transient(error):
            raise
        return False
    return len(messages) == count and {message.status for message in messages.values()} == {"sent"}


async def transactions(post_office: PostOffice) -> int:
    """How many have been committed, counted once for each partition in them."""
    async with post_office.database.connect() as connection:
        found: int = await connection.fetchval(
            "SELECT sum(version)::integer FROM processing.partitions WHERE service = 'mailer'"
        )
    return found


async def cut_every_connection(database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    await connection.close()


class Doubtful(Database):
    """Where the answer to a COMMIT of messages is lost now and then: `failures` say whether it stands."""

    def __init__(self, database: Database, failures: list[bool]) -> None:
        self._database, self._failures = database, failures

    @contextlib.asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        async with self._database.connect() as connection:
            yield cast(Connection, DoubtfulConnection(connection, self._failures))


class DoubtfulConnection:
    def __init__(self, connection: Connection, failures: list[bool]) -> None:
        self.__dict__.update(_connection=connection, _failures=failures)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._connection, name, value)

    async def execute(self, query: str, *arguments: object) -> Any:
        if query == "COMMIT" and self._failures and await self._connection.fetchval(_WRITTEN):
            await self._connection.execute("COMMIT" if self._failures.pop(0) else "ROLLBACK")
            raise ConnectionResetError("the answer to COMMIT was lost")
        return await self._connection.execute(query, *arguments)


_WRITTEN = "SELECT count(*) > 0 FROM mailer.messages WHERE xmin = pg_current_xact_id()::xid"


@pytest.mark.parametrize("failures", [[True], [False], [True, True], [False, True, False, True], [True, False, True]])
async def test_an_unknown_commit_is_looked_up_and_no_mail_goes_twice(
    post_office: PostOffice, failures: list[bool]
) -> None:
    await post_office.activate()
    left = list(failures)
    await post_office.ask("m1")
    await post_office.ask("m2", customer="berit")
    await post_office.open(database=Doubtful(post_office.database, left))
    await post_office.settled(m1="sent", m2="sent")
    await post_office.read_up()
    assert sorted(post_office.postbox.ids) == ["m1", "m2"]
    assert sorted(name for name, _ in await post_office.events()) == ["Email Sent", "Email Sent"]
    assert not left


async def test_two_workers_share_the_partitions_and_send_each_mail_once(post_office: PostOffice) -> None:
    await post_office.activate()
    first = await post_office.open()
    for number in range(100):
        await post_office.ask(f"m{number}", customer=f"c{number}")
    await post_office.open(postbox=post_office.postbox)

    async def shared() -> bool:
        return len(first.owned) == PARTITIONS // 2

    await until(shared)
    for number in range(100, 200):
        await post_office.ask(f"m{number}", customer=f"c{number}")
    await until(lambda: all_sent(post_office, 200))
    assert sorted(post_office.postbox.ids) == sorted(f"m{number}" for number in range(200))


# Many at once.


async def test_requests_of_all_partitions_are_taken_in_the_transaction_that_brings_them(
    post_office: PostOffice,
) -> None:
    await post_office.activate()
    postbox = Postbox()
    postbox.open.clear()
    worker = await post_office.open(postbox=postbox, partitions_in_flight=1)
    await post_office.read_up()
    customers = {partition_of(f"c{number}", PARTITIONS): f"c{number}" for number in range(20)}

    async def nothing_asked_for() -> bool:
        # The first look at what a predecessor left is over: no partition would go by itself for it.
        sendings = cast(MailerProcessor, worker._frame.processor)._sending
        desks = [desk for sending in sendings for desk in sending._desks.values()]
        asking = any(desk.due or desk.doubtful or desk.deciding for desk in desks)
        return len(desks) == PARTITIONS * len(sendings) and not asking

    async def all_wait() -> bool:
        return len(worker._frame.together._waiting) == PARTITIONS

    async def all_in_hand() -> bool:
        return postbox.in_hand == PARTITIONS

    await until(nothing_asked_for)
    async with worker._frame.in_flight:
        for partition, customer in customers.items():
            await post_office.ask(f"m{partition}", customer=customer)
        await until(all_wait)
    await until(all_in_hand)
    assert await written_in(post_office) == 1
    postbox.open.set()
    await until(lambda: all_sent(post_office, PARTITIONS))


async def written_in(post_office: PostOffice) -> int:
    """How many transactions have written what stands of the messages, and of those who are to get them."""
    async with post_office.database.connect() as connection:
        found: int = await connection.fetchval(
            "SELECT count(DISTINCT writer) FROM (SELECT xmin::text AS writer FROM mailer.messages"
            " UNION ALL SELECT xmin::text FROM mailer.customers) AS written"
        )
    return found


async def test_a_backlog_goes_out_in_few_transactions_over_all_connections(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.record(*(post_office.request(f"m{number}", customer=f"c{number}") for number in range(600)))
    await use_every_connection(post_office, 50)
    await until(lambda: all_sent(post_office, 600))
    assert post_office.postbox.most_in_hand == 50
    assert sorted(post_office.postbox.ids) == sorted(f"m{number}" for number in range(600))
    assert await transactions(post_office) < 600  # with two for each mail it would be 1,200


async def use_every_connection(post_office: PostOffice, connections: int) -> None:
    """Open, and hold every answer back until so many mails wait for theirs."""
    postbox = Postbox(connections)
    postbox.open.clear()
    await post_office.open(postbox=postbox)

    async def all_in_use() -> bool:
        return postbox.in_hand == connections

    await until(all_in_use)
    postbox.open.set()


class OneByOne(Postbox):
    """A transport that answers when it is told to, once for each time."""

    def __init__(self) -> None:
        super().__init__(connections=1)
        self.answers_left = asyncio.Semaphore(0)

    async def deliver(self, mail: Mail, data_by: float) -> Receipt:
        self.mails.append(mail)
        await self.answers_left.acquire()
        return Accepted("250 ok")


async def test_a_mail_or_two_do_not_wait_for_the_end_of_the_backlog_of_another_partition(
    post_office: PostOffice,
) -> None:
    await post_office.activate()
    postbox = OneByOne()
    await post_office.open(postbox=postbox)
    await post_office.read_up()
    await post_office.record(*(post_office.request(f"a{number}", topic="receipts") for number in range(30)))
    await post_office.settled(a0="sending")
    await post_office.ask("b0", customer="berit", topic="receipts")
    await post_office.settled(b0="requested")
    for _ in range(31):
        postbox.answers_left.release()
    await until(lambda: all_sent(post_office, 31))
    assert postbox.ids.index("b0") < 10


async def test_partitions_that_have_a_backlog_take_turns_where_there_are_fewer_connections(
    post_office: PostOffice,
) -> None:
    await post_office.activate()
    requests = [post_office.request(f"m{number}", customer=f"c{number}", topic="receipts") for number in range(80)]
    await post_office.record(*requests)
    await post_office.open(postbox=Postbox(connections=0))  # it takes what is asked for, and hands nothing over

    async def all_taken() -> bool:
        return len(await post_office.messages()) == len(requests)

    await until(all_taken)
    await post_office.close()
    tray = Tray()
    office = post_office.sending._office._replace(slots=Slots(1), carriers=tray, desk=tray.desks.__getitem__)
    lanes = [Present(Quiet(partition), b"p1", Quiet(partition)) for partition in range(PARTITIONS)]
    for _ in range(40):
        sitting = Sitting(office)
        async with post_office.database.transaction() as connection:
            await execute(connection, await sitting.work(connection, lanes))
        sitting.committed()
    rounds = [tray.served[begin : begin + PARTITIONS] for begin in range(0, len(tray.served), PARTITIONS)]
    assert len(tray.served) == 40
    assert all(sorted(one) == list(range(PARTITIONS)) for one in rounds)


class Tray:
    """Desks of lanes that are all there, and carriers that have an answer to each mail at once."""

    def __init__(self) -> None:
        self.desks = {partition: Desk(attended=True) for partition in range(PARTITIONS)}
        self.served: list[int] = []

    def add(self, desk: Desk, begun: Sequence[tuple[store.InHand, Mail]]) -> None:
        for hand, mail in begun:
            self.served.append(partition_of(mail.request.customer, PARTITIONS))
            desk.done[hand.taken] = hand, Accepted("250 ok")


@dataclass
class Quiet:
    """A lane, and outputs that nobody reads."""

    partition: int
    leaving: asyncio.Event = field(default_factory=asyncio.Event)
    as_of = NOON

    def emit(self, *output: object) -> None: ...

    def emit_here(self, *output: object) -> None: ...

    def emit_everywhere(self, *output: object) -> None: ...

    def set_timer(self, *timer: object) -> None: ...


async def test_a_backlog_that_must_wait_for_the_morning_is_held_in_few_transactions(post_office: PostOffice) -> None:
    post_office.clock.advance(timedelta(hours=10))
    await post_office.activate()
    await post_office.record(*(post_office.request(f"m{number}", customer=f"c{number}") for number in range(600)))
    await post_office.open(postbox=Postbox(connections=2))
    await post_office.read_up()
    assert {message.reason for message in (await post_office.messages()).values()} == {"quiet_hours"}
    assert await transactions(post_office) < 100


async def test_connections_are_never_asked_for_more_than_they_are(post_office: PostOffice) -> None:
    await post_office.activate()
    await post_office.record(*(post_office.request(f"m{number}", customer=f"c{number}") for number in range(100)))
    await use_every_connection(post_office, 3)
    await until(lambda: all_sent(post_office, 100))
    assert post_office.postbox.most_in_hand == 3
