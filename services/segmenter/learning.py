"""What an event says of a customer: traits, consent, language and place, when they were seen, what is counted. Pure,
but for the profile at hand, which is a copy already. A mask has a bit for each condition that reads what has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from services.segmenter import consent
from services.segmenter.percentiles import bucket_of
from services.segmenter.rules import Rules, may_change
from shared.consent import EVERY_TOPIC
from shared.contracts.customers import ConsentDecision
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
from shared.language.aggregate_values import value
from shared.language.aggregates import observe
from shared.language.playbook import NAME
from shared.walltime import known_zone

if TYPE_CHECKING:
    from services.segmenter.profile import Profile

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


class _Device(msgspec.Struct):
    """What we read of an event's context."""

    locale: Any = None
    timezone: Any = None


_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
decode_device = msgspec.json.Decoder(_Device).decode


def learn(after: Profile, event: Event) -> tuple[frozenset[str], tuple[ConsentDecision, ...]]:
    """Merge an event's traits: the names that changed, and the decisions on consent among them.

    Traits are replaced whole, name by name, and null removes one. What comes late fills in what is not known and
    overrides nothing.
    """
    sent = object_of(event, event.traits)
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


def said(event: Event) -> tuple[ConsentDecision, ...]:
    """The decision that an event reports; `Unsubscribed` without a topic means every promotional one."""
    properties = object_of(event, event.properties)
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


def see(after: Profile, event: Event, readers: Mapping[str, int]) -> int:
    """First and last seen, and what the customer's device says of language and place."""
    if says_nothing(event) or (event.source == MAILER_SOURCE and _by_machine(event)):
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
                zone = known_zone(device.timezone)
                if zone is not None:
                    after.context_timezone = zone.key  # the same text for all who are there
                _place(after)
        if at != after.last_seen:
            after.last_seen = at
            mask |= readers.get("customer.last_seen", 0)
    return mask


def says_nothing(event: Event) -> bool:
    """Whether it says nothing of the customer."""
    return event.source == MAILER_SOURCE and event.name in OUR_OWN_DOING


def _by_machine(event: Event) -> bool:
    return event.name in MAIL_USES and object_of(event, event.properties).get("machine") is True


def count(after: Profile, event: Event, rules: Rules) -> int:
    """Bring the aggregates that events of this name feed up to this one."""
    fed = rules.fed_by.get(event.name)
    if fed is None:
        return 0
    properties = object_of(event, event.properties)
    mask = 0
    states = after.aggregates
    for aggregate in fed:
        held = states.get(aggregate.id)
        state = observe(aggregate, held, event.id, event.occurred_at, properties, event.received_at)
        if state is not held:
            if states is after.aggregates:
                states = dict(states)
            states[aggregate.id] = state
            if rules.spend is not None and aggregate.id == rules.spend.id:
                after.spent = spent(states, rules, event.received_at)
            watchers = rules.watchers[aggregate.id]
            if watchers:
                mask |= may_change(watchers, state, states, after.stage, after.segments)
    after.aggregates = states
    return mask


def spent(states: Mapping[str, Any], rules: Rules, now: datetime) -> int | None:
    """The bucket of what a customer has spent; None where nobody asks, or where there is no sum, for want of rates."""
    if rules.spend is None:
        return None
    amount = value(rules.spend, states.get(rules.spend.id), now, rules.currency, rules.rates)
    return None if amount is None else bucket_of(amount)


def object_of(event: Event, raw: msgspec.Raw) -> dict[str, Any]:
    """An event's properties, traits or context. Raises Unreadable."""
    try:
        return _decode_object(raw)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Unreadable(f"{event.name or event.type}: its data cannot be read ({error}). Send JSON objects.") from None


def _address(email: Any) -> str | None:
    address = email.strip() if isinstance(email, str) else ""
    return address if _ADDRESS.fullmatch(address) else None


def _locale(name: Any) -> str | None:
    return name.replace("_", "-") if isinstance(name, str) and _LOCALE.fullmatch(name) else None
