"""Whom a backfill of a journey invites: those who are where its trigger lets others in. Pure, but for the counting."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from math import floor

from services.segmenter import store
from services.segmenter.profile import Profile
from services.segmenter.store import Progress, unpack_profile
from shared.language.playbook import DateTrigger, EventTrigger, Journey, SegmentTrigger, StageTrigger
from shared.processing.port import Connection

_AT_ONCE = 500


def why_not(journey: Journey) -> str | None:
    """Why there is nobody to invite to this journey, and what to do instead; None where there may be."""
    match journey.trigger:
        case EventTrigger():
            return (
                "it begins with an event, and who did that before did it then. Let it begin with a segment that holds "
                "those people, or have the shop send the event anew."
            )
        case DateTrigger():
            return "it begins with a date, and takes in everybody, also those known before, when theirs comes."
        case SegmentTrigger(change="left"):
            return (
                "it begins with leaving a segment, and who is not in it may never have been. Use one of those people."
            )
        case _:
            return None


def eligible(journey: Journey, profile: Profile) -> bool:
    """Whether the customer is where the trigger lets others in."""
    match journey.trigger:
        case SegmentTrigger(segment=segment, change="entered"):
            return segment in profile.segments
        case StageTrigger(stage=stage):
            return profile.stage == stage
        case _:
            return False


def paced(progress: Progress, since: datetime) -> Progress:
    """Counted at the pace that was asked for at `since`."""
    if progress.paced_since == since:
        return progress
    return progress._replace(paced_since=since, before=progress.invited)


def room(progress: Progress, per_hour: float, now: datetime) -> int:
    """How many more may be invited by now."""
    assert progress.paced_since is not None
    hours = (now - progress.paced_since) / timedelta(hours=1)
    return max(0, progress.before + floor(hours * per_hour) - progress.invited)


def invite(
    journey: Journey, profiles: Mapping[str, Profile], progress: Progress, most: int
) -> tuple[list[str], Progress]:
    """Those of the next customers, in the order of their keys, who are to be invited; at most so many."""
    invited: list[str] = []
    for key, profile in profiles.items():
        if len(invited) == most:
            break
        progress = progress._replace(after_key=key, looked_at=progress.looked_at + 1)
        if eligible(journey, profile):
            invited.append(key)
    return invited, progress._replace(invited=progress.invited + len(invited))


async def count_eligible(connection: Connection, partitions: Iterable[int], journey: Journey) -> tuple[int, int]:
    """How many are eligible now, and how many customers there are."""
    found = looked_at = 0
    for partition in partitions:
        after_key = ""
        while packed := await store.profiles_after(connection, partition, after_key, _AT_ONCE):
            after_key = next(reversed(packed))
            looked_at += len(packed)
            found += sum(eligible(journey, unpack_profile(state)) for state in packed.values())
    return found, looked_at
