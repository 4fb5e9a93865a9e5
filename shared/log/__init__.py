"""The stream port and its adapters: Kafka for many machines, PostgreSQL for one.

`port` is what is asked of a log. `postgres` provides it (`postgres_reader` reads, `postgres_retention` drops what is
old), and so does `kafka` (`kafka_appends`, `kafka_reader`, and the `kafka_clients` of both). `packing` makes rows of
entries.
"""
