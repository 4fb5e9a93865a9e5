"""What we remember of a customer, and what events, the passing of time and a new playbook make of it. Pure.

Every function takes a profile and returns another, with the records for `customers` that say what changed. They share
no clock: `now` is the time that the road has reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from services.segmenter import carts, consent
from services.segmenter.consent import Said
from services.segmenter.dates import next_occasion
from services.segmenter.learning import count, learn, object_of, said, says_nothing, see, spent
from services.segmenter.percentiles import NOTHING as NOTHING_SPENT
from services.segmenter.rules import READS_CONSENT, Definition, Rules
from services.segmenter.tags import NOTHING, Tags, evaluate, set_timer, tells
from shared.contracts.customers import SPEND_PERCENTILE, ConsentDecision, Customer, CustomerUpdated, DateReached
from shared.contracts.events import Event
from shared.language.values import reach
from shared.walltime import known_zone


class Pending(msgspec.Struct, array_like=True, frozen=True):
    """A date that a journey waits for: the occasion that comes next, if any, and the one that came last."""

    due: datetime | None
    occasion: str
    fired: str | None


class Profile(msgspec.Struct, array_like=True):
    """One customer. Fields are only ever added, at the end: this is how profiles are stored.

    `definition` names the rules that stage, segments, aggregates and dates were last brought up to. `flips` says when
    time alone will next change a condition, and `timer` which of those moments a timer has been set for: it may stand
    earlier than the earliest flip, never later.
    """

    version: int = 1
    definition: bytes = b""
    traits: dict[str, Any] = {}
    traits_at: datetime | None = None
    """When the newest traits were true."""
    consent: dict[str, Said] = {}
    stage: str = ""
    segments: tuple[str, ...] = ()
    context_locale: str | None = None
    context_timezone: str | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    aggregates: dict[str, Any] = {}
    flips: dict[str, datetime] = {}
    timer: datetime | None = None
    dates: dict[str, Pending] = {}
    cart: msgspec.Raw = carts.NONE
    """See `carts.unpacked`."""

    locale: str | None = None
    """As the trait says, else as the customer's device said last."""
    timezone: str | None = None
    """An IANA name that exists: the trait's, else that of the customer's device."""
    address: str | None = None
    """The trait `email`, where it can be one."""
    spent: int | None = None
    """The bucket that the customer is counted in; see `percentiles`. None where nobody asks, or it is not known."""
    percentile: int | None = None
    """As of the last cut-offs."""
    ranked_at: datetime | None = None
    """When the cut-offs passed that were asked last, or that a newcomer came too late for."""


class Change(NamedTuple):
    """What an event made of a customer, before it is told as a record (see `record_of`). `profile` is the one after it;
    `moved` says whether traits, language or place are others than before."""

    profile: Profile
    event: Event
    derived: bool
    stage_before: str | None
    entered: tuple[str, ...]
    left: tuple[str, ...]
    consent: tuple[ConsentDecision, ...]
    address_before: str | None
    moved: bool


_new = tuple.__new__
"""As the class itself would make it, without a call in between."""


def apply(profile: Profile | None, event: Event, rules: Rules, now: datetime) -> tuple[Profile, list[CustomerUpdated]]:
    """As `take`, with the records."""
    after, changes = take(profile, event, rules, now)
    return after, [record_of(change, rules, now) for change in changes]


def record_of(change: Change, rules: Rules, now: datetime) -> CustomerUpdated:
    """The record of a change."""
    return CustomerUpdated(
        as_of=now,
        customer=snapshot(change.profile, change.event.key, rules),
        event=change.event,
        derived=change.derived,
        stage_before=change.stage_before,
        entered=change.entered,
        left=change.left,
        consent=change.consent,
        address_before=change.address_before,
    )


def take(profile: Profile | None, event: Event, rules: Rules, now: datetime) -> tuple[Profile, list[Change]]:
    """Take one event of a customer (None: the first one): a change by it, and one by each event derived from it.

    The profile must be up to `rules` (see `adopt`). Raises Unreadable.
    """
    if profile is not None and len(event.traits) <= 2 and (event.name not in rules.heard or event.type != "track"):
        seen = _glance(profile, event, rules, now)
        if seen is not None:
            return seen, [Change(seen, event, False, *NOTHING, (), None, False)]
    derived: tuple[Event, ...] = ()
    cart = profile.cart if profile is not None else carts.NONE
    if rules.derives_carts and event.name in carts.CAUSES and event.type == "track":
        held = carts.unpacked(cart)
        followed, event, derived = carts.follow(held, event, object_of(event, event.properties))
        if followed is not held:
            cart = carts.packed(followed)
    after, change = _take(profile, event, rules, now, derived=False)
    after.cart = cart
    changes = [change]
    for one in derived:
        after, change = _take(after, one, rules, now, derived=True)
        changes.append(change)
    return after, changes


def pass_time(profile: Profile, key: str, rules: Rules, now: datetime) -> tuple[Profile, CustomerUpdated | None]:
    """As `take_time`, with the record."""
    after, changed = take_time(profile, key, rules, now)
    return after, record_of_time(after, key, rules, now, changed) if changed is not None else None


def take_time(profile: Profile, key: str, rules: Rules, now: datetime) -> tuple[Profile, Tags | None]:
    """What time alone has made of a customer by `now`, and what of stage and segments it changed, if anything; the
    timer that led here is gone."""
    after = replace(profile)
    after.timer = None
    mask = 0
    for name, moment in after.flips.items():
        if moment <= now:
            mask |= 1 << rules.by_name[name].bit
    changed = evaluate(after, key, rules, mask, now)
    set_timer(after, now)
    return after, changed if tells(changed) else None


def record_of_time(after: Profile, key: str, rules: Rules, now: datetime, changed: Tags) -> CustomerUpdated:
    """The record of what time changed."""
    return _updated(after, key, rules, now, "time", changed)


def reach_date(
    profile: Profile, key: str, rules: Rules, journey: str, now: datetime
) -> tuple[Profile, DateReached | None]:
    """A journey's date has come: say so, and look for the next one."""
    after = replace(profile)
    held = after.dates.get(journey)
    if held is None or held.due is None or held.due > now or journey not in rules.dates:
        return after, None
    after.dates = {**after.dates, journey: Pending(None, "", held.occasion)}
    _schedule(after, rules, (journey,), now)
    customer = snapshot(after, key, rules)
    return after, DateReached(as_of=now, customer=customer, journey=journey, occasion=held.occasion)


def missing(rules: Rules, before: Definition) -> frozenset[str]:
    """The aggregates that `adopt` needs the customer's history for."""
    return frozenset(rules.aggregates) - before.aggregates


def adopt(
    profile: Profile,
    key: str,
    rules: Rules,
    before: Definition,
    rebuilt: Mapping[str, Any],
    since: Mapping[str, datetime],
    now: datetime,
) -> tuple[Profile, CustomerUpdated | None]:
    """Bring a profile that was kept under the definition `before` up to `rules`.

    `rebuilt` holds the states of `missing` aggregates, from history. Only what was defined differently is looked at
    anew, so that a flip which time brings in the same moment is still told as one of time. A journey's date counts
    from when it came into force (`since`, by journey), whenever the profile's turn comes.
    """
    after = replace(profile)
    new = rules.definition
    after.definition = new.hash
    everything = new.surroundings != before.surroundings
    states = {name: after.aggregates.get(name) if name in before.aggregates else rebuilt.get(name)
              for name in rules.aggregates}  # fmt: skip
    after.aggregates = {name: state for name, state in states.items() if state is not None}
    after.spent = spent(after.aggregates, rules, now)
    redefined = {name for name, text in new.conditions.items() if everything or before.conditions.get(name) != text}
    after.flips = {
        name: moment for name, moment in after.flips.items() if name in new.conditions and name not in redefined
    }
    mask = 0
    for name in redefined:
        mask |= 1 << rules.by_name[name].bit
    gone = tuple(name for name in after.segments if name not in rules.by_name)
    if gone:
        after.segments = tuple(name for name in after.segments if name in rules.by_name)
    stage, entered, left = evaluate(after, key, rules, mask, now)
    set_timer(after, now)
    after.dates = {
        name: held if name in rules.dates else Pending(None, "", held.fired)
        for name, held in after.dates.items()
        if name in rules.dates or held.fired is not None
    }
    for journey, text in new.dates.items():
        if before.dates.get(journey) != text:
            _schedule(after, rules, (journey,), since.get(journey, now))
    changed = stage, entered, gone + left
    return after, _updated(after, key, rules, now, "definition", changed) if tells(changed) else None


def rank(
    profile: Profile, key: str, rules: Rules, percentile: int | None, since: datetime, now: datetime
) -> tuple[Profile, Tags]:
    """Give a customer the percentile that the cut-offs of `since` say, and what of stage and segments that changes."""
    after = replace(profile)
    after.percentile, after.ranked_at = percentile, since
    if percentile == profile.percentile:
        return after, NOTHING
    readers = rules.readers
    changed = evaluate(after, key, rules, readers.get(SPEND_PERCENTILE, 0) | readers.get("customer", 0), now)
    set_timer(after, now)
    return after, changed


def record_of_rank(
    after: Profile, key: str, rules: Rules, now: datetime, changed: Tags, *, first: bool
) -> CustomerUpdated:
    """The record of what that changed. It is the doing of time; but in the first night everybody is ranked because the
    playbook asks for it now."""
    cause: Literal["time", "definition"] = "definition" if first else "time"
    return _updated(after, key, rules, now, cause, changed)


def snapshot(profile: Profile, key: str, rules: Rules) -> Customer:
    """The customer as the stream tells it."""
    return Customer(
        key=key,
        traits=profile.traits,
        consent=consent.resolved(profile.consent, rules.topics) if profile.consent else {},
        stage=profile.stage,
        segments=profile.segments,
        locale=profile.locale,
        timezone=profile.timezone,
        first_seen=profile.first_seen,
        last_seen=profile.last_seen,
        address=profile.address,
        aggregates={name: state for name, state in profile.aggregates.items() if name in rules.travelling}
        if rules.travelling
        else {},
        spend_percentile=profile.percentile if rules.spend is not None else None,
    )


def _glance(profile: Profile, event: Event, rules: Rules, now: datetime) -> Profile | None:
    """As `_take`, of an event that says only that the customer was here: most do. None where more comes of it."""
    if says_nothing(event) and (not profile.flips or (profile.timer is not None and profile.timer > now)):
        return profile
    after = replace(profile)
    if see(after, event, rules.readers) or after.timezone != profile.timezone or after.locale != profile.locale:
        return None
    if after.timer is None or after.timer <= now:
        set_timer(after, now)
    return after


def _take(
    profile: Profile | None, event: Event, rules: Rules, now: datetime, *, derived: bool
) -> tuple[Profile, Change]:
    if profile is None:
        after = Profile(definition=rules.definition.hash, spent=NOTHING_SPENT if rules.spend is not None else None)
        mask = rules.every_condition
        dates: Iterable[str] = rules.dates
    else:
        after = replace(profile)
        mask = 0
        dates = ()
    readers = rules.readers
    address_before = after.address
    zone_before = after.timezone
    locale_before = after.locale

    decisions: tuple[ConsentDecision, ...] = ()
    learned: frozenset[str] = frozenset()
    if len(event.traits) > 2 and event.type != "group":
        learned, decisions = learn(after, event)
        for trait in learned:
            mask |= readers.get(f"traits.{trait}", 0) | readers.get("traits", 0)
    heard = event.name in rules.heard and event.type == "track"
    if heard and event.name in consent.SAYING:
        decisions = (*decisions, *said(event))
    if decisions:
        kept = []
        for decision in decisions:
            held = consent.decide(after.consent, decision)
            if held is not after.consent:
                after.consent = dict(held)
                kept.append(decision)
        decisions = tuple(kept)
        if kept:
            mask |= readers.get(READS_CONSENT, 0)

    mask |= see(after, event, readers)
    if after.locale != locale_before:
        mask |= readers.get("customer.locale", 0)
    if after.timezone != zone_before:
        mask |= readers.get("customer.timezone", 0)
    if heard:
        mask |= count(after, event, rules)

    changed = evaluate(after, event.key, rules, mask, now) if mask else NOTHING
    # While no flip has moved, a timer that lies ahead still stands before all of them.
    if mask or after.timer is None or after.timer <= now:
        set_timer(after, now)
    moved = after.timezone != zone_before
    if rules.dates:
        if profile is not None and (learned or moved):
            # The moved zone may carry an occasion that lay ahead into the past: it comes at once, and is not lost.
            edited = [name for name, trigger in rules.dates.items() if trigger.trait[0] in learned]
            if moved:
                _schedule(after, rules, [name for name in rules.dates if name not in edited], now, keep=True)
            dates = edited
        if dates:
            _schedule(after, rules, dates, now)
    address = after.address
    said_before = (address_before or "") if address != address_before else None
    other = moved or bool(learned) or after.locale != locale_before
    return after, _new(Change, (after, event, derived, *changed, decisions, said_before, other))


def _schedule(after: Profile, rules: Rules, journeys: Iterable[str], since: datetime, *, keep: bool = False) -> None:
    """Look for the next occasion of these journeys from `since` on.

    With `keep` one that is pending does not get lost by lying in the past now: it comes at once.
    """
    zone = known_zone(after.timezone) or rules.zone
    dates = dict(after.dates)
    for journey in journeys:
        trigger = rules.dates[journey]
        held = dates.get(journey)
        fired = held.fired if held is not None else None
        found = next_occasion(trigger, reach(after.traits, trigger.trait), zone, since, fired)
        if keep and held is not None and held.due is not None and (found is None or found.name != held.occasion):
            dates[journey] = Pending(since, held.occasion, fired)
        elif found is not None:
            dates[journey] = Pending(found.due, found.name, fired)
        elif fired is not None:
            dates[journey] = Pending(None, "", fired)
        else:
            dates.pop(journey, None)
    after.dates = dates


def _updated(
    after: Profile, key: str, rules: Rules, now: datetime, cause: Literal["time", "definition"], changed: Tags
) -> CustomerUpdated:
    stage_before, entered, left = changed
    return CustomerUpdated(
        as_of=now,
        customer=snapshot(after, key, rules),
        cause=cause,
        stage_before=stage_before,
        entered=entered,
        left=left,
    )
