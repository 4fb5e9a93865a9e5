"""The stream port and its adapters: Kafka for many machines, PostgreSQL for one."""
