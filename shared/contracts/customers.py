"""The stream `customers`: each event together with the customer that it produced. Segmenter writes, journeys reads."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

import msgspec

from shared.contracts.events import Event

VERSION = 2
"""The latest that this release reads. What could be said before says 1 still, so that an older release reads on."""

_FIRST = 1


SPEND_PERCENTILE = "customer.spend_percentile"
"""As expressions name it, and the history of a customer whose stage or segments it changed."""


class Customer(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is remembered of a customer, after the event at hand.

    `consent` maps a topic to the customer's own decision; a topic that is absent was never decided on.
    `aggregates` maps an aggregate's id to its state (`shared.language.aggregates`), for those that journeys use.
    `address` is the e-mail address of the trait `email`, where there is one. `spend_percentile` is from 0 to 99, as of
    the last night; None before the first.
    """

    key: str
    traits: dict[str, Any] = {}
    consent: dict[str, bool] = {}
    stage: str = ""
    segments: tuple[str, ...] = ()
    locale: str | None = None
    timezone: str | None = None
    first_seen: datetime | None = None
    last_seen: datetime | None = None
    address: str | None = None
    aggregates: dict[str, Any] = {}
    spend_percentile: int | None = None


class ConsentDecision(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A customer's yes or no to one topic; `topic` is `*` for every promotional topic."""

    topic: str
    subscribed: bool
    decided_at: datetime
    source: str


class CustomerUpdated(msgspec.Struct, frozen=True, tag="updated", tag_field="kind", omit_defaults=True, kw_only=True):
    """An event, or the passing of time, and what it made of the customer.

    `cause` is `event`, `time` (a window ran out) or `definition` (the playbook changed; starts no journey).
    `stage_before` is None where the stage did not change. `derived` marks an event that segmenter made itself
    (`Cart Updated`). `event` is None unless the cause is an event. `address_before` is None where the address did not
    change, and "" where there was none.
    """

    as_of: datetime
    customer: Customer
    cause: Literal["event", "time", "definition"] = "event"
    event: Event | None = None
    derived: bool = False
    stage_before: str | None = None
    entered: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    consent: tuple[ConsentDecision, ...] = ()
    address_before: str | None = None
    v: int = _FIRST


class DateReached(msgspec.Struct, frozen=True, tag="date", tag_field="kind", omit_defaults=True, kw_only=True):
    """A date that a journey waits for has come (a birthday), `occasion` (the year) names which one."""

    as_of: datetime
    customer: Customer
    journey: str
    occasion: str
    v: int = _FIRST


class Invited(msgspec.Struct, frozen=True, tag="invited", tag_field="kind", omit_defaults=True, kw_only=True):
    """A backfill has come to this customer, who is where the trigger of a journey lets others in. `occasion` names the
    backfill."""

    as_of: datetime
    customer: Customer
    journey: str
    occasion: str
    v: int
    """Written out, unlike the first version: a release that knows no backfills waits for one that does."""


class Tick(msgspec.Struct, frozen=True, tag="tick", tag_field="kind", omit_defaults=True, kw_only=True):
    """Nothing happened in this partition up to `as_of`; `after` is the offset of `events` read up to then."""

    as_of: datetime
    after: int = -1
    v: int = _FIRST


class Activation(msgspec.Struct, frozen=True, tag="activation", tag_field="kind", omit_defaults=True, kw_only=True):
    """From this place of the road on, the playbook with this content hash is in force, with the journeys `paused` by
    hand. Those who are inside an older version of one of `moves` are taken along to the one in this playbook."""

    as_of: datetime
    playbook: str
    paused: tuple[str, ...] = ()
    moves: tuple[str, ...] = ()
    v: int = _FIRST


CustomerRecord = CustomerUpdated | DateReached | Invited | Tick | Activation
