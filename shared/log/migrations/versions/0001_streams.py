"""heads, packed rows, how far readers had come, the installation"""

from alembic import op

revision = "log_0001"
down_revision = None


def upgrade() -> None:
    # One row per partition of each stream. Who appends locks it last before COMMIT, so offsets become visible in order.
    op.execute("""
        CREATE TABLE log.heads (
            stream text NOT NULL,
            partition integer NOT NULL,
            earliest bigint NOT NULL DEFAULT 0,
            next bigint NOT NULL DEFAULT 0,
            PRIMARY KEY (stream, partition)
        ) WITH (fillfactor = 20, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0)
    """)
    # Keyed by the last offset of each row: the first row with `last >= x` holds x, or follows it.
    op.execute("""
        CREATE TABLE log.rows (
            stream text NOT NULL,
            partition integer NOT NULL,
            first bigint NOT NULL,
            last bigint NOT NULL,
            size integer NOT NULL,
            body bytea NOT NULL,
            PRIMARY KEY (stream, partition, last)
        ) WITH (toast_tuple_target = 8160, autovacuum_analyze_threshold = 500)
    """)
    # Packed already: PostgreSQL need not try.
    op.execute("ALTER TABLE log.rows ALTER COLUMN body SET STORAGE EXTERNAL")
    # How far every reader had come, and when that was noted: what retention counts from.
    op.execute("""
        CREATE TABLE log.passed (
            stream text NOT NULL,
            partition integer NOT NULL,
            noted_at timestamptz NOT NULL DEFAULT now(),
            before bigint NOT NULL,
            PRIMARY KEY (stream, partition, noted_at)
        )
    """)
    op.execute("""
        CREATE TABLE log.installation (
            one boolean PRIMARY KEY DEFAULT true CHECK (one),
            id text NOT NULL
        )
    """)
