"""Each decision as a sentence with its rule. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

import msgspec

from services.journeys import unsent
from services.journeys.decisions import Decided, Decision
from services.journeys.story import Own, Rule, StoryEntry, Teller
from services.journeys.triggers import MOST_AT_ONCE
from services.journeys.wording import CHANNELS, condition, done
from shared.contracts import events
from shared.contracts.customers import SPEND_PERCENTILE
from shared.contracts.events import MAX_HOPS
from shared.contracts.messages import POOLS
from shared.contracts.story import Asked, Happened
from shared.language.places import SEGMENTS, STAGES, TOPICS
from shared.language.playbook import Email, EventTrigger, Journey


def entries(teller: Teller, own: Own) -> list[StoryEntry]:
    """The whole story, in order."""
    entries = [one for happened in teller.remembered.past for one in _of_segmenter(teller, happened)]
    entries += [_of_journeys(teller, decided, decision) for decided in own.decided for decision in decided.decisions]
    keys = {decided.enrollment: decided.key for decided in own.decided if decided.enrollment}
    for asked in teller.mailed.messages:
        entries += _of_mailer(teller, asked, keys.get(asked.enrollment, ""))
    news = {asked.id for asked in teller.mailed.messages if _is_news(asked)}
    return sorted(entries, key=lambda one: (one.at, _on_the_road(one, news)))


def _is_news(asked: Asked) -> bool:
    """Whether the journey heard of a message's end from the mailer, and not the other way round."""
    of_its_own = asked.status != "skipped" or any(line.until is None for line in asked.lines)
    return of_its_own and asked.ended_at is not None and asked.ended_at > asked.requested_at


def _on_the_road(entry: StoryEntry, news: Set[str]) -> int:
    """What of one moment comes first."""
    if entry.by == "mailer":
        return 1 if entry.what != "held" and entry.message_id in news else 3
    return 0 if entry.by == "segmenter" else 2


def _of_segmenter(teller: Teller, happened: Happened) -> Iterator[StoryEntry]:
    book = happened.playbook
    places = teller.books.places(book)
    why = _by_what(happened)

    def entry(what: str, text: str, rule: Rule | None = None, journey: str = "") -> StoryEntry:
        return StoryEntry(at=happened.at, by="segmenter", what=what, text=text, rule=rule, journey=journey)

    if happened.kind == "date":
        rule = teller.books.rule(
            teller.books.current, teller.books.places(teller.books.current).journey(happened.name, "trigger")
        )
        yield entry(
            "date", f"the date that {happened.name} waits for came ({happened.id})", rule, journey=happened.name
        )
    for topic, yes in happened.consent.items():
        rule = teller.books.rule(book, places.rule(TOPICS, "topics", topic))
        named = "every promotional topic" if topic == "*" else topic
        yield entry("consent", f"said {'yes' if yes else 'no'} to {named}{why}", rule)
    if happened.address_before is not None:
        text = "the mail address changed" if happened.address_before else "a mail address is known"
        yield entry("address", f"{text}{why}")
    if happened.stage_before is not None:
        before = f" (before: {happened.stage_before})" if happened.stage_before else ""
        rule = teller.books.rule(book, places.rule(STAGES, "stages", happened.stage))
        yield entry("stage", f"is in stage {happened.stage or 'none'}{before}{why}", rule)
    for segment, verb in [*((one, "entered") for one in happened.entered), *((one, "left") for one in happened.left)]:
        rule = teller.books.rule(book, places.rule(SEGMENTS, "segments", segment))
        yield entry(verb, f"{verb} segment {segment}{why}", rule)
    if happened.source == events.MAILER_SOURCE and happened.name in _MAIL:
        yield _of_a_mail(happened)


def _of_a_mail(happened: Happened) -> StoryEntry:
    about = _object(happened.properties)

    def said(name: str) -> str:
        return str(about.get(name) or "")

    link = said("link") if happened.name == events.EMAIL_LINK_CLICKED else ""
    verb = _MAIL[happened.name]
    if about.get("machine") is True:
        verb, link = f"a machine {verb}", said("reason")
    return StoryEntry(
        at=happened.at,
        by="segmenter",
        what=_WHAT[happened.name],
        text=f"{verb} {said('message') or 'a mail'}{f' ({link})' if link else ''}",
        journey=said("journey"),
        enrollment=said("enrollment"),
        step=said("step"),
        message=said("message"),
        message_id=said("message_id"),
    )


_MAIL = {
    events.EMAIL_LINK_CLICKED: "clicked a link in",
    events.EMAIL_OPENED: "opened",
    events.EMAIL_BOUNCED: "came back:",
    events.UNSUBSCRIBED: "unsubscribed by the link in",
}
"""What people and their mail servers do with mails; what the mailer does with them is told by itself."""
_WHAT = {
    events.EMAIL_LINK_CLICKED: "clicked",
    events.EMAIL_OPENED: "opened",
    events.EMAIL_BOUNCED: "bounced",
    events.UNSUBSCRIBED: "unsubscribed",
}


def _by_what(happened: Happened) -> str:
    match happened.kind:
        case "time":
            return f", {_as_time_passed(happened)}"
        case "definition" if happened.name == SPEND_PERCENTILE:
            return f", {_as_time_passed(happened)} (for the first time: the playbook asks for it now)"
        case "definition":
            return ", since the playbook changed"
        case "event" | "derived":
            return f", by {happened.name}" if happened.name else f", by what the shop told ({happened.type})"
    return ""


def _as_time_passed(happened: Happened | None) -> str:
    if happened is None or happened.name != SPEND_PERCENTILE:
        return "as time passed"
    if not happened.id:
        return "since a night has passed, and what was spent cannot be added up"
    return f"since a night has passed, and {happened.id} % of the buyers had spent less"


def _of_journeys(teller: Teller, decided: Decided, decision: Decision) -> StoryEntry:
    journey, book = decided.journey, decided.playbook
    places = teller.books.places(book)
    message = message_id = remedy = ""
    at_step = places.step(journey, decision.step) if decision.step else None
    place = at_step
    match decision.what:
        case "entered" | "restarted":
            verb = "entered" if decision.what == "entered" else "begins anew"
            text, place = f"{verb}, {_cause(teller, decided, decision.word)}", places.journey(journey, "trigger")
        case "declined":
            text, remedy, place_of = refusal(teller, decided, decision)
            place = places.journey(journey, *place_of)
        case "held_out":
            text = f"held out until {teller.when(decision.until)}: gets nothing, so that its effect is seen"
            place = places.journey(journey, "holdout")
        case "passed":
            text = _passed(teller, decided, decision)
        case "waits":
            text = f"waits until {teller.when(decision.until)}"
        case "listens":
            text = f"waits for {_awaited(teller, decided, decision.step)} until {teller.when(decision.until)}"
        case "asked":
            message, message_id = message_of(teller, journey, decision.step, decision.word), decision.word
            called = places.written(journey, decision.step, "webhook", "url")
            by = next((word for word in CHANNELS if places.written(journey, decision.step, word)), "email")
            text = f"calls {called}" if called else f"asks for the {CHANNELS[by]} {message}"
        case "parked":
            pause = unsent.paused(teller, journey, book)
            text, remedy = f"is due and waits: {pause.text}", pause.remedy
        case "moved":
            text = "goes on in the version that has come into force"
        case "left":
            why, path = end(decision.word)
            text = f"leaves: {why}"
            place = at_step if path is None else places.journey(journey, *path) or at_step
        case "goal":
            text, place = "reached the goal in time, after the end", places.journey(journey, "goal")
        case "attributed":
            text, place = f"has the order, worth {decision.word}", places.journey(journey, "goal", "value")
    return StoryEntry(
        at=decided.at,
        by="journeys",
        what=decision.what,
        text=text,
        journey=journey,
        enrollment=decided.enrollment,
        key=decided.key,
        step=decision.step if decision.what != "declined" else "",
        message=message,
        message_id=message_id,
        rule=teller.books.rule(book, place),
        remedy=remedy,
    )


def message_of(teller: Teller, journey: str, step: str, message_id: str) -> str:
    """The name of the message that a step asked for."""
    known = next((one.message for one in teller.mailed.messages if one.id == message_id), None)
    if known is not None:
        return known
    now = _journey(teller, journey)
    found = now.steps.get(step) if now is not None else None
    return found.message if isinstance(found, Email) else step


def _cause(teller: Teller, decided: Decided, cause: str) -> str:
    kind, _, rest = cause.partition("\n")
    if kind == "date":
        return f"since its date came ({rest})"
    if kind == "time":
        past = teller.remembered.past
        return _as_time_passed(next((one for one in past if one.kind == "time" and one.at == decided.at), None))
    if kind == "backfill":
        return "by backfill"
    source, _, id = rest.partition("\n")
    for happened in teller.remembered.past:
        if (happened.source, happened.id) == (source, id):
            return f"by {happened.name or happened.type}"
    now = _journey(teller, decided.journey)
    if now is not None and isinstance(now.trigger, EventTrigger):
        return f"by {now.trigger.event}"
    return f"by the event {id} of {source}"


def refusal(teller: Teller, decided: Decided, decision: Decision) -> tuple[str, str, tuple[str, ...]]:
    """Why somebody did not enter, what to do about it, and where in the journey's file that is said."""
    journey, key = decided.journey, f" for {decided.key}" if decided.key else ""
    places = teller.books.places(decided.playbook)
    match decision.word:
        case "inside":
            return f"does not enter: is inside already{key}", unsent.NOTHING, ("mode",)
        case "again" if decision.until is not None:
            again = places.written_in(f"journeys/{journey}.yaml", "again") or "again"
            return (
                f"does not enter: was in{key} before (again: {again}), and may from {teller.when(decision.until)}",
                "Shorten again, if that is too long.",
                ("again",),
            )
        case "again":
            return f"does not enter: was in{key} before, and enters once only", "Set again to a time.", ("again",)
        case "elsewhere":
            return f"does not enter: is in {decision.step}", unsent.NOTHING, ("trigger", "unless_in")
        case "condition":
            asked = places.written_in(f"journeys/{journey}.yaml", "trigger", "if")
            return f"does not enter: {asked or 'its if'} was not true", unsent.NOTHING, ("trigger", "if")
        case "paused":
            pause = unsent.paused(teller, journey, decided.playbook)
            return f"does not enter: {pause.text}", pause.remedy, ("status",)
        case "no_key":
            written = places.written_in(f"journeys/{journey}.yaml", "trigger", "key")
            return (
                f"does not enter: the event had no {written.removeprefix('event.') or 'key'}",
                f"Have the shop send {written.removeprefix('event.') or 'it'}.",
                ("trigger", "key"),
            )
        case "loop":
            text = f"does not enter: this is the consequence of a consequence, {MAX_HOPS} times over"
            return text, "Find the journey that answers its own event.", ("trigger",)
        case "crowded":
            return f"does not enter: is in {MOST_AT_ONCE} journeys at once, which is the most", "", ("trigger",)
    return f"does not enter: {decision.word.replace('_', ' ')}", "", ("trigger",)


def _passed(teller: Teller, decided: Decided, decision: Decision) -> str:
    places, journey, step, way = teller.books.places(decided.playbook), decided.journey, decision.step, decision.word
    if way in ("then", "else"):
        asked = places.written(journey, step, "if")
        if asked:
            return f"{asked}: {'yes' if way == 'then' else 'no'}"
        return f"{step}: {'otherwise' if way == 'else' else way}"
    if way == "timeout":
        return f"{_awaited(teller, decided, step)} did not come"
    if way == "matched":
        return f"{_awaited(teller, decided, step)} came"
    if way.isdecimal():
        return f"{condition(places, journey, step, way) or f'{step}: way {way}'}: yes"
    said = done(places, journey, step, way)
    if said or way:
        return said or f"{step}: {way}"
    for path, what in _DONE.items():
        written = places.written(journey, step, *path)
        if written:
            return f"{what} {written}"
    return f"{step} is passed"


_DONE = {
    ("emit",): "reports",
    ("task", "title"): "gives somebody the task",
    ("webhook", "url"): "calls",
}
"""What is said of a step that has one way out, before what is written there."""


def _awaited(teller: Teller, decided: Decided, step: str) -> str:
    """What a wait_for waits for, as it is written."""
    places = teller.books.places(decided.playbook)
    for word, what in _AWAITED.items():
        written = places.written(decided.journey, step, "wait_for", word)
        if written:
            return f"{what}{written}"
    return f"what {step} waits for"


_AWAITED = {"event": "", "clicked": "a click in ", "opened": "an open of ", "reply": "the answer to "}

_ENDS: dict[str, tuple[str, tuple[str, ...] | None]] = {
    "completed": ("it is through", None),
    "goal": ("the goal is reached", ("goal",)),
    "exit_on": ("an exit_on came true", ("exit_on",)),
    "unsubscribed": ("they unsubscribed from what is still to come", ("defaults", "topic")),
    "restarted": ("it begins anew", ("mode",)),
    "removed": ("it is not in the playbook any more", ("journey",)),
    "held_out": ("they were held out, and the goal does not count any more", ("holdout",)),
}


def end(reason: str) -> tuple[str, tuple[str, ...] | None]:
    """Why an enrollment ends, in words, and where in the journey its rule is: None is the step."""
    return _ENDS.get(reason) or (reason, None)


def _of_mailer(teller: Teller, asked: Asked, key: str) -> Iterator[StoryEntry]:
    def entry(what: str, at: Any, text: str, because: unsent.Because | None = None, remedy: str = "") -> StoryEntry:
        return StoryEntry(
            at=at,
            by="mailer",
            what=what,
            text=text,
            journey=asked.journey,
            enrollment=asked.enrollment,
            key=key,
            step=asked.step,
            message=asked.message,
            message_id=asked.id,
            rule=because.rule if because is not None else None,
            remedy=remedy,
        )

    name = f"the call about {asked.message}" if asked.message.startswith(POOLS) else asked.message
    for line in asked.lines:
        if line.until is not None:
            because = unsent.held(teller, asked, line)
            # Lines know seconds; nothing is held before it was asked for.
            at = max(line.at, asked.requested_at)
            yield entry("held", at, f"{name}: held until {teller.when(line.until)}: {because.text}", because)
    if asked.ended_at is None:
        return
    ended, text = outcome(teller, asked)
    remedy = ended.remedy if ended is not None else ""
    yield entry(asked.status, max(asked.ended_at, asked.requested_at), f"{name}: {text}", ended, remedy)


def outcome(teller: Teller, asked: Asked) -> tuple[unsent.Because | None, str]:
    """How a message ended, or where it stands."""
    match asked.status:
        case "sent":
            resolved = f", known since {asked.reason.replace('_', ' ')}" if asked.reason else ""
            return None, f"sent to {asked.address}{resolved}" if asked.address else f"sent{resolved}"
        case "skipped":
            because = unsent.skipped(teller, asked)
            return because, f"not sent: {because.text}"
        case "failed":
            because = unsent.failed(teller, asked)
            return because, f"not sent: {because.text}"
        case "unknown":
            because = unsent.unknown(asked)
            return because, f"unknown: {because.text}"
        case "held":
            if asked.lines and asked.lines[-1].until is not None:
                because = unsent.held(teller, asked, asked.lines[-1])
                return because, f"held until {teller.when(asked.due)}: {because.text}"
            return None, f"held until {teller.when(asked.due)}"
        case "sending":
            return None, "is being handed over"
    return None, "is about to be decided"


def _journey(teller: Teller, name: str) -> Journey | None:
    return teller.books.in_force.journeys.get(name) if teller.books.in_force is not None else None


def _object(raw: msgspec.Raw) -> dict[str, Any]:
    found = msgspec.json.decode(raw)
    return found if isinstance(found, dict) else {}
