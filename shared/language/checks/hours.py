"""Mails and the quiet hours: those that fall due within them and are never sent, and dates that are never kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import time, timedelta
from typing import NamedTuple

from shared.language.checks.book import Book, ReadJourney
from shared.language.durations import format_duration
from shared.language.graph import Placed, branches
from shared.language.journey_file import DateTrigger
from shared.language.playbook import QuietHours
from shared.language.sections import Hole
from shared.language.source import Path
from shared.language.steps import ExitStep, SendStep, Step, WaitBetween, WaitForStep, WaitStep, WaitUntil

DAY = timedelta(days=1)


class Clock(NamedTuple):
    """A time of day at which a step is always reached, where that is written, and whether it belongs to a date."""

    at: time
    path: Path
    dated: bool


def clocks(journey: ReadJourney) -> Mapping[str, Clock]:
    """The mails that always fall due at the same time of day, by their step."""
    found: dict[str, Clock] = {}
    trigger = journey.shape.trigger
    start = Clock(trigger.at, ("trigger", "at"), True) if isinstance(trigger, DateTrigger) else None
    _follow(journey, ("steps",), journey.shape.steps, start, found)
    return found


def _follow(
    journey: ReadJourney, path: Path, steps: Sequence[Step], clock: Clock | None, found: dict[str, Clock]
) -> Clock | None:
    """What the clock shows behind a list of steps."""
    for position, step in enumerate(steps):
        here = (*path, position)
        if isinstance(step, WaitStep):
            clock = _waited(step, here, clock)
        elif isinstance(step, WaitForStep | Hole):
            clock = None
        elif isinstance(step, SendStep) and clock is not None:
            found[journey.layout.by_path[here].id] = clock
        if not isinstance(step, ExitStep | Hole):
            after = {_follow(journey, below, inner, clock, found) for below, inner in branches(step, here)}
            if after:
                clock = after.pop() if len(after) == 1 else None
    return clock


def _waited(step: WaitStep, path: Path, clock: Clock | None) -> Clock | None:
    wait = step.wait
    if isinstance(wait, timedelta):
        return clock if not wait % DAY else None
    if isinstance(wait, WaitBetween) or not isinstance(wait, WaitUntil) or wait.until is None:
        return None
    if isinstance(wait.until, time):
        return Clock(wait.until, (*path, "wait", "until"), False)
    return Clock(wait.at, (*path, "wait", "at"), True) if wait.at is not None else None


def check_hours(book: Book, journey: ReadJourney, placed: Placed, step: SendStep, clock: Clock | None) -> None:
    """A mail that expires before the quiet hours end, or that always falls due within them."""
    quiet = book.brand.quiet_hours if book.brand is not None else None
    defaults = journey.shape.defaults
    if quiet is None or isinstance(defaults, Hole):
        return
    expires = step.expires if step.expires is not None else defaults.expires
    if clock is not None and _left(quiet, clock.at) is not None:
        _check_clock(book, journey, quiet, clock, expires)
        return
    path = (*placed.path, "expires") if step.expires is not None else ("defaults", "expires")
    length = (_since_midnight(quiet.end) - _since_midnight(quiet.start)) % DAY
    if expires < length:
        last = _of_day((_since_midnight(quiet.end) - expires) % DAY)
        message = (
            f"{format_duration(expires)} is shorter than the quiet hours {_shown(quiet)}: what falls due from "
            f"{quiet.start:%H:%M} to {last:%H:%M} is never sent."
        )
        book.wrong_at(journey.document, path)(message, f"Use {format_duration(length)} or more.", True)


def _check_clock(book: Book, journey: ReadJourney, quiet: QuietHours, clock: Clock, expires: timedelta) -> None:
    wrong = book.wrong_at(journey.document, clock.path)
    left = _left(quiet, clock.at)
    assert left is not None
    lies = f"{clock.at:%H:%M} lies in the quiet hours {_shown(quiet)}"
    remedy = f"Use a time from {quiet.end:%H:%M} to {quiet.start:%H:%M}"
    if expires < left:
        message = f"{lies}, and the mail behind it expires after {format_duration(expires)}, so it is never sent."
        wrong(message, f"{remedy}, or expires: {format_duration(left)}.")
    elif clock.at > quiet.end:
        date = "so the date is never kept: the mail" if clock.dated else "so the mail behind it"
        wrong(f"{lies}, {date} leaves at {quiet.end:%H:%M} of the day after.", f"{remedy}.", True)


def _left(quiet: QuietHours, at: time) -> timedelta | None:
    """How long the quiet hours last from then on; None outside of them."""
    length = (_since_midnight(quiet.end) - _since_midnight(quiet.start)) % DAY
    left = (_since_midnight(quiet.end) - _since_midnight(at)) % DAY
    return left if timedelta(0) < left <= length else None


def _since_midnight(at: time) -> timedelta:
    return timedelta(hours=at.hour, minutes=at.minute)


def _of_day(since_midnight: timedelta) -> time:
    minutes = since_midnight // timedelta(minutes=1)
    return time(minutes // 60, minutes % 60)


def _shown(quiet: QuietHours) -> str:
    return f"{quiet.start:%H:%M}-{quiet.end:%H:%M}"
