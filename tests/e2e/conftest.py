from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from house import House, MailServer, NewHouse

from shared.language import SHIPPED


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    """Where the account that PostgreSQL runs as under root may enter."""
    with tempfile.TemporaryDirectory(prefix="rapport-e2e-", ignore_cleanup_errors=True) as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def playbook(folder: Path) -> Path:
    """A copy of the shipped playbook without quiet hours and caps, which have tests of their own."""
    copy = folder / "playbook"
    shutil.copytree(SHIPPED, copy)
    brand = (copy / "rapport.yaml").read_text().splitlines(keepends=True)
    kept: list[str] = []
    skipping = False
    for line in brand:
        skipping = line.startswith(("quiet_hours:", "caps:")) or (skipping and line.startswith(" "))
        if not skipping:
            kept.append(line)
    (copy / "rapport.yaml").write_text("".join(kept))
    return copy


@pytest_asyncio.fixture
async def new_house(folder: Path, mails: MailServer, playbook: Path) -> AsyncIterator[NewHouse]:
    houses: list[House] = []

    async def make(*, speed: float = 1.0, started: bool = True, **environment: Any) -> House:
        house = House(folder, mails, playbook, speed=speed)
        houses.append(house)
        if started:
            await house.start(**environment)
        return house

    yield make
    for house in houses:
        await house.close()
