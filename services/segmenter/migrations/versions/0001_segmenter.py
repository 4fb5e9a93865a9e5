"""profiles, seen events, history, counters, definitions, sweeps"""

from alembic import op

revision = "segmenter_0001"
down_revision = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE segmenter.profiles (
            partition smallint NOT NULL,
            key text NOT NULL,
            stage text NOT NULL,
            state bytea NOT NULL,
            PRIMARY KEY (partition, key)
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.05, autovacuum_analyze_scale_factor = 0.05)""")
    # Packed state is read and written whole; compressing what is small costs more than it saves.
    op.execute("ALTER TABLE segmenter.profiles ALTER COLUMN state SET STORAGE EXTERNAL")
    op.execute("CREATE INDEX profiles_stage ON segmenter.profiles (stage)")

    # Which events were taken in the last day or so: `id` and `content` are hashes (fingerprints.py). Days are dropped
    # whole; what lies outside of every day that was made lands in the default partition.
    op.execute("""
        CREATE TABLE segmenter.seen (
            seen_at timestamptz NOT NULL,
            content bigint NOT NULL,
            partition smallint NOT NULL,
            id bytea NOT NULL
        ) PARTITION BY RANGE (seen_at)""")
    op.execute("CREATE INDEX seen_id ON segmenter.seen (id)")
    op.execute("CREATE TABLE segmenter.seen_default PARTITION OF segmenter.seen DEFAULT")

    op.execute("""
        CREATE TABLE segmenter.history (
            occurred_at timestamptz NOT NULL,
            partition smallint NOT NULL,
            kind smallint NOT NULL,
            customer text NOT NULL,
            id text NOT NULL,
            source text NOT NULL,
            name text NOT NULL,
            body bytea NOT NULL,
            changes bytea
        ) PARTITION BY RANGE (occurred_at)""")
    op.execute("CREATE INDEX history_customer ON segmenter.history (partition, customer, occurred_at)")
    op.execute("CREATE TABLE segmenter.history_default PARTITION OF segmenter.history DEFAULT")

    # Exact, since they are written in the same transactions. `as_of` tells how far behind the slowest partition is.
    op.execute("""
        CREATE TABLE segmenter.counters (
            partition smallint PRIMARY KEY,
            processed bigint NOT NULL,
            deduplicated bigint NOT NULL,
            as_of timestamptz NOT NULL
        ) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)""")

    op.execute("""
        CREATE TABLE segmenter.definitions (
            hash bytea PRIMARY KEY,
            body bytea NOT NULL
        )""")

    # How far each partition's profiles have been brought up to the definition in force.
    op.execute("""
        CREATE TABLE segmenter.sweeps (
            partition smallint PRIMARY KEY,
            definition bytea NOT NULL,
            since timestamptz NOT NULL,
            after_key text NOT NULL DEFAULT '',
            swept bigint NOT NULL DEFAULT 0,
            finished boolean NOT NULL DEFAULT false
        )""")
