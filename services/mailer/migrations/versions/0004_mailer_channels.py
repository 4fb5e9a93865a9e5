"""channels"""

from alembic import op

revision = "mailer_0004"
down_revision = "mailer_0003"


def upgrade() -> None:
    op.execute("ALTER TABLE mailer.messages ADD COLUMN channel text NOT NULL DEFAULT 'email'")
    # Each channel looks for its own: mails do not wait behind calls that nobody answers.
    op.execute("DROP INDEX mailer.messages_to_decide")
    op.execute("DROP INDEX mailer.messages_in_hand")
    op.execute("""
        CREATE INDEX messages_to_decide ON mailer.messages (partition, due, priority DESC, id)
         WHERE status = 'requested' AND channel = 'email'""")
    op.execute("""
        CREATE INDEX messages_in_hand ON mailer.messages (partition) WHERE status = 'sending' AND channel = 'email'""")
    op.execute("""
        CREATE INDEX webhooks_to_decide ON mailer.messages (partition, due, priority DESC, id)
         WHERE status = 'requested' AND channel = 'webhook'""")
    op.execute("""
        CREATE INDEX webhooks_in_hand ON mailer.messages (partition)
         WHERE status = 'sending' AND channel = 'webhook'""")
