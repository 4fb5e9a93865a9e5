"""What a command cannot do it says in a sentence, and never with a traceback."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from typer.testing import CliRunner

from services.__main__ import app


@pytest.fixture(autouse=True)
def log_as_it_was() -> Iterator[None]:
    """Commands set up the log of their process, which here is the tests'."""
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("playbook init FILE", "is not an empty folder. Choose a new one."),
        ("playbook schema FILE", "there is no folder"),
        ("playbook check FILE", "there is no such folder. Give the folder that holds rapport.yaml."),
        ("up --port 99999", "Invalid value for '--port'"),
        ("up --data FILE/data", "Not a directory. Choose another place"),
        ("serve mailler", "there is no service 'mailler'"),
        ("partitions list --data FOLDER", "no `rapport up` runs over "),
        ("events export FOLDER/events.ndjson --data FOLDER", "no `rapport up` runs over "),
        ("simulate FOLDER --events FOLDER", "is no file."),
    ],
)
def test_what_cannot_be_done_is_said(words: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    file, folder = tmp_path / "file", tmp_path / "folder"
    file.touch()
    folder.mkdir()
    arguments = [word.replace("FILE", str(file)).replace("FOLDER", str(folder)) for word in words.split()]
    told = CliRunner().invoke(app, arguments, env={"COLUMNS": "1000"})
    assert isinstance(told.exception, SystemExit), told.exception
    assert told.exit_code in (1, 2)
    assert said in " ".join(told.output.split())
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://rapport@127.0.0.1:port/rapport", "DATABASE_URL: Port could not be cast"),
        ("mysql://rapport@127.0.0.1/rapport", "DATABASE_URL: 'mysql' is no scheme of PostgreSQL."),
        ("postgresql://rapport@127.0.0.1:1/rapport", "PostgreSQL at 127.0.0.1:1 does not answer: "),
    ],
)
def test_a_database_that_is_none_is_said(url: str, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    told = CliRunner().invoke(app, ["partitions", "list"])
    assert (told.exit_code, isinstance(told.exception, SystemExit)) == (1, True)
    assert said in told.output
