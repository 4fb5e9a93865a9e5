from __future__ import annotations

from datetime import timedelta

import msgspec
from mailer_cases import NOON, asked

from services.mailer.outcomes import Again, Ended, after, event
from services.mailer.transport import Accepted, Deferred, Rejected, Unknown
from shared.contracts.events import Event

MINUTE = timedelta(minutes=1)


def test_an_accepted_mail_is_sent_even_if_it_was_cancelled_meanwhile() -> None:
    assert after(Accepted("250 ok"), asked(), 1, "goal", MINUTE, NOON) == Ended("sent", "", "250 ok")


def test_a_deferred_mail_is_tried_again_until_it_expires() -> None:
    request = asked(expires=timedelta(minutes=10))
    again = after(Deferred("451 later", "greylisted"), request, 1, "", MINUTE, NOON)
    assert isinstance(again, Again)
    assert again.at > NOON
    assert (again.reason, again.detail) == ("greylisted", "451 later")
    over = after(Deferred("451 later", "greylisted"), request, 9, "", MINUTE, request.expires)
    assert over == Ended("failed", "retries_ran_out", "451 later")


def test_a_deferred_mail_that_was_cancelled_meanwhile_is_not_tried_again() -> None:
    assert after(Deferred("", "connection"), asked(), 1, "goal", MINUTE, NOON) == Ended("skipped", "goal")


def test_a_refused_mail_has_failed() -> None:
    assert after(Rejected("550 5.1.1 who?", True), asked(), 1, "", MINUTE, NOON).reason == "no_such_address"
    assert after(Rejected("552 too big", False), asked(), 1, "", MINUTE, NOON).reason == "rejected"


def test_a_lost_answer_is_unknown_and_stays_so() -> None:
    assert after(Unknown("connection_lost"), asked(), 1, "", MINUTE, NOON) == Ended("unknown", "connection_lost")


def test_the_event_says_which_message_and_when_it_was_decided_for_and_no_address() -> None:
    request = asked(hops=2)
    decided_for = NOON - MINUTE
    value = msgspec.json.encode(event(request, Ended("sent", "", "250 ok anna@example.org"), decided_for, NOON))
    told = msgspec.json.decode(value, type=Event)
    assert (told.name, told.source, told.key, told.hops) == ("Email Sent", "rapport/mailer", "anna", 3)
    assert b"@" not in value
    assert msgspec.json.decode(told.properties) == {
        "message_id": "m1",
        "message": "cart-reminder",
        "journey": "abandoned-cart",
        "enrollment": "e1",
        "step": "cart-reminder",
        "topic": "cart-reminders",
        "reason": "",
        "decided_for": "2026-03-02T10:59:00Z",
    }


def test_one_outcome_is_one_event_whenever_it_is_told() -> None:
    def id(status: str, minutes: int) -> str:
        ended = Ended(status)  # type: ignore[arg-type]
        return event(asked(), ended, NOON, NOON + minutes * MINUTE).id

    assert id("sent", 0) == id("sent", 5) != id("failed", 0)
