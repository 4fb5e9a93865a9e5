"""Expressions, each for the place where it stands: every name in them is looked up."""

from __future__ import annotations

import re
from collections.abc import Callable

from msgspec.structs import replace

from shared.contracts.events import EMAIL_OPENED, SURVEY_ANSWERED
from shared.language.aggregates import SPEND
from shared.language.analysis import ANSWER, Mention
from shared.language.catalogue import USUAL
from shared.language.checks.book import GIVEN, MATCH, SPENDING, Book, ReadJourney, Site, each_of, some_of
from shared.language.checks.certain import check_possible
from shared.language.expressions import Expression, ExpressionError, compile_expression
from shared.language.graph import Placed
from shared.language.journey_file import EventTrigger
from shared.language.problems import Remark, did_you_mean, nearest, quoted
from shared.language.sections import Hole
from shared.language.source import Document, Path
from shared.language.steps import Clicked, CouponStep, EventMatch, Opened, SplitStep, WaitForStep

NULL = "so this is always null"
"""What comes of a property that is not there, unless something worse does."""


def compile_at(
    book: Book,
    document: Document,
    path: Path,
    text: str,
    site: Site,
    *,
    event: str | None = None,
    trigger: str | None = None,
    each: tuple[str, ...] = (),
    journey: ReadJourney | None = None,
    step: Placed | None = None,
    consequence: str = NULL,
) -> Expression | None:
    """An expression for the place where it stands; what is wrong with it is reported."""
    if document.is_broken(path):
        return None
    key = (text, site, event, trigger, each)
    if key not in book.compiled:
        try:
            book.compiled[key] = compile_expression(
                text,
                allowed=site.roots,
                functions=site.functions,
                place=site.place,
                condition=site.condition,
                event=event,
                trigger=trigger,
                each=each,
                catalogue=book.catalogue.properties,
            )
        except ExpressionError as error:
            book.compiled[key] = error
    compiled = book.compiled[key]
    if isinstance(compiled, ExpressionError):
        if site is GIVEN and not re.search(r"[\"'.()=<>]", text):
            # YAML takes one pair of quotes away, so advice to add one would lead in a circle.
            message = f"{quoted(text)} is read as an expression, and names nothing that is known in a step."
            remedy = f"For text write '\"{text}\"', with both pairs of quotes."
            book.report(document.problem(document.at(path), message, remedy))
            return None
        for remark in compiled.problems:
            book.remark(document, path, _with_answer(remark, journey, step))
        return None
    for remark in compiled.warnings:
        book.remark(document, path, remark, warning=True)
    for mention in compiled.mentions:
        check_mention(book, document, path, mention, journey, step, consequence)
    check_roots(book, document, path, text, compiled.expression, journey)
    if any(mention.kind == "spend" for mention in compiled.mentions):
        spend = book.spend = book.spend_declared or SPEND
        book.aggregates[spend.id] = spend
    if site is SPENDING:
        return compiled.expression  # counted where something asks for it
    for aggregate in compiled.aggregates:
        book.aggregates[aggregate.id] = aggregate
        if journey is not None:
            book.journey_aggregates.add(aggregate.id)
    return compiled.expression


def _with_answer(remark: Remark, journey: ReadJourney | None, step: Placed | None) -> Remark:
    """Advice to ask for a step's answer names the step that waits last before this one."""
    if journey is None or step is None or ANSWER not in remark.remedy:
        return remark
    waiting = [
        placed.id
        for placed in journey.layout.placed
        if placed.id in step.before
        and isinstance(placed.step, WaitForStep)
        and isinstance(placed.step.wait_for, EventMatch)
    ]
    if not waiting:
        return remark
    asked = remark.remedy.partition(",")[0].removesuffix(".")
    asked = asked.replace(ANSWER, f"steps.{waiting[-1]}").replace("the answer to a step", "the answer")
    return replace(remark, remedy=f"{asked}.")


def read_expression(
    book: Book,
    journey: ReadJourney,
    path: Path,
    text: str,
    site: Site,
    event: str | None = None,
    step: Placed | None = None,
    consequence: str = NULL,
) -> None:
    trigger = journey.shape.trigger
    began = trigger.event if isinstance(trigger, EventTrigger) else None
    compiled = compile_at(
        book,
        journey.document,
        path,
        text,
        site,
        event=event,
        trigger=began,
        each=each_of(journey),
        journey=journey,
        step=step,
        consequence=consequence,
    )
    if compiled is not None:
        journey.expressions[path] = compiled
        if consequence != NULL:
            check_possible(book, journey.document, path, compiled, consequence)


def check_mention(
    book: Book,
    document: Document,
    path: Path,
    mention: Mention,
    journey: ReadJourney | None,
    step: Placed | None,
    consequence: str,
) -> None:
    """Looks up one name that an expression uses."""

    def wrong(message: str, remedy: str, warning: bool = False) -> None:
        book.remark(document, path, Remark(mention.offset, mention.length, "", message, remedy), warning)

    kind, name = mention.kind, mention.name
    if kind == "event":
        check_event(book, name, wrong)
    elif kind in ("property", "trigger", "item"):
        event = mention.event
        each = each_of(journey) if kind == "item" else ()
        if kind == "item" and (not each or document.is_broken(("trigger", "for_each"))):
            return
        absent = book.catalogue.absent(event, (*each, *mention.path))
        if absent is not None:
            part, known = absent
            ending = consequence if kind == "property" else NULL
            instead = "Remove where" if path[-1] == "where" else "Correct it"
            remedy = did_you_mean(part, known, f"{instead}, or have the shop send {part}.")
            wrong(f"{quoted(event or '')} has no {part} in the catalogue, {ending}.", remedy)
    elif kind == "spend" and book.spend_declared is None:
        check_event(book, SPEND.event, wrong)
        absent = book.catalogue.absent(SPEND.event, SPEND.field or ())
        if absent is not None:
            message = f"{quoted(SPEND.event)} has no {absent[0]} in the catalogue, so nobody has spent anything."
            wrong(message, f"Have the shop send {absent[0]}, or say spend: sum(...) in rapport.yaml.")
    elif kind in ("stage", "segment", "topic"):
        check_known(book, kind, name, wrong)
    elif kind == "step" and journey is not None:
        check_step_mention(book, mention, journey, step, wrong)
    elif kind == "var" and journey is not None and journey.layout.sound:
        variable, are_set = mention.path[0], journey.layout.variables
        if variable not in are_set:
            remedy = did_you_mean(variable, are_set, f"Add a step: set: {{vars.{variable}: …}}.")
            wrong(f"no step of this journey sets vars.{variable}.", remedy)


def check_known(book: Book, kind: str, name: str, wrong: Callable[[str, str], None]) -> None:
    known = book.known[kind]
    if known is None or name in known:
        return
    file = f"{kind}s.yaml"
    wrong(f"{file} has no {kind} {quoted(name)}.", did_you_mean(name, known, f"Add it there, or use {some_of(known)}."))


def check_event(book: Book, name: str, wrong: Callable[[str, str, bool], None]) -> None:
    known = book.catalogue.events
    if name in known:
        if name == EMAIL_OPENED and book.brand is not None and book.brand.opens == "untracked":
            wrong(f"{quoted(name)} is never reported: rapport.yaml says opens: untracked.", "Remove that.", True)
        return
    if book.catalogue.described:
        remedy = did_you_mean(name, known, "Add it to the catalogue, or correct the name.")
        wrong(f"no file under events/ describes {quoted(name)}.", remedy, False)
    elif name not in USUAL:
        # as near as a slip of the finger: Order Delivered is another event than Order Completed
        meant = nearest(name, USUAL, cutoff=0.9)
        if meant is not None:
            wrong(f"{quoted(name)} is not the usual name.", f'Did you mean "{meant}"?', True)


def check_step_mention(
    book: Book, mention: Mention, journey: ReadJourney, step: Placed | None, wrong: Callable[[str, str], None]
) -> None:
    """What an earlier step left behind: the event that a wait_for waited for, or the arm of a split."""
    layout, name = journey.layout, mention.name
    placed = layout.by_id.get(name)
    if placed is None:
        if layout.sound:
            remedy = did_you_mean(name, layout.by_id, f"This journey has {some_of(layout.by_id)}.")
            wrong(f"no step is called {quoted(name)}.", remedy)
    elif step is not None and name not in step.before:
        wrong(f"step {quoted(name)} never runs before this one.", "Move it up, or ask for another step.")
    elif isinstance(placed.step, CouponStep):
        if mention.path not in (("code",), ("expires",)):
            message = "a coupon leaves its code and when it expires behind, and nothing else."
            wrong(message, f"Write steps.{name}.code or steps.{name}.expires.")
    elif isinstance(placed.step, SplitStep):
        if mention.path != ("arm",):
            wrong("a split leaves its arm behind and nothing else.", f"Write steps.{name}.arm.")
    elif not isinstance(placed.step, WaitForStep):
        wrong(f"step {quoted(name)} leaves nothing behind.", "Ask for a wait_for, a coupon or a split.")
    elif mention.path[:1] != ("event",):
        wrong("a wait_for leaves its event behind and nothing else.", f"Write steps.{name}.event.")
    elif isinstance(placed.step.wait_for, Clicked | Opened):
        wrong(f"step {quoted(name)} waits for no event, and leaves nothing behind.", "Ask for another step.")
    else:
        awaited = placed.step.wait_for
        event = awaited.event if isinstance(awaited, EventMatch) else SURVEY_ANSWERED
        absent = book.catalogue.absent(event, mention.path[1:])
        if absent is not None:
            part, known = absent
            message = f"{quoted(event)} has no {part} in the catalogue, so this is always null."
            wrong(message, did_you_mean(part, known, f"Correct it, or have the shop send {part}."))


def check_roots(
    book: Book, document: Document, path: Path, text: str, expression: Expression, journey: ReadJourney | None
) -> None:
    """Names that are known where the expression stands, and still lead nowhere."""

    def wrong(word: str, message: str, remedy: str) -> None:
        found = re.search(rf"(?<![\w.\"-]){re.escape(word)}(?![\w-])", text)
        book.remark(document, path, Remark(found.start() if found else 0, len(word), "", message, remedy))

    for name in sorted(expression.names):
        root = name[0]
        if journey is None or document.is_broken(("trigger",)) or isinstance(journey.shape.trigger, Hole):
            continue
        trigger = journey.shape.trigger
        keyed = isinstance(trigger, EventTrigger) and trigger.key is not None
        if root == "key" and not keyed and not document.is_broken(("trigger", "key")):
            wrong("key", "this journey has no key.", "Add key: to the trigger, such as key: event.cart_id.")
        if root == "item" and not each_of(journey) and not document.is_broken(("trigger", "for_each")):
            remedy = "Add for_each: to the trigger, such as for_each: event.products."
            wrong("item", "this journey has no for_each.", remedy)
        if root == "trigger" and not isinstance(trigger, EventTrigger):
            message = "this journey does not begin with an event, so trigger is null."
            wrong("trigger", message, "Use traits or customer.")


def check_match(
    book: Book, journey: ReadJourney, path: Path, match: EventMatch, step: Placed | None, consequence: str
) -> None:
    check_event(book, match.event, book.wrong_at(journey.document, (*path, "event")))
    if match.where is not None:
        read_expression(book, journey, (*path, "where"), match.where, MATCH, match.event, step, consequence)


def check_name(book: Book, journey: ReadJourney, path: Path, kind: str, name: str) -> None:
    check_known(book, kind, name, book.wrong_at(journey.document, path))
