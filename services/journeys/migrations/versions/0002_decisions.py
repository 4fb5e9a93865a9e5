"""decisions"""

from alembic import op

revision = "journeys_0002"
down_revision = "journeys_0001"


def upgrade() -> None:
    # What was decided about a customer: a row for each batch that decided something, in the order of `number`.
    # `body` is MessagePack (`decisions.Decision`). Never changed, and forgotten from the oldest on.
    op.execute("""
        CREATE TABLE journeys.decisions (
            number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
            partition smallint NOT NULL,
            customer text NOT NULL,
            at timestamptz NOT NULL,
            body bytea NOT NULL
        )""")
    op.execute("CREATE INDEX decisions_of_customer ON journeys.decisions (partition, customer, number)")
    op.execute("CREATE INDEX decisions_by_time ON journeys.decisions (partition, at)")
