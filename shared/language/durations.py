"""Durations as a marketer writes them: `30m`, `1h`, `2d`, `1w`. They are elapsed time: `1d` is 24 hours."""

from __future__ import annotations

import re
from datetime import timedelta

from shared.errors import RapportError

UNITS = {"w": timedelta(weeks=1), "d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}
"""Largest first."""

LONGEST = timedelta(days=36_500)
"""A hundred years. More is a slip of the finger, and would run past the end of the calendar."""

_SHAPE = re.compile(r"([0-9]{1,9})([wdhm])")


_SPOKEN = re.compile(r"([0-9]{1,6})\s*(minute|min|hour|hr|h|day|d|week|wk|w|month|year)s?\b", re.IGNORECASE)
_LONGER = {"mo": timedelta(days=30), "ye": timedelta(days=365)}


class DurationError(RapportError, ValueError):
    """A text that is no duration; the message says what one looks like."""


def _meant(text: str) -> str | None:
    """The duration that a person would take it for: `1 hour`, `90min`, `1 month`, `1d 12h`."""
    found = list(_SPOKEN.finditer(text))
    if not found or _SPOKEN.sub("", text).strip(" ,"):
        return None
    total = timedelta(0)
    for part in found:
        unit = part[2].lower()
        total += int(part[1]) * (_LONGER.get(unit[:2]) or UNITS[unit[0]])
    return format_duration(total) if timedelta(0) < total <= LONGEST else None


def parse_duration(text: str) -> timedelta:
    """The elapsed time that a text such as `30m` stands for. Raises DurationError."""
    shape = _SHAPE.fullmatch(text)
    if shape is None:
        meant = _meant(text)
        remedy = f'Did you mean "{meant}"?' if meant else "Write a whole number and one of m, h, d, w: 30m, 1h, 2d, 1w."
        raise DurationError(f'"{text}" is no duration. {remedy}')
    count, unit = int(shape[1]), UNITS[shape[2]]
    if count > LONGEST // unit:
        raise DurationError(f'"{text}" is longer than a hundred years. Write at most {LONGEST // unit}{shape[2]}.')
    return count * unit


def format_duration(duration: timedelta) -> str:
    """The shortest way to write a duration, in the largest unit that divides it: 24 hours are `1d`, 90 minutes `90m`.

    What is no whole number of minutes cannot be written in a playbook; it is shown in seconds (`90.5s`).
    """
    if not duration:
        return "0m"
    for letter, unit in UNITS.items():
        if not duration % unit:
            return f"{duration // unit}{letter}"
    return f"{duration.total_seconds():.6f}".rstrip("0").rstrip(".") + "s"
