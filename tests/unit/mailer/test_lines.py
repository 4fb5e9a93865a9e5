"""The lines of a message's story can be read back, by people and by us."""

from __future__ import annotations

from datetime import UTC, datetime

from services.mailer.lines import Line, read, written
from services.mailer.policy import Defer, Skip

EVENING = datetime(2026, 3, 2, 20, 30, tzinfo=UTC)
MORNING = datetime(2026, 3, 3, 8, tzinfo=UTC)
HASH = "1f2e3d4c5b6a7980" * 4


def test_a_hold_says_which_cap_and_under_which_playbook() -> None:
    line = written(EVENING, Defer(MORNING, "cap", "2 in 1d"), HASH)
    assert line == "2026-03-02T20:30:00Z cap until 2026-03-03T08:00:00Z (2 in 1d) @1f2e3d4c5b6a"
    assert read(line) == Line(EVENING, "cap", MORNING, "2 in 1d", "1f2e3d4c5b6a")


def test_a_skip_has_no_until() -> None:
    assert read(written(EVENING, Skip("unsubscribed"), HASH)) == Line(EVENING, "unsubscribed", None, "", HASH[:12])


def test_lines_of_before_and_what_is_no_line() -> None:
    old = "2026-03-02T20:30:00Z quiet_hours until 2026-03-03T08:00:00Z"
    assert read(old) == Line(EVENING, "quiet_hours", MORNING, "", "")
    assert read("") is None
