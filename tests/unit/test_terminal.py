"""What the commands print of what customers wrote."""

import pytest

from services.terminal import columns, fail, out, say

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
