"""All services in one process (`rapport up`), asked directly."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from services import embedded
from services.embedded import Embedded, Options
from shared.language import SHIPPED, load, playbook_hash, read_folder
from shared.processing import playbooks


@pytest.fixture
def data() -> Iterator[Path]:
    """Where the account that PostgreSQL runs as under root may enter."""
    with tempfile.TemporaryDirectory(prefix="rapport-test-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name) / "data"


async def in_force(running: Embedded) -> str | None:
    async with running.database.connect() as connection:
        return await playbooks.in_force(connection)


async def test_a_start_that_names_no_playbook_leaves_the_one_in_force(data: Path) -> None:
    files = read_folder(SHIPPED)
    shipped, mine = playbook_hash(files), load({**files, "messages/birthday/subject.txt": b"Many happy returns\n"})
    async with embedded.running(Options(data, port=0)) as running:
        assert await in_force(running) == shipped
        async with running.database.connect() as connection:
            await playbooks.activate(running.runtime.log, connection, mine, running.clock.now())
    async with embedded.running(Options(data, port=0)) as running:
        assert await in_force(running) == mine.hash
        keys = running.write_key, running.read_key
    async with embedded.running(Options(data, playbook=SHIPPED, port=0)) as running:
        assert await in_force(running) == shipped
        assert (running.write_key, running.read_key) == keys


async def test_a_folder_that_disappears_is_told_and_taken_again_when_it_is_back(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, away = tmp_path / "playbook", tmp_path / "away"
    for name, content in read_folder(SHIPPED).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    async with embedded.running(Options(data, playbook=folder, port=0)) as running:
        before = await in_force(running)
        folder.rename(away)
        said = ""
        while "the last good one stays in force" not in said:
            await asyncio.sleep(0.01)
            said += capsys.readouterr().out + capsys.readouterr().err
        assert await in_force(running) == before
        (away / "messages" / "birthday" / "subject.txt").write_text("Many happy returns\n")
        away.rename(folder)
        while await in_force(running) == before:
            await asyncio.sleep(0.01)
