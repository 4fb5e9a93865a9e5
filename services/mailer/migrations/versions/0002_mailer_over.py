"""what is over, to be forgotten"""

from alembic import op

revision = "mailer_0002"
down_revision = "mailer_0001"


def upgrade() -> None:
    # Messages that are over, in the order in which they may be forgotten (`store.forget`).
    op.execute("""
        CREATE INDEX messages_went_out ON mailer.messages (partition, ended_at) WHERE status IN ('sent', 'unknown')""")
    op.execute("""
        CREATE INDEX messages_stayed ON mailer.messages (partition, ended_at) WHERE status IN ('skipped', 'failed')""")
