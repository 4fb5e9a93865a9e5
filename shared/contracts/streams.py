"""The names of the streams, and which partition a customer's records go to."""

from zlib import crc32

EVENTS = "events"
CUSTOMERS = "customers"
MESSAGES = "messages"

STREAMS = (EVENTS, CUSTOMERS, MESSAGES)
READ_BY = {"segmenter": EVENTS, "journeys": CUSTOMERS, "mailer": MESSAGES}
DEFAULT_PARTITIONS = 12


def partition_of(customer_key: str, partitions: int) -> int:
    """The lane of a customer in every stream: librdkafka's default, CRC-32 of the key modulo the count."""
    return crc32(customer_key.encode()) % partitions
