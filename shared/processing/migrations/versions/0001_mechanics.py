"""partitions, workers, timers, outbox, dead letters, playbooks"""

from alembic import op

revision = "processing_0001"
down_revision = None

def upgrade() -> None:
    op.execute("CREATE TABLE processing.x (a int)")
