"""messages, customers, addresses, consent, inbox"""

from alembic import op

revision = "mailer_0001"
down_revision = None


def upgrade() -> None:
    # One row for each message that was asked for, from the request to its outcome and after it.
    # `due` is the instant that the next decision (or, once ended, the last one) stands for; `taken` names the one
    # hand-over that a row in `sending` belongs to; `counted_at` is when it counted under the caps, where it does.
    op.execute("""
        CREATE TABLE mailer.messages (
            id text PRIMARY KEY,
            partition smallint NOT NULL,
            customer text NOT NULL,
            address text,
            journey text NOT NULL,
            message text NOT NULL,
            topic text NOT NULL,
            priority smallint NOT NULL,
            status text NOT NULL
                CHECK (status IN ('requested', 'held', 'sending', 'sent', 'skipped', 'failed', 'unknown')),
            due timestamptz NOT NULL,
            expires timestamptz NOT NULL,
            reason text NOT NULL DEFAULT '',
            detail text NOT NULL DEFAULT '',
            held text[] NOT NULL DEFAULT '{}',
            attempts smallint NOT NULL DEFAULT 0,
            cancelled text NOT NULL DEFAULT '',
            taken text NOT NULL DEFAULT '',
            counted_at timestamptz,
            requested_at timestamptz NOT NULL,
            ended_at timestamptz,
            links text[] NOT NULL DEFAULT '{}',
            request bytea NOT NULL
        ) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 5000)""")
    op.execute("""
        CREATE INDEX messages_to_decide ON mailer.messages (partition, due, priority DESC, id)
         WHERE status = 'requested'""")
    op.execute("CREATE INDEX messages_in_hand ON mailer.messages (partition) WHERE status = 'sending'")
    # What another playbook may release, and no clock before the message expires.
    op.execute("""
        CREATE INDEX messages_held_by_playbook ON mailer.messages (partition)
         WHERE status = 'held' AND reason IN ('no_playbook', 'paused')""")
    op.execute("""
        CREATE INDEX messages_counted ON mailer.messages (customer, counted_at) WHERE counted_at IS NOT NULL""")
    op.execute("CREATE INDEX messages_of_customer ON mailer.messages (customer, requested_at)")
    op.execute("CREATE INDEX messages_by_time ON mailer.messages (requested_at, id)")
    # A customer's address of the moment, and the decisions that follow to the next one (MessagePack).
    op.execute("""
        CREATE TABLE mailer.customers (
            partition smallint NOT NULL,
            customer text NOT NULL,
            address text,
            decisions bytea NOT NULL DEFAULT '',
            PRIMARY KEY (partition, customer)
        ) WITH (fillfactor = 80)""")
    # Addresses in the form of `consent.normalise`. Whoever decides about an address, or on the strength of what was
    # decided, locks its row first.
    op.execute("""
        CREATE TABLE mailer.addresses (
            address text PRIMARY KEY,
            suppressed text NOT NULL DEFAULT '',
            suppressed_at timestamptz
        ) WITH (fillfactor = 80)""")
    op.execute("""
        CREATE TABLE mailer.consent (
            address text NOT NULL,
            topic text NOT NULL,
            subscribed boolean NOT NULL,
            decided_at timestamptz NOT NULL,
            source text NOT NULL,
            PRIMARY KEY (address, topic)
        ) WITH (fillfactor = 80)""")
    # The mails that the transport `inbox://` has accepted, a row for each time that it did.
    op.execute("""
        CREATE TABLE mailer.inbox (
            number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            message text NOT NULL,
            recipient text NOT NULL,
            subject text NOT NULL,
            accepted_at timestamptz NOT NULL,
            data bytea NOT NULL
        )""")
    op.execute("CREATE INDEX inbox_message ON mailer.inbox (message)")
