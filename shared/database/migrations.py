"""Alembic migrations: one PostgreSQL schema and one version table for each service and for the mechanics."""

from __future__ import annotations

from collections.abc import Sequence

from alembic.config import Config
from alembic.runtime.environment import EnvironmentContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from shared.database.engine import Database
from shared.database.revisions import Migrations

_LOCK = 0x7261_7070  # one migration at a time, whoever starts it


async def migrate(database: Database, all_migrations: Sequence[Migrations]) -> list[str]:
    """Bring every schema to its newest revision; returns what was done, a line each. Any process may run it."""
    async with database.engine.begin() as connection:
        await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        done: list[str] = []
        for migrations in all_migrations:
            done += await connection.run_sync(_upgrade, migrations)
    # Plans that connections cached before are stale now.
    await database.close()
    return done


async def behind(database: Database, all_migrations: Sequence[Migrations]) -> list[str]:
    """The schemas that are not at their newest revision."""
    async with database.engine.connect() as connection:
        return [
            migrations.schema
            for migrations in all_migrations
            if await connection.run_sync(_current, migrations) != _script(migrations).get_current_head()
        ]


def _script(migrations: Migrations) -> ScriptDirectory:
    config = Config()
    config.set_main_option("script_location", str(migrations.folder))
    config.set_main_option("path_separator", "os")
    return ScriptDirectory.from_config(config)


def _current(connection: Connection, migrations: Migrations) -> str | None:
    found = connection.execute(
        text("SELECT to_regclass(:name)"), {"name": f"{migrations.schema}.alembic_version"}
    ).scalar()
    if found is None:
        return None
    return connection.execute(text(f"SELECT version_num FROM {migrations.schema}.alembic_version")).scalar()


def _upgrade(connection: Connection, migrations: Migrations) -> list[str]:
    connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {migrations.schema}"))
    script = _script(migrations)
    done: list[str] = []

    def upgrade(revision: object, context: object) -> list[object]:
        steps = script._upgrade_revs("head", revision)  # type: ignore[arg-type]
        done.extend(f"{migrations.schema}: {step.doc}" for step in steps)
        return list(steps)

    with EnvironmentContext(
        script.env_config if hasattr(script, "env_config") else Config(), script, fn=upgrade
    ) as env:
        env.configure(connection=connection, version_table_schema=migrations.schema, version_table="alembic_version")
        env.run_migrations()
    return done
