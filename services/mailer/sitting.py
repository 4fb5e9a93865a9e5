"""What one transaction does at the desks of its partitions: receipts are recorded, what is due is taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

import structlog

from services.mailer import store
from services.mailer.carriers import Carriers
from services.mailer.consent import destination
from services.mailer.desk import Desk
from services.mailer.outcomes import NO_SUCH_ADDRESS
from services.mailer.receivers import Receivers
from services.mailer.slots import Slots
from services.mailer.store import Candidate, InHand
from services.mailer.transport import Deferred, Receipt, Rejected, Unknown, receiver_of
from services.mailer.turn import Known, Means, Turn
from shared.clock import Clock
from shared.contracts.messages import WEBHOOK
from shared.database.clauses import Clause, execute
from shared.language.playbook import Playbook
from shared.processing.faults import reached
from shared.processing.playbooks import Shelf
from shared.processing.port import Connection, Lane, Present
from shared.telemetry import COUPONS_UNANNOUNCED, MAILER_HELD, MAILER_OUTCOMES

_MOST_LOOKED_AT = 512
"""Due messages of a partition that one transaction looks at."""
_MOST_NAMED = 10
"""Messages that a line of the log names."""
_OVER = ("sent", "unknown")
"""How a hand-over that counts may end: nothing that is decided after it depends on whether it is written yet."""


class Office(NamedTuple):
    """What the sittings of one channel share."""

    means: Means
    shelf: Shelf
    clock: Clock
    slots: Slots
    receivers: Receivers
    carriers: Carriers
    channel: store.Channel
    desk: Callable[[int], Desk]
    ended: Callable[[str], None]
    """Told why each message ended."""
    bar: Callable[[Desk], None]
    """Told of a desk that has something for an address which another transaction holds: it is to look again."""


_Results = dict[str, tuple[InHand, Receipt | None]]
"""What hand-overs have come to, by `taken`."""


class _Place(NamedTuple):
    lane: Lane
    desk: Desk
    memo: bytes
    turn: Turn


class Sitting:
    """`shared.processing.port.Beside`, for one channel. Each partition's turn is decided as if it were alone; what is
    read and written is one statement for all of them."""

    def __init__(self, office: Office) -> None:
        self._office = office
        self._places: list[_Place] = []
        self._taken = 0
        """Slots."""
        self._recorded = 0
        """Hand-overs that give back theirs."""
        self._barred: list[Desk] = []
        self._logger = structlog.get_logger(service="mailer")

    async def work(self, connection: Connection, present: Sequence[Present]) -> list[Clause]:
        office = self._office
        now = office.clock.now()
        for lane, memo, out in present:
            desk = office.desk(lane.partition)
            if desk.attended and (desk.done or (not lane.leaving.is_set() and (desk.due or desk.doubtful))):
                desk.gathered, desk.deciding = False, True
                self._places.append(_Place(lane, desk, memo, Turn(max(now, out.as_of), out)))
        if not self._places:
            return []
        suppressed = await self._record(connection)
        due = [place for place in self._places if place.desk.due and not place.lane.leaving.is_set()]
        if due:
            self._taken = office.slots.take(self._recorded, [place.desk for place in due])
            # There may be fewer slots than partitions: who has waited longest comes first.
            due.sort(key=lambda place: place.desk.took)
        if suppressed or (due and self._taken):
            await self._take(connection, due if self._taken else [], suppressed)
        return self._changes()

    async def _record(self, connection: Connection) -> dict[str, str]:
        """Turn receipts into outcomes, holds and retries. Gives the addresses to be suppressed, and why."""
        found = []
        for lane, desk, _, turn in self._places:
            results = dict(desk.done)
            turn.recorded = list(results)
            if desk.doubtful or not desk.earlier.isdisjoint(desk.done):
                # What is ours and still stands there is told by `taken`; all else belongs to an owner that died. What
                # does not stand there any more has been ended by one.
                results.clear()
                for hand in await store.in_hand(connection, lane.partition, self._office.channel):
                    if hand.taken in desk.done:
                        results[hand.taken] = desk.done[hand.taken]
                    elif hand.taken not in desk.flying:
                        results[hand.taken] = (hand, Unknown("interrupted"))
                turn.recorded += [taken for taken in results if taken in desk.done and taken not in turn.recorded]
            found.append((desk, turn, results))
        await self._leave_barred(connection, found)
        self._recorded = sum(len(place.turn.recorded) for place in self._places)
        again = [
            hand.id
            for _, _, results in found
            for hand, receipt in results.values()
            if receipt is None or isinstance(receipt, Deferred)
        ]
        cancelled = await store.cancelled_of(connection, again) if again else {}
        suppressed: dict[str, str] = {}
        for desk, turn, results in found:
            for hand, receipt in results.values():
                turn.conclude(hand, receipt, cancelled.get(hand.id, ""), self._office.means.retry_base)
                if isinstance(receipt, Rejected) and receipt.suppress:
                    suppressed[hand.address] = NO_SUCH_ADDRESS
            if any(receipt is None for _, receipt in results.values()):
                desk.due = True
        if any(change.status not in _OVER for place in self._places for change in place.turn.changes):
            await execute(connection, self._changes())  # what is decided below reads it
        return suppressed

    async def _leave_barred(self, connection: Connection, found: Sequence[tuple[Desk, Turn, _Results]]) -> None:
        """Leave to a later turn what would suppress an address that another transaction holds."""
        rejected = {
            hand.address
            for _, _, results in found
            for hand, receipt in results.values()
            if isinstance(receipt, Rejected) and receipt.suppress
        }
        barred = rejected - (await store.lock_free(connection, rejected)).keys() if rejected else ()
        if not barred:
            return
        for desk, turn, results in found:
            for taken, (hand, receipt) in list(results.items()):
                if hand.address in barred and isinstance(receipt, Rejected) and receipt.suppress:
                    del results[taken]
                    turn.recorded.remove(taken)
                    self._barred.append(desk)

    async def _take(self, connection: Connection, due: Sequence[_Place], suppressed: dict[str, str]) -> None:
        """Decide what is due, and bring as much of it to `sending` as there are slots."""
        office = self._office
        # Each takes its part, so that none with a long backlog keeps the others waiting.
        part = -(-self._taken // len(due)) if due else 0
        limits = {place.lane.partition: max(part, place.desk.look_at) for place in due}
        candidates = await store.to_decide(connection, limits, office.channel) if limits else {}
        everybody = [candidate for of_one in candidates.values() for candidate in of_one]
        people = everybody if office.channel != WEBHOOK else []
        addresses = {_address(candidate) for candidate in people}
        known = {address for address in addresses if address is not None}
        locked = await store.lock_free(connection, known) if known else {}
        barred = known - locked.keys()
        if suppressed:
            await store.suppress(connection, suppressed, self._places[0].turn.now)
            locked.update(suppressed)
        consent = await store.consent_of(connection, known) if known else {}
        playbooks = {
            memo: await office.shelf.get(connection, memo.decode())
            for memo in {place.memo: None for place in due if candidates[place.lane.partition]}
            if memo
        }
        moments = [
            office.means.moment(candidate.due, place.turn.now)
            for place in due
            for candidate in candidates[place.lane.partition]
        ]
        counted = await self._counted(connection, list(playbooks.values()), people, moments)
        called = {receiver_of(candidate.request) for candidate in everybody} if office.channel == WEBHOOK else set()
        room = {receiver: office.receivers.room(receiver, office.slots.count) for receiver in called}
        away = [receiver for receiver in called if office.receivers.is_away(receiver)]
        left = self._taken
        for lane, desk, memo, turn in due:
            limit, of_one = limits[lane.partition], candidates[lane.partition]
            # In turn with the batches, which say when there is more: nothing that they bring meanwhile is overlooked.
            desk.due = desk.backlog = len(of_one) == limit
            if barred and (free := [one for one in of_one if _address(one) not in barred]) != of_one:
                of_one = free
                self._barred.append(desk)
            if not of_one:
                continue
            most = min(left, part)
            facts = Known(playbooks.get(memo), locked, consent, counted, room, away)
            if turn.decide(of_one, facts, office.means, most):
                desk.due = desk.backlog = True
            left -= len(turn.begun)
            if turn.begun:
                desk.took = next(office.slots.turns)
            # Where nothing was to be handed over, many are settled at once; otherwise as many as there are slots.
            desk.look_at = min(2 * limit, _MOST_LOOKED_AT) if desk.due and not turn.begun else 0
            desk.passed = turn.passed > 0
            if desk.passed and limit >= _MOST_LOOKED_AT and not turn.begun:
                desk.due = desk.backlog = False  # behind so many that wait for a receiver, nobody looks

    async def _counted(
        self,
        connection: Connection,
        playbooks: Sequence[Playbook],
        candidates: Sequence[Candidate],
        moments: Sequence[datetime],
    ) -> dict[tuple[str, str], list[datetime]]:
        channel = self._office.channel
        caps = [cap for playbook in playbooks for cap in playbook.brand.caps_of(channel)]
        if not caps or not candidates:
            return {}
        since = min(moments) - max(cap.window for cap in caps)
        return await store.counted(connection, {c.request.customer for c in candidates}, since, channel)

    def _changes(self) -> list[Clause]:
        turns = [place.turn for place in self._places]
        changes = [change for turn in turns for change in turn.changes]
        for turn in turns:
            turn.changes.clear()
        return store.changed(self._office.channel, changes)

    def committed(self) -> None:
        office, begun = self._office, 0
        if any(place.turn.begun for place in self._places):
            reached("mailer.sending")
        for desk in self._barred:
            office.bar(desk)
        for lane, desk, _, turn in self._places:
            desk.deciding = desk.doubtful = False
            if not desk.due:
                office.slots.withdraw(desk)
            for taken in turn.recorded:
                desk.done.pop(taken, None)
                desk.earlier.discard(taken)
            if not desk.attended:
                self._recorded -= len(turn.recorded)  # theirs were given back when we lost it
            if desk.attended and not lane.leaving.is_set():
                begun += len(turn.begun)
                office.carriers.add(desk, turn.begun)
            else:
                begun += self._not_begun(desk, turn)
            for message, error in turn.defects:
                self._logger.error("mail not made", message=message, exc_info=error)
            for pool, reason in turn.unannounced:
                COUPONS_UNANNOUNCED.labels(pool).inc()
                remedy = f"Look at the address in coupons/{pool}.yaml; rapport coupons export {pool} has the codes."
                self._logger.error("coupon not announced", pool=pool, reason=reason, remedy=remedy)
            for reason in turn.held:
                MAILER_HELD.labels(reason).inc()
            for status, reason in turn.ended:
                MAILER_OUTCOMES.labels(status, reason).inc()
                office.ended(reason)
        if unknown := [one for place in self._places for one in place.turn.unknown]:
            # One line for all of a transaction, since a server that hangs up does so to every mail.
            self._logger.warning(
                "mails unknown",
                count=len(unknown),
                messages=[message for message, _ in unknown[:_MOST_NAMED]],
                reasons=sorted({reason for _, reason in unknown}),
                remedy="They are not sent again; the mail server's log, searched for an id, tells whether it went out.",
            )
        office.slots.give_back(self._taken - begun + self._recorded)

    def failed(self) -> None:
        begun = 0
        for _, desk, _, turn in self._places:
            # What was prepared may stand in `sending`, or may not; in neither case has its hand-over begun.
            desk.deciding = False
            begun += self._not_begun(desk, turn)
            desk.due = desk.doubtful = True
        self._office.slots.give_back(self._taken - begun)

    def _not_begun(self, desk: Desk, turn: Turn) -> int:
        """Have it put back by a later turn. Says how many slots are held until then."""
        desk.done.update({hand.taken: (hand, None) for hand, _ in turn.begun})
        desk.gathered = bool(desk.done)
        desk.stir.set()
        return len(turn.begun) if desk.attended else 0


def _address(candidate: Candidate) -> str | None:
    return destination(candidate.request, candidate.address)[0]


class Sittings(NamedTuple):
    """`shared.processing.port.Beside`, for all channels."""

    sittings: Sequence[Sitting]

    async def work(self, connection: Connection, present: Sequence[Present]) -> list[Clause]:
        return [clause for sitting in self.sittings for clause in await sitting.work(connection, present)]

    def committed(self) -> None:
        for sitting in self.sittings:
            sitting.committed()

    def failed(self) -> None:
        for sitting in self.sittings:
            sitting.failed()
