"""What most events are: the customer was here, or did once more what is counted, and nothing changes by it. Pure, but
for the profile itself: for who keeps no copy of it as it was before."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from services.segmenter.learning import decode_device
from services.segmenter.profile import Profile
from services.segmenter.rules import Rules, may_change
from shared.contracts.events import MAILER_SOURCE, Event
from shared.language.aggregates import observe

_decode_object = msgspec.json.Decoder(dict[str, Any]).decode
_NOTHING: Mapping[str, Any] = {}


def note(profile: Profile, event: Event, rules: Rules, now: datetime) -> bool:
    """Write into the profile what `take` would make of the event, where only the time of the last one and counts
    become others. False, with the profile as it was, where more may come of it.

    The profile must be up to `rules`.
    """
    at, last, timer = event.occurred_at, profile.last_seen, profile.timer
    if last is None or at < last or rules.reads_last_seen or len(event.traits) > 2 or event.source == MAILER_SOURCE:
        return False
    if profile.flips and (timer is None or timer <= now):
        return False
    try:
        if len(event.context) > 2:
            device = decode_device(event.context)
            if device.locale != profile.context_locale or device.timezone != profile.context_timezone:
                return False
        if event.name in rules.heard and event.type == "track":
            fed = rules.only_counted.get(event.name)
            if fed is None:
                return False
            properties: Mapping[str, Any] = _NOTHING
            states = []
            for aggregate, watchers in fed:
                if aggregate.where is not None and properties is _NOTHING:
                    properties = _decode_object(event.properties)
                held = profile.aggregates.get(aggregate.id)
                state = observe(aggregate, held, event.id, at, properties, event.received_at)
                if state is not held:
                    others = profile.aggregates
                    if watchers and may_change(watchers, state, others, profile.stage, profile.segments):
                        return False
                    states.append((aggregate.id, state))
            if states:
                profile.aggregates.update(states)
    except (msgspec.DecodeError, RecursionError):
        return False
    profile.last_seen = at
    return True
