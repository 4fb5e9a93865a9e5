"""How little is said while something is away, and how much."""

from __future__ import annotations

import logging
from io import StringIO

import structlog
from sqlalchemy.exc import DBAPIError
from structlog.testing import CapturingLogger

from shared.telemetry import Bound
from shared.trouble import Trouble


class Time:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_hour_without_a_server_is_a_line_a_minute_for_all_who_miss_it() -> None:
    time, lines = Time(), CapturingLogger()
    trouble = Trouble("segmenter", "Bring it back.", logger=lines, now=time)
    for _ in range(3600 * 2):
        for who in range(36):
            trouble.met(who, ConnectionRefusedError("refused"))
        time.now += 0.5
    for who in range(36):
        trouble.over(who)
    assert [call.args for call in lines.calls] == [
        ("segmenter waits",),
        *[("segmenter still waits",)] * 59,
        ("segmenter goes on",),
    ]
    assert lines.calls[0].kwargs == {"error": "ConnectionRefusedError: refused", "remedy": "Bring it back."}
    assert lines.calls[-1].kwargs == {"seconds": 3600, "times": 3600 * 2 * 36}


def test_a_driver_is_quoted_and_not_what_wraps_it() -> None:
    lines = CapturingLogger()
    driver = OSError("the database system is starting up")
    wrapper = RuntimeError("OSError: the database system is starting up")
    wrapper.__cause__ = driver
    Trouble("mailer", "", logger=lines, now=Time()).met("one", DBAPIError("SELECT 1", None, wrapper))
    assert lines.calls[0].kwargs["error"] == "OSError: the database system is starting up"


def test_trouble_lasts_until_the_last_who_met_it_goes_on() -> None:
    time = Time()
    trouble = Trouble("segmenter", "", logger=CapturingLogger(), now=time)
    trouble.met("one", "gone")
    trouble.met("other", "gone")
    trouble.over("one")
    time.now = 11.0
    assert trouble.problems(10.0) == ["segmenter has waited for 11 s: gone"]
    assert trouble.problems(12.0) == []
    trouble.over("other")
    assert trouble.problems(10.0) == []


def test_what_is_left_out_is_counted_and_told_with_the_next() -> None:
    time = Time()
    bound = Bound(2, now=time)
    assert [bound.left_out("a") for _ in range(5)] == [0, 0, None, None, None]
    assert bound.left_out("b") == 0
    time.now = 61.0
    assert [bound.left_out("a") for _ in range(3)] == [3, 0, None]


def test_what_a_library_says_a_thousand_times_is_told_in_our_form_and_twice(
    logged: StringIO,
) -> None:
    for _ in range(1000):
        logging.getLogger("aiokafka.conn").error("Unable connect to %s", "127.0.0.1:9092")
    lines = logged.getvalue().splitlines()
    assert len(lines) == 2
    assert '"library": "aiokafka.conn"' in lines[0]
    assert '"event": "Unable connect to 127.0.0.1:9092"' in lines[0]


def test_a_thousand_records_set_aside_are_no_thousand_lines(logged: StringIO) -> None:
    for offset in range(1000):
        structlog.get_logger(service="journeys").warning("record set aside", offset=offset)
    assert len(logged.getvalue().splitlines()) == 30
