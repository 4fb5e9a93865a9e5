from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from mailer_cases import NOON, asked, reader, said, topic
from mailer_playbook import brand

from services.mailer.policy import (
    Defer,
    Deliver,
    Fail,
    Recipient,
    Skip,
    decide,
    decide_call,
    held,
    quiet_until,
    retry,
    room_at,
)
from shared.contracts.messages import WEBHOOK
from shared.language.playbook import Cap, QuietHours
from shared.walltime import instant

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
OSLO = ZoneInfo("Europe/Oslo")
NIGHT = datetime(2026, 3, 2, 22, 30, tzinfo=OSLO).astimezone(UTC)
MORNING = datetime(2026, 3, 3, 8, 0, tzinfo=OSLO).astimezone(UTC)

moments = st.integers(0, 4 * 366 * 24 * 60).map(lambda minutes: NOON + timedelta(minutes=minutes))
times = st.builds(time, st.integers(0, 23), st.sampled_from([0, 15, 30]))
zones = st.sampled_from(
    ["Europe/Oslo", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu", "America/St_Johns", "UTC"]
)
caps = st.lists(st.builds(Cap, st.integers(1, 4), st.sampled_from([HOUR, DAY, 7 * DAY])), min_size=1, max_size=3).map(
    tuple
)
histories = st.lists(st.integers(-20 * 24 * 60, 0), max_size=12).map(
    lambda minutes: [NOON + timedelta(minutes=m) for m in sorted(minutes)]
)


def test_a_welcome_mail_at_noon_goes_and_counts() -> None:
    assert decide(asked(), topic(), brand(), reader(), NOON) == Deliver(counts=True)


def test_customer_without_an_address_is_skipped_before_anything_else() -> None:
    nobody = Recipient(None, False, "", {"cart-reminders": said(False)}, [])
    assert decide(asked(), topic(), brand(), nobody, NIGHT) == Skip("no_address")
    garbled = nobody._replace(given=True)
    assert decide(asked(), topic(), brand(), garbled, NIGHT) == Skip("invalid_address")


def test_a_topic_that_the_playbook_has_no_more_sends_nothing() -> None:
    assert decide(asked(), None, brand(), reader(), NOON) == Skip("topic_removed")


def test_consent_is_asked_before_suppression_and_that_before_the_clock() -> None:
    caps = [Cap(1, DAY)]
    full = [NIGHT - HOUR]
    everything = reader(said(False), suppressed="no_such_address", counted=full)
    assert decide(asked(), topic(), brand(caps=caps), everything, NIGHT) == Skip("unsubscribed")
    suppressed = reader(suppressed="no_such_address", counted=full)
    assert decide(asked(), topic(), brand(caps=caps), suppressed, NIGHT) == Skip("suppressed")
    assert decide(asked(), topic(), brand(caps=caps), reader(counted=full), NIGHT) == Defer(MORNING, "quiet_hours")
    awake = brand(quiet=None, caps=caps)
    assert decide(asked(), topic(), awake, reader(counted=full), NIGHT) == Defer(NIGHT + 23 * HOUR, "cap", "1 in 1d")


def test_promotion_that_is_paused_is_held_before_quiet_hours_and_caps_are_asked() -> None:
    until = NIGHT + 2 * HOUR
    resting = reader(paused_until=until, counted=[NIGHT - HOUR])
    caps = brand(caps=[Cap(1, DAY)])
    assert decide(asked(), topic(), caps, resting, NIGHT) == Defer(until, "paused")
    assert decide(asked(), topic(), caps, resting, until) == Defer(MORNING, "quiet_hours")
    assert decide(asked(expires=HOUR), topic(), caps, resting, NIGHT) == Skip("paused")
    assert decide(asked(), topic(), caps, reader(said(False), paused_until=until), NIGHT) == Skip("unsubscribed")
    assert decide(asked(), topic("service"), brand(quiet=None), resting, NIGHT) == Deliver(counts=True)
    assert decide(asked(), topic("transactional"), caps, resting, NIGHT) == Deliver(counts=False)


def test_a_paused_journey_holds_what_consent_and_suppression_let_through_and_no_clock_ends_it() -> None:
    expiry = NOON + 72 * HOUR
    at_night = asked(due=NOON)
    assert decide(at_night, topic(), brand(), reader(), NIGHT, paused=True) == Defer(expiry, "paused", "journey")
    assert decide(at_night, topic(), brand(), reader(), expiry, paused=True) == Skip("paused", "journey")
    assert decide(at_night, topic(), brand(), reader(said(False)), NIGHT, paused=True) == Skip("unsubscribed")
    gone = reader(suppressed="no_such_address")
    assert decide(at_night, topic(), brand(), gone, NIGHT, paused=True) == Skip("suppressed")


def test_a_pause_holds_receipts_and_drafts_alike() -> None:
    assert decide(asked(), topic("transactional"), brand(), reader(), NOON, paused=True) == Defer(
        NOON + 72 * HOUR, "paused", "journey"
    )
    assert decide(asked(draft=True), topic(), brand(), reader(), NOON, paused=True) == Defer(
        NOON + 72 * HOUR, "paused", "journey"
    )


def test_an_opt_in_topic_waits_for_a_yes() -> None:
    newsletter = topic(default="opt_in")
    assert decide(asked(), newsletter, brand(), reader(), NOON) == Skip("not_subscribed")
    assert decide(asked(), newsletter, brand(), reader(said(True)), NOON) == Deliver(counts=True)


def test_a_receipt_goes_at_night_over_the_cap_and_against_an_unsubscribe() -> None:
    receipt = topic("transactional")
    busy = reader(said(False), said(False, "*"), counted=[NIGHT])
    assert decide(asked(), receipt, brand(caps=[Cap(1, DAY)]), busy, NIGHT) == Deliver(counts=False)


def test_even_a_receipt_does_not_go_where_there_is_no_mailbox() -> None:
    gone = reader(suppressed="no_such_address")
    assert decide(asked(), topic("transactional"), brand(), gone, NOON) == Skip("suppressed")


def test_service_mail_keeps_the_quiet_hours() -> None:
    assert decide(asked(), topic("service"), brand(), reader(), NIGHT) == Defer(MORNING, "quiet_hours")


def test_night_is_where_the_customer_is() -> None:
    new_york = asked(timezone="America/New_York")
    assert isinstance(decide(new_york, topic(), brand(), reader(), NIGHT), Deliver)
    nowhere = asked(timezone="Mars/Olympus")
    assert decide(nowhere, topic(), brand(), reader(), NIGHT) == Defer(MORNING, "quiet_hours")


def test_a_hold_ends_with_the_message_and_says_what_held_it() -> None:
    short = asked(due=NIGHT, expires=2 * HOUR)
    assert decide(short, topic(), brand(), reader(), NIGHT) == Defer(NIGHT + 2 * HOUR, "quiet_hours")
    assert decide(short, topic(), brand(), reader(), NIGHT + 2 * HOUR) == Skip("quiet_hours")


def test_exactly_at_its_expiry_a_message_still_goes() -> None:
    request = asked(expires=HOUR)
    assert isinstance(decide(request, topic(), brand(), reader(), NOON + HOUR), Deliver)
    late = NOON + HOUR + timedelta(microseconds=1)
    assert decide(request, topic(), brand(), reader(), late) == Skip("expired")


def test_a_draft_shows_what_would_happen_and_sends_nothing() -> None:
    draft = asked(draft=True)
    assert decide(draft, topic(), brand(), reader(), NIGHT) == Defer(MORNING, "quiet_hours")
    assert decide(draft, topic(), brand(), reader(said(False)), NOON) == Skip("unsubscribed")
    assert decide(draft, topic(), brand(), reader(), NOON) == Skip("draft")


def test_room_opens_when_the_oldest_falls_out_of_the_window() -> None:
    sent = [NOON - 20 * HOUR, NOON - 10 * HOUR, NOON - HOUR]
    assert room_at([Cap(3, DAY)], sent, NOON) == NOON + 4 * HOUR
    assert room_at([Cap(2, DAY)], sent, NOON) == NOON + 14 * HOUR
    assert room_at([Cap(4, DAY)], sent, NOON) == NOON
    assert room_at([Cap(3, DAY)], sent, NOON + 4 * HOUR) == NOON + 4 * HOUR


def test_quiet_hours_end_at_the_first_instant_after_a_spring_gap() -> None:
    # Oslo, 29 March 2026: 02:00 becomes 03:00, so 02:30 never comes.
    hours = QuietHours(time(21), time(2, 30))
    at = datetime(2026, 3, 29, 1, 59, tzinfo=OSLO)
    assert quiet_until(hours, None, "Europe/Oslo", at) == datetime(2026, 3, 29, 1, 0, tzinfo=UTC)


def test_quiet_hours_end_once_in_the_doubled_hour_of_autumn() -> None:
    # Oslo, 25 October 2026: 03:00 becomes 02:00, so 02:30 comes twice.
    hours = QuietHours(time(21), time(2, 30))
    end = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    assert quiet_until(hours, None, "Europe/Oslo", end - timedelta(minutes=1)) == end
    assert quiet_until(hours, None, "Europe/Oslo", end) is None
    again = datetime(2026, 10, 25, 2, 10, tzinfo=OSLO, fold=1)
    assert quiet_until(hours, None, "Europe/Oslo", again) is None


@given(times, times, zones, moments)
def test_nothing_is_delivered_in_the_quiet_hours(start: time, end: time, zone: str, now: datetime) -> None:
    local = now.astimezone(ZoneInfo(zone))
    # On the days of a change of clocks the hours are counted as instants; everywhere else the wall clock is the law.
    days = [ZoneInfo(zone).utcoffset(local.replace(tzinfo=None) + d * DAY) for d in (-1, 0, 1, 2)]
    assume(len(set(days)) == 1)
    clock = local.time()
    quiet = start <= clock < end if start < end else (clock >= start or clock < end) and start != end
    house = brand()
    house = type(house)(**{f: getattr(house, f) for f in house.__slots__} | {"quiet_hours": QuietHours(start, end)})
    decision = decide(asked(due=now, timezone=zone), topic(), house, reader(), now)
    assert isinstance(decision, Defer if quiet else Deliver)


@given(times, times, zones, moments)
def test_quiet_hours_lie_between_their_instants_and_end_when_they_say(
    start: time, end: time, zone: str, now: datetime
) -> None:
    until = quiet_until(QuietHours(start, end), zone, "UTC", now)
    if until is not None:
        assert now < until <= now + DAY + 2 * HOUR
        assert quiet_until(QuietHours(start, end), zone, "UTC", until) is None


@given(caps, histories)
def test_room_is_there_when_it_was_promised_and_not_before(limits: tuple[Cap, ...], sent: list[datetime]) -> None:
    room = room_at(limits, sent, NOON)
    assert room_at(limits, sent, room) == room
    if room > NOON:
        before = room - timedelta(microseconds=1)
        assert room_at(limits, sent, before) == room


@given(caps, histories, st.integers(0, 20 * 24 * 60))
def test_one_more_mail_never_opens_room(limits: tuple[Cap, ...], sent: list[datetime], minutes: int) -> None:
    more = sorted([*sent, NOON - timedelta(minutes=minutes)])
    assert room_at(limits, more, NOON) >= room_at(limits, sent, NOON)


@given(caps, histories, zones, moments, st.integers(1, 100))
def test_who_waits_is_decided_later_and_in_the_end(
    limits: tuple[Cap, ...], sent: list[datetime], zone: str, now: datetime, hours: int
) -> None:
    request = asked(due=now, expires=hours * HOUR, timezone=zone)
    shifted = [at + (now - NOON) for at in sent]
    for _ in range(20):
        decision = decide(request, topic(), brand(caps=limits), reader(counted=shifted), now)
        if not isinstance(decision, Defer):
            break
        assert now < decision.until <= request.expires
        now = decision.until
    assert isinstance(decision, Deliver) or (isinstance(decision, Skip) and decision.reason in ("quiet_hours", "cap"))
    assert now <= request.expires


@given(moments, zones, st.booleans(), st.booleans())
def test_a_no_is_never_overruled(now: datetime, zone: str, general: bool, suppressed: bool) -> None:
    no = said(False, "*" if general else "cart-reminders")
    recipient = reader(no, suppressed="no_such_address" if suppressed else "")
    assert decide(asked(due=now, timezone=zone), topic(), brand(), recipient, now) == Skip("unsubscribed")


def test_retries_back_off_and_differ_between_messages() -> None:
    base = timedelta(minutes=1)
    delays = []
    for attempts in range(1, 10):
        again = retry(asked(), attempts, base, NOON)
        assert isinstance(again, Defer)
        delays.append(again.until - NOON)
    assert all(0.75 * base <= delays[i] / min(2**i, 64) <= 1.25 * base for i in range(9))
    assert retry(asked("m1"), 1, base, NOON) == retry(asked("m1"), 1, base, NOON) != retry(asked("m2"), 1, base, NOON)


def test_the_last_attempt_stands_at_the_expiry_and_then_it_has_failed() -> None:
    request = asked(expires=timedelta(seconds=30))
    assert retry(request, 1, HOUR, NOON) == Defer(request.expires, "retry")
    assert retry(request, 2, HOUR, request.expires) == Fail("retries_ran_out")


def test_what_is_held_for_want_of_a_playbook_is_held_until_it_expires() -> None:
    request = asked(expires=HOUR)
    assert held(request, request.expires, "no_playbook", NOON) == Defer(request.expires, "no_playbook")
    assert held(request, request.expires, "no_playbook", request.expires) == Skip("no_playbook")


@pytest.mark.parametrize(
    ("day", "at", "zone", "utc"),
    [
        ((2026, 3, 29), (2, 30), "Europe/Oslo", "2026-03-29T01:00:00+00:00"),
        ((2026, 10, 25), (2, 30), "Europe/Oslo", "2026-10-25T00:30:00+00:00"),
        ((2026, 10, 4), (2, 15), "Australia/Lord_Howe", "2026-10-03T15:30:00+00:00"),
        ((2011, 12, 30), (9, 0), "Pacific/Apia", "2011-12-30T10:00:00+00:00"),
    ],
)
def test_hours_that_do_not_exist_or_come_twice(
    day: tuple[int, int, int], at: tuple[int, int], zone: str, utc: str
) -> None:
    assert instant(date(*day), time(*at), ZoneInfo(zone)).isoformat() == utc


def test_a_call_waits_with_its_journey_unless_it_tells_of_a_code_that_is_out() -> None:
    call = msgspec.structs.replace(asked(), channel=WEBHOOK, message="tell")
    assert decide_call(call, NOON, paused=True) == Defer(call.expires, "paused", "journey")
    assert decide_call(msgspec.structs.replace(call, message="coupons/ten"), NOON, paused=True) == Deliver(False)
