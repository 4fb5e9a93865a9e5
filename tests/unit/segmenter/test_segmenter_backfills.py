"""Whom a backfill invites, and how fast."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from segmenter_world import START

from services.segmenter.backfills import eligible, invite, paced, room, why_not
from services.segmenter.profile import Profile
from services.segmenter.store import Progress
from shared.language import SHIPPED, load, read_folder
from shared.language.playbook import Journey, SegmentTrigger, StageTrigger

HOUR = timedelta(hours=1)
SHIPPED_JOURNEYS = load(read_folder(SHIPPED)).journeys
VIP = replace(SHIPPED_JOURNEYS["thank-you"], trigger=SegmentTrigger("vip", "entered"))
RETAIN = replace(VIP, trigger=StageTrigger("retain"))


@pytest.mark.parametrize(
    ("journey", "profile", "invited"),
    [
        (VIP, Profile(segments=("lapsed", "vip")), True),
        (VIP, Profile(segments=("lapsed",)), False),
        (RETAIN, Profile(stage="retain"), True),
        (RETAIN, Profile(stage="delight"), False),
    ],
)
def test_members_are_invited(journey: Journey, profile: Profile, invited: bool) -> None:
    assert why_not(journey) is None
    assert eligible(journey, profile) is invited


@pytest.mark.parametrize(
    "journey",
    [
        SHIPPED_JOURNEYS["abandoned-cart"],
        SHIPPED_JOURNEYS["birthday"],
        replace(VIP, trigger=SegmentTrigger("vip", "left")),
    ],
)
def test_what_cannot_be_known_of_those_who_are_there_is_refused(journey: Journey) -> None:
    assert why_not(journey)


@given(
    st.lists(st.booleans(), max_size=40),
    st.lists(st.tuples(st.integers(0, 7), st.sampled_from([0.5, 1, 3.0, 10.0])), min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_each_member_is_invited_once_and_never_faster_than_asked(
    members: list[bool], turns: list[tuple[int, float]], at_once: int
) -> None:
    people = {f"c{n:03}": Profile(segments=("vip",) if is_one else ()) for n, is_one in enumerate(members)}
    progress, now, invited, paces = Progress(), START, [], []
    pace, since = 0.0, START
    allowed = 0.0
    for hours, rate in [*turns, (200, 10.0), (0, 10.0)]:
        if rate != pace:
            pace, since = rate, now
        now += hours * HOUR
        allowed += hours * rate
        progress = paced(progress, since)
        while most := room(progress, pace, now):
            chunk = dict([item for item in people.items() if item[0] > progress.after_key][:at_once])
            some, progress = invite(VIP, chunk, progress, most)
            invited += some
            if not chunk:
                break
        paces.append(len(invited) <= allowed)
    assert invited == [key for key, is_one in zip(people, members, strict=True) if is_one]
    assert progress.invited == len(invited)
    assert all(paces)
