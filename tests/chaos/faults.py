"""The faults: each has a name, does its harm to a world, and takes it back where a person or a machine would.

What happens at named points of the workers' own code is armed by the world when it starts them (`World.arming`).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import asyncpg
import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete

from deploy.dev.cluster import SERVICES, Worker
from shared.contracts.streams import EVENTS
from shared.database.engine import Database
from shared.errors import RapportError, Unavailable
from shared.log.kafka import KafkaLog
from shared.log.port import Record
from shared.log.postgres import PostgresLog
from tests.chaos import receiver
from tests.chaos.between import Between
from tests.chaos.mails import RUDENESS
from tests.chaos.visits import CLOCKS_APART
from tests.chaos.world import ENDED_WITHIN, EXPIRY_SECONDS, PARTITIONS, WORKERS, World, start_broker
from tests.patience import answered
from tests.simulation.replay import Gone

Inject = Callable[[World, random.Random], Coroutine[Any, Any, int]]
"""Returns how many faults it has been; 0 where there was nothing to hurt."""


class Fault(NamedTuple):
    name: str
    weight: int
    inject: Inject
    on_kafka_only: bool = False
    server: str = ""
    """What it has to itself: one such fault at a time."""
    hinders: bool = False
    """Meanwhile, and for a while, not everybody may reach the log."""


FAULTS: list[Fault] = []
EVERY_SERVER = "every server"
_FREE_SECONDS = 30.0
_UNREAD_SECONDS = 20.0


def fault(
    name: str, weight: int, *, on_kafka_only: bool = False, server: str = "", hinders: bool = False
) -> Callable[[Inject], Inject]:
    def register(inject: Inject) -> Inject:
        hinders_others = hinders or server in ("database", "broker", EVERY_SERVER)
        FAULTS.append(Fault(name, weight, inject, on_kafka_only, server, hinders_others))
        return inject

    return register


def possible(world: World) -> list[Fault]:
    return [one for one in FAULTS if world.kafka or not one.on_kafka_only]


# The workers


@fault("SIGKILL", 24)
async def kill(world: World, dice: random.Random) -> int:
    workers = world.free_workers()
    if not workers:
        return 0
    world.tell(dice.choice(workers), "killed", signal.SIGKILL)
    return 1


@fault("SIGSTOP beyond the heartbeat, SIGCONT", 8)
async def stop_and_continue(world: World, dice: random.Random) -> int:
    return await _stopped_for(world, dice, EXPIRY_SECONDS + dice.uniform(0.5, 3))


@fault("SIGSTOP for a moment", 4)
async def stop_for_a_moment(world: World, dice: random.Random) -> int:
    return await _stopped_for(world, dice, dice.uniform(0.05, 1.5))


async def _stopped_for(world: World, dice: random.Random, seconds: float) -> int:
    workers = world.free_workers()
    if not workers:
        return 0
    worker = dice.choice(workers)
    with world.in_hands(worker):
        world.tell(worker, "stopped", signal.SIGSTOP)
        await asyncio.sleep(seconds)
        world.tell(worker, "continued", signal.SIGCONT)
    return 1


@fault("SIGTERM", 14)
async def ask_to_end(world: World, dice: random.Random) -> int:
    workers = world.free_workers()
    if not workers:
        return 0
    worker = dice.choice(workers)
    with world.in_hands(worker):
        await _asked_to_end(world, worker)
    if worker.alive:
        world.wrong.append(f"{worker.name} does not end: {worker.log_tail()}")
        world.tell(worker, "killed", signal.SIGKILL)
    return 1


@fault("a worker leaves, and comes back later", 3)
async def leave(world: World, dice: random.Random) -> int:
    workers = world.free_workers(*SERVICES[1:])
    if not workers:
        return 0
    worker = dice.choice(workers)
    with world.in_hands(worker):
        await _asked_to_end(world, worker)
        await asyncio.sleep(dice.uniform(1, 5))
    return 1


async def _asked_to_end(world: World, worker: Worker) -> None:
    world.tell(worker, "asked to end", signal.SIGTERM)
    try:
        await asyncio.wait_for(worker.ended(), ENDED_WITHIN)
    except TimeoutError:
        worker.send(signal.SIGUSR1)  # its log then says what it waits for
        await asyncio.sleep(1)


@fault("a worker joins, and leaves again", 3)
async def join(world: World, dice: random.Random) -> int:
    guests = [
        worker
        for service in SERVICES[1:]
        for worker in world.cluster.of(service)[WORKERS:]
        if worker.name not in world.lives and worker.name not in world.held
    ]
    if not guests:
        return 0
    worker = dice.choice(guests)
    with world.in_hands(worker):
        world.launch(worker)
        await asyncio.sleep(dice.uniform(2, 6))
        world.tell(worker, "asked to end", signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(worker.ended(), ENDED_WITHIN)
    return 1


@fault("the clock of one host steps", 4, server="clock")
async def step_clock(world: World, dice: random.Random) -> int:
    if world.clock is None:
        return 0
    world.set_clock(dice.uniform(-CLOCKS_APART, CLOCKS_APART))
    await asyncio.sleep(dice.uniform(3, 8))
    world.set_clock(0.0)
    return 1


# PostgreSQL


@fault("a connection cut at COMMIT", 10, hinders=True)
async def cut_at_commit(world: World, dice: random.Random) -> int:
    with world.on_servers("connections were cut at COMMIT"):
        return await _cut_some(world.before_postgres, dice)


async def _cut_some(between: Between, dice: random.Random) -> int:
    """Cut the next few connections, before or after what they say gets through; gives how many were cut."""
    count, begun = dice.randint(1, 4), between.cut
    if dice.random() < 0.5:
        between.cuts_before += count
    else:
        between.cuts_after += count
    await asyncio.sleep(dice.uniform(1, 2))
    between.cuts_before = between.cuts_after = 0
    return between.cut - begun


@fault("PostgreSQL ends some sessions", 5, hinders=True)
async def terminate_backends(world: World, dice: random.Random) -> int:
    with world.on_servers("sessions were ended"):
        try:
            connection = await world.connect()
        except (OSError, asyncpg.PostgresError):
            return 0
        try:
            rows = await connection.fetch("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'rapport-%'")
            pids = [row["pid"] for row in rows if dice.random() < 0.3]
            await connection.fetch("SELECT pg_terminate_backend(pid) FROM unnest($1::int[]) AS pid", pids)
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            return 0
        finally:
            connection.terminate()
    return 1 if pids else 0


@fault("PostgreSQL stopped at once, and started", 4, server="database")
async def stop_postgres(world: World, dice: random.Random) -> int:
    with world.on_servers("PostgreSQL was away"):
        await world.postgres.stop(immediate=True)
        await asyncio.sleep(dice.uniform(0.0, 3))
        await world.postgres.start()
    return 1


@fault("PostgreSQL is slow", 3, server="database")
async def slow_postgres(world: World, dice: random.Random) -> int:
    with world.on_servers("PostgreSQL was slow"):
        world.before_postgres.delay = dice.uniform(0.02, 0.2)
        await asyncio.sleep(dice.uniform(2, 6))
        world.before_postgres.delay = 0.0
    return 1


@fault("PostgreSQL is silent", 3, server="database")
async def silent_postgres(world: World, dice: random.Random) -> int:
    with world.on_servers("PostgreSQL was silent"):
        world.before_postgres.passing.clear()
        await asyncio.sleep(dice.uniform(1, 6))
        world.before_postgres.passing.set()
    return 1


@fault("PostgreSQL is silent to one worker", 5, hinders=True)
async def silent_to_one(world: World, dice: random.Random) -> int:
    workers = world.free_workers(*SERVICES[1:])
    if not workers:
        return 0
    worker = dice.choice(workers)
    assert worker.process is not None
    pid = worker.process.pid
    world.hurt(worker, "PostgreSQL was silent to it")
    world.before_postgres.silent_for.add(pid)
    await asyncio.sleep(EXPIRY_SECONDS + dice.uniform(0, 4))
    world.before_postgres.silent_for.discard(pid)
    return 1


@fault("PostgreSQL's disk is full", 2, server="database")
async def full_disk(world: World, dice: random.Random) -> int:
    if world.disk is None:
        return 0
    ballast = world.disk / "ballast"
    with world.on_servers("PostgreSQL's disk was full"):
        await asyncio.to_thread(_fill, ballast)
        await asyncio.sleep(dice.uniform(1, 3))
        ballast.unlink()
    return 1


def _fill(path: object) -> None:
    with open(str(path), "wb", buffering=0) as ballast, contextlib.suppress(OSError):
        while True:
            ballast.write(bytes(1 << 20))


# Kafka


@fault("the broker killed, and started", 2, on_kafka_only=True, server="broker")
async def kill_broker(world: World, dice: random.Random) -> int:
    assert world.broker is not None
    with world.on_servers("the broker was away"):
        await world.broker.kill()
        await asyncio.sleep(dice.uniform(0, 4))
        await start_broker(world.broker)
    return 1


@fault("the broker killed in the middle of an acknowledgement", 1, on_kafka_only=True, server="broker")
async def kill_broker_at_acknowledgement(world: World, dice: random.Random) -> int:
    assert world.broker is not None
    assert world.before_kafka is not None
    with world.on_servers("the broker was away"):
        begun = world.before_kafka.cut
        world.before_kafka.cuts_after = 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                while world.before_kafka.cut == begun:
                    await asyncio.sleep(0.001)
        await world.broker.kill()
        await asyncio.sleep(dice.uniform(0, 2))
        await start_broker(world.broker)
    return 1


@fault("a connection cut at an append", 10, on_kafka_only=True, hinders=True)
async def cut_at_append(world: World, dice: random.Random) -> int:
    assert world.before_kafka is not None
    return await _cut_some(world.before_kafka, dice)


@fault("the broker is slow", 3, on_kafka_only=True, server="broker")
async def slow_broker(world: World, dice: random.Random) -> int:
    assert world.before_kafka is not None
    world.before_kafka.delay = dice.uniform(0.02, 0.3)
    await asyncio.sleep(dice.uniform(2, 6))
    world.before_kafka.delay = 0.0
    return 1


@fault("the broker is silent", 3, on_kafka_only=True, server="broker")
async def silent_broker(world: World, dice: random.Random) -> int:
    assert world.before_kafka is not None
    world.before_kafka.passing.clear()
    await asyncio.sleep(dice.uniform(1, 6))
    world.before_kafka.passing.set()
    return 1


@fault("the broker stands still", 2, on_kafka_only=True, server="broker")
async def stop_broker(world: World, dice: random.Random) -> int:
    assert world.broker is not None
    world.broker.pause()
    await asyncio.sleep(dice.uniform(1, 6))
    world.broker.resume()
    return 1


# The mail server


@fault("the mail server", 6, server="mails")
async def rude_mails(world: World, dice: random.Random) -> int:
    begun = world.mails.was_rude.total()
    world.mails.rude = tuple(dice.sample(RUDENESS, dice.randint(1, 4)))
    await asyncio.sleep(dice.uniform(1, 5))
    world.mails.rude = ()
    return world.mails.was_rude.total() - begun


@fault("the receiver of calls", 4, server="calls")
async def rude_receiver(world: World, dice: random.Random) -> int:
    begun = world.receiver.was_rude.total()
    world.receiver.rude = tuple(dice.sample(receiver.RUDENESS, dice.randint(1, 4)))
    await asyncio.sleep(dice.uniform(1, 5))
    world.receiver.rude = ()
    return world.receiver.was_rude.total() - begun


# The log


@fault("records out of retention", 1, server=EVERY_SERVER)
async def out_of_retention(world: World, dice: random.Random) -> int:
    """What a shop posted is deleted before the segmenter has read it: the partition halts, says so, and goes on when an
    operator says from where. What was not deleted is all there."""

    guests = world.cluster.of("segmenter")[WORKERS:]

    async def all_free() -> bool:
        return len(world.free_workers("segmenter")) == WORKERS and not any(guest.alive for guest in guests)

    if not await world.comes_true(all_free, _FREE_SECONDS):
        return 0
    workers = world.free_workers("segmenter")
    with contextlib.ExitStack() as hands:
        # Nobody else comes and reads what is about to be deleted.
        for guest in guests:
            hands.enter_context(world.in_hands(guest))
        # Nobody reports outcomes meanwhile: what is deleted is a shop's alone.
        mailers = world.free_workers("mailer")
        for worker in (*mailers, *workers):
            hands.enter_context(world.in_hands(worker))
        for worker in mailers:
            world.tell(worker, "asked to end", signal.SIGTERM)
        for worker in mailers:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(worker.ended(), ENDED_WITHIN)
        await asyncio.sleep(1)
        for worker in workers:
            world.tell(worker, "killed", signal.SIGKILL)
        await asyncio.sleep(2)
        partition, deleted = await _deleted_somewhere(world, dice)
    if not deleted:
        return 0
    world.ledger.deleted |= deleted
    if not await world.comes_true(lambda: world.stands_still("segmenter", partition)):
        world.wrong.append(
            f"segmenter[{partition}] lost {deleted} from before it, and nobody says that it stands still"
        )
        return 1

    async def told() -> bool:
        # An operator whom a server does not answer tries again.
        try:
            await world.cluster.command("partitions", "seek", "segmenter", str(partition), "earliest")
        except RapportError:
            return False
        return True

    if not await world.comes_true(told) or not await world.comes_true(lambda: world.goes_on("segmenter")):
        world.wrong.append(f"segmenter[{partition}] was told to go on, and does not")
    return 1


async def _deleted_somewhere(world: World, dice: random.Random) -> tuple[int, set[str]]:
    """Delete from a partition of which the next unread record is a shop's. The shop goes on, so it is waited for."""
    found: tuple[int, set[str]] = 0, set()
    database = Database(world.postgres.url)
    log = KafkaLog(world.broker.bootstrap, PARTITIONS) if world.broker else PostgresLog(database, PARTITIONS)

    async def deleted() -> bool:
        nonlocal found
        for partition in dice.sample(range(PARTITIONS), PARTITIONS):
            offset = await connection.fetchval(
                "SELECT next_offset FROM processing.partitions WHERE service = 'segmenter' AND partition = $1",
                partition,
            )
            with contextlib.suppress(Unavailable):
                if ids := await _delete(world, log, connection, partition, offset):
                    found = partition, ids
                    return True
        return False

    connection = await world.connect()
    try:
        await answered(log.start, "the log")
        await world.comes_true(deleted, _UNREAD_SECONDS)
    finally:
        await log.close()
        await connection.close()
        await database.close()
    return found


async def _delete(
    world: World, log: KafkaLog | PostgresLog, connection: asyncpg.Connection, partition: int, offset: int
) -> set[str]:
    """Delete from there on what shops posted, up to the first record of another kind; returns the events' ids."""
    earliest, _ = await log.range_of(EVENTS, partition)
    reader = log.reader(EVENTS)
    try:
        reader.assign({partition: earliest})
        records: list[Record] = []
        drained = False
        while not drained:
            fetched = await reader.fetch(partition, 2000, 0.5)
            records += fetched.records
            drained = fetched.drained
    finally:
        await reader.close()
    ids: dict[int, str] = {}
    for record in records:
        if record.offset < offset:
            continue
        event = msgspec.json.decode(record.value)
        by_a_shop = event["kind"] == "event" and event["source"] == "shop"
        if record.origin is not None or not by_a_shop or event["id"] in world.ledger.reused:
            break
        ids[record.offset] = event["id"]
    if not ids:
        return set()
    before = max(ids) + 1
    if isinstance(log, KafkaLog):
        assert world.broker is not None
        topic, bootstrap = TopicPartition(log.topic(EVENTS), partition), world.broker.bootstrap
        await answered(lambda: _delete_records(bootstrap, topic, before), "the broker")
    else:
        async with connection.transaction():
            # A row holds several records, and goes as a whole.
            before = await connection.fetchval(
                "SELECT coalesce(max(last) + 1, 0) FROM log.rows WHERE stream = $1 AND partition = $2 AND last < $3",
                EVENTS,
                partition,
                before,
            )
            if before <= offset:
                return set()
            await connection.execute(
                "DELETE FROM log.rows WHERE stream = $1 AND partition = $2 AND last < $3", EVENTS, partition, before
            )
            await connection.execute(
                "UPDATE log.heads SET earliest = greatest(earliest, $3) WHERE stream = $1 AND partition = $2",
                EVENTS,
                partition,
                before,
            )
    gone = world.gone.get((EVENTS, partition), Gone((), 0))
    read = [record for record in records if gone.before <= record.offset < offset]
    world.gone[EVENTS, partition] = Gone([*gone.records, *read], before)
    return {id for at, id in ids.items() if at < before}


async def _delete_records(bootstrap: str, partition: TopicPartition, before: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    try:
        await admin.start()
        await admin.delete_records({partition: RecordsToDelete(before)})
    finally:
        await admin.close()
