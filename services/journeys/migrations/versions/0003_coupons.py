"""coupons"""

from alembic import op

revision = "journeys_0003"
down_revision = "journeys_0002"


def upgrade() -> None:
    # One row for each code that a partition has claimed; issued to whom, once it is. `number` is the order of issue.
    # Rows stay, so that no code is ever issued twice.
    op.execute("""
        CREATE TABLE journeys.coupons (
            pool text NOT NULL,
            code text NOT NULL,
            number bigint NOT NULL GENERATED ALWAYS AS IDENTITY,
            partition smallint NOT NULL,
            issued_at timestamptz,
            expires_at timestamptz,
            customer text,
            journey text,
            enrollment uuid,
            step text,
            PRIMARY KEY (pool, code)
        ) WITH (fillfactor = 80)""")
    op.execute("CREATE INDEX coupons_to_issue ON journeys.coupons (partition, number) WHERE issued_at IS NULL")
    op.execute("CREATE INDEX coupons_issued ON journeys.coupons (pool, issued_at, code) WHERE issued_at IS NOT NULL")
    # One code for each enrollment and step, whatever happens.
    op.execute("CREATE UNIQUE INDEX coupons_once ON journeys.coupons (enrollment, step) WHERE enrollment IS NOT NULL")
    # How many codes of a pool have been claimed. Its row is locked by who claims some.
    op.execute("CREATE TABLE journeys.coupon_pools (pool text PRIMARY KEY, claimed bigint NOT NULL DEFAULT 0)")
