"""tasks"""

from alembic import op

revision = "journeys_0005"
down_revision = "journeys_0004"


def upgrade() -> None:
    # Work for a person. The partition's owner opens one, in its batches; whoever has done it says so, once.
    op.execute("""
        CREATE TABLE journeys.tasks (
            id uuid PRIMARY KEY,
            partition smallint NOT NULL,
            customer text NOT NULL,
            journey text NOT NULL,
            enrollment uuid NOT NULL,
            key text NOT NULL,
            step text NOT NULL,
            title text NOT NULL,
            note text NOT NULL,
            opened_at timestamptz NOT NULL,
            due timestamptz,
            done_at timestamptz,
            done_by text NOT NULL DEFAULT '',
            said text NOT NULL DEFAULT ''
        )""")
    op.execute("CREATE INDEX tasks_open ON journeys.tasks (due, opened_at) WHERE done_at IS NULL")
    op.execute("CREATE INDEX tasks_done ON journeys.tasks (done_at) WHERE done_at IS NOT NULL")
    op.execute("CREATE INDEX tasks_of_customer ON journeys.tasks (customer)")
