"""What steps did, in words: as much as whoever asks why, and whoever reads a test's story, are told alike. Pure."""

from __future__ import annotations

from typing import Final

from services.journeys.commands import EMPTY
from shared.language.places import Places

CHANNELS: Final = {"email": "mail", "sms": "text message", "push": "notification"}


def condition(places: Places, journey: str, step: str, way: str) -> str:
    """What was asked where this way was gone: the condition of an `if`, or of one way of a `choose`."""
    if way.isdecimal():
        return places.written(journey, step, "choose", int(way) - 1, "if")
    return places.written(journey, step, "if")


def done(places: Places, journey: str, step: str, way: str) -> str:
    """What was done by a step that nothing is reported of; empty where it is another."""
    pool = places.written(journey, step, "coupon")
    if pool:
        return f"no code: {pool} is empty" if way == EMPTY else f"a code of {pool}"
    length = places.written(journey, step, "pause")
    if length:
        return "lifts the pause of advertising" if _is_nothing(length) else f"pauses advertising for {length}"
    kept = [name for name in places.fields(journey, step, "set") if name.startswith("vars.")]
    return f"keeps {', '.join(kept)}" if kept else ""


def _is_nothing(length: str) -> bool:
    return not length.rstrip("mhdw").strip("0")
