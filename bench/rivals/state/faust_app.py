"""A count for each customer with faust-streaming, and a record of each new one; has an environment of its own.

State is a table in RocksDB with a changelog topic; the producer writes with acks=all. Guaranteed is at least once:
after a crash some events may be counted twice, since its transactions are experimental.
https://faust-streaming.github.io/faust/userguide/tables.html, .../userguide/settings.html
"""

import os

import faust

app = faust.App(
    "rival-faust",
    broker=f"kafka://{os.environ['RIVAL_BROKER']}",
    store="rocksdb://",
    datadir=os.environ["RIVAL_FOLDER"],
    topic_partitions=int(os.environ["RIVAL_PARTITIONS"]),
    topic_replication_factor=1,
    consumer_auto_offset_reset="earliest",
    producer_acks=-1,
    web_enabled=False,
)
events = app.topic(os.environ["RIVAL_SOURCE"], key_type=str, value_serializer="json")
told = app.topic(os.environ["RIVAL_TARGET"], key_type=str, value_serializer="json")
counts = app.Table("counts", key_type=str, default=int)


@app.agent(events)
async def count(stream):
    async for key, event in stream.items():
        counts[key] += 1
        await told.send(key=key, value={"customer": key, "event": event["id"], "count": counts[key]})


if __name__ == "__main__":
    app.main()
