"""What the commands and the log show of what customers wrote."""

import io
import logging
import re

import pytest
import structlog

from services.terminal import columns, fail, out, say
from shared.telemetry import configure_logging

SAID = "a\x1b[31mred\x1b]0;mine\x07\r\x9b2J [/b] [bold]c"
SHOWN = "a\ufffd[31mred\ufffd]0;mine\ufffd\ufffd\ufffd2J [/b] [bold]c"


def test_what_customers_wrote_is_text_and_moves_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    say(SAID)
    assert capsys.readouterr().out == SHOWN + "\n"
    with pytest.raises(SystemExit):
        fail(SAID)
    table = columns("customer")
    table.add_row(SAID)
    out.print(table)
    out.print(SAID, highlight=False)
    written = capsys.readouterr()
    for text in (written.out, written.err):
        assert "[/b] [bold]c" in text
        assert not [character for character in text if not character.isprintable() and character != "\n"]


def test_what_customers_wrote_moves_no_terminal_from_the_log_either() -> None:
    written, before = io.StringIO(), structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    configure_logging("info", "console", written)
    try:
        raise ValueError(SAID)
    except ValueError:
        structlog.get_logger().exception("mail not made", message=SAID)
    finally:
        structlog.configure(**before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
    plain = re.sub(r"\x1b\[[0-9;]*m", "", written.getvalue().replace(SHOWN, "shown"))
    assert "ValueError: shown" in plain
    assert not [character for character in plain if not character.isprintable() and character != "\n"]


def test_what_a_program_reads_has_each_row_of_a_table_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    table = columns("hash", "by")
    table.add_column("what changed", overflow="fold")
    table.add_row("c0ffee", "ann", "journeys: " + "changed cart, " * 30)
    out.print(table)
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["hash", "c0ffee"]
