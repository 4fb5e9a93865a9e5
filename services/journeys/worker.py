"""Journeys as the mechanics see them. Reads the stream `customers`, writes `messages`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from services.journeys import claims, store
from services.journeys.batch import WAKE, JourneysBatch, save
from services.journeys.coupons import Stock
from services.journeys.memo import Memo, decode_memo
from services.journeys.person import Person
from services.journeys.store import StoredCustomer
from services.journeys.triggers import Triggers
from shared.contracts import streams
from shared.contracts.customers import VERSION, Activation, CustomerRecord, CustomerUpdated, DateReached, Invited
from shared.database.engine import inside
from shared.language.playbook import CouponPool
from shared.processing.playbooks import MOST_LOADED, Shelf, name_in_force
from shared.processing.port import Connection, Given, Lane, Outputs, Writes
from shared.processing.records import decoder
from shared.recent import Recent

SERVICE = "journeys"

KEPT = timedelta(days=90)
"""How long an enrollment is shown after its end. It is counted for ever, and a last entry remembered as long as it has
a say."""

_SWEEP = 1000
_FORGET = 1000
_FORGET_EVERY = timedelta(hours=1)
_MOST_DRY = 500
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_decode = decoder(streams.CUSTOMERS, CustomerRecord, VERSION)


class JourneysProcessor:
    """The processor of this service (`shared.processing.port.Processor`)."""

    service = SERVICE
    stream = streams.CUSTOMERS

    def __init__(self, shelf: Shelf, story_kept: timedelta = KEPT) -> None:
        self._shelf = shelf
        self._story_kept = story_kept
        self._triggers: Recent[Triggers] = Recent(MOST_LOADED)
        self._dry: dict[str, CouponPool] = {}
        """By name, the pools of coupons of which nothing is left to claim. Who is not among them is asked once more."""

    def decode(self, key: str, value: bytes) -> CustomerRecord:
        message: CustomerRecord = _decode(key, value)
        return message

    def as_of(self, message: CustomerRecord) -> datetime:
        return message.as_of

    async def load(self, connection: Connection, given: Sequence[Given]) -> list[JourneysBatch]:
        keys = {(one.partition, key) for one in given for key in _customers(one)}
        stored = await store.customers(connection, keys) if keys else {}
        return [await self._batch(connection, one, stored.get(one.partition, {})) for one in given]

    async def _batch(self, connection: Connection, given: Given, stored: Mapping[str, StoredCustomer]) -> JourneysBatch:
        known = decode_memo(given.memo) if given.memo else Memo()
        names = {known.playbook} if known.playbook else set()
        activations = [message for message in given.messages if isinstance(message, Activation)]
        names.update(name_in_force(activation.playbook, activation.paused) for activation in activations)
        playbooks = {name: await self._shelf.get(connection, name) for name in names}
        triggers = {
            name: self._triggers.get(name) or self._triggers.keep(name, Triggers(playbook.journeys))
            for name, playbook in playbooks.items()
        }
        people = {key: Person(key, row) for key, row in stored.items()}
        stock = Stock()
        if any(playbook.coupons for playbook in playbooks.values()) and any(_customers(given)):
            stock = Stock(await store.codes_to_issue(connection, given.partition), self._dry)
        batch = JourneysBatch(given.partition, known, playbooks, triggers, people, stock)
        for content_hash in batch.versions_missing():
            playbooks[content_hash] = await self._shelf.get(connection, content_hash)
        return batch

    async def provide(self, connection: Connection, batch: JourneysBatch) -> bool:
        """Claim the codes of coupons that it is short of. Whoever owned the partition, or will, finds them there."""
        if not batch.stock.short:
            return False
        claimed: dict[str, int] = {}
        async with inside(connection):
            # In the order of their names, so that two partitions never wait for each other.
            for name, short in sorted(batch.stock.short.items()):
                claimed[name] = await claims.claim(connection, batch.partition, short.pool, short.wanted)
        if len(self._dry) >= _MOST_DRY:
            self._dry.clear()
        for name, (pool, wanted) in batch.stock.short.items():
            if claimed[name] < wanted:
                self._dry[name] = pool
        return any(claimed.values())

    def save(self, batches: Sequence[JourneysBatch]) -> Writes:
        return save(batches)

    def tick(self, as_of: datetime, after: int) -> tuple[str, bytes] | None:
        return None

    def beside(self) -> None:
        return None

    async def attend(self, lane: Lane) -> None:
        """Wake what a pause has held once its journey goes on, and who is to be taken along to another version, since
        nothing else passes by those customers; and forget what ended long ago, by the time of the road."""
        swept, forgot = Memo(), _LONG_AGO
        while not lane.leaving.is_set():
            lane.woken.clear()
            memo = decode_memo(lane.memo) if lane.memo else Memo()
            if (memo.playbook, memo.moves) != (swept.playbook, swept.moves):
                await self._sweep(lane, memo)
                swept = memo
            if lane.as_of - forgot >= _FORGET_EVERY:
                forgot = lane.as_of
                await self._forget(lane, forgot)
            await lane.woken.wait()

    async def _sweep(self, lane: Lane, memo: Memo) -> None:
        async def parked(connection: Connection, after: str) -> list[str]:
            playbook = await self._shelf.get(connection, memo.playbook)
            return await store.parked_customers(connection, lane.partition, playbook.paused, after, _SWEEP)

        async def left_behind(connection: Connection, after: str) -> list[str]:
            versions = {
                name: (await self._shelf.get(connection, moving.playbook)).journeys[name].version
                for name, moving in memo.moves.items()
            }
            return await store.customers_elsewhere(connection, lane.partition, versions, after, _SWEEP)

        await self._wake(lane, parked)
        if memo.moves:
            await self._wake(lane, left_behind)

    async def _wake(self, lane: Lane, some: Callable[[Connection, str], Awaitable[list[str]]]) -> None:
        """All that `some` finds, chunk by chunk."""
        after = ""

        async def wake(connection: Connection, out: Outputs) -> str:
            found = await some(connection, after)
            for customer in found:
                out.set_timer(WAKE, customer, out.as_of)
            return found[-1] if len(found) == _SWEEP else ""

        while not lane.leaving.is_set():
            after = await lane.transact(wake)
            if not after:
                return

    async def _forget(self, lane: Lane, now: datetime) -> None:
        async def some(connection: Connection, out: Outputs) -> bool:
            """Whether there may be more."""
            ended = await store.forget_ended(connection, lane.partition, now - KEPT, _FORGET)
            told = await store.forget_decisions(connection, lane.partition, now - self._story_kept, _FORGET)
            return max(ended, told) == _FORGET

        while not lane.leaving.is_set() and await lane.transact(some):
            pass


def _customers(given: Given) -> Iterator[str]:
    """Whom it may concern."""
    for message in given.messages:
        if isinstance(message, CustomerUpdated | DateReached | Invited):
            yield message.customer.key
    for timer in given.timers:
        yield timer.subject
