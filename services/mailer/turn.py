"""What one transaction of the mailer decides: changes of messages, timers, and the events that tell of them. Pure."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import msgspec

from services.mailer import lines, outcomes, policy
from services.mailer.consent import Decision, destination
from services.mailer.outcomes import Again, Ended
from services.mailer.policy import Defer, Fail, Recipient, Skip
from services.mailer.rendering import RenderingFailed
from services.mailer.store import Candidate, Change, InHand
from services.mailer.transport import Deferred, Mail, Receipt, receiver_of
from shared.contracts import streams
from shared.contracts.messages import WEBHOOK, MessageRequested
from shared.language.playbook import Playbook
from shared.processing.port import Outputs

RELEASE = "release"
"""The kind of the timers at which held messages are decided anew."""

RECEIVER_AWAY = "receiver_away"
"""Why a webhook is held whose receiver is silent, and has as many calls in hand as it may."""

_LONGEST_DETAIL = 500


class Compose(Protocol):
    """Makes the mail of a message with the playbook in force. Raises RenderingFailed."""

    def __call__(self, playbook: Playbook, request: MessageRequested, now: datetime) -> Mail: ...


class Means(NamedTuple):
    """How mails are made and tried again, the same in every turn. `name` gives the name of a new hand-over, and
    `retry_base` is the shortest time between two attempts."""

    compose: Compose
    name: Callable[[], str]
    retry_base: timedelta
    lateness: timedelta
    """A release that is this late is our own delay, and counts as on time; beyond it, people's clocks count."""
    there: bool = True
    """Whether there is a way to hand over what goes by this channel."""

    def moment(self, due: datetime, now: datetime) -> datetime:
        """What a decision takes for now: the instant that it stands for, unless it comes much later."""
        return due if now - due <= self.lateness else now


class Known(NamedTuple):
    """What is to be known for deciding: the playbook in force, if any; why an address is suppressed ("": it is not);
    what was decided about it; and the moments, in order, at which messages that caps count went to a customer by a
    channel."""

    playbook: Playbook | None
    suppressed: Mapping[str, str]
    consent: Mapping[str, Mapping[str, Decision]]
    counted: dict[tuple[str, str], list[datetime]]
    room: dict[str, int] | None = None
    """How much more each receiver of webhooks may have in hand; None: as much as comes."""
    away: Collection[str] = ()
    """The receivers that did not take what they were given the last time."""


@dataclass(slots=True)
class Turn:
    """What one transaction decides. It is dropped where the transaction fails."""

    now: datetime
    out: Outputs
    changes: list[Change] = field(default_factory=list)
    recorded: list[str] = field(default_factory=list)
    """Keys of `Desk.done` that this turn deals with."""
    begun: list[tuple[InHand, Mail]] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    ended: list[tuple[str, str]] = field(default_factory=list)
    unknown: list[tuple[str, str]] = field(default_factory=list)
    """Messages of which nobody knows whether they went out, and why."""
    unannounced: list[tuple[str, str]] = field(default_factory=list)
    """Pools of codes that the shop was not told of in the end, and why."""
    passed: int = 0
    """Webhooks that wait until there is room for their receiver."""
    defects: list[tuple[str, Exception]] = field(default_factory=list)
    """Messages whose mail could not be made, by a mistake of ours that a release may mend before they expire."""

    def decide(self, candidates: Sequence[Candidate], known: Known, means: Means, most: int) -> bool:
        """Hold, skip, or bring to `sending`, in the order given. True where `most` have begun and there are more."""
        playbook = known.playbook
        for candidate in candidates:
            request, now = candidate.request, means.moment(candidate.due, self.now)
            if playbook is None:
                self._settle(candidate, policy.held(request, request.expires, policy.NO_PLAYBOOK, now), "")
                continue
            if request.channel == WEBHOOK:
                call = policy.decide_call(request, now, paused=request.journey in playbook.paused)
                if isinstance(call, (Defer, Skip)):
                    self._settle(candidate, call, playbook.hash)
                    continue
                receiver = receiver_of(request)
                if known.room is not None and known.room[receiver] <= 0:
                    self._put_off(candidate, receiver in known.away, means)
                    continue
                if len(self.begun) == most:
                    return True
                if self._prepare(candidate, playbook, "", None, now, means) and known.room is not None:
                    known.room[receiver] -= 1
                continue
            address, given = destination(request, candidate.address)
            history = known.counted.setdefault((request.customer, request.channel), [])
            decision = policy.decide(
                request,
                playbook.topics.get(request.topic),
                playbook.brand,
                Recipient(
                    address,
                    given,
                    known.suppressed[address] if address else "",
                    candidate.said(known.consent[address]) if address else {},
                    history,
                    candidate.paused_until,
                ),
                now,
                paused=request.journey in playbook.paused,
                there=means.there,
            )
            if isinstance(decision, (Defer, Skip)):
                self._settle(candidate, decision, playbook.hash)
                continue
            if len(self.begun) == most:
                return True
            assert address is not None
            counted_at = now if decision.counts else None
            if self._prepare(candidate, playbook, address, counted_at, now, means) and counted_at:
                insort(history, counted_at)
        return False

    def conclude(self, hand: InHand, receipt: Receipt | None, cancelled: str, retry_base: timedelta) -> None:
        """What a hand-over has come to. No receipt: it never began. `cancelled` is why it was cancelled meanwhile."""
        request, now = hand.request, self.now
        if receipt is None and not cancelled:
            self.changes.append(Change(hand.id, "requested", hand.due, attempts=hand.attempts - 1))
            return
        result = outcomes.after(
            receipt or Deferred("", "not_begun"), request, hand.attempts, cancelled, retry_base, now
        )
        detail = storable(result.detail)
        if isinstance(result, Again):
            held = lines.written(now, Defer(result.at, result.reason), "")
            self.hold(Change(hand.id, "held", result.at, result.reason, detail, held, hand.attempts))
            return
        counted_at = hand.counted_at if result.status in ("sent", "unknown") else None
        self.end(
            request,
            result,
            Change(
                hand.id,
                result.status,
                hand.due,
                result.reason,
                detail,
                attempts=hand.attempts,
                taken=hand.taken,
                counted_at=counted_at,
                ended_at=now,
                over=request,
            ),
        )

    def end(self, request: MessageRequested, ended: Ended, change: Change) -> None:
        self.changes.append(change)
        self.ended.append((ended.status, ended.reason))
        if ended.status == "unknown":
            self.unknown.append((change.id, ended.reason))
        if request.announces and ended.status != "sent":
            self.unannounced.append((request.announces, ended.reason))
        self.out.emit(streams.EVENTS, request.customer, outcomes.event(request, ended, change.due, self.now))

    def hold(self, change: Change) -> None:
        self.changes.append(change)
        self.held.append(change.reason)
        self.out.set_timer(RELEASE, change.id, change.due)

    def end_undelivered(self, candidate: Candidate, ended: Ended, line: str | None = None) -> None:
        detail = storable(ended.detail)
        change = Change(
            *(candidate.id, ended.status, candidate.due, ended.reason, detail, line, candidate.attempts),
            ended_at=self.now,
            over=candidate.request,
        )
        self.end(candidate.request, ended, change)

    def hold_undelivered(self, candidate: Candidate, defer: Defer, attempts: int, playbook: str) -> None:
        line = lines.written(self.now, defer, playbook)
        self.hold(Change(candidate.id, "held", defer.until, defer.reason, held=line, attempts=attempts))

    def _settle(self, candidate: Candidate, decision: Defer | Skip, playbook: str) -> None:
        if isinstance(decision, Skip):
            line = lines.written(self.now, decision, playbook)
            self.end_undelivered(candidate, Ended("skipped", decision.reason), line)
        else:
            self.hold_undelivered(candidate, decision, candidate.attempts, playbook)

    def _put_off(self, candidate: Candidate, away: bool, means: Means) -> None:
        """Its receiver has as much in hand as it may. One that is away would keep others behind what is for it."""
        until = min(self.now + means.retry_base, candidate.request.expires)
        if away and until > self.now:
            # Without a line of its own in the message's story: there would be one a minute.
            self.hold(Change(candidate.id, "held", until, RECEIVER_AWAY, attempts=candidate.attempts))
        else:
            self.passed += 1

    def _prepare(
        self,
        candidate: Candidate,
        playbook: Playbook,
        address: str,
        counted_at: datetime | None,
        now: datetime,
        means: Means,
    ) -> bool:
        """Make the mail and bring the message to `sending`; False where there is no mail to be had of it."""
        request = msgspec.structs.replace(candidate.request, address=candidate.address)
        attempts = candidate.attempts + 1
        try:
            mail = means.compose(playbook, request, now)
        except RenderingFailed as error:
            self.end_undelivered(candidate, Ended("failed", "rendering", str(error)))
            return False
        except Exception as error:
            self.defects.append((candidate.id, error))
            retry = policy.retry(request, attempts, means.retry_base, self.now)
            if isinstance(retry, Fail):
                self.end_undelivered(candidate, Ended("failed", retry.reason, type(error).__name__))
            else:
                self.hold_undelivered(candidate, Defer(retry.until, "rendering"), attempts, playbook.hash)
            return False
        taken = means.name()
        hand = InHand(candidate.id, candidate.due, attempts, taken, address, counted_at, candidate.request)
        self.begun.append((hand, mail))
        self.changes.append(
            Change(
                candidate.id,
                "sending",
                candidate.due,
                attempts=attempts,
                taken=taken,
                counted_at=counted_at,
                address=address,
                links=mail.links,
            )
        )
        return True


def storable(detail: str) -> str:
    return detail.replace("\0", "\ufffd")[:_LONGEST_DETAIL]
