"""Who would enter and leave which segments and stages under another playbook: from the profiles as they are kept.

Asks the very conditions that `profile.adopt` will ask when the playbook comes into force. Reads, and writes nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.segmenter import history, store
from services.segmenter.profile import adopt, missing
from services.segmenter.rules import NOTHING_DEFINED, Definition, Rules, compile_rules, feeding
from services.segmenter.store import unpack_profile
from shared.language.playbook import Playbook
from shared.processing.port import Connection

_AT_ONCE = 500
"""Profiles in memory."""


@dataclass
class Forecast:
    """`stages` counts the moves from one stage to another; `looked_at` are all customers that are known."""

    looked_at: int = 0
    entering: Counter[str] = field(default_factory=Counter)
    leaving: Counter[str] = field(default_factory=Counter)
    stages: Counter[tuple[str, str]] = field(default_factory=Counter)
    as_of: datetime | None = None
    """How far the road had come that is furthest behind."""


def redefines(before: Playbook | None, after: Playbook) -> bool:
    """Whether any segment or stage may have other members under `after`."""
    now, then = _definition(before), _definition(after)
    return (now.conditions, now.surroundings) != (then.conditions, then.surroundings)


async def forecast(
    connection: Connection,
    roads: Mapping[int, datetime],
    playbook: Playbook,
    passed: Callable[[], None] = lambda: None,
) -> Forecast:
    """`roads` says how far each partition has come. `passed` is called after each partition."""
    rules = compile_rules(playbook)
    asked = _asked(rules)
    definitions: dict[bytes, Definition] = {NOTHING_DEFINED.hash: NOTHING_DEFINED}
    found = Forecast(as_of=min(roads.values(), default=None))
    for partition, now in sorted(roads.items()):
        after_key = ""
        while packed := await store.profiles_after(connection, partition, after_key, _AT_ONCE):
            after_key = next(reversed(packed))
            profiles = {key: unpack_profile(state) for key, state in packed.items()}
            unknown = {profile.definition for profile in profiles.values()} - definitions.keys()
            if unknown:
                definitions |= await store.definitions(connection, unknown)
            lacking: dict[frozenset[str], list[str]] = {}
            for key, profile in profiles.items():
                ids = missing(rules, definitions[profile.definition]) & asked
                if ids:
                    lacking.setdefault(ids, []).append(key)
            rebuilt = {}
            for ids, keys in lacking.items():
                fed_by = feeding(ids, [rules])
                async for customer, rows in store.past(connection, partition, keys, fed_by.keys()):
                    rebuilt[customer] = history.rebuild({}, fed_by, rows)
            for key, profile in profiles.items():
                before = definitions[profile.definition]
                _, record = adopt(profile, key, rules, before, rebuilt.get(key, {}), {}, now)
                found.looked_at += 1
                if record is not None:
                    found.entering.update(record.entered)
                    found.leaving.update(record.left)
                    if record.stage_before is not None:
                        found.stages[record.stage_before, record.customer.stage] += 1
        passed()
    return found


def _definition(playbook: Playbook | None) -> Definition:
    return compile_rules(playbook).definition if playbook is not None else NOTHING_DEFINED


def _asked(rules: Rules) -> frozenset[str]:
    """The aggregates that some segment or stage reads: what only journeys count decides nothing here."""
    return frozenset(rules.readers) & frozenset(rules.aggregates)
