"""installation, partitions, workers, timers, outbox, dead letters, playbooks"""

from alembic import op

revision = "processing_0001"
down_revision = None


def upgrade() -> None:
    # One row: which installation this is, its generation (raised when a database is restored), and its clock's anchor.
    op.execute("""
        CREATE TABLE processing.installation (
            single boolean PRIMARY KEY DEFAULT true CHECK (single),
            id uuid NOT NULL,
            generation integer NOT NULL DEFAULT 1,
            partitions integer NOT NULL,
            secret bytea NOT NULL,
            clock_speed double precision NOT NULL DEFAULT 1,
            clock_real timestamptz NOT NULL,
            clock_shown timestamptz NOT NULL
        )""")
    op.execute("""
        CREATE TABLE processing.workers (
            service text NOT NULL,
            id uuid NOT NULL,
            heartbeat timestamptz NOT NULL,
            host text NOT NULL,
            PRIMARY KEY (service, id)
        )""")
    op.execute("""
        CREATE TABLE processing.partitions (
            service text NOT NULL,
            partition smallint NOT NULL,
            epoch bigint NOT NULL DEFAULT 0,
            version bigint NOT NULL DEFAULT 0,
            owner uuid,
            next_offset bigint NOT NULL DEFAULT 0,
            as_of timestamptz,
            in_seqs bytea NOT NULL DEFAULT '',
            out_seqs bytea NOT NULL DEFAULT '',
            memo bytea NOT NULL DEFAULT '',
            attempts integer NOT NULL DEFAULT 0,
            PRIMARY KEY (service, partition)
        ) WITH (fillfactor = 40, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)""")
    # Collated as Python compares, so that timers of one instant fire in one order, however many were read at once.
    op.execute("""
        CREATE TABLE processing.timers (
            service text NOT NULL,
            partition smallint NOT NULL,
            kind text COLLATE "C" NOT NULL,
            subject text COLLATE "C" NOT NULL,
            due timestamptz NOT NULL,
            PRIMARY KEY (service, partition, kind, subject)
        ) WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)""")
    op.execute("CREATE INDEX timers_due ON processing.timers (service, partition, due, kind, subject)")
    op.execute("""
        CREATE TABLE processing.outbox (
            service text NOT NULL,
            partition smallint NOT NULL,
            stream text NOT NULL,
            destination smallint NOT NULL,
            first_seq bigint NOT NULL,
            entries bytea NOT NULL,
            PRIMARY KEY (service, partition, stream, destination, first_seq)
        ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 2000)""")
    op.execute("""
        CREATE TABLE processing.dead_letters (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            service text NOT NULL,
            partition smallint NOT NULL,
            stream text NOT NULL,
            record_offset bigint,
            key text NOT NULL,
            body bytea NOT NULL,
            trace text,
            code text NOT NULL,
            message text NOT NULL,
            retryable boolean NOT NULL,
            retry_asked boolean NOT NULL DEFAULT false,
            filed_at timestamptz NOT NULL DEFAULT now()
        )""")
    op.execute("CREATE INDEX dead_letters_retry ON processing.dead_letters (service, partition) WHERE retry_asked")
    op.execute("""
        CREATE TABLE processing.playbooks (
            hash text PRIMARY KEY,
            files bytea NOT NULL,
            stored_at timestamptz NOT NULL,
            activated_at timestamptz
        )""")
