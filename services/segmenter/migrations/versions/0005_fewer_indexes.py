"""what was seen is found by partition and id; profiles are not indexed by stage"""

from alembic import op

revision = "segmenter_0005"
down_revision = "segmenter_0004"


def upgrade() -> None:
    # A batch's ids lie close together among those of its partition: fewer pages are looked at, and changed.
    op.execute("CREATE INDEX seen_partition_id ON segmenter.seen (partition, id)")
    op.execute("DROP INDEX segmenter.seen_id")
    # Only the demo counts customers by stage, of whom it has few. A profile that changes its stage stays on its page
    # without this, and nothing is written into any index.
    op.execute("DROP INDEX segmenter.profiles_stage")
