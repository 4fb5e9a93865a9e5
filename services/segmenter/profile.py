"""What we remember of a customer, and what events, the passing of time and a new playbook make of it. Pure.

Every function takes a profile and returns another, with the records for `customers` that say what changed. They share
no clock: `now` is the time that the road has reached.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec.structs import replace

from services.segmenter import carts, consent
from services.segmenter.consent import Said
from services.segmenter.dates import next_occasion
from services.segmenter.rules import READS_CONSENT, Definition, Rules, change_of, may_change
from shared.consent import EVERY_TOPIC
from shared.contracts.customers import ConsentDecision, Customer, CustomerUpdated, DateReached
from shared.contracts.events import (
    EMAIL_BOUNCED,
    EMAIL_FAILED,
    EMAIL_SENT,
    EMAIL_SKIPPED,
    EMAIL_UNKNOWN,
    MAIL_USES,
    MAILER_SOURCE,
    PUSH_FAILED,
    PUSH_SENT,
    PUSH_SKIPPED,
    SMS_FAILED,
    SMS_SENT,
    SMS_SKIPPED,
    UNSUBSCRIBED,
    WEBHOOK_FAILED,
    WEBHOOK_SENT,
    WEBHOOK_SKIPPED,
    Event,
)
from shared.errors import RapportError
from shared.language.aggregates import observe
from shared.language.expressions import Scope
from shared.language.playbook import NAME
from shared.language.values import reach
from shared.language.variables import CustomerFields
from shared.walltime import known_zone

OUR_OWN_DOING = frozenset(
    {
        EMAIL_SENT,
        EMAIL_SKIPPED,
        EMAIL_FAILED,
        EMAIL_UNKNOWN,
        EMAIL_BOUNCED,
        WEBHOOK_SENT,
        WEBHOOK_SKIPPED,
        WEBHOOK_FAILED,
        SMS_SENT,
        SMS_SKIPPED,
        SMS_FAILED,
        PUSH_SENT,
        PUSH_SKIPPED,
        PUSH_FAILED,
    }
)
"""What mailer reports of itself: nothing that the customer did, so it is no sign of having been seen."""

_CONSENT = "consent"
_OF_THE_PERSON = frozenset({"email", "locale", "timezone"})
_ADDRESS = re.compile(r"[^\s@<>,;\x00-\x1f]{1,64}@[^\s@<>,;\x00-\x1f]{1,255}")
_MOST_SOURCE = 200
"""Characters of what an event says about where a decision was made."""
_LOCALE = re.compile(r"[A-Za-z]{2,3}(?:[-_][A-Za-z0-9]{2,8}){0,3}")


class Unreadable(RapportError):
    """An event whose properties or traits are no JSON object that can be kept."""


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


class _Device(msgspec.Struct):
    """What we read of an event's context."""

    locale: Any = None
    timezone: Any = None


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
decode_device = msgspec.json.Decoder(_Device).decode


class Change(NamedTuple):
    """What an event made of a customer, before it is told as a record (see `told`). `profile` is the one after it;
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


def apply(profile: Profile | None, event: Event, rules: Rules, now: datetime) -> tuple[Profile, list[CustomerUpdated]]:
    """As `take`, with the records."""
    after, changes = take(profile, event, rules, now)
    return after, [told(change, rules, now) for change in changes]


def told(change: Change, rules: Rules, now: datetime) -> CustomerUpdated:
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
            return seen, [Change(seen, event, False, *_NOTHING, (), None, False)]
    derived: tuple[Event, ...] = ()
    cart = profile.cart if profile is not None else carts.NONE
    if rules.derives_carts and event.name in carts.CAUSES and event.type == "track":
        held = carts.unpacked(cart)
        followed, event, derived = carts.follow(held, event, _object(event, event.properties))
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
    return after, told_of_time(after, key, rules, now, changed) if changed is not None else None


def take_time(profile: Profile, key: str, rules: Rules, now: datetime) -> tuple[Profile, Tags | None]:
    """What time alone has made of a customer by `now`, and what of stage and segments it changed, if anything; the
    timer that led here is gone."""
    after = replace(profile)
    after.timer = None
    mask = 0
    for name, moment in after.flips.items():
        if moment <= now:
            mask |= 1 << rules.by_name[name].bit
    changed = _evaluate(after, key, rules, mask, now)
    _set_timer(after, now)
    return after, changed if _tells(changed) else None


def told_of_time(after: Profile, key: str, rules: Rules, now: datetime, changed: Tags) -> CustomerUpdated:
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


def missing(profile: Profile, rules: Rules, before: Definition) -> frozenset[str]:
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
    stage, entered, left = _evaluate(after, key, rules, mask, now)
    _set_timer(after, now)
    after.dates = {
        name: held if name in rules.dates else Pending(None, "", held.fired)
        for name, held in after.dates.items()
        if name in rules.dates or held.fired is not None
    }
    for journey, text in new.dates.items():
        if before.dates.get(journey) != text:
            _schedule(after, rules, (journey,), since.get(journey, now))
    changed = stage, entered, gone + left
    return after, _updated(after, key, rules, now, "definition", changed) if _tells(changed) else None


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
    )


def _glance(profile: Profile, event: Event, rules: Rules, now: datetime) -> Profile | None:
    """As `_take`, of an event that says only that the customer was here: most do. None where more comes of it."""
    after = replace(profile)
    if _see(after, event, rules.readers) or after.timezone != profile.timezone or after.locale != profile.locale:
        return None
    if after.timer is None or after.timer <= now:
        _set_timer(after, now)
    return after


def _take(
    profile: Profile | None, event: Event, rules: Rules, now: datetime, *, derived: bool
) -> tuple[Profile, Change]:
    if profile is None:
        after = Profile(definition=rules.definition.hash)
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
        learned, decisions = _learn(after, event)
        for trait in learned:
            mask |= readers.get(f"traits.{trait}", 0) | readers.get("traits", 0)
    heard = event.name in rules.heard and event.type == "track"
    if heard and event.name in consent.SAYING:
        decisions = (*decisions, *_said(event))
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

    mask |= _see(after, event, readers)
    if after.locale != locale_before:
        mask |= readers.get("customer.locale", 0)
    if after.timezone != zone_before:
        mask |= readers.get("customer.timezone", 0)
    if heard:
        mask |= _observe(after, event, rules)

    changed = _evaluate(after, event.key, rules, mask, now) if mask else _NOTHING
    _set_timer(after, now)
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
    return after, Change(after, event, derived, *changed, decisions, said_before, other)


Tags = tuple[str | None, tuple[str, ...], tuple[str, ...]]
"""The stage before, where it changed; segments entered; segments left."""
_NOTHING: Tags = (None, (), ())
_EMPTY: Mapping[str, Any] = {}


def _learn(after: Profile, event: Event) -> tuple[frozenset[str], tuple[ConsentDecision, ...]]:
    """Merge an event's traits: the names that changed, and the decisions on consent among them.

    Traits are replaced whole, name by name, and null removes one. What comes late fills in what is not known and
    overrides nothing.
    """
    sent = _object(event, event.traits)
    late = after.traits_at is not None and event.occurred_at < after.traits_at
    if not late:
        after.traits_at = event.occurred_at
    held = after.traits
    new = {
        name: value
        for name, value in sent.items()
        if (name not in held if late else True) and (value is not None or name in held)
        if held.get(name) != value or type(held.get(name)) is not type(value)
    }
    if not new:
        return frozenset(), ()
    try:
        # What cannot be stored must not get in: integers beyond 64 bits.
        msgspec.msgpack.encode(new)
    except OverflowError:
        raise Unreadable("traits: an integer is larger than 64 bits. Send it as text.") from None
    after.traits = {name: value for name, value in {**held, **new}.items() if value is not None}
    if not new.keys().isdisjoint(_OF_THE_PERSON):
        _place(after)
        after.address = _address(after.traits.get("email"))
    decisions: tuple[ConsentDecision, ...] = ()
    if isinstance(new.get(_CONSENT), dict):
        # A shop repeats all traits with every call; only what it says differently than before is a decision.
        said = held.get(_CONSENT)
        earlier = said if isinstance(said, dict) else {}
        decisions = tuple(
            ConsentDecision(topic=topic, subscribed=yes, decided_at=event.occurred_at, source=event.source)
            for topic, yes in new[_CONSENT].items()
            if isinstance(yes, bool) and _can_be_topic(topic) and earlier.get(topic) is not yes
        )
    return frozenset(new), decisions


def _place(after: Profile) -> None:
    """Language and place: what the traits say goes before what the device says."""
    zone = after.traits.get("timezone")
    after.timezone = zone if known_zone(zone) is not None else after.context_timezone
    after.locale = _locale(after.traits.get("locale")) or after.context_locale


def _said(event: Event) -> tuple[ConsentDecision, ...]:
    """The decision that an event reports; `Unsubscribed` without a topic means every promotional one."""
    properties = _object(event, event.properties)
    topic = properties.get("topic")
    if topic is None and event.name == UNSUBSCRIBED:
        topic = EVERY_TOPIC
    if not isinstance(topic, str) or not _can_be_topic(topic):
        return ()
    source = properties.get("source")
    told = source.replace("\0", "")[:_MOST_SOURCE] if isinstance(source, str) else ""
    return (
        ConsentDecision(
            topic=topic,
            subscribed=consent.SAYING[event.name],
            decided_at=event.occurred_at,
            source=told or event.source,
        ),
    )


def _can_be_topic(name: str) -> bool:
    """Whether a playbook could have a topic of this name; what is said of anything else decides nothing."""
    return name == EVERY_TOPIC or NAME.fullmatch(name) is not None


def _see(after: Profile, event: Event, readers: Mapping[str, int]) -> int:
    """First and last seen, and what the customer's device says of language and place."""
    if event.source == MAILER_SOURCE and (event.name in OUR_OWN_DOING or _by_machine(event)):
        return 0
    mask = 0
    at = event.occurred_at
    if after.first_seen is None or at < after.first_seen:
        after.first_seen = at
        mask |= readers.get("customer.first_seen", 0)
    if after.last_seen is None or at >= after.last_seen:
        if len(event.context) > 2:
            try:
                device = decode_device(event.context)
            except msgspec.DecodeError:
                raise Unreadable("context is no JSON object. Send one, or leave it out.") from None
            if device.locale != after.context_locale or device.timezone != after.context_timezone:
                after.context_locale = _locale(device.locale) or after.context_locale
                if known_zone(device.timezone) is not None:
                    after.context_timezone = device.timezone
                _place(after)
        if at != after.last_seen:
            after.last_seen = at
            mask |= readers.get("customer.last_seen", 0)
    return mask


def _by_machine(event: Event) -> bool:
    return event.name in MAIL_USES and _object(event, event.properties).get("machine") is True


def _observe(after: Profile, event: Event, rules: Rules) -> int:
    fed = rules.fed_by.get(event.name)
    if fed is None:
        return 0
    properties = _object(event, event.properties)
    mask = 0
    states = after.aggregates
    for aggregate in fed:
        held = states.get(aggregate.id)
        state = observe(aggregate, held, event.id, event.occurred_at, properties, event.received_at)
        if state is not held:
            if states is after.aggregates:
                states = dict(states)
            states[aggregate.id] = state
            watchers = rules.watchers[aggregate.id]
            if watchers:
                mask |= may_change(watchers, state, after.stage, after.segments)
    after.aggregates = states
    return mask


def _evaluate(after: Profile, key: str, rules: Rules, mask: int, now: datetime) -> Tags:
    """Ask the conditions in `mask`, and those that read what changes thereby; note when time will change them next."""
    if not mask:
        return _NOTHING
    members = set(after.segments)
    about: CustomerFields = {
        "key": key,
        "stage": after.stage,
        "segments": after.segments,
        "first_seen": after.first_seen,
        "last_seen": after.last_seen,
        "locale": after.locale,
        "timezone": after.timezone,
    }
    scope = Scope(
        now=now,
        traits=after.traits,
        customer=about,
        steps=_EMPTY,
        vars=_EMPTY,
        aggregates=after.aggregates,
        consented=lambda topic: consent.consented(after.consent, rules.topics, topic),
        segments=members,
        currency=rules.currency,
        rates=rules.rates,
    )
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


def _set_timer(after: Profile, now: datetime) -> None:
    """Moving a timer costs a write and most flips only move further away, so one is moved only where it is too late."""
    if after.flips:
        earliest = min(after.flips.values())
        if after.timer is None or after.timer <= now or earliest < after.timer:
            after.timer = earliest


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


def _tells(changed: Tags) -> bool:
    stage_before, entered, left = changed
    return stage_before is not None or bool(entered or left)


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


def _object(event: Event, raw: msgspec.Raw) -> dict[str, Any]:
    try:
        return _decode_object(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"{event.name or event.type}: its data cannot be read ({error}). Send JSON objects.") from None


def _address(email: Any) -> str | None:
    address = email.strip() if isinstance(email, str) else ""
    return address if _ADDRESS.fullmatch(address) else None


def _locale(name: Any) -> str | None:
    return name.replace("_", "-") if isinstance(name, str) and _LOCALE.fullmatch(name) else None
