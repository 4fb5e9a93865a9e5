"""text messages and push notifications"""

from alembic import op

revision = "mailer_0005"
down_revision = "mailer_0004"


def upgrade() -> None:
    for channel in ("sms", "push"):
        op.execute(f"""
            CREATE INDEX {channel}_to_decide ON mailer.messages (partition, due, priority DESC, id)
             WHERE status = 'requested' AND channel = '{channel}'""")
        op.execute(f"""
            CREATE INDEX {channel}_in_hand ON mailer.messages (partition)
             WHERE status = 'sending' AND channel = '{channel}'""")
