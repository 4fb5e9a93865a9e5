"""Files that a command is to read or write, where nothing can be read or written."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from services.__main__ import app
from shared.language import SHIPPED


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("simulate", "{playbook}", "--events", "{events}", "--html", "{none}"), "cannot be written"),
        (("simulate", "{playbook}", "--events", "{events}", "--mapping", "{none}"), "cannot be read"),
        (("playbook", "preview", "cart-reminder", "{playbook}", "--html", "{none}"), "cannot be written"),
    ],
)
def test_file_that_is_nowhere_is_named(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    events, none = tmp_path / "events.ndjson", tmp_path / "none" / "file"
    events.write_text("")
    given = [part.format(playbook=SHIPPED, events=events, none=none) for part in arguments]
    answer = CliRunner().invoke(app, given)
    assert answer.exit_code == 1
    assert isinstance(answer.exception, SystemExit)
    assert f"{none} {said}: No such file or directory." in answer.output
