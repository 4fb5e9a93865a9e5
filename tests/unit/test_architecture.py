"""Imports point one way, and hearts do no I/O and read no clock."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("ingest", "segmenter", "journeys", "mailer")
LEAVES = {
    "services.__main__",
    "services.embedded",
    "services.backtest",
    "services.checking",
    "services.serving",
    "services.demo",
    "services.operating",
    "services.preview",
    "services.publishing",
    "services.rehearsal",
    "services.terminal",
    "services.trials",
    "services.why",
}
SHELLS = {"main", "settings", "api", "worker", "store"}

# Modules that touch the world on purpose, beside the shells that every service has.
WORLDLY = {
    "services.ingest.batching",  # flushes after some milliseconds
    "services.ingest.sources",  # watches the file of keys
    "services.mailer.sending",  # hands over
    "services.mailer.slots",
    "services.mailer.carriers",
    "services.mailer.receivers",
    "services.mailer.desk",
    "services.mailer.doors",  # what links do
    "services.mailer.smtp",
    "services.mailer.webhooks",
    "services.mailer.smtp_session",
    "services.mailer.inbox",
    "services.mailer.pages",
    "services.segmenter.spans",
    "services.journeys.neighbours",  # asks segmenter and mailer
}

FORBIDDEN_IN_HEARTS = {
    "asyncio",
    "asyncpg",
    "random",
    "socket",
    "sqlalchemy",
    "httpx",
    "aiokafka",
    "os",
    "time",
    "threading",
}
CLOCKS = {("datetime", "now"), ("datetime", "utcnow"), ("date", "today"), ("uuid", "uuid4"), ("time", "time")}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for top in ("services", "shared"):
        for path in sorted((ROOT / top).rglob("*.py")):
            if "migrations" in path.parts:
                continue
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            yield name, ast.parse(path.read_text(), str(path))


MODULES = dict(modules())


def imports(tree: ast.Module) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def within(name: str, package: str) -> bool:
    return name == package or name.startswith(package + ".")


@pytest.mark.parametrize("name", [name for name in MODULES if within(name, "shared")])
def test_shared_never_imports_services(name: str) -> None:
    assert not {one for one in imports(MODULES[name]) if within(one, "services")}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_never_imports_another(service: str) -> None:
    others = [f"services.{other}" for other in SERVICES if other != service]
    for name, tree in MODULES.items():
        if within(name, f"services.{service}"):
            crossing = {one for one in imports(tree) for other in others if within(one, other)}
            assert not crossing, f"{name} imports {crossing}"


def test_only_the_command_imports_what_puts_services_together() -> None:
    for name, tree in MODULES.items():
        if any(within(name, leaf) for leaf in LEAVES):
            continue
        reached = {one for one in imports(tree) for leaf in LEAVES if within(one, leaf)}
        assert not reached, f"{name} imports {reached}"


def test_contracts_and_language_stand_alone() -> None:
    for name, tree in MODULES.items():
        if within(name, "shared.contracts") or within(name, "shared.language"):
            beyond = {
                one
                for one in imports(tree)
                for package in ("shared.log", "shared.processing", "shared.database")
                if within(one, package)
            }
            assert not beyond, f"{name} imports {beyond}"


def hearts() -> list[str]:
    found = []
    for name in MODULES:
        parts = name.split(".")
        of_a_service = parts[0] == "services" and len(parts) == 3 and parts[1] in SERVICES
        if of_a_service and parts[2] not in SHELLS and name not in WORLDLY:
            found.append(name)
        # Hearts alone, put together.
        if within(name, "services.rehearsal"):
            found.append(name)
    return found


@pytest.mark.parametrize("name", hearts())
def test_hearts_do_no_io_and_read_no_clock(name: str) -> None:
    tree = MODULES[name]
    touched = {one.split(".")[0] for one in imports(tree)} & FORBIDDEN_IN_HEARTS
    assert not touched, f"{name} imports {touched}"
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
        ):
            assert (node.func.value.id, node.func.attr) not in CLOCKS, f"{name}:{node.lineno} reads a clock"


def test_sql_stands_in_stores_and_in_the_mechanics() -> None:
    for name, tree in MODULES.items():
        if name.endswith((".store", "_store")) or within(name, "shared.processing") or within(name, "shared.log"):
            continue
        if within(name, "shared.database"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                text = node.value.lstrip().upper()
                statement = text.startswith(("SELECT ", "INSERT INTO ", "UPDATE ", "DELETE FROM ", "WITH "))
                assert not (statement and (" FROM " in text or " SET " in text or " VALUES" in text)), (
                    f"{name}:{node.lineno} holds SQL"
                )


def test_the_ledger_of_chaos_knows_nothing_of_what_it_judges() -> None:
    parts = {f"tests.chaos.{part}" for part in ("ledger", "tables", "verdict", "lives", "calls", "visits")}
    for part in parts:
        tree = ast.parse((ROOT / f"{part.replace('.', '/')}.py").read_text())
        found = {name for name in imports(tree) - {"tests.chaos"} if not {name, name.rpartition(".")[0]} & parts}
        assert {one.split(".")[0] for one in found} <= {*sys.stdlib_module_names, "asyncpg", "msgspec"}
