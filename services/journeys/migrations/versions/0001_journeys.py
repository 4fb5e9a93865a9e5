"""customers, enrollments, tallies"""

from alembic import op

revision = "journeys_0001"
down_revision = None


def upgrade() -> None:
    # One row for each customer who is in a journey or is remembered by one. `story` is MessagePack (enrollments, last
    # entries), `snapshot` JSON: the customer as last seen. It is empty where nothing is open, and no record can concern
    # an enrollment.
    op.execute("""
        CREATE TABLE journeys.customers (
            partition smallint NOT NULL,
            customer text NOT NULL,
            story bytea NOT NULL,
            snapshot bytea NOT NULL,
            PRIMARY KEY (partition, customer)
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)""")
    # What is in the stories, for questions, and what has left them. `key` is '' where the journey has none.
    op.execute("""
        CREATE TABLE journeys.enrollments (
            partition smallint NOT NULL,
            id uuid NOT NULL,
            customer text NOT NULL,
            journey text NOT NULL,
            version text NOT NULL,
            key text NOT NULL,
            status text NOT NULL
                CHECK (status IN ('waiting', 'listening', 'sending', 'parked', 'held_out', 'watching', 'ended')),
            step text NOT NULL,
            due timestamptz,
            entered_at timestamptz NOT NULL,
            ended_at timestamptz,
            reason text NOT NULL,
            goal_at timestamptz,
            parked boolean NOT NULL GENERATED ALWAYS AS (status = 'parked') STORED,
            PRIMARY KEY (partition, id)
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)""")
    op.execute("CREATE INDEX enrollments_of_customer ON journeys.enrollments (partition, customer)")
    # On a column of its own: an index that named the status would be written at each of its changes.
    op.execute("CREATE INDEX enrollments_parked ON journeys.enrollments (partition, customer) WHERE parked")
    op.execute(
        "CREATE INDEX enrollments_ended ON journeys.enrollments (partition, ended_at) WHERE ended_at IS NOT NULL"
    )
    # How many enrollments there are of each kind, exactly: written with the enrollments, so that nobody counts them.
    # `playbook` is '' where the enrollment has ended and its version is not needed any more.
    op.execute("""
        CREATE TABLE journeys.tallies (
            partition smallint NOT NULL,
            journey text NOT NULL,
            version text NOT NULL,
            playbook text NOT NULL,
            status text NOT NULL,
            reason text NOT NULL,
            goal boolean NOT NULL,
            count bigint NOT NULL,
            PRIMARY KEY (partition, journey, version, playbook, status, reason, goal)
        ) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000)""")
