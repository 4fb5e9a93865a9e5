"""profiles are vacuumed less often"""

from alembic import op

revision = "segmenter_0003"
down_revision = "segmenter_0002"


def upgrade() -> None:
    # Nearly every change stays on its page, which is tidied up as it is read. To go through all of a million profiles
    # after fifty thousand changes was a tenth of all processor time under full load.
    op.execute("""
        ALTER TABLE segmenter.profiles
          SET (autovacuum_vacuum_scale_factor = 0.3, autovacuum_analyze_scale_factor = 0.3)""")
