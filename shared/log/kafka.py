"""The streams in Kafka: the topic `rapport.<stream>` for each, with the installation's number of partitions.

Consumer groups and Kafka's transactions are not used: partitions are owned by leases in PostgreSQL, where offsets are
kept too. The producer is idempotent and is replaced after every failure, since a batch that expires without a leader
burns its sequence numbers for good (aiokafka issue 1017); every call has a deadline, since `send` and `stop` may hang
while brokers are away (issue 1101).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic, time
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, OffsetOutOfRangeError, for_code
from aiokafka.helpers import create_ssl_context

from shared.contracts.streams import STREAMS
from shared.errors import RapportError, Unavailable
from shared.log.port import LARGEST_RECORD, Entry, Fetched, OffsetOutOfRange, Origin, Record, RecordTooLarge
from shared.settings import Settings

APPEND_DEADLINE = 10.0
CONNECT_DEADLINE = 5.0
STOP_DEADLINE = 2.0
REQUEST_DEADLINE = 4.0
"""Seconds that one request to a broker may take; less than an append may, so that it can be tried again."""
SILENT = 2.0
"""Seconds without an answer after which the log counts as unavailable."""
GIVEN_UP = 10.0
"""Seconds without an answer after which a consumer is replaced."""

# Bytes before compression. One record of the largest size fits a batch, with its headers.
BATCH_BYTES = LARGEST_RECORD + 64 * 1024
TOPIC_BATCH_BYTES = 2 * BATCH_BYTES
FETCH_BYTES_PER_PARTITION = 4 << 20
FETCH_BYTES = 32 << 20
# A broker gets one fetch at a time from us, and holds it so long where there is nothing. A partition whose records were
# handed out meanwhile waits for the next one, so this bounds how late its following records come.
FETCH_HOLD = 0.05

RETENTION_DAYS = 14

_ORIGIN = "origin"
_TRACE = "traceparent"

_log = structlog.get_logger()


@dataclass(eq=False)
class _Call:
    entries: Sequence[Entry]
    done: asyncio.Future[None]
    taken: int = 0
    """How many of the entries have been put into batches."""


@dataclass
class _Line:
    """The appends to one partition: one batch is in flight, the calls that arrive meanwhile share the next."""

    topic: str
    partition: int
    calls: deque[_Call] = field(default_factory=deque)
    task: asyncio.Task[None] | None = None


@dataclass
class _Producing:
    """A producer, how many batches it has in hand, and whether it takes more."""

    producer: Any
    batches: int = 0
    retired: bool = False


class KafkaLog:
    """The stream port over a Kafka cluster.

    `prefix` begins the name of every topic, so that a cluster may hold several installations. `append_deadline` is how
    long an append may take, in seconds, before its outcome counts as unknown. `security` are aiokafka's options for it
    (`security_of`).
    """

    def __init__(
        self,
        bootstrap: str,
        partitions: int,
        *,
        prefix: str = "rapport.",
        append_deadline: float = APPEND_DEADLINE,
        security: Mapping[str, Any] | None = None,
    ) -> None:
        self._append_deadline = append_deadline
        self._options: dict[str, Any] = {
            "bootstrap_servers": bootstrap,
            "client_id": "rapport",
            "request_timeout_ms": int(REQUEST_DEADLINE * 1000),
            **(security or {}),
        }
        self._bootstrap = bootstrap
        self._partitions = partitions
        self._prefix = prefix
        self._lines: dict[tuple[str, int], _Line] = {}
        self._producing: _Producing | None = None
        self._renewing = asyncio.Lock()
        self._disposals: set[asyncio.Task[None]] = set()
        self._readers: set[KafkaReader] = set()

    @property
    def partitions(self) -> int:
        return self._partitions

    def topic(self, stream: str) -> str:
        return self._prefix + stream

    async def start(self) -> None:
        """Connects. Raises RapportError where the topics are missing or have another number of partitions."""
        async with self._admin() as admin:
            found = await self._partition_counts(admin)
        for stream in STREAMS:
            count = found.get(self.topic(stream))
            if count is None:
                raise RapportError(f"log: Kafka has no topic {self.topic(stream)}. Run `rapport migrate`.")
            if count != self._partitions:
                raise self._miscounted(stream, count)
        await self._current_producer()

    async def close(self) -> None:
        for reader in list(self._readers):
            await reader.close()
        tasks = [line.task for line in self._lines.values() if line.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        if self._producing is not None:
            self._retire(self._producing)
        if self._disposals:
            await asyncio.wait(self._disposals)

    async def ready(self) -> str | None:
        try:
            async with asyncio.timeout(3), self._admin() as admin:
                found = await self._partition_counts(admin)
        except (Unavailable, TimeoutError) as error:
            return f"log: Kafka at {self._bootstrap} does not answer: {error}"
        missing = [self.topic(stream) for stream in STREAMS if self.topic(stream) not in found]
        return f"log: Kafka has no topic {', '.join(missing)}. Run `rapport migrate`." if missing else None

    async def ensure_streams(self, replication: int = 1) -> list[str]:
        """Make the topics that are missing; returns their names. For the one who installs, not for each start."""
        settings = {
            "cleanup.policy": "delete",
            "max.message.bytes": str(TOPIC_BATCH_BYTES),
            "min.insync.replicas": str(2 if replication > 2 else 1),
            "unclean.leader.election.enable": "false",
        }
        kept = {"retention.ms": str(RETENTION_DAYS * 86_400_000)}
        for_ever = {"retention.ms": "-1"}
        wanted = [
            NewTopic(self.topic(stream), self._partitions, replication, topic_configs={**settings, **kept})
            for stream in STREAMS
        ]
        wanted.append(NewTopic(self._installation_topic, 1, replication, topic_configs={**settings, **for_ever}))
        async with self._admin() as admin:
            found = await self._partition_counts(admin)
            for stream in STREAMS:
                if (count := found.get(self.topic(stream), self._partitions)) != self._partitions:
                    raise self._miscounted(stream, count)
            missing = [topic for topic in wanted if topic.name not in found]
            if missing:
                names = {topic.name for topic in missing}
                answer = await admin.create_topics(missing, timeout_ms=int(REQUEST_DEADLINE * 1000))
                for name, code, *message in answer.topic_errors:
                    error = for_code(code)
                    if code and error.__name__ != "TopicAlreadyExistsError":
                        raise RapportError(f"log: Kafka does not make the topic {name}: {error.__name__} {message}")
                while not names <= (await self._partition_counts(admin)).keys():  # noqa: ASYNC110  only Kafka knows when
                    await asyncio.sleep(0.05)
        return [topic.name for topic in missing]

    def _miscounted(self, stream: str, count: int) -> RapportError:
        return RapportError(
            f"log: the topic {self.topic(stream)} has {count} partitions, and the settings say {self._partitions}. "
            f"The count is fixed at installation: set RAPPORT_PARTITIONS={count}."
        )

    async def _partition_counts(self, admin: Any) -> dict[str, int]:
        return {topic["topic"]: len(topic["partitions"]) for topic in await admin.describe_topics()}

    @contextlib.asynccontextmanager
    async def _admin(self) -> AsyncIterator[Any]:
        """A connection for one administrative errand; any trouble with it is Unavailable."""
        admin = AIOKafkaAdminClient(**self._options)
        try:
            async with asyncio.timeout(CONNECT_DEADLINE * 2):
                await admin.start()
                yield admin
        except (KafkaError, TimeoutError, OSError) as error:
            raise _unavailable(f"Kafka at {self._bootstrap}", error) from error
        finally:
            with contextlib.suppress(KafkaError, TimeoutError, OSError):
                async with asyncio.timeout(CONNECT_DEADLINE):
                    await admin.close()

    # The installation

    @property
    def _installation_topic(self) -> str:
        return self._prefix + "installation"

    async def installation(self) -> str | None:
        """The id of the installation that these topics belong to: the first record that was ever written about it."""
        place = TopicPartition(self._installation_topic, 0)
        async with self._asking() as consumer:
            consumer.assign([place])
            if not (await consumer.end_offsets([place]))[place]:
                return None
            consumer.seek(place, 0)
            found = await consumer.getmany(place, timeout_ms=int(REQUEST_DEADLINE * 1000), max_records=1)
        if not found:
            raise Unavailable(f"log: Kafka at {self._bootstrap} did not give {self._installation_topic} in time.")
        id: str = found[place][0].value.decode()
        return id

    async def set_installation(self, id: str) -> None:
        """Mark these topics as `id`'s, once and for all. Raises RapportError where they are another's."""
        if await self.installation() is None:
            await self._append(self._installation_topic, 0, [Entry("id", id.encode())])
        found = await self.installation()
        if found != id:
            raise RapportError(
                f"log: these topics belong to the installation {found}, not to {id}. Point DATABASE_URL and "
                f"KAFKA_BOOTSTRAP_SERVERS at servers of one installation."
            )

    # Appending

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        if stream not in STREAMS or not 0 <= partition < self._partitions:
            raise RapportError(f"log: there is no {stream}[{partition}] among {self._partitions} partitions.")
        for entry in entries:
            size = len(entry.key.encode()) + len(entry.value)
            if size > LARGEST_RECORD:
                raise RecordTooLarge(
                    f"{stream}[{partition}]: a record of {size:,} bytes is too large; the log takes {LARGEST_RECORD:,}."
                )
        await self._append(self.topic(stream), partition, entries)

    async def _append(self, topic: str, partition: int, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        line = self._lines.get((topic, partition))
        if line is None:
            line = self._lines[topic, partition] = _Line(topic, partition)
        call = _Call(entries, asyncio.get_running_loop().create_future())
        line.calls.append(call)
        if line.task is None or line.task.done():
            line.task = asyncio.create_task(self._send_calls(line), name=f"log-append-{topic}-{partition}")
        await call.done

    async def _send_calls(self, line: _Line) -> None:
        while line.calls:
            try:
                async with asyncio.timeout(self._append_deadline):
                    sent = await self._send_batch(line, await self._current_producer())
            except Exception as error:
                # Those that wait would most likely fail in their turn, each after a deadline of its own.
                alone = isinstance(error, MessageSizeTooLargeError)
                failed = [call for call in line.calls if call.taken or not alone]
                for call in failed:
                    line.calls.remove(call)
                    if not call.done.done():
                        call.done.set_exception(_append_error(line, error, call))
            else:
                for call in sent:
                    if call.taken == len(call.entries):
                        line.calls.remove(call)
                        if not call.done.done():
                            call.done.set_result(None)

    async def _send_batch(self, line: _Line, producing: _Producing) -> list[_Call]:
        """Send what fits one batch, from the oldest call on; returns the calls that have entries in it."""
        producing.batches += 1
        try:
            batch = producing.producer.create_batch()
            sent: list[_Call] = []
            for call in line.calls:
                sent.append(call)
                while call.taken < len(call.entries):
                    entry = call.entries[call.taken]
                    room = batch.append(
                        timestamp=None, key=entry.key.encode(), value=entry.value, headers=_headers(entry)
                    )
                    if room is None:
                        break
                    call.taken += 1
                else:
                    continue
                break
            batch.close()
            await (await producing.producer.send_batch(batch, line.topic, partition=line.partition))
            return sent
        except BaseException:
            self._retire(producing)
            raise
        finally:
            producing.batches -= 1
            if producing.retired and not producing.batches:
                self._dispose_of(_stop_producer(producing.producer))

    async def _current_producer(self) -> _Producing:
        async with self._renewing:
            if self._producing is None:
                producer = AIOKafkaProducer(
                    **self._options,
                    acks="all",
                    enable_idempotence=True,
                    compression_type="lz4",
                    max_batch_size=BATCH_BYTES,
                    max_request_size=TOPIC_BATCH_BYTES,
                    retry_backoff_ms=50,
                )
                producing = _Producing(producer)
                try:
                    async with asyncio.timeout(CONNECT_DEADLINE):
                        await producer.start()
                except BaseException as error:
                    self._retire(producing)
                    if isinstance(error, (KafkaError, TimeoutError, OSError)):
                        raise _unavailable(f"Kafka at {self._bootstrap}", error) from error
                    raise
                self._producing = producing
            return self._producing

    def _retire(self, producing: _Producing) -> None:
        """Give it no more batches, and close it when those it has are done with."""
        if self._producing is producing:
            self._producing = None
        if not producing.retired:
            producing.retired = True
            if not producing.batches:
                self._dispose_of(_stop_producer(producing.producer))

    def _dispose_of(self, ending: Coroutine[Any, Any, None]) -> None:
        """End a client beside the work."""
        task = asyncio.create_task(ending, name="log-client-stop")
        self._disposals.add(task)
        task.add_done_callback(self._disposals.discard)

    # Reading

    def reader(self, stream: str) -> KafkaReader:
        reader = KafkaReader(self, stream)
        self._readers.add(reader)
        return reader

    async def ends(self, stream: str) -> dict[int, int]:
        places = [TopicPartition(self.topic(stream), partition) for partition in range(self._partitions)]
        async with self._asking() as consumer:
            found = await consumer.end_offsets(places)
        return {place.partition: found[place] for place in places}

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        """The offset of the first record that is kept, and the one after the last."""
        place = TopicPartition(self.topic(stream), partition)
        async with self._asking() as consumer:
            earliest, end = await consumer.beginning_offsets([place]), await consumer.end_offsets([place])
        return earliest[place], end[place]

    @contextlib.asynccontextmanager
    async def _asking(self) -> AsyncIterator[Any]:
        """A consumer for one question."""
        consumer = self.consumer()
        try:
            async with asyncio.timeout(CONNECT_DEADLINE * 2):
                await consumer.start()
                yield consumer
        except (KafkaError, TimeoutError, OSError) as error:
            raise _unavailable(f"Kafka at {self._bootstrap}", error) from error
        finally:
            self._dispose_of(_stop_consumer(consumer))

    def consumer(self) -> Any:
        return AIOKafkaConsumer(
            **self._options,
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            fetch_max_wait_ms=int(FETCH_HOLD * 1000),
            max_partition_fetch_bytes=FETCH_BYTES_PER_PARTITION,
            fetch_max_bytes=FETCH_BYTES,
            retry_backoff_ms=100,
        )


def kafka_log(settings: Settings) -> KafkaLog:
    """The log that the settings name. Raises RapportError where a file for TLS cannot be used."""
    assert settings.kafka_bootstrap_servers is not None
    return KafkaLog(
        settings.kafka_bootstrap_servers,
        settings.partitions,
        prefix=settings.kafka_topic_prefix,
        security=security_of(settings),
    )


def security_of(settings: Settings) -> dict[str, Any]:
    """aiokafka's options for TLS and for logging in."""
    protocol = settings.kafka_security_protocol
    options: dict[str, Any] = {"security_protocol": protocol}
    if protocol.endswith("SSL"):
        try:
            options["ssl_context"] = create_ssl_context(
                cafile=settings.kafka_ssl_cafile,
                certfile=settings.kafka_ssl_certfile,
                keyfile=settings.kafka_ssl_keyfile,
            )
        except OSError as error:  # ssl.SSLError is one
            raise RapportError(
                f"log: the files for TLS with Kafka cannot be used: {error}. Look at RAPPORT_KAFKA_SSL_CAFILE, "
                f"_CERTFILE and _KEYFILE."
            ) from None
    if protocol.startswith("SASL"):
        options["sasl_mechanism"] = settings.kafka_sasl_mechanism
        options["sasl_plain_username"] = settings.kafka_sasl_username
        options["sasl_plain_password"] = settings.kafka_sasl_password
    return options


class _Lane:
    """The reading position in one partition, and when the log was last seen to have answered for it."""

    def __init__(self, offset: int) -> None:
        self.position = offset
        self.answered = monotonic()
        self.polled: int | None = None

    def look(self, polled: int | None) -> None:
        """`polled` is the consumer's wall time of the last answer (milliseconds)."""
        if polled is not None and polled != self.polled:
            self.polled, self.answered = polled, monotonic()

    def answered_since(self, began: float) -> bool:
        """Both by the wall clock, which knows when the answer came, and by one that is never set, as `began` is."""
        if self.polled is None or self.answered < began:
            return False
        return 0 <= time() * 1000 - self.polled <= (monotonic() - began) * 1000


class KafkaReader:
    """Reads partitions of one stream with one consumer. Get it from `KafkaLog.reader`."""

    def __init__(self, log: KafkaLog, stream: str) -> None:
        self._of = log
        self._stream = stream
        self._lanes: dict[int, _Lane] = {}
        self._consumer: Any = None
        self._starting = asyncio.Lock()

    def assign(self, offsets: Mapping[int, int]) -> None:
        lanes = {partition: self._lanes.get(partition) or _Lane(offset) for partition, offset in offsets.items()}
        if lanes.keys() != self._lanes.keys():
            self._lanes = lanes
            if self._consumer is not None:
                self._point(self._consumer)

    def seek(self, partition: int, offset: int) -> None:
        self._lane(partition).position = offset
        if self._consumer is not None:
            self._consumer.seek(self._place(partition), offset)

    async def close(self) -> None:
        self._lanes = {}
        self._of._readers.discard(self)
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await _stop_consumer(consumer)

    async def fetch(self, partition: int, limit: int, wait: float) -> Fetched:
        lane = self._lane(partition)
        place = self._place(partition)
        began = monotonic()
        deadline = began + wait
        while True:
            consumer = await self._started()
            if self._lanes.get(partition) is not lane:
                return Fetched((), lane.position, False)  # let go of meanwhile
            left = max(0.0, deadline - monotonic())
            # From here to the new position nothing is awaited but the records, so no assignment can come between.
            try:
                found = await consumer.getmany(place, timeout_ms=int(left * 1000), max_records=limit)
            except OffsetOutOfRangeError:
                raise await self._out_of_range(partition, lane) from None
            except (KafkaError, OSError) as error:
                self._drop(consumer)
                raise _unavailable(f"{self._stream}[{partition}]", error) from error
            if self._lanes.get(partition) is not lane:
                return Fetched((), lane.position, False)
            if consumer is not self._consumer:
                continue  # it was replaced meanwhile; the new one begins at our position
            records = [_record(message) for message in found.get(place, ())]
            # Asked of the consumer, since a log may have gaps. It has an answer at once and awaits nothing.
            lane.position = await consumer.position(place)
            lane.look(consumer.last_poll_timestamp(place))
            drained = lane.answered_since(began) and consumer.highwater(place) == lane.position
            if not records and not drained:
                silence = monotonic() - lane.answered
                if silence > GIVEN_UP:
                    self._drop(consumer)
                if silence > SILENT:
                    raise Unavailable(f"log: {self._stream}[{partition}] has not answered for {silence:.1f} s.")
            return Fetched(records, lane.position, drained)

    async def _started(self) -> Any:
        """The consumer, made and pointed to our partitions where there is none."""
        async with self._starting:
            if self._consumer is None:
                consumer = self._of.consumer()
                try:
                    async with asyncio.timeout(CONNECT_DEADLINE):
                        await consumer.start()
                except BaseException as error:
                    self._of._dispose_of(_stop_consumer(consumer))
                    if isinstance(error, (KafkaError, TimeoutError, OSError)):
                        raise _unavailable(f"the stream {self._stream}", error) from error
                    raise
                self._consumer = consumer
                self._point(consumer)
            return self._consumer

    def _point(self, consumer: Any) -> None:
        """Assign and seek in one tick, so that no fetch begins anywhere else."""
        consumer.assign([self._place(partition) for partition in self._lanes])
        for partition, lane in self._lanes.items():
            consumer.seek(self._place(partition), lane.position)
            lane.answered, lane.polled = monotonic(), None

    def _drop(self, consumer: Any) -> None:
        """Have the next fetch make another consumer."""
        if self._consumer is consumer:
            self._consumer = None
            self._of._dispose_of(_stop_consumer(consumer))

    async def _out_of_range(self, partition: int, lane: _Lane) -> Exception:
        asked = lane.position
        earliest, end = await self._of.range_of(self._stream, partition)
        if earliest <= asked <= end:
            return Unavailable(f"log: {self._stream}[{partition}] was just restored; offset {asked} is there now.")
        return OffsetOutOfRange(self._stream, partition, asked, earliest, end)

    def _place(self, partition: int) -> Any:
        return TopicPartition(self._of.topic(self._stream), partition)

    def _lane(self, partition: int) -> _Lane:
        try:
            return self._lanes[partition]
        except KeyError:
            raise RapportError(f"log: {self._stream}[{partition}] is not assigned to this reader.") from None


def _headers(entry: Entry) -> list[tuple[str, bytes]]:
    headers: list[tuple[str, bytes]] = []
    if entry.origin is not None:
        service, partition, generation, seq = entry.origin
        headers.append((_ORIGIN, f"{service}:{partition}:{generation}:{seq}".encode()))
    if entry.trace is not None:
        headers.append((_TRACE, entry.trace.encode()))
    return headers


def _record(message: Any) -> Record:
    origin: Origin | None = None
    trace: str | None = None
    try:
        key = (message.key or b"").decode()
        for name, value in message.headers:
            if name == _ORIGIN:
                service, partition, generation, seq = value.decode().rsplit(":", 3)
                origin = Origin(service, int(partition), int(generation), int(seq))
            elif name == _TRACE:
                trace = value.decode()
    except ValueError as error:
        # Anybody who may write to the topic may have written this; it must not stand in the way of what follows.
        broken = f"its key or a header is none of Rapport's: {error}. Find out what else writes to {message.topic}."
        key = (message.key or b"").decode(errors="replace")
        return Record(message.offset, key, message.value or b"", broken=broken)
    return Record(message.offset, key, message.value or b"", origin, trace)


def _append_error(line: _Line, error: Exception, call: _Call) -> RapportError:
    place = f"{line.topic}[{line.partition}]"
    if isinstance(error, MessageSizeTooLargeError) and len(call.entries) == 1:
        return RecordTooLarge(f"{place}: Kafka refuses a record as too large. Raise the topic's max.message.bytes.")
    return _unavailable(f"{place}: an append failed, or its outcome is unknown", error)


def _unavailable(what: str, error: BaseException) -> Unavailable:
    if isinstance(error, Unavailable):
        return error
    # aiokafka's errors begin with their own names.
    text = str(error) if isinstance(error, KafkaError) else f"{type(error).__name__} {error}"
    return Unavailable(f"log: {what}: {text.strip()}")


async def _stop_producer(producer: Any) -> None:
    """End a producer in time. Whatever it still holds was reported as failed, and is given up."""
    # Its own `stop` would first wait for what it holds, which it cannot deliver while its brokers are away.
    if producer._sender.sender_task is not None:
        await _in_time(producer._sender.close())
    producer._message_accumulator._batches.clear()
    producer._message_accumulator._pending_batches.clear()
    await _in_time(producer.stop())
    await _in_time(producer.client.close())


async def _stop_consumer(consumer: Any) -> None:
    """End a consumer in time. It may raise the CancelledError of its own tasks, which is none of ours."""
    await _in_time(consumer.stop())
    await _in_time(consumer._client.close())


async def _in_time(ending: Coroutine[Any, Any, None]) -> None:
    """Await `ending` in a task of its own, for so long; what goes wrong with it is only worth a line in the log."""
    task = asyncio.create_task(ending)
    await asyncio.wait([task], timeout=STOP_DEADLINE)
    if not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=STOP_DEADLINE)
    if task.done() and not task.cancelled() and (error := task.exception()) is not None:
        _log.info("a client of Kafka did not stop in time", error=f"{type(error).__name__}: {error}")
