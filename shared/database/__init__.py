"""The way to PostgreSQL: connections, migrations, and a server of our own for the embedded default."""
