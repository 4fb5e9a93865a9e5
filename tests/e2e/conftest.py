from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from house import MailServer, a_folder, shipped_playbook

_FIGURES = pytest.StashKey[list[str]]()


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


@pytest.fixture
def figures(pytestconfig: pytest.Config) -> list[str]:
    """What was measured, to be told at the end of the run: figures of a busy machine prove nothing by themselves."""
    return pytestconfig.stash.setdefault(_FIGURES, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for figure in config.stash.get(_FIGURES, []):
        terminalreporter.write_line(f"measured: {figure}")
