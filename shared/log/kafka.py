"""The streams in Kafka: the topic `rapport.<stream>` for each, with the installation's number of partitions.

Consumer groups and Kafka's transactions are not used: partitions are owned by leases in PostgreSQL, where offsets are
kept too.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import NewTopic
from aiokafka.errors import for_code
from aiokafka.helpers import create_ssl_context

from shared.contracts.streams import STREAMS
from shared.errors import RapportError, Unavailable
from shared.log.kafka_appends import Appends
from shared.log.kafka_clients import REQUEST_DEADLINE, TOPIC_BATCH_BYTES, Clients
from shared.log.kafka_reader import KafkaReader
from shared.log.port import Entry, check_append
from shared.settings import Settings

APPEND_DEADLINE = 10.0
RETENTION_DAYS = 14


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
        self._clients = Clients(bootstrap, security or {})
        self._appends = Appends(self._clients, append_deadline)
        self._partitions = partitions
        self._prefix = prefix
        self._readers: set[KafkaReader] = set()

    @property
    def partitions(self) -> int:
        return self._partitions

    def topic(self, stream: str) -> str:
        return self._prefix + stream

    async def start(self) -> None:
        """Connects. Raises RapportError where the topics are missing or have another number of partitions."""
        async with self._clients.admin() as admin:
            found = await self._partition_counts(admin)
        for stream in STREAMS:
            count = found.get(self.topic(stream))
            if count is None:
                raise RapportError(f"log: Kafka has no topic {self.topic(stream)}. Run `rapport migrate`.")
            if count != self._partitions:
                raise self._miscounted(stream, count)
        await self._appends.start()

    async def close(self) -> None:
        for reader in list(self._readers):
            await reader.close()
        await self._appends.close()
        await self._clients.close()

    async def ready(self) -> str | None:
        try:
            async with asyncio.timeout(3), self._clients.admin() as admin:
                found = await self._partition_counts(admin)
        except Unavailable as error:
            return str(error)
        except TimeoutError:
            return f"log: Kafka at {self._clients.bootstrap} does not answer."
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
        async with self._clients.admin() as admin:
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

    # The installation

    @property
    def _installation_topic(self) -> str:
        return self._prefix + "installation"

    async def installation(self) -> str | None:
        """The id of the installation that these topics belong to: the first record that was ever written about it."""
        place = TopicPartition(self._installation_topic, 0)
        async with self._clients.asking() as consumer:
            consumer.assign([place])
            if not (await consumer.end_offsets([place]))[place]:
                return None
            consumer.seek(place, 0)
            found = await consumer.getmany(place, timeout_ms=int(REQUEST_DEADLINE * 1000), max_records=1)
        if not found:
            raise Unavailable(
                f"log: Kafka at {self._clients.bootstrap} did not give {self._installation_topic} in time."
            )
        id: str = found[place][0].value.decode()
        return id

    async def set_installation(self, id: str) -> None:
        """Mark these topics as `id`'s, once and for all. Raises RapportError where they are another's."""
        if await self.installation() is None:
            await self._appends.append(self._installation_topic, 0, [Entry("id", id.encode())])
        found = await self.installation()
        if found != id:
            raise RapportError(
                f"log: these topics belong to the installation {found}, not to {id}. Point DATABASE_URL and "
                f"KAFKA_BOOTSTRAP_SERVERS at servers of one installation."
            )

    # Appending

    async def append(self, stream: str, partition: int, entries: Sequence[Entry]) -> None:
        check_append(stream, partition, self._partitions, entries)
        await self._appends.append(self.topic(stream), partition, entries)

    # Reading

    def reader(self, stream: str) -> KafkaReader:
        reader = KafkaReader(self._clients, stream, self.topic(stream), self._readers.discard)
        self._readers.add(reader)
        return reader

    async def ends(self, stream: str) -> dict[int, int]:
        places = [TopicPartition(self.topic(stream), partition) for partition in range(self._partitions)]
        async with self._clients.asking() as consumer:
            found = await consumer.end_offsets(places)
        return {place.partition: found[place] for place in places}

    async def range_of(self, stream: str, partition: int) -> tuple[int, int]:
        return await self._clients.range_of(self.topic(stream), partition)


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
