"""What records and timers make of the profiles in a batch: ask the heart, write what it said."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import msgspec

from services.segmenter import fingerprints, history, percentiles, store
from services.segmenter.fingerprints import Names
from services.segmenter.glance import note
from services.segmenter.history import Row
from services.segmenter.learning import Unreadable
from services.segmenter.profile import (
    Change,
    Profile,
    adopt,
    missing,
    rank,
    reach_date,
    record_of,
    record_of_rank,
    record_of_time,
    take,
    take_time,
)
from services.segmenter.rules import Definition, Rules, feeding, in_force
from services.segmenter.store import Changes, Counts, Place, Seen, pack_profile, unpack_profile
from services.segmenter.tags import tells
from shared.contracts import customers
from shared.contracts.customers import SPEND_PERCENTILE, CustomerUpdated, DateReached
from shared.contracts.events import MAX_HOPS, Activation, Backfill, CutOffs, Event, EventRecord, Refused
from shared.contracts.streams import CUSTOMERS
from shared.database.clauses import Clause
from shared.language.folder import NAMED_BY
from shared.processing.port import Connection, Outputs, Timer, Writes

FLIP = "flip"
"""Kind of the timer at a customer's earliest flip; the subject is the customer key."""
DATE = "date"
"""Kind of the timer of a journey's date; the subject is `<journey>\\n<customer key>`."""

MOST_PROFILE_BYTES = 256_000
"""Packed. An event that would make a profile larger goes to dead letters."""
_COUNT_BYTES = 64
"""The most by which a count grows in a packed profile."""

_encode = msgspec.json.Encoder().encode


def customer_of(timer: Timer) -> str:
    return timer.subject if timer.kind == FLIP else timer.subject.partition("\n")[2]


class Backfilling(msgspec.Struct, array_like=True, frozen=True):
    """How fast customers are invited to a journey, and since when so; 0: not now. See `shared.contracts.events`."""

    occasion: str
    per_hour: float
    since: datetime


class Ranking(msgspec.Struct, array_like=True, frozen=True):
    """The cut-offs in force, as buckets (see `percentiles`), and since when. `first`: before them nobody was
    ranked by this `metric`, so that everybody moves because the playbook asks."""

    at: datetime
    cut_offs: tuple[int, ...]
    metric: str
    first: bool


class Memo(msgspec.Struct, array_like=True, frozen=True):
    """What a partition remembers from batch to batch: the playbook in force there (see `rules.in_force`).

    `dates` maps each journey that begins on a date to a hash of that date's definition and when it came into force.
    """

    playbook: str = ""
    definition: bytes = b""
    since: datetime | None = None
    """When this definition (not only this playbook) came into force."""
    dates: dict[str, tuple[bytes, datetime]] = {}
    paused: tuple[str, ...] = ()
    """The journeys that are paused by hand."""
    backfills: dict[str, Backfilling] = {}
    """By journey, the last that was asked for."""
    ranking: Ranking | None = None


NO_MEMO = Memo()
_encode_memo = msgspec.msgpack.Encoder().encode
decode_memo = msgspec.msgpack.Decoder(Memo).decode


class SegmenterBatch:
    """One batch (`shared.processing.port.Batch`).

    Pure: `profiles()`, `taken`, `rows()`, the counts and `memo()` are what is written of it. Without `reads`, all that
    changes is told down the road; it says whether anybody reads a change of a customer (None: what time made of their
    stage and segments), for who keeps no history.

    With `stored` profiles come packed, and `uses` says how many messages and timers there are for each. Each is
    unpacked when its turn comes and packed again after the last of them: what two thousand customers are, unpacked,
    would be in no cache any more when it is asked for. Without it they are in `profiles`, and stay there.
    """

    def __init__(
        self,
        partition: int,
        memo: Memo,
        rules: Mapping[str, Rules],
        definitions: Mapping[bytes, Definition],
        profiles: dict[str, Profile],
        sizes: dict[str, int],
        seen: dict[bytes, Seen],
        rebuilt: Mapping[str, Mapping[str, Any]],
        names: Names = fingerprints.KEPT,
        reads: Callable[[str, Change | None], bool] | None = None,
        stored: dict[str, bytes] | None = None,
        uses: dict[str, int] | None = None,
    ) -> None:
        self.partition = partition
        self._memo = memo
        self._all_rules = rules
        self._playbook = memo.playbook[:NAMED_BY]
        self._rules = rules[memo.playbook]
        self._definitions = definitions
        self._profiles = profiles
        self._stored = stored
        self._uses = uses or {}
        self.places: Mapping[str, Place] = {}
        """Where the profiles that were read stand."""
        self._sizes = sizes
        self._seen = seen
        self._rebuilt = rebuilt
        self._identity, self._content = names
        self._reads = reads
        self._changed: set[str] = set()
        self._packed: dict[str, tuple[str, str, bytes]] = {}
        self.taken: dict[bytes, Seen] = {}
        self._told: list[tuple[CustomerUpdated | DateReached, str, str]] = []
        self._rows: list[Row] = []
        self.processed = 0
        self.deduplicated = 0
        self._moved: dict[str, int] = {}
        self.sweep_since: datetime | None = None
        """Since when another definition, or other cut-offs, are in force, where this batch brought them."""
        self.activated: list[Rules] = []
        self._moved_by_spending: dict[int, int] = {}
        self.as_of: datetime | None = None

    def handle(self, message: EventRecord, out: Outputs) -> None:
        self.as_of = out.as_of
        if isinstance(message, Event):
            self._take(message, out)
            self._used(message.key)
        elif isinstance(message, Refused):
            out.dead_letter(message.source, message.body, message.code, message.message)
        elif isinstance(message, Backfill):
            self._backfill(message, out)
        elif isinstance(message, CutOffs):
            self._cut_off(message, out)
        else:
            self._activate(message, out)

    def passes_by(self, event: Event, now: datetime) -> bool:
        """Take an event of which nothing comes but that the customer was here, and that it is counted: nearly all are
        such. False where there is more to it, which `handle` is to find out. For a house that keeps no tables: nothing
        is told of it, and the profile is changed in place."""
        key = event.key
        profile = self._profiles.get(key)
        rules = self._rules
        if profile is None or profile.definition != rules.definition.hash or event.hops:
            return False
        identity = self._identity(event)
        if identity in self._seen or "\0" in event.id or "\0" in event.source or "\0" in event.name:
            return False
        counted = rules.only_counted.get(event.name)
        if counted is not None:
            size = self._sizes.get(key, 0) + _COUNT_BYTES * len(counted)
            if size > MOST_PROFILE_BYTES:
                return False
            self._sizes[key] = size
        if not note(profile, event, rules, now):
            return False
        self._seen[identity] = Seen(self._content(event), now)
        self.processed += 1
        return True

    def fire(self, timer: Timer, out: Outputs) -> None:
        self.as_of = out.as_of
        key = customer_of(timer)
        if timer.kind == FLIP:
            self._flip(key, out)
        else:
            self._reach_date(timer.subject.partition("\n")[0], key, out)
        self._used(key)

    def bring_up(self, key: str, out: Outputs) -> Profile | None:
        """The customer's profile, up to the rules and the cut-offs in force here; what that changed is told as such."""
        self.as_of = out.as_of
        profile = self._profile(key)
        if profile is None:
            return None
        rules = self._rules
        outdated = profile.definition != rules.definition.hash
        ranking = self._memo.ranking if rules.spend is not None else None
        if ranking is None or profile.ranked_at == ranking.at:
            return self._adopt(profile, key, out) if outdated else profile
        # Of cut-offs and rules, what came first comes first, as if the customer had been brought up to each at once.
        bucket = profile.spent
        if outdated:
            profile = self._adopt(profile, key, out)
            if self._memo.since is None or self._memo.since <= ranking.at:
                bucket = profile.spent
        return self._rank(profile, key, bucket, ranking, out)

    def _adopt(self, profile: Profile, key: str, out: Outputs) -> Profile:
        rules = self._rules
        before = self._definitions[profile.definition]
        lacking = missing(rules, before)
        states = {name: state for name, state in self._rebuilt.get(key, {}).items() if name in lacking}
        if self.activated and lacking:
            # Events of this very batch, from before the activation, are not in the database yet.
            mine = (row for row in self.rows() if row.customer == key)
            states = history.rebuild(states, feeding(lacking, [rules]), mine)
        since = {journey: at for journey, (_, at) in self._memo.dates.items()}
        after, record = adopt(profile, key, rules, before, states, since, out.as_of)
        self._sizes[key] = len(pack_profile(after))
        self._keep(key, profile, after, out)
        if record is not None:
            self._tell(record, out)
        return after

    def _rank(self, profile: Profile, key: str, bucket: int | None, ranking: Ranking, out: Outputs) -> Profile:
        percentile = percentiles.percentile(ranking.cut_offs, bucket) if bucket is not None else None
        after, changed = rank(profile, key, self._rules, percentile, ranking.at, out.as_of)
        if percentile == profile.percentile:
            return after  # nothing worth writing: asked again, it is the same
        self._keep(key, profile, after, out)
        if not tells(changed) and not self._rules.percentile_travels:
            return after
        if self._reads is None or self._reads(key, None):
            record = record_of_rank(after, key, self._rules, out.as_of, changed, first=ranking.first)
            if tells(changed):
                self._tell(record, out, SPEND_PERCENTILE)
            else:
                out.emit(CUSTOMERS, key, record)
        return after

    def profiles(self) -> list[tuple[str, str, bytes]]:
        """Those that changed: key, stage and packed state, in the order of their keys."""
        for key in self._changed:
            profile = self._profiles[key]
            self._packed[key] = key, profile.stage, pack_profile(profile)
        return [self._packed[key] for key in sorted(self._packed)]

    def rows(self) -> list[Row]:
        """What is to be kept of what was told, in the order in which it was."""
        self._rows += [history.row(*told) for told in self._told]
        self._told.clear()
        return self._rows

    def moved_by_spending(self) -> list[tuple[int, int]]:
        """How many customers more, or fewer, are in which bucket."""
        return sorted((bucket, count) for bucket, count in self._moved_by_spending.items() if count)

    def memo(self) -> bytes:
        return b"" if self._memo is NO_MEMO else _encode_memo(self._memo)

    def nothing_to_save(self) -> bool:
        return False  # every event is kept

    def count(self) -> None:
        """Counted a little early, and again where the transaction has to be: metrics are no ledger, the table is."""
        # Here, so that a rehearsal, which measures nothing, begins without it.
        from shared.telemetry import SEGMENTER_CHANGES, SEGMENTER_EVENTS

        SEGMENTER_EVENTS.labels("processed").inc(self.processed)
        SEGMENTER_EVENTS.labels("deduplicated").inc(self.deduplicated)
        for cause, count in self._moved.items():
            SEGMENTER_CHANGES.labels(cause).inc(count)

    def _profile(self, key: str) -> Profile | None:
        profile = self._profiles.get(key)
        if profile is None and self._stored is not None and (state := self._stored.get(key)) is not None:
            profile = self._profiles[key] = unpack_profile(state)
        return profile

    def _used(self, key: str) -> None:
        """A message or a timer of the customer has been taken."""
        if self._stored is None:
            return
        left = self._uses.get(key, 0) - 1
        if left > 0:
            self._uses[key] = left
        elif (profile := self._profiles.pop(key, None)) is not None and key in self._changed:
            self._changed.discard(key)
            state = self._stored[key] = pack_profile(profile)
            self._packed[key] = key, profile.stage, state

    def _take(self, event: Event, out: Outputs) -> None:
        identity = self._identity(event)
        content = self._content(event)
        seen = self._seen.get(identity)
        if seen is not None and seen.seen_at > out.as_of - fingerprints.WINDOW:
            if seen.content == content:
                self.deduplicated += 1
            else:
                self._set_aside(
                    event,
                    out,
                    "conflicting_duplicate",
                    f"{event.source} sent another event with the id {event.id!r} within a day. Give each its own.",
                )
            return
        if event.hops > MAX_HOPS:
            self._set_aside(
                event,
                out,
                "loop",
                f"{event.name!r} is the consequence of a consequence, {event.hops} times over; {MAX_HOPS} is the most. "
                f"Find the journey that answers its own event.",
            )
            return
        if "\0" in event.key or "\0" in event.id or "\0" in event.source or "\0" in event.name:
            self._set_aside(event, out, "unreadable", "a name or an id holds a NUL character. Send it without.")
            return
        profile = self.bring_up(event.key, out)
        try:
            after, changes = take(profile, event, self._rules, out.as_of)
        except Unreadable as error:
            self._set_aside(event, out, "unreadable", str(error))
            return
        if profile is None and self._memo.ranking is not None:
            after.ranked_at = self._memo.ranking.at  # a newcomer waits for the next
        if not self._fits(event, profile, after):
            self._set_aside(
                event,
                out,
                "profile_too_large",
                f"with this event the profile of {event.key!r} would exceed {MOST_PROFILE_BYTES} bytes. "
                f"Send fewer or shorter traits.",
            )
            return
        if after is not profile:
            self._keep(event.key, profile, after, out)
        reads = self._reads
        for change in changes:
            if reads is None or reads(event.key, change):
                self._tell(record_of(change, self._rules, out.as_of), out)
        self._seen[identity] = self.taken[identity] = Seen(content, out.as_of)
        self.processed += 1

    def _fits(self, event: Event, before: Profile | None, after: Profile) -> bool:
        """Whether the profile may be kept. It is measured only where a bound on its growth reaches the limit."""
        if (
            before is not None
            and after.aggregates is before.aggregates
            and after.traits is before.traits
            and after.consent is before.consent
            and after.cart is before.cart
        ):
            return True  # the rest is bounded
        rules = self._rules
        said = len(event.properties) + len(event.traits) + len(event.context) + 200
        fed = len(rules.fed_by.get(event.name, ()))
        # A number of JSON takes at most nine bytes for two; a value may enter several aggregates, and the cart.
        size = self._sizes.get(event.key, 0) + 5 * said * (2 + fed) + rules.condition_bytes
        if size > MOST_PROFILE_BYTES:
            size = len(pack_profile(after))
            if size > MOST_PROFILE_BYTES:
                return False
        self._sizes[event.key] = size
        return True

    def _flip(self, key: str, out: Outputs) -> None:
        profile = self.bring_up(key, out)
        if profile is None:
            return
        after, changed = take_time(profile, key, self._rules, out.as_of)
        self._keep(key, profile, after, out)
        if changed is not None and (self._reads is None or self._reads(key, None)):
            self._tell(record_of_time(after, key, self._rules, out.as_of, changed), out)

    def _reach_date(self, journey: str, key: str, out: Outputs) -> None:
        profile = self.bring_up(key, out)
        if profile is None:
            return
        after, record = reach_date(profile, key, self._rules, journey, out.as_of)
        self._keep(key, profile, after, out)
        if record is not None:
            self._tell(record, out)

    def _activate(self, activation: Activation, out: Outputs) -> None:
        rules = self._rules = self._all_rules[in_force(activation)]
        self.activated.append(rules)
        definition = rules.definition
        since = self._memo.since
        if definition.hash != self._memo.definition:
            since = self.sweep_since = out.as_of
        dates = {}
        for journey, text in definition.dates.items():
            held = self._memo.dates.get(journey)
            dates[journey] = held if held is not None and held[0] == text else (text, out.as_of)
        ranking = self._memo.ranking
        if ranking is not None and (rules.spend is None or rules.spend.id != ranking.metric):
            ranking = None
        self._memo = Memo(
            in_force(activation),
            definition.hash,
            since,
            dates,
            activation.paused,
            self._memo.backfills,
            ranking,
        )
        self._playbook = self._memo.playbook[:NAMED_BY]
        forwarded = customers.Activation(
            as_of=out.as_of,
            playbook=activation.playbook,
            paused=activation.paused,
            moves=activation.moves,
            v=activation.v,
        )
        out.emit_here(CUSTOMERS, "", forwarded)

    def _backfill(self, asked: Backfill, out: Outputs) -> None:
        backfilling = Backfilling(asked.occasion, asked.per_hour, out.as_of)
        self._memo = msgspec.structs.replace(self._memo, backfills={**self._memo.backfills, asked.journey: backfilling})

    def _cut_off(self, cut_offs: CutOffs, out: Outputs) -> None:
        spend = self._rules.spend
        if spend is None or spend.id != cut_offs.metric:
            return  # the playbook has changed on the way
        before = self._memo.ranking
        # The first may be told twice, and one in which there was nobody to rank is none yet.
        first = before is None or (
            before.first and (not before.cut_offs or out.as_of < percentiles.next_night(before.at, self._rules.zone))
        )
        buckets = tuple(map(percentiles.bucket_of, cut_offs.amounts))
        # Profiles know by the time which they were asked last.
        at = out.as_of if before is None or before.at < out.as_of else before.at + timedelta.resolution
        ranking = Ranking(at, buckets, spend.id, first)
        self._memo = msgspec.structs.replace(self._memo, ranking=ranking)
        self.sweep_since = out.as_of

    def _keep(self, key: str, before: Profile | None, after: Profile, out: Outputs) -> None:
        """Hold a profile for the end of the batch, and set its timers."""
        self._profiles[key] = after
        self._changed.add(key)
        spent_before = before.spent if before is not None else None
        if after.spent != spent_before:
            for bucket, more in ((spent_before, -1), (after.spent, 1)):
                if bucket is not None and bucket > percentiles.NOTHING:
                    self._moved_by_spending[bucket] = self._moved_by_spending.get(bucket, 0) + more
        if after.timer is not None and (before is None or after.timer != before.timer):
            out.set_timer(FLIP, key, after.timer)
        dates_before = before.dates if before is not None else {}
        if after.dates is not dates_before:
            for journey in dates_before.keys() | after.dates.keys():
                held, next_ = dates_before.get(journey), after.dates.get(journey)
                due = next_.due if next_ is not None else None
                if due != (held.due if held is not None else None):
                    out.set_timer(DATE, f"{journey}\n{key}", due)

    def _tell(self, record: CustomerUpdated | DateReached, out: Outputs, word: str = "") -> None:
        told = (record, self._playbook, word)
        if self._stored is None:
            self._told.append(told)
        else:
            self._rows.append(history.row(*told))  # while what it is made of is at hand
        if isinstance(record, CustomerUpdated) and (record.stage_before or record.entered or record.left):
            self._moved[record.cause] = self._moved.get(record.cause, 0) + 1
        out.emit(CUSTOMERS, record.customer.key, record)

    def _set_aside(self, event: Event, out: Outputs, code: str, message: str) -> None:
        out.dead_letter(event.key, _encode(event), code, message)


def save(batches: Sequence[SegmenterBatch]) -> Writes:
    """Every change of these batches, each of another partition."""
    changes = {
        batch.partition: Changes(
            batch.profiles(),
            [(id, seen.content, seen.seen_at) for id, seen in batch.taken.items()],
            batch.rows(),
            Counts(batch.processed, batch.deduplicated, batch.as_of)
            if (batch.processed or batch.deduplicated) and batch.as_of is not None
            else None,
            batch.places,
            batch.moved_by_spending(),
        )
        for batch in batches
    }
    for batch in batches:
        batch.count()
    clauses, work = store.changed(changes)
    switched = [batch for batch in batches if batch.activated or batch.sweep_since is not None]
    return Writes(clauses, partial(_switch, switched, work) if switched else work)


async def _switch(
    batches: Sequence[SegmenterBatch],
    first: Callable[[Connection], Awaitable[Sequence[Clause]]] | None,
    connection: Connection,
) -> Sequence[Clause]:
    last = () if first is None else await first(connection)
    for batch in batches:
        for rules in batch.activated:
            await store.save_definition(connection, rules.definition)
        if batch.sweep_since is not None:
            definition = decode_memo(batch.memo()).definition
            await store.begin_sweep(connection, batch.partition, definition, batch.sweep_since)
    return last
