"""Taking those who are inside an older version of a journey along into another one, by the id of their step. Pure."""

from __future__ import annotations

from shared.language.playbook import Email, Journey


def has_place(journey: Journey, status: str, step: str) -> bool:
    """Whether one who stands so in an older version can go on in this one; who cannot finishes what they began."""
    if status == "held_out":
        return journey.goal is not None and journey.goal.within is not None
    if status == "sending":
        # What is asked for already is awaited, and it must be a mail that it is awaited for.
        return isinstance(journey.steps.get(step), Email)
    return status in ("waiting", "listening", "parked") and step in journey.steps
