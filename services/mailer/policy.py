"""Whether a message may go now, later, or not at all. One pure decision, taken anew each time that its moment has come.

The order of the checks is part of the language: consent, suppression, pause, quiet hours, caps, expiry. Each rule says
how long it stands, exactly; what no clock ends (a pause, a playbook that is missing) stands for as long as the message.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import NamedTuple

from services.mailer.consent import Decision as ConsentDecision
from services.mailer.consent import refusal
from shared.contracts.messages import MessageRequested
from shared.language.durations import format_duration
from shared.language.playbook import Brand, Cap, QuietHours, Topic
from shared.walltime import instant, zone_of

NO_PLAYBOOK = "no_playbook"
"""Why everything is held before a playbook is in force."""
PAUSED = "paused"
"""Why a message is held while its journey is paused, or promotion to its customer."""

NO_CHANNEL = "no_channel"
"""Why a text message or a notification is skipped where no gateway is named."""

_DAY = timedelta(days=1)
_RETRY_DOUBLINGS = 6


class Deliver(NamedTuple):
    """Hand it over. `counts`: it is one of those that caps count."""

    counts: bool


class Defer(NamedTuple):
    """Hold it until then and decide anew; always later than now, never later than the message expires."""

    until: datetime
    reason: str
    note: str = ""
    """What the reason does not say: which cap; whether it is the journey that pauses."""


class Skip(NamedTuple):
    """It does not go, and this is why; `note` as with Defer."""

    reason: str
    note: str = ""


class Fail(NamedTuple):
    """It could not be handed over, and there is no time left to try again."""

    reason: str


Decision = Deliver | Defer | Skip


class Recipient(NamedTuple):
    """What is known of the person at this moment. `address` is normalised; None where there is none to write to.

    `given` tells an address that cannot be one from none at all. `suppressed` is why nothing goes there any more, or
    empty. `counted` are the moments, in order, at which messages of its channel that caps count went to this customer.
    """

    address: str | None
    given: bool
    suppressed: str
    consent: Mapping[str, ConsentDecision]
    counted: Sequence[datetime]
    paused_until: datetime | None = None
    """Until when nothing promotional goes to this customer."""


def decide(
    request: MessageRequested,
    topic: Topic | None,
    brand: Brand,
    recipient: Recipient,
    now: datetime,
    *,
    paused: bool = False,
    there: bool = True,
) -> Decision:
    """What becomes of a message at `now`. `topic` is None where the playbook in force has it no more. `paused`: its
    journey is. `there`: we have a way to hand over what goes by its channel.

    A draft is decided like any other, so that it shows what would happen, and is skipped where it would go out.
    """
    if not there:
        return Skip(NO_CHANNEL)
    if recipient.address is None:
        return Skip("invalid_address" if recipient.given else "no_address")
    if topic is None:
        return Skip("topic_removed")
    refused = refusal(topic, recipient.consent)
    if refused is not None:
        return Skip(refused)
    if recipient.suppressed:
        return Skip("suppressed")
    if paused:
        return held(request, request.expires, PAUSED, now, "journey")
    if topic.kind == "promotional" and recipient.paused_until is not None and recipient.paused_until > now:
        return held(request, recipient.paused_until, PAUSED, now)
    if topic.kind != "transactional":
        if brand.quiet_hours is not None:
            quiet = quiet_until(brand.quiet_hours, request.timezone, brand.timezone, now)
            if quiet is not None:
                return held(request, quiet, "quiet_hours", now)
        caps = brand.caps_of(request.channel)
        room = room_at(caps, recipient.counted, now)
        if room > now:
            full = max(caps, key=lambda cap: room_at((cap,), recipient.counted, now))
            return held(request, room, "cap", now, f"{full.limit} in {format_duration(full.window)}")
    if now > request.expires:
        return Skip("expired")
    if request.draft:
        return Skip("draft")
    return Deliver(counts=topic.kind != "transactional")


def decide_call(request: MessageRequested, now: datetime, *, paused: bool = False) -> Decision:
    """What becomes of a webhook at `now`: no person gets it, so nobody's consent, night or cap is asked. A
    code that somebody may use already is announced also while its journey is `paused`."""
    if paused and not request.announces:
        return held(request, request.expires, PAUSED, now, "journey")
    if now > request.expires:
        return Skip("expired")
    return Skip("draft") if request.draft else Deliver(counts=False)


def held(request: MessageRequested, until: datetime, reason: str, now: datetime, note: str = "") -> Defer | Skip:
    """A hold for `reason`. It lasts at most until the message expires; then the message is skipped for what held it."""
    return Skip(reason, note) if now >= request.expires else Defer(min(until, request.expires), reason, note)


def quiet_until(hours: QuietHours, timezone: str | None, brand_timezone: str, now: datetime) -> datetime | None:
    """When the quiet hours that `now` lies in are over; None outside of them.

    They last from the instant at which the customer's clock shows `start` to the one at which it shows `end`, so the
    doubled hour of autumn does not bring them back.
    """
    zone = zone_of(timezone, brand_timezone)
    overnight = _DAY if hours.end <= hours.start else timedelta(0)
    if hours.start == hours.end:
        return None
    today = now.astimezone(zone).date()
    for day in (today - _DAY, today, today + _DAY):
        end = instant(day + overnight, hours.end, zone)
        if instant(day, hours.start, zone) <= now < end:
            return end
    return None


def room_at(caps: Sequence[Cap], counted: Sequence[datetime], now: datetime) -> datetime:
    """The first moment from `now` on at which every cap has room, if nothing else goes out meanwhile.

    A message counts from its moment on for the length of the window, and no more at its exact end.
    """
    room = now
    for cap in caps:
        within = [at for at in counted if at > now - cap.window]
        if len(within) >= cap.limit:
            room = max(room, within[-cap.limit] + cap.window)
    return room


def longest_pause(base: timedelta) -> timedelta:
    """The longest time that `retry` puts between two attempts."""
    return 1.25 * 2.0**_RETRY_DOUBLINGS * base


def retry(request: MessageRequested, attempts: int, base: timedelta, now: datetime) -> Defer | Fail:
    """After `attempts` that a server deferred: when to try again, with exponential back-off, up to 64 times `base`.

    The jitter of a quarter either way derives from the message, so that a replay decides the same. The last attempt
    stands at the message's expiry.
    """
    if now >= request.expires:
        return Fail("retries_ran_out")
    digest = blake2b(f"{request.id}\n{attempts}".encode(), digest_size=4).digest()
    jitter = 0.75 + 0.5 * int.from_bytes(digest) / 0xFFFF_FFFF
    delay = base * 2 ** min(max(attempts, 1) - 1, _RETRY_DOUBLINGS) * jitter
    return Defer(min(now + delay, request.expires), "retry")
