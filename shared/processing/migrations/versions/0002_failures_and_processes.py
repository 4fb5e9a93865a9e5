"""failures in a row of each partition, and which process each worker is"""

from alembic import op

revision = "processing_0002"
down_revision = "processing_0001"


def upgrade() -> None:
    # Kept over restarts: a bad release that is started again and again must not set aside more each time.
    op.execute("ALTER TABLE processing.partitions ADD COLUMN failures integer NOT NULL DEFAULT 0")
    op.execute("ALTER TABLE processing.workers ADD COLUMN process text NOT NULL DEFAULT ''")
