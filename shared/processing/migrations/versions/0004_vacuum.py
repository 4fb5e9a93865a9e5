"""timers are vacuumed less often"""

from alembic import op

revision = "processing_0004"
down_revision = "processing_0003"


def upgrade() -> None:
    # The indexes of millions of timers are read through each time. What is gone before them costs a look but once: who
    # takes what is due begins where the last one ended.
    op.execute("ALTER TABLE processing.timers SET (autovacuum_vacuum_scale_factor = 0.1)")
