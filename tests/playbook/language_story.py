"""A case of `language/*.yaml` as a playbook, a history, and the story that comes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import count
from typing import Any

import msgspec
import yaml

from services.journeys.enrollment import Enrollment
from services.mailer.outcomes import report
from services.mailer.transport import Accepted, Receipt, Rejected, Unknown
from services.rehearsal.house import House
from services.rehearsal.witness import End, Witness
from services.trials.pinning import pinned
from shared.contracts import events as contracts
from shared.contracts.customers import Customer, CustomerUpdated, DateReached
from shared.contracts.events import JOURNEYS_SOURCE, Event
from shared.contracts.messages import WEBHOOK, MessageRequested
from shared.language import load
from shared.language.durations import parse_duration
from shared.language.playbook import Playbook

MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEY = "ada"
_TOPICS: Mapping[str, Mapping[str, str]] = {
    "news": {"title": "News", "kind": "promotional", "default": "opt_out"},
    "extra": {"title": "Extra", "kind": "promotional", "default": "opt_in"},
    "care": {"title": "Care", "kind": "service", "default": "opt_out"},
    "receipts": {"title": "Receipts", "kind": "transactional", "default": "opt_out"},
}
_BRAND = {"name": "Shop", "sender": "shop@example.com", "postal_address": "Harbour Street 12", "carts": "sent"}
_USES = {"clicked": contracts.EMAIL_LINK_CLICKED, "opened": contracts.EMAIL_OPENED}
_ANSWERS: Mapping[str, Receipt] = {
    "sent": Accepted("250 ok"),
    "bounced": Rejected("550 5.1.1 no such user", suppress=True),
    "failed": Rejected("554 no", suppress=False),
    "unknown": Unknown("connection_lost"),
}


class Loader(yaml.SafeLoader):
    """YAML as the language reads it: `on` and dates are text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in found if not tag.endswith((":timestamp", ":bool", ":int:60"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), ["t", "f"])


def of_condition(case: Mapping[str, Any]) -> Mapping[str, Any]:
    """A case of one condition, `if`, as a journey that asks it once the customer has lived through what is given."""
    if "if" not in case:
        return case
    history = case.get("given", [])
    begins = {"at": history[-1]["at"] if history else "0m", "event": "Start"}
    return {
        "name": case["name"],
        "customer": {"traits": case.get("traits", {})},
        "steps": [{"if": case["if"], "then": [{"email": "m1"}]}],
        "given": [*history, begins],
        "expect": {"sent": ["m1"] if case["holds"] else []},
    }


def journeys_of(case: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The journeys of a case, with what each of them needs and the case does not say."""
    if "journeys" in case:
        told = case["journeys"]
    else:
        told = {"j": {"trigger": {"event": "Start"}, **case.get("journey", {}), "steps": case["steps"]}}
    return {name: {"journey": name, "defaults": {"topic": "news"}, **journey} for name, journey in told.items()}


def playbook_of(case: Mapping[str, Any], changes: Any = None) -> Playbook:
    """A case's playbook; `changes` are those of an edit on the way ("none" where the journey is taken away)."""
    journeys = journeys_of(case)
    if changes == "none":
        journeys = {}
    elif changes is not None:
        journeys = {name: {**journey, **changes} for name, journey in journeys.items()}
    files: dict[str, Any] = {
        "rapport.yaml": {**_BRAND, "rates": {"USD": 0.5}, **case.get("brand", {})},
        "stages.yaml": {"stages": case.get("stages", {"attract": "true"})},
        "segments.yaml": {"segments": case.get("segments", {})},
        "topics.yaml": {"topics": _TOPICS},
        **{f"coupons/{name}.yaml": pool for name, pool in case.get("coupons", {}).items()},
        **{f"journeys/{name}.yaml": journey for name, journey in journeys.items()},
    }
    texts = {name: yaml.safe_dump(data, sort_keys=False).encode() for name, data in files.items()}
    for number in range(1, 10):
        texts[f"messages/m{number}/subject.txt"] = b"Hello"
        texts[f"messages/m{number}/body.html"] = b'<a href="{{ unsubscribe_url }}">Stop</a>'
    texts["messages/m8/sms.txt"] = texts["messages/m9/sms.txt"] = b"Hello"
    texts["messages/m8/push.yaml"] = b"title: Hello\nbody: You"
    return pinned(load(texts), None, case.get("arms", {}), holdout=int("holdout" in case))


class Story(Witness):
    """One customer's way through a case."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.case = case = of_condition(case)
        self.start = _moment(case.get("start", MONDAY))
        self.mails: list[End] = []
        self.skipped: list[End] = []
        self.calls: list[End] = []
        self.emitted: list[Event] = []
        self._moved: dict[str, Enrollment] = {}
        self._latest: Customer | None = None
        self._ids = count(1)
        history = case_history(case)
        edits = iter([playbook_of(case, given["playbook"]) for given in history if "playbook" in given])
        self.house = House(
            playbook_of(case), self.start - timedelta(days=365), witness=self, answer=self._answer, remembers=True
        )
        self.house.pass_to(self.start)
        self.house.take(self._customer())
        for given in history:
            moment = self.start + parse_duration(str(given["at"]))
            self.house.pass_to(moment)
            if "playbook" in given:
                self.house.activate(next(edits))
            else:
                self.house.take(self._event(given, moment))
        self.house.pass_to(self.start + parse_duration(case.get("until", "400d")))

    def told(self, record: CustomerUpdated | DateReached, at: datetime) -> None:
        self._latest = record.customer

    def moved(self, customer: str, enrollment: Enrollment, at: datetime) -> None:
        self._moved[enrollment.id] = enrollment

    def reported(self, event: Event, at: datetime) -> None:
        if event.source == JOURNEYS_SOURCE and event.type == "track":
            self.emitted.append(event)

    def ended(self, end: End, at: datetime) -> None:
        if end.request.channel == WEBHOOK:
            self.calls.append(end)
        elif end.status == "sent":
            self.mails.append(end)
        elif end.status == "skipped" and end.reason != "draft":
            self.skipped.append(end)

    def _answer(self, request: MessageRequested, now: datetime) -> Receipt:
        return _ANSWERS[self.case.get("outcomes", {}).get(request.step, "sent")]

    def _customer(self) -> Event:
        customer = self.case.get("customer", {})
        traits: dict[str, Any] = {"email": "ada@example.com"} if customer.get("address") != "none" else {"name": "Ada"}
        consent = {**dict.fromkeys(_TOPICS, True), **customer.get("consent", {})}
        traits["consent"] = {topic: said for topic, said in consent.items() if said is not None}
        return self._identified(self.start, {**traits, **customer.get("traits", {})})

    def _identified(self, moment: datetime, traits: Mapping[str, Any]) -> Event:
        return self._said(moment, type="identify", traits=msgspec.Raw(msgspec.json.encode(traits)))

    def _event(self, given: Mapping[str, Any], moment: datetime) -> Event:
        if "traits" in given:
            return self._identified(moment, given["traits"])
        for used, name in _USES.items():
            if used in given:
                mail = [mail.request for mail in self.mails if mail.request.step == given[used]][-1]
                about = {"machine": given.get("machine", False)}
                return msgspec.json.decode(report(mail, f"use-{next(self._ids)}", name, moment, about), type=Event)
        if "reply" in given:
            answer = {"survey": given["reply"], **given.get("properties", {})}
            given = {"at": given["at"], "event": contracts.SURVEY_ANSWERED, "properties": answer}
        occurred = self.start + parse_duration(given["occurred_at"]) if "occurred_at" in given else moment
        properties = msgspec.Raw(msgspec.json.encode(given.get("properties", {})))
        historical = given.get("historical", False)
        return self._said(moment, occurred, name=given["event"], properties=properties, historical=historical)

    def _said(self, received: datetime, occurred: datetime | None = None, **more: Any) -> Event:
        id = f"event-{next(self._ids)}"
        return Event(id=id, source="shop", key=KEY, occurred_at=occurred or received, received_at=received, **more)

    @property
    def enrollments(self) -> list[Enrollment]:
        return sorted(self._moved.values(), key=lambda one: one.entry.at)

    def as_expected(self, expected: Mapping[str, Any]) -> dict[str, Any]:
        """As much of the story as is expected, in the same form."""
        latest = self._latest
        ends = [one.reason for one in self.enrollments if not one.inside]
        skipped = _paired(self.skipped, expected.get("skipped", []))
        answers: dict[str, Any] = {
            "sent": [self._shown(mail, wanted) for mail, wanted in _paired(self.mails, expected["sent"])],
            "skipped": [self._shown(mail, wanted) for mail, wanted in skipped],
            "entered": len(self.enrollments),
            "exit": ends[-1] if ends else None,
            "goal": any(one.goal_at is not None for one in self.enrollments),
            "stage": latest.stage if latest else "",
            "segments": list(latest.segments) if latest else [],
            "emitted": [{"event": one.name, "properties": msgspec.json.decode(one.properties)} for one in self.emitted],
        }
        if "attributed" in expected:
            worth = {name: self._attributed(name) for name in journeys_of(self.case)}
            answers["attributed"] = worth if isinstance(expected["attributed"], Mapping) else sum(worth.values())
        answers["webhooks"] = [
            {"url": call.request.data["url"], "with": call.request.data["with"]} for call in self.calls
        ]
        answers["tasks"] = [
            {"title": msgspec.json.decode(one.properties)["title"]} for one in self.emitted if one.name == "Task Opened"
        ]
        if "traits" in expected and latest is not None:
            answers["traits"] = {name: latest.traits.get(name) for name in expected["traits"]}
        return {name: answers[name] for name in ("sent", *expected) if name in answers}

    def _attributed(self, journey: str) -> Decimal:
        worth = [one.attributed for one in self.enrollments if one.journey == journey]
        return sum(filter(None, worth), Decimal(0))

    def _shown(self, end: End, wanted: Any) -> Any:
        if not isinstance(wanted, Mapping):
            return end.request.message
        every = {
            "message": end.request.message,
            "reason": end.reason,
            "at": end.decided_for,
            "with": end.request.data.get("with"),
        }
        return {name: every[name] for name in ("message", *wanted)}

    def expected(self) -> dict[str, Any]:
        expected = dict(self.case["expect"])
        for listed in expected.keys() & {"sent", "skipped"}:
            expected[listed] = [
                {**mail, "at": self._instant(mail["at"])} if isinstance(mail, Mapping) and "at" in mail else mail
                for mail in expected[listed]
            ]
        return expected

    def _instant(self, told: Any) -> datetime:
        if isinstance(told, str) and "T" not in told:
            return self.start + parse_duration(told)
        return _moment(told)


def case_history(case: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = case.get("given", [{"at": "0m", "event": "Start"}])
    return found


def _paired(mails: Sequence[Any], wanted: Sequence[Any]) -> list[tuple[Any, Any]]:
    """Each mail with what was expected in its place; the rest with nothing in particular."""
    nothing = {"at": "", "reason": ""}
    return [(mail, wanted[place] if place < len(wanted) else nothing) for place, mail in enumerate(mails)]


def _moment(told: Any) -> datetime:
    moment = told if isinstance(told, datetime) else datetime.fromisoformat(told)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
