"""Which stage and which segments a customer is in: asks the conditions in question, and notes when time alone will
change them next. Pure, but for the profile at hand, which is a copy already."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from services.segmenter import consent
from services.segmenter.rules import Rules, change_of
from shared.language.expressions import Scope
from shared.language.variables import CustomerFields

if TYPE_CHECKING:
    from services.segmenter.profile import Profile

Tags = tuple[str | None, tuple[str, ...], tuple[str, ...]]
"""The stage before, where it changed; segments entered; segments left."""
NOTHING: Tags = (None, (), ())
_EMPTY: Mapping[str, Any] = {}


def evaluate(after: Profile, key: str, rules: Rules, mask: int, now: datetime) -> Tags:
    """Ask the conditions in `mask`, and those that read what changes thereby; note when time will change them next."""
    if not mask:
        return NOTHING
    members = set(after.segments)
    about = _about(after, key)
    scope = _scope(after, about, members, rules, now)
    stage_before: str | None = None
    entered: list[str] = []
    left: list[str] = []
    flips = after.flips
    conditions = rules.conditions
    while mask:
        # The lowest bit first: whoever reads a condition comes after it.
        own_bit = mask & -mask
        mask ^= own_bit
        condition = conditions[own_bit.bit_length() - 1]
        name = condition.name
        changed = False
        if condition.segment is None:
            stage, flip = "", None
            for candidate, foresee in condition.stages:
                # Only the stages down to the one that holds matter: none below it can take over before they do.
                own = foresee(scope) if foresee is not None else None
                if own is not None and (flip is None or own < flip):
                    flip = own
                if candidate.when.truth(scope):
                    stage = candidate.name
                    break
            if stage != after.stage:
                stage_before, after.stage, changed = after.stage, stage, True
                about["stage"] = stage
        else:
            holds = condition.segment.truth(scope)
            flip = condition.flip(scope) if condition.flip is not None else None
            if holds is not (name in members):
                changed = True
                (entered if holds else left).append(name)
                (members.add if holds else members.discard)(name)
                about["segments"] = tuple(sorted(members))
        if changed:
            mask |= rules.readers.get(change_of(name), 0) & -(own_bit << 1)
        if flip != flips.get(name):
            if flips is after.flips:
                flips = dict(flips)
            if flip is None:
                del flips[name]
            else:
                flips[name] = flip
    after.flips = flips
    if entered or left:
        after.segments = tuple(sorted(members))
    return stage_before, tuple(entered), tuple(left)


def tags_at(profile: Profile, key: str, rules: Rules, now: datetime) -> tuple[str, tuple[str, ...]]:
    """Stage and segments, by asking every condition, whatever was noted before."""
    stage = ""
    members: set[str] = set()
    about = _about(profile, key)
    about["stage"], about["segments"] = "", ()
    scope = _scope(profile, about, members, rules, now)
    for condition in rules.conditions:
        if condition.segment is None:
            held = (candidate.name for candidate, _ in condition.stages if candidate.when.truth(scope))
            about["stage"] = stage = next(held, "")
        elif condition.segment.truth(scope):
            members.add(condition.name)
            about["segments"] = tuple(sorted(members))
    return stage, tuple(sorted(members))


def _about(profile: Profile, key: str) -> CustomerFields:
    return {
        "key": key,
        "stage": profile.stage,
        "segments": profile.segments,
        "first_seen": profile.first_seen,
        "last_seen": profile.last_seen,
        "locale": profile.locale,
        "timezone": profile.timezone,
        "spend_percentile": profile.percentile,
    }


def _scope(profile: Profile, about: CustomerFields, members: set[str], rules: Rules, now: datetime) -> Scope:
    return Scope(
        now=now,
        traits=profile.traits,
        customer=about,
        steps=_EMPTY,
        vars=_EMPTY,
        aggregates=profile.aggregates,
        consented=lambda topic: consent.consented(profile.consent, rules.topics, topic),
        segments=members,
        currency=rules.currency,
        rates=rules.rates,
    )


def set_timer(after: Profile, now: datetime) -> None:
    """Moving a timer costs a write and most flips only move further away, so one is moved only where it is too late."""
    if after.flips:
        earliest = min(after.flips.values())
        if after.timer is None or after.timer <= now or earliest < after.timer:
            after.timer = earliest


def tells(changed: Tags) -> bool:
    """Whether something changed at all."""
    stage_before, entered, left = changed
    return stage_before is not None or bool(entered or left)
