"""What a message is shown with: a sample, or a customer of a running system."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from services.journeys.enrollment import Entry, key_of
from services.journeys.scopes import scope
from services.mailer.composing import Composer
from services.mailer.links import Links
from services.trials.running import run
from shared.contracts.customers import Customer
from shared.contracts.messages import MessageRequested
from shared.errors import RapportError
from shared.language import WithTests
from shared.language.catalogue import Catalogue
from shared.language.playbook import Email, EventTrigger, Journey, Playbook
from shared.language.problems import did_you_mean, listed
from shared.language.values import plain

TRAITS: Mapping[str, Any] = {
    "first_name": "Ada",
    "last_name": "Lind",
    "email": "ada@example.com",
    "phone": "+4740000000",
}
_NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
_ITEMS = 2


class Sample(msgspec.Struct, frozen=True):
    """A request for a message that nobody made, and where its data is from, in a few words."""

    request: MessageRequested
    origin: str


def sample(loaded: WithTests, message: str) -> Sample:
    """As the first test that sends the message has it; else made up from the catalogue. Raises RapportError."""
    playbook = loaded.playbook
    if message not in playbook.messages:
        known = did_you_mean(message, playbook.messages, f"There are {', '.join(playbook.messages) or 'none'}.")
        raise RapportError(f'there is no message "{message}". {known}')
    compose = Composer(Links(b"preview", "https://links.invalid"))
    for tested in loaded.tests:
        if not any(step.message == message for step in _mails(playbook.journeys[tested.journey])):
            continue
        for number, test in enumerate(tested.tests):
            sent = run(loaded, compose, tested, number).story.mails
            request = next((end.request for end in sent if end.request.message == message), None)
            if request is not None:
                place = tested.place(number)
                return Sample(_with_traits(request), f"{tested.file}:{place.line}: {test.name}")
    return Sample(_made_up(playbook, message, loaded.catalogue), "made up from the catalogue of events")


def with_data(request: MessageRequested, data: Mapping[str, Any]) -> MessageRequested:
    """The same with other data: `traits`, `customer`, `trigger`, `with`, `key`, `locale` and `timezone`."""
    known = ("traits", "customer", "trigger", "with", "key", "locale", "timezone")
    for name in data:
        if name not in known:
            remedy = did_you_mean(name, known, f"There are {', '.join(known)}.")
            raise RapportError(f'"{name}" is no data of a message. {remedy}')
    merged = dict(request.data)
    for name in ("traits", "customer", "trigger", "with"):
        if name in data:
            if not isinstance(data[name], Mapping):
                raise RapportError(f'"{name}" takes fields. Write each on a line of its own below, indented.')
            merged[name] = {**(merged.get(name) or {}), **data[name]}
    if "key" in data:
        merged["key"] = data["key"]
    places = {name: data[name] for name in ("locale", "timezone") if name in data}
    return msgspec.structs.replace(request, data=merged, **places)


def of_customer(request: MessageRequested, playbook: Playbook, page: Mapping[str, Any]) -> tuple[MessageRequested, str]:
    """The same for a real customer, as the segmenter's API shows them; and which of their events is the trigger, and
    what of the step's `with` stays the sample's, since more than that is asked there."""
    journey = playbook.journeys[request.journey]
    trigger, told = request.data.get("trigger") or {}, "the trigger is the sample's"
    key = request.data.get("key")
    if isinstance(journey.trigger, EventTrigger):
        for row in page["timeline"]["rows"]:
            if row.get("name") == journey.trigger.event and row.get("properties") is not None:
                trigger, told = row["properties"], f"the trigger is {row['name']} of {row['occurred_at']}"
                if journey.trigger.key is not None:
                    seen = scope(playbook, Customer(key=page["key"], traits=page["traits"]), _NOON, event=trigger)
                    key = key_of(journey.trigger.key.evaluate(seen))
                break
    given, kept = _given(request, playbook, page, trigger, key)
    if kept:
        told += f"; {listed(kept, 'and')} {'are' if len(kept) > 1 else 'is'} the sample's"
    shown = ("key", "stage", "segments", "first_seen", "last_seen", "locale", "timezone")
    data = {
        **request.data,
        "traits": page["traits"],
        "customer": {name: page[name] for name in shown},
        "trigger": trigger,
        "key": key,
        "with": given,
    }
    changed = msgspec.structs.replace(
        request,
        customer=page["key"],
        address=page["address"],
        locale=page["locale"],
        timezone=page["timezone"],
        data=data,
    )
    return changed, told


def _given(
    request: MessageRequested, playbook: Playbook, page: Mapping[str, Any], trigger: Mapping[str, Any], key: Any
) -> tuple[dict[str, Any], list[str]]:
    """What the step gives the message, and the names of what could not be worked out: what asks for the customer's
    history, or for what steps before have left behind."""
    given = dict(request.data.get("with") or {})
    step = playbook.journeys[request.journey].steps.get(request.step)
    told = ("key", "traits", "stage", "locale", "timezone")
    customer = Customer(segments=tuple(page["segments"]), **{name: page[name] for name in told})
    entry = Entry(_NOON, "", key, msgspec.json.encode(trigger))
    seen = scope(playbook, customer, _NOON, entry=entry)
    kept = []
    for name, expression in step.with_.items() if isinstance(step, Email) else ():
        known = all(
            path[0] in ("traits", "trigger", "key") or path in [("customer", told_of) for told_of in told]
            for path in expression.names
        )
        if known and not (expression.aggregates or expression.topics):
            given[name] = plain(expression.evaluate(seen))
        else:
            kept.append(name)
    return given, kept


def _mails(journey: Journey) -> list[Email]:
    return [step for step in journey.steps.values() if isinstance(step, Email)]


def _with_traits(request: MessageRequested) -> MessageRequested:
    """With a name, where the test gave none: so it looks like a mail to somebody."""
    data = {**request.data, "traits": {**TRAITS, **request.data["traits"]}}
    return msgspec.structs.replace(request, data=data)


def _made_up(playbook: Playbook, message: str, catalogue: Catalogue) -> MessageRequested:
    journeys = playbook.journeys.values()
    senders = [(journey, step) for journey in journeys for step in _mails(journey) if step.message == message]
    if not senders:
        raise RapportError(f'no journey sends "{message}", so nobody knows its data. Give it: --data FILE.')
    journey, step = senders[0]
    trigger: dict[str, Any] = {}
    if isinstance(journey.trigger, EventTrigger):
        fields = catalogue.events.get(journey.trigger.event) or {}
        trigger = {name: _example(name, schema) for name, schema in fields.items()}
    customer = {
        "key": "ada",
        "stage": playbook.stages[0].name if playbook.stages else "",
        "segments": [],
        "first_seen": _NOON,
        "last_seen": _NOON,
        "locale": None,
        "timezone": None,
    }
    return MessageRequested(
        as_of=_NOON,
        id="00000000-0000-5000-8000-000000000000",
        customer="ada",
        address=TRAITS["email"],
        message=message,
        topic=step.topic,
        channel=step.channel,
        journey=journey.name,
        enrollment="",
        step=step.id,
        due=_NOON,
        expires=_NOON + timedelta(days=3),
        data={
            "customer": customer,
            "traits": dict(TRAITS),
            "trigger": trigger,
            "key": "sample",
            "with": {name: f"[{name}]" for name in step.with_},
        },
    )


def _example(name: str, schema: Any) -> Any:
    """A value that a property could have, by its JSON Schema."""
    if not isinstance(schema, Mapping):
        return f"[{name}]"
    for given in ("const", "default"):
        if given in schema:
            return schema[given]
    for several in ("examples", "enum"):
        if schema.get(several):
            return schema[several][0]
    kind = schema.get("type")
    if kind in ("number", "integer"):
        return 42
    if kind == "boolean":
        return True
    if kind == "array":
        return [_example(name, schema.get("items", {})) for _ in range(_ITEMS)]
    if kind == "object" or "properties" in schema:
        return {key: _example(key, one) for key, one in (schema.get("properties") or {}).items()}
    return "https://example.com" if name.endswith("url") else f"[{name}]"
