"""what orders are worth to journeys"""

from alembic import op

revision = "journeys_0004"
down_revision = "journeys_0003"


def upgrade() -> None:
    op.execute("ALTER TABLE journeys.enrollments ADD COLUMN attributed numeric, ADD COLUMN currency text")
    # Exactly, and for ever, where enrollments are forgotten: written with them.
    op.execute("""
        CREATE TABLE journeys.attributed (
            partition smallint NOT NULL,
            journey text NOT NULL,
            currency text NOT NULL,
            orders bigint NOT NULL,
            value numeric NOT NULL,
            PRIMARY KEY (partition, journey, currency)
        )""")
