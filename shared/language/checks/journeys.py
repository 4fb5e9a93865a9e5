"""The journeys: what begins them, what ends them, and each of their steps."""

from __future__ import annotations

from shared.contracts.events import SURVEY_ANSWERED
from shared.language import steps as written
from shared.language.catalogue import OWN
from shared.language.checks.book import (
    CONDITION,
    GIVEN,
    MATCH,
    TRIGGER,
    TRIGGER_KEY,
    TRIGGER_WITHOUT_EVENT,
    VALUE,
    Book,
    ReadJourney,
    each_of,
    some_of,
)
from shared.language.checks.certain import check_ways
from shared.language.checks.coupons import check_carriers, check_coupon, check_encrypted
from shared.language.checks.hours import Clock, check_hours, clocks
from shared.language.checks.names import check_event, check_match, check_name, read_expression
from shared.language.expressions import compile_expression
from shared.language.graph import Placed, lay_out
from shared.language.journey_file import EventTrigger, Goal, JourneyFile, SegmentTrigger, StageTrigger
from shared.language.playbook_files import TopicEntry
from shared.language.problems import did_you_mean, listed, quoted
from shared.language.reading import read
from shared.language.sections import Hole
from shared.language.source import Path
from shared.language.template_filters import GLOBALS
from shared.language.templates import Sender
from shared.language.variables import STANDARD

_CALLED = {"email": "mail", "sms": "text message", "push": "notification"}
_TAKEN = frozenset({*STANDARD, *GLOBALS, "loop"})
"""Names that a template knows already."""


def check_journey(book: Book, file: str) -> None:
    document = book.document(file)
    shape = None if document is None else read(document, JourneyFile, book.report)
    if document is None or shape is None:
        return
    stem = file.rsplit("/", 1)[-1].removesuffix(".yaml")
    if shape.journey != stem:
        message = f"this file is {stem}.yaml, and its journey is called {quoted(shape.journey)}."
        book.report(document.problem(document.at(("journey",)), message, "Give both the same name."))
    journey = ReadJourney(document, shape, lay_out(document, shape, book.report))
    book.journeys[stem] = journey
    check_trigger(book, journey)
    if isinstance(shape.goal, Goal):
        match = written.EventMatch.model_construct(event=shape.goal.event, where=shape.goal.where)
        ending = "so this goal is never reached and buyers keep getting mail"
        check_match(book, journey, ("goal",), match, None, ending)
        if shape.goal.value is not None:
            read_expression(book, journey, ("goal", "value"), shape.goal.value, VALUE, shape.goal.event)
    for position, match in enumerate(shape.exit_on):
        if not isinstance(match, Hole):
            check_match(book, journey, ("exit_on", position), match, None, "so this exit never happens")
    if not isinstance(shape.defaults, Hole) and shape.defaults.topic is not None:
        check_name(book, journey, ("defaults", "topic"), "topic", shape.defaults.topic)
    due = clocks(journey)
    for placed in journey.layout.placed:
        check_step(book, journey, placed, due.get(placed.id))
    check_carriers(book, journey)
    check_exits(book, journey)
    check_variables(book, journey)
    if shape.holdout is not None:
        check_holdout(book, journey)


def check_trigger(book: Book, journey: ReadJourney) -> None:
    trigger, path = journey.shape.trigger, ("trigger",)
    if isinstance(trigger, Hole):
        return
    event: str | None = None
    if isinstance(trigger, EventTrigger):
        event = trigger.event
        check_event(book, event, book.wrong_at(journey.document, (*path, "event")))
        ending = "so this journey never begins"
        absent = book.catalogue.absent(event, each_of(journey))
        if absent is not None:
            part, known = absent
            remedy = did_you_mean(part, known, f"Correct it, or have the shop send {part}.")
            message = f"{quoted(event)} has no {part} in the catalogue, {ending}."
            book.wrong_at(journey.document, (*path, "for_each"))(message, remedy)
            journey.document.broken.add((*path, "for_each"))
        if trigger.where is not None:
            read_expression(book, journey, (*path, "where"), trigger.where, TRIGGER, event, consequence=ending)
        if trigger.key is not None:
            read_expression(book, journey, (*path, "key"), trigger.key, TRIGGER_KEY, event)
    elif isinstance(trigger, StageTrigger):
        check_name(book, journey, (*path, "stage"), "stage", trigger.stage)
    elif isinstance(trigger, SegmentTrigger):
        check_name(book, journey, (*path, "segment"), "segment", trigger.segment)
    for position, name in enumerate(trigger.unless_in):
        here = (*path, "unless_in", position)
        if name == journey.shape.journey:
            message = f"{quoted(name)} is this journey, and who is in it does not enter anyway."
            book.wrong_at(journey.document, here)(message, "Remove it.")
        elif name not in book.journey_names:
            others = [other for other in book.journey_names if other != journey.shape.journey]
            remedy = did_you_mean(name, others, f"There are {some_of(others)}.")
            book.wrong_at(journey.document, here)(f"there is no journey {quoted(name)}.", remedy)
    if trigger.if_ is not None:
        site = TRIGGER if event is not None else TRIGGER_WITHOUT_EVENT
        ending = "so this journey never begins"
        read_expression(book, journey, (*path, "if"), trigger.if_, site, event, consequence=ending)


def check_holdout(book: Book, journey: ReadJourney) -> None:
    """Those who are held out are compared by the goal; and nobody is kept from what has to reach them."""
    shape = journey.shape
    wrong = book.wrong_at(journey.document, ("holdout",))
    if shape.holdout == 1:
        wrong("nobody is left to get anything.", "Hold out less: 10%.")
    if not isinstance(shape.goal, Hole) and (shape.goal is None or shape.goal.within is None):
        message = "those who are held out are compared by the goal, and this journey has none within a time."
        wrong(message, "Add goal: {event: Order Completed, within: 7d}, or remove holdout.")
    for placed, mail in journey.layout.sends():
        topic = mail.topic if mail.topic is not None else getattr(shape.defaults, "topic", None)
        entry = book.topics.get(topic) if topic is not None else None
        if entry is not None and entry.kind == "transactional":
            message = f"{quoted(placed.id)} is transactional mail, which has to reach everybody."
            wrong(message, "Remove holdout, or send it from a journey of its own.")
            break


def check_step(book: Book, journey: ReadJourney, placed: Placed, clock: Clock | None) -> None:
    step, path = placed.step, placed.path
    if isinstance(step, written.IfStep):
        read_expression(book, journey, (*path, "if"), step.if_, CONDITION, step=placed)
        check_ways(book, journey, placed)
    elif isinstance(step, written.WaitForStep):
        check_answer(book, journey, placed, step.wait_for)
    elif isinstance(step, written.SendStep):
        check_mail(book, journey, placed, step, clock)
    elif isinstance(step, written.ChooseStep):
        for position, way in enumerate(step.choose):
            if isinstance(way, written.Way):
                read_expression(book, journey, (*path, "choose", position, "if"), way.if_, CONDITION, step=placed)
        check_ways(book, journey, placed)
    elif isinstance(step, written.SplitStep):
        for name, arm in step.split.items():
            if not isinstance(arm, Hole) and not arm.share and arm.then:
                wrong = book.wrong_at(journey.document, (*path, "split", name, "share"))
                wrong("nobody draws this.", "Give it a share, or remove it.", True)
    elif isinstance(step, written.SetStep):
        for name, text in step.set.items():
            read_expression(book, journey, (*path, "set", name), text, GIVEN, step=placed)
    elif isinstance(step, written.WebhookStep):
        check_webhook(book, journey, placed, step)
    elif isinstance(step, written.TaskStep):
        if not isinstance(step.task, Hole):
            read_expression(book, journey, (*path, "task", "title"), step.task.title, GIVEN, step=placed)
            if step.task.note is not None:
                read_expression(book, journey, (*path, "task", "note"), step.task.note, GIVEN, step=placed)
    elif isinstance(step, written.CouponStep):
        check_coupon(book, journey, placed, step)
    elif isinstance(step, written.EmitStep):
        check_emitted(book, journey, placed, step)


def check_exits(book: Book, journey: ReadJourney) -> None:
    """Exits that never happen, since the same event always ends the journey as something else."""
    shape = journey.shape
    ends: dict[str, str] = {}
    if isinstance(shape.goal, Goal) and shape.goal.where is None and shape.goal.within is None:
        ends[shape.goal.event] = "any such event reaches the goal first"
    for position, match in enumerate(shape.exit_on):
        if isinstance(match, Hole):
            continue
        if match.event in ends:
            wrong = book.wrong_at(journey.document, ("exit_on", position, "event"))
            wrong(f"{ends[match.event]}, so this exit never happens.", "Remove it, or give the first a where.", True)
        elif match.where is None:
            ends[match.event] = "the exit above takes any such event"


def check_variables(book: Book, journey: ReadJourney) -> None:
    """Values that a `set` keeps and nothing asks for."""
    if not journey.layout.sound or journey.document.broken:
        return
    asked = {name[1] for expression in journey.expressions.values() for name in expression.names if name[0] == "vars"}
    if asked - journey.layout.variables:
        return  # A misspelt name; that it is not asked for under its right one is the same slip.
    for placed in journey.layout.placed:
        for name in placed.step.set if isinstance(placed.step, written.SetStep) else ():
            root, _, variable = name.partition(".")
            if root == "vars" and variable not in asked:
                place = journey.document.at_key((*placed.path, "set", name))
                message = f"nothing in this journey asks for {name}."
                problem = journey.document.problem(place, message, "Remove it, or use it in a later step.", "warning")
                book.report(problem)


def check_webhook(book: Book, journey: ReadJourney, placed: Placed, step: written.WebhookStep) -> None:
    """What it carries; and that it is not sent where everybody on the way can read it."""
    path = (*placed.path, "webhook")
    if isinstance(step.webhook, Hole):
        return
    check_encrypted(book, journey.document, (*path, "url"), step.webhook.url)
    for name, text in step.webhook.with_.items():
        read_expression(book, journey, (*path, "with", name), text, GIVEN, step=placed)


def check_emitted(book: Book, journey: ReadJourney, placed: Placed, step: written.EmitStep) -> None:
    """The event that a step reports, against the catalogue; nobody may pass for Rapport itself."""
    path = (*placed.path, "emit")
    wrong = book.wrong_at(journey.document, path)
    if step.emit in OWN:
        wrong(f"{quoted(step.emit)} is said by Rapport itself.", "Give your event another name.")
    else:
        check_event(book, step.emit, wrong)
    for name, text in step.properties.items():
        here = (*placed.path, "properties", name)
        absent = book.catalogue.absent(step.emit, (name,))
        if absent is not None:
            message = f"{quoted(step.emit)} has no {name} in the catalogue."
            remedy = did_you_mean(name, absent[1], "Add it there, or remove it here.")
            book.report(journey.document.problem(journey.document.at_key(here), message, remedy))
        read_expression(book, journey, here, text, GIVEN, step=placed)


def check_answer(
    book: Book,
    journey: ReadJourney,
    placed: Placed,
    awaited: written.Awaited,
) -> None:
    path, ending = (*placed.path, "wait_for"), "so this always waits until the timeout"
    if isinstance(awaited, written.Clicked):
        check_sender(book, journey, placed, (*path, "clicked"), awaited.clicked)
        sender, _ = journey.layout.sender(awaited.clicked)
        mail = sender.step.email if sender is not None and isinstance(sender.step, written.EmailStep) else ""
        templates = book.messages.get(mail)
        if templates is not None and templates.bodies and not templates.leads_somewhere:
            wrong = book.wrong_at(journey.document, (*path, "clicked"))
            wrong(
                f"message {quoted(mail)} has no link to click, {ending}.", "Add one, or wait for something else.", True
            )
    elif isinstance(awaited, written.Opened):
        check_sender(book, journey, placed, (*path, "opened"), awaited.opened)
        if book.brand is not None and book.brand.opens == "untracked":
            wrong = book.wrong_at(journey.document, (*path, "opened"))
            message = "rapport.yaml says opens: untracked, so nothing but a click ends this."
            wrong(message, "Wait for clicked, or remove opens there.", True)
    elif isinstance(awaited, written.EventMatch):
        check_match(book, journey, path, awaited, placed, ending)
    else:
        check_reply(book, journey, placed, awaited, ending)


def check_reply(book: Book, journey: ReadJourney, placed: Placed, awaited: written.Reply, ending: str) -> None:
    """An answer is an event like others; which survey it belongs to is one of its properties."""
    path = (*placed.path, "wait_for")
    wrong = book.wrong_at(journey.document, (*path, "reply"))
    absent = book.catalogue.absent(SURVEY_ANSWERED, ("survey",))
    if absent is not None:
        message = f"{quoted(SURVEY_ANSWERED)} has no survey in the catalogue, {ending}."
        wrong(message, "Have the shop send survey, the name of the survey.")
    else:
        check_event(book, SURVEY_ANSWERED, wrong)
    own = compile_expression(
        f'event.survey == "{awaited.reply}"',
        allowed=MATCH.roots,
        event=SURVEY_ANSWERED,
        catalogue=book.catalogue.properties,
    )
    journey.expressions[*path, "reply"] = own.expression
    for remark in own.warnings:
        wrong(remark.message, remark.remedy, True)
    if awaited.where is not None:
        read_expression(book, journey, (*path, "where"), awaited.where, MATCH, SURVEY_ANSWERED, placed, ending)


def check_sender(book: Book, journey: ReadJourney, placed: Placed, path: Path, name: str) -> None:
    """The mail whose click or open is waited for."""
    document, layout = journey.document, journey.layout
    sender, candidates = layout.sender(name)
    if sender is None and not candidates:
        if layout.sound:
            names = [mail.id for mail, _ in layout.mails()]
            otherwise = f"It sends {some_of(names)}." if names else "Send it in a step above."
            remedy = did_you_mean(name, names, otherwise)
            message = f"this journey sends no mail {quoted(name)}."
            book.report(document.problem(document.at(path), message, remedy))
    elif sender is None:
        message = f"several steps send {quoted(name)}."
        remedy = f"Name one of them: {listed([candidate.id for candidate in candidates])}."
        book.report(document.problem(document.at(path), message, remedy))
    elif sender.id not in placed.before:
        message = f"{quoted(name)} has not been sent when this step begins."
        book.report(document.problem(document.at(path), message, "Move this step behind it."))


def check_mail(book: Book, journey: ReadJourney, placed: Placed, step: written.SendStep, clock: Clock | None) -> None:
    document, path, shape = journey.document, placed.path, journey.shape
    name = step.message
    if name not in book.messages:
        remedy = did_you_mean(name, book.messages, f"Add the folder messages/{name}.")
        message = f"there is no message {quoted(name)}."
        book.report(document.problem(document.at((*path, step.channel)), message, remedy))
    elif step.channel not in book.messages[name].channels:
        file = {"email": "subject.txt and body.mjml", "sms": "sms.txt", "push": "push.yaml"}[step.channel]
        message = f"message {quoted(name)} has no {file}."
        book.report(document.problem(document.at((*path, step.channel)), message, f"Write messages/{name}/{file}."))
    topic_path = (*path, "topic") if step.topic is not None else ("defaults", "topic")
    topic = step.topic
    if topic is not None:
        check_name(book, journey, topic_path, "topic", topic)
    elif not isinstance(shape.defaults, Hole):
        topic = shape.defaults.topic
        if topic is None and not document.is_broken(topic_path) and not document.is_broken((*path, "topic")):
            known = book.known["topic"]
            use = f": {some_of(known)}" if known else ""
            message = f"this {_CALLED[step.channel]} has no topic, so nobody could opt out of it."
            remedy = f"Add topic: to it or to defaults{use}."
            book.report(document.problem(document.at((*path, step.channel)), message, remedy))
    for name, text in step.with_.items():
        given = (*path, "with", name)
        if name in _TAKEN:
            place = document.at_key(given)
            message = f"{quoted(name)} means something else in every template."
            book.report(document.problem(place, message, "Give it another name."))
        else:
            read_expression(book, journey, given, text, GIVEN, step=placed)
    entry = book.topics.get(topic) if topic is not None else None
    if entry is None or entry.kind != "transactional":
        check_hours(book, journey, placed, step, clock)
    note_sender(book, journey, placed, step, entry)


def note_sender(
    book: Book, journey: ReadJourney, placed: Placed, step: written.SendStep, topic: TopicEntry | None
) -> None:
    message = book.messages.get(step.message)
    if message is None:
        return
    document, path = journey.document, placed.path
    trigger = journey.shape.trigger
    place = document.at((*path, step.channel))
    gives = {}
    for name in step.with_:
        at = document.at_key((*path, "with", name))
        gives[name] = (at.line, at.column)
    sound = not isinstance(trigger, Hole) and not any(broken[: len(path)] == path for broken in document.broken)
    promotional = topic is not None and topic.kind == "promotional"
    begins_with = trigger.event if isinstance(trigger, EventTrigger) else None
    message.senders.append(
        Sender(document.file, place.line, place.column, gives, promotional, begins_with, sound, step.channel)
    )
