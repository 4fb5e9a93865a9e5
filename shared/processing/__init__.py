"""Reading, ownership, fencing, de-duplication, timers, dead letters and publishing: once, for every service."""

from pathlib import Path

from shared.database.revisions import Migrations

MIGRATIONS = Migrations("processing", Path(__file__).parent / "migrations")
