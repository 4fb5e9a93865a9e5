"""how far each backfill of a journey has come"""

from alembic import op

revision = "segmenter_0002"
down_revision = "segmenter_0001"


def upgrade() -> None:
    op.execute("""
        CREATE TABLE segmenter.backfills (
            partition smallint NOT NULL,
            journey text NOT NULL,
            occasion text NOT NULL,
            after_key text NOT NULL,
            looked_at bigint NOT NULL,
            invited bigint NOT NULL,
            paced_since timestamptz,
            before bigint NOT NULL,
            finished boolean NOT NULL,
            PRIMARY KEY (partition, journey, occasion)
        )""")
