"""pauses of promotion"""

from alembic import op

revision = "mailer_0003"
down_revision = "mailer_0002"


def upgrade() -> None:
    op.execute("ALTER TABLE mailer.customers ADD COLUMN paused_until timestamptz")
