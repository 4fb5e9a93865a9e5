from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from house import MailServer, a_folder, shipped_playbook


@pytest.fixture
def mails() -> Iterator[MailServer]:
    with MailServer() as server:
        yield server


@pytest.fixture
def folder() -> Iterator[Path]:
    with a_folder() as folder:
        yield folder


@pytest.fixture
def playbook(folder: Path) -> Path:
    """A copy of the shipped playbook without quiet hours and caps, which have tests of their own."""
    return shipped_playbook(folder)
