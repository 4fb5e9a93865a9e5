"""how many customers of a partition have spent about how much"""

from alembic import op

revision = "segmenter_0004"
down_revision = "segmenter_0003"


def upgrade() -> None:
    # Counts change with every order, and find room beside themselves.
    op.execute("""
        CREATE TABLE segmenter.spend (
            partition smallint NOT NULL,
            bucket integer NOT NULL,
            customers bigint NOT NULL,
            PRIMARY KEY (partition, bucket)
        ) WITH (fillfactor = 50)""")
