"""A count for each customer with quixstreams, and a record of each new one; runs in an environment of its own.

State is in RocksDB with a changelog topic, and moves with the offsets and the outputs in one Kafka transaction
(`processing_guarantee="exactly-once"`), which writes with acks=all and idempotence: a crash changes no count.
https://quix.io/docs/quix-streams/configuration.html, .../advanced/stateful-processing.html
"""

import os

from quixstreams import Application, State

app = Application(
    broker_address=os.environ["RIVAL_BROKER"],
    consumer_group="rival-quix",
    auto_offset_reset="earliest",
    processing_guarantee="exactly-once",
    state_dir=os.environ["RIVAL_FOLDER"],
    producer_extra_config={"compression.type": "lz4", "linger.ms": 5},
    consumer_extra_config={"fetch.min.bytes": 1},
    commit_interval=1.0,
    loglevel="WARNING",
)


def count(event: dict, state: State) -> dict:
    seen = state.get("count", 0) + 1
    state.set("count", seen)
    return {"customer": event["key"], "event": event["id"], "count": seen}


events = app.dataframe(app.topic(os.environ["RIVAL_SOURCE"], value_deserializer="json", key_deserializer="str"))
events.apply(count, stateful=True).to_topic(
    app.topic(os.environ["RIVAL_TARGET"], value_serializer="json", key_serializer="str")
)
app.run()
