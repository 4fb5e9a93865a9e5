"""each time that a playbook came into force"""

from alembic import op

revision = "processing_0003"
down_revision = "processing_0002"


def upgrade() -> None:
    # The last row is what is in force. `by` says who or what applied it, `summary` how it differs from the one before.
    op.execute("""
        CREATE TABLE processing.activations (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            playbook text NOT NULL REFERENCES processing.playbooks (hash),
            at timestamptz NOT NULL,
            by text NOT NULL,
            summary text NOT NULL,
            paused text[] NOT NULL DEFAULT '{}'
        )""")
    op.execute("""
        INSERT INTO processing.activations (playbook, at, by, summary)
        SELECT hash, activated_at, '', '' FROM processing.playbooks
         WHERE activated_at IS NOT NULL ORDER BY activated_at""")
    op.execute("ALTER TABLE processing.playbooks DROP COLUMN activated_at")
