"""A case of `language/*.yaml` as a playbook, a history, and the story that comes of it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import count
from typing import Any

import journeys_road
import msgspec
import segmenter_world
import yaml

from services.journeys.enrollment import Enrollment
from shared.contracts import events as contracts
from shared.contracts.customers import Activation, CustomerUpdated, DateReached, Tick
from shared.contracts.events import MAILER_SOURCE, Event
from shared.contracts.messages import MessageCancelled, MessageRequested
from shared.language import load
from shared.language.durations import parse_duration
from shared.language.playbook import Playbook, Split, Step

MONDAY = datetime(2026, 3, 2, 12, tzinfo=UTC)
KEY = "ada"
_TOPICS: Mapping[str, Mapping[str, str]] = {
    "news": {"title": "News", "kind": "promotional", "default": "opt_out"},
    "extra": {"title": "Extra", "kind": "promotional", "default": "opt_in"},
    "care": {"title": "Care", "kind": "service", "default": "opt_out"},
    "receipts": {"title": "Receipts", "kind": "transactional", "default": "opt_out"},
}
_BRAND = {"name": "Shop", "sender": "shop@example.com", "postal_address": "Harbour Street 12", "carts": "sent"}
_OUTCOMES = {"sent": contracts.EMAIL_SENT, "failed": contracts.EMAIL_FAILED, "unknown": contracts.EMAIL_UNKNOWN}
_USES = {"clicked": contracts.EMAIL_LINK_CLICKED, "opened": contracts.EMAIL_OPENED}


class Loader(yaml.SafeLoader):
    """YAML as the language reads it: `on` and dates are text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in found if not tag.endswith((":timestamp", ":bool", ":int:60"))]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("true|false"), ["t", "f"])


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
        **{f"journeys/{name}.yaml": journey for name, journey in journeys.items()},
    }
    texts = {name: yaml.safe_dump(data, sort_keys=False).encode() for name, data in files.items()}
    for number in range(1, 10):
        texts[f"messages/m{number}/subject.txt"] = b"Hello"
        texts[f"messages/m{number}/body.html"] = b'<a href="{{ unsubscribe_url }}">Stop</a>'
    return pinned(load(texts), case.get("arms", {}), Decimal("holdout" in case))


def pinned(playbook: Playbook, arms: Mapping[str, str], holdout: Decimal) -> Playbook:
    """The same, with lots that always fall on these arms of splits; everybody is held out, or nobody."""

    def certain(step: Step) -> Step:
        if not isinstance(step, Split) or step.id not in arms:
            return step
        return replace(step, arms={arms[step.id]: replace(step.arms[arms[step.id]], share=Decimal(1))})

    journeys = {
        name: replace(
            journey,
            steps={id: certain(step) for id, step in journey.steps.items()},
            holdout=holdout if journey.holdout else journey.holdout,
        )
        for name, journey in playbook.journeys.items()
    }
    return replace(playbook, journeys=journeys)


class Story:
    """One customer's way through a case."""

    def __init__(self, case: Mapping[str, Any]) -> None:
        self.case = case
        self.start = _moment(case.get("start", MONDAY))
        self.playbook = playbook_of(case)
        self._edits = [playbook_of(case, given["playbook"]) for given in case_history(case) if "playbook" in given]
        playbooks = (self.playbook, *self._edits)
        self.segmenter = segmenter_world.Road(*playbooks)
        self.journeys = journeys_road.Road(*playbooks)
        self.journeys.drive([Activation(as_of=datetime(2020, 1, 1, tzinfo=UTC), playbook=self.playbook.hash)])
        self.mails: list[tuple[MessageRequested, datetime]] = []
        self.skipped: list[tuple[str, str]] = []
        self._forwarded = self._reported = 0
        self._handled: set[str] = set()
        self._ids = count(1)
        self._tell()

    def _tell(self) -> None:
        customer = self.case.get("customer", {})
        traits = {"email": "ada@example.com"} if customer.get("address") != "none" else {"name": "Ada"}
        consent = {**dict.fromkeys(_TOPICS, True), **customer.get("consent", {})}
        traits["consent"] = {topic: said for topic, said in consent.items() if said is not None}
        self.segmenter.take(segmenter_world.identify(self.start, key=KEY, **traits, **customer.get("traits", {})))
        self._carry()
        edits = iter(self._edits)
        for given in case_history(self.case):
            moment = self.start + parse_duration(str(given["at"]))
            self.passes(moment)
            if "playbook" in given:
                book = next(edits)
                self.segmenter.take(segmenter_world.activation(book, moment))
                self.journeys.drive([Activation(as_of=moment, playbook=book.hash)])
                self.journeys.sweep()
                self.journeys.drive([Tick(as_of=moment)])
            else:
                self.segmenter.take(self._event(given, moment))
            self._carry()
        self.passes(self.start + parse_duration(self.case.get("until", "400d")))

    def _event(self, given: Mapping[str, Any], moment: datetime) -> Event:
        properties = given.get("properties", {})
        if "traits" in given:
            return segmenter_world.identify(moment, key=KEY, **given["traits"])
        for used, name in _USES.items():
            if used in given:
                request = [request for request, _ in self.mails if request.step == given[used]][-1]
                return self._outcome(name, request, moment, moment, machine=given.get("machine", False))
        occurred = self.start + parse_duration(given["occurred_at"]) if "occurred_at" in given else moment
        if "reply" in given:
            given = {"event": contracts.SURVEY_ANSWERED, **given}
            properties = {"survey": given["reply"], **properties}
        event = segmenter_world.event(
            given["event"], occurred, key=KEY, received=moment, historical=given.get("historical", False)
        )
        return msgspec.structs.replace(event, properties=msgspec.Raw(msgspec.json.encode(properties)))

    def passes(self, end: datetime) -> None:
        while True:
            due = min([*self.segmenter.timers.values(), *self.journeys.timers.values()], default=end)
            moment = min(end, max(due, self.segmenter.as_of))
            self.segmenter.pass_to(moment)
            self._carry()
            self.journeys.drive([Tick(as_of=moment)])
            self._carry()
            if moment >= end:
                return

    def _carry(self) -> None:
        while True:
            records = self.segmenter.records[self._forwarded :]
            self._forwarded += len(records)
            self.journeys.drive([one for one in records if isinstance(one, CustomerUpdated | DateReached)])
            reported = self.journeys.events[self._reported :]
            self._reported += len(reported)
            cancelled = {one.id for one in self.journeys.messages if isinstance(one, MessageCancelled)}
            asked = [one for one in self._requests() if one.id not in self._handled | cancelled]
            if not asked and not reported and not records:
                return
            for event in reported:
                moment = max(event.received_at, self.segmenter.as_of)
                self.segmenter.take(msgspec.structs.replace(event, received_at=moment))
            for request in asked:
                self._handled.add(request.id)
                self.segmenter.take(self._mail(request))

    def _mail(self, request: MessageRequested) -> Event:
        now = max(self.segmenter.as_of, request.due)
        if request.address is None:
            self.skipped.append((request.message, "no_address"))
            return self._outcome(contracts.EMAIL_SKIPPED, request, now, request.due, "no_address")
        if request.draft:
            return self._outcome(contracts.EMAIL_SKIPPED, request, now, request.due, "draft")
        name = self.case.get("outcomes", {}).get(request.step, "sent")
        if name == "sent":
            self.mails.append((request, request.due))
        return self._outcome(_OUTCOMES[name], request, now, request.due)

    def _outcome(
        self, name: str, request: MessageRequested, now: datetime, decided_for: datetime, reason: str = "", **more: Any
    ) -> Event:
        about = {
            "message_id": request.id,
            "message": request.message,
            "journey": request.journey,
            "enrollment": request.enrollment,
            "step": request.step,
            "topic": request.topic,
            "reason": reason,
            "decided_for": decided_for.isoformat(),
            **more,
        }
        id = f"mailer-{next(self._ids)}"
        event = segmenter_world.event(name, now, key=KEY, id=id, source=MAILER_SOURCE, hops=request.hops + 1, **about)
        return msgspec.structs.replace(event, received_at=max(now, self.segmenter.as_of))

    def _requests(self) -> list[MessageRequested]:
        return [message for message in self.journeys.messages if isinstance(message, MessageRequested)]

    @property
    def enrollments(self) -> list[Enrollment]:
        return sorted((one for _, one in self.journeys.enrollments.values()), key=lambda one: one.entry.at)

    def told(self, expected: Mapping[str, Any]) -> dict[str, Any]:
        """As much of the story as is expected, in the same form."""
        latest = next((one for one in reversed(self.segmenter.updates)), None)
        ends = [one.reason for one in self.enrollments if not one.inside]
        answers: dict[str, Any] = {
            "sent": [self._sent(*mail, wanted) for mail, wanted in _paired(self.mails, expected["sent"])],
            "skipped": [{"message": message, "reason": reason} for message, reason in self.skipped],
            "entered": len(self.enrollments),
            "exit": ends[-1] if ends else None,
            "goal": any(one.goal_at is not None for one in self.enrollments),
            "stage": latest.customer.stage if latest else "",
            "segments": list(latest.customer.segments) if latest else [],
            "emitted": [
                {"event": one.name, "properties": msgspec.json.decode(one.properties)}
                for one in self.journeys.events
                if one.type == "track"
            ],
        }
        if "traits" in expected and latest is not None:
            answers["traits"] = {name: latest.customer.traits.get(name) for name in expected["traits"]}
        return {name: answers[name] for name in ("sent", *expected) if name in answers}

    def _sent(self, request: MessageRequested, at: datetime, wanted: Any) -> Any:
        if not isinstance(wanted, Mapping):
            return request.message
        shown: dict[str, Any] = {"message": request.message}
        if "at" in wanted:
            shown["at"] = at
        if "with" in wanted:
            shown["with"] = request.data["with"]
        return shown

    def expected(self) -> dict[str, Any]:
        expected = dict(self.case["expect"])
        expected["sent"] = [
            {**mail, "at": self._instant(mail["at"])} if isinstance(mail, Mapping) and "at" in mail else mail
            for mail in expected["sent"]
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
    return [(mail, wanted[place] if place < len(wanted) else {"at": ""}) for place, mail in enumerate(mails)]


def _moment(told: Any) -> datetime:
    moment = told if isinstance(told, datetime) else datetime.fromisoformat(told)
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
