"""From a playbook's files to a proven playbook, or to everything that is wrong with it, at once.

Text becomes nodes with places (`source`), nodes become typed shapes (`model`), and here the shapes meet: every name is
looked up, every expression compiled for the place where it stands, every journey laid out as a graph (`graph`), every
template read (`templates`). What passes is turned into `playbook.Playbook`, which needs no further doubt.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import TypeVar, cast

from shared.language import playbook as proven
from shared.language.aggregates import Aggregate
from shared.language.catalogue import OWN, USUAL, Catalogue
from shared.language.durations import format_duration
from shared.language.expressions import (
    FUNCTIONS,
    PLAIN_FUNCTIONS,
    Compiled,
    Expression,
    ExpressionError,
    Mention,
    Remark,
    compile_expression,
)
from shared.language.fields import WEEKDAYS
from shared.language.flips import unsolvable
from shared.language.folder import Sorted, playbook_hash, sort_files
from shared.language.graph import Layout, Placed, lay_out
from shared.language.journey_file import (
    ChooseStep,
    Clicked,
    DateTrigger,
    EmailStep,
    EmitStep,
    EventMatch,
    EventTrigger,
    ExitStep,
    Goal,
    IfStep,
    JourneyFile,
    OtherWay,
    SegmentTrigger,
    SetStep,
    SplitStep,
    StageTrigger,
    Step,
    WaitBetween,
    WaitForStep,
    WaitStep,
    WaitUntil,
    Way,
)
from shared.language.playbook_files import (
    BrandFile,
    EventFile,
    MessageFile,
    SegmentsFile,
    StagesFile,
    TopicEntry,
    TopicsFile,
)
from shared.language.problems import Problem, Severity, did_you_mean, listed, nearest, quoted
from shared.language.reading import read
from shared.language.sections import Hole, Section
from shared.language.source import (
    Document,
    MappingNode,
    Path,
    Scalar,
    decode,
    parse,
)
from shared.language.source import plain as plain_data
from shared.language.templates import MessageTemplates, Sender, TemplateFile, check_names, examine
from shared.language.templating import GLOBALS
from shared.language.variables import STANDARD

DAY = timedelta(days=1)
T = TypeVar("T", bound=Section)


@dataclass(frozen=True, slots=True)
class Site:
    """A kind of place where expressions stand: what it is called there, and what they may name and call."""

    place: str
    roots: frozenset[str]
    functions: frozenset[str] = FUNCTIONS
    condition: bool = True


_PROFILE = frozenset({"traits", "customer", "now"})
_INSIDE = _PROFILE | {"trigger", "key", "item", "steps", "vars"}
STAGE = Site("in a stage", _PROFILE)
SEGMENT = Site("in a segment", _PROFILE)
TRIGGER = Site("in a trigger", _PROFILE | {"event", "item"})
TRIGGER_WITHOUT_EVENT = Site("in this trigger", _PROFILE)
TRIGGER_KEY = Site("in a key", frozenset({"event", "item", "traits", "customer"}), PLAIN_FUNCTIONS, condition=False)
MATCH = Site("in a where", _INSIDE | {"event"})
VALUE = Site("in a value", _INSIDE | {"event"}, condition=False)
CONDITION = Site("in a step", _INSIDE)
GIVEN = Site("in a step", _INSIDE, condition=False)


@dataclass(frozen=True, slots=True)
class Examined:
    """What came of a playbook's files. `playbook` is None where there is any error."""

    playbook: proven.Playbook | None
    problems: tuple[Problem, ...]


def examine_files(files: Mapping[str, bytes]) -> Examined:
    """Reads and checks everything; the problems are sorted by place."""
    check = _Check(files)
    check.run()
    problems = tuple(sorted(set(check.problems)))
    sound = not any(problem.severity == "error" for problem in problems)
    return Examined(check.to_playbook() if sound else None, problems)


@dataclass(slots=True)
class _Journey:
    """A journey on its way: the file, its shape, its graph, and its expressions by their path."""

    document: Document
    shape: JourneyFile
    layout: Layout
    expressions: dict[Path, Expression] = field(default_factory=dict)

    def expression(self, path: Path) -> Expression | None:
        return self.expressions.get(path)


class _Check:
    """One pass over one playbook."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = files
        self.problems: list[Problem] = []
        self.report: Callable[[Problem], None] = self.problems.append
        self.sorted: Sorted = sort_files(files, self.report)
        self.catalogue = Catalogue()
        self.documents: dict[str, Document] = {}
        self.journey_names = [file.rsplit("/", 1)[-1].removesuffix(".yaml") for file in self.sorted.journeys]
        self.brand: BrandFile | None = None
        self.stages: dict[str, str] = {}
        self.segments: SegmentsFile | None = None
        self.topics: dict[str, TopicEntry] = {}
        self.known: dict[str, frozenset[str] | None] = {}
        """Names by kind (`stage`, `segment`, `topic`); None where the file could not be read, so nothing is unknown."""
        self.journeys: dict[str, _Journey] = {}
        self.messages: dict[str, MessageTemplates] = {}
        self.message_files: dict[tuple[str, str], MessageFile] = {}
        self.texts: dict[str, dict[str, dict[str, str]]] = {}
        self.compiled: dict[tuple[str, Site, str | None, str | None, tuple[str, ...]], Compiled | ExpressionError] = {}
        self.aggregates: dict[str, Aggregate] = {}
        self.journey_aggregates: set[str] = set()
        self.stage_expressions: dict[str, Expression] = {}
        self.segment_expressions: dict[str, Expression] = {}

    def run(self) -> None:
        self.read_brand()
        self.read_catalogue()
        stages, segments = self.read_top("stages.yaml", StagesFile), self.read_top("segments.yaml", SegmentsFile)
        topics = self.read_top("topics.yaml", TopicsFile)
        if stages is not None:
            self.stages = stages.stages
        self.segments = segments
        if topics is not None:
            self.topics = {name: entry for name, entry in topics.topics.items() if not isinstance(entry, Hole)}
        for kind, file in (("stage", "stages"), ("segment", "segments"), ("topic", "topics")):
            self.known[kind] = self.names_in(f"{file}.yaml", file)
        self.read_messages()
        self.check_stages()
        self.check_segments()
        for file in self.sorted.journeys:
            self.check_journey(file)
        self.check_loops()
        self.check_postal_address()
        for message in self.messages.values():
            urls = None if self.brand is None else self.brand.urls
            check_names(message, urls, self.absent, self.report)

    # Reading

    def document(self, file: str) -> Document | None:
        if file not in self.documents:
            document = parse(file, self.files[file], self.report)
            if document is None:
                return None
            self.documents[file] = document
        return self.documents[file]

    def read_top(self, file: str, shape: type[T]) -> T | None:
        document = self.document(file) if file in self.sorted.top else None
        return None if document is None else read(document, shape, self.report)

    def names_in(self, file: str, section: str) -> frozenset[str] | None:
        """The names that a file gives, also where their entries are wrong; None where it cannot be read."""
        if file not in self.sorted.top:
            return frozenset()
        document = self.documents.get(file)
        node = document.node((section,)) if document else None
        return frozenset(node.entries) if isinstance(node, MappingNode) else None

    def read_brand(self) -> None:
        if "rapport.yaml" not in self.sorted.top:
            remedy = "Write at least name: and sender: in it."
            self.report(Problem("rapport.yaml", 1, 1, "a playbook needs this file, and it is not there.", remedy))
        else:
            self.brand = self.read_top("rapport.yaml", BrandFile)
        if "stages.yaml" not in self.sorted.top:
            remedy = 'Write "stages:" in it, and below that at least "attract: true".'
            self.report(Problem("stages.yaml", 1, 1, "a playbook needs this file, and it is not there.", remedy))

    def check_postal_address(self) -> None:
        if self.brand is None or self.brand.postal_address:
            return
        if any(topic.kind == "promotional" for topic in self.topics.values()):
            place = self.documents["rapport.yaml"].at(())
            message = "there is no postal_address, which the law asks for in advertising by mail in many countries."
            remedy = "Add postal_address: and show {{ brand.postal_address }} in the mails."
            self.report(Problem("rapport.yaml", place.line, place.column, message, remedy, "warning"))

    def read_catalogue(self) -> None:
        for file in self.sorted.events:
            document = self.document(file)
            shape = None if document is None else read(document, EventFile, self.report)
            self.catalogue.described = True
            if document is None or shape is None:
                continue
            other = self.catalogue.files.get(shape.event)
            if other is not None:
                place = document.at(("event",))
                message = f"{quoted(shape.event)} is described in {other} already."
                self.report(document.problem(place, message, "Keep one of the two files."))
                continue
            self.catalogue.files[shape.event] = file
            node = document.node(("properties",))
            data = plain_data(node) if isinstance(node, MappingNode) else {}
            self.catalogue.events[shape.event] = cast(dict[str, object], data)
            for position, name in enumerate(shape.required):
                if name not in shape.properties:
                    place = document.at(("required", position))
                    remedy = did_you_mean(name, shape.properties, "Add it under properties.")
                    self.report(document.problem(place, f"{quoted(name)} is not among the properties.", remedy))
        if self.brand is None or self.brand.carts == "derived":
            self.catalogue.derive_carts()

    def absent(self, event: str, path: tuple[str, ...]) -> tuple[str, list[str]] | None:
        found = self.catalogue.absent(event, path)
        return None if found is None else (found[0], list(found[1]))

    # Expressions

    def compile(
        self,
        document: Document,
        path: Path,
        text: str,
        site: Site,
        *,
        event: str | None = None,
        trigger: str | None = None,
        each: tuple[str, ...] = (),
        journey: _Journey | None = None,
        step: Placed | None = None,
        consequence: str = "so this is always null",
    ) -> Expression | None:
        """An expression for the place where it stands; what is wrong with it is reported."""
        if document.is_broken(path):
            return None
        key = (text, site, event, trigger, each)
        if key not in self.compiled:
            try:
                self.compiled[key] = compile_expression(
                    text,
                    allowed=site.roots,
                    functions=site.functions,
                    place=site.place,
                    condition=site.condition,
                    event=event,
                    trigger=trigger,
                    each=each,
                    catalogue=self.catalogue.properties,
                )
            except ExpressionError as error:
                self.compiled[key] = error
        compiled = self.compiled[key]
        if isinstance(compiled, ExpressionError):
            if site is GIVEN and not re.search(r"[\"'.()=<>]", text):
                # YAML takes one pair of quotes away, so advice to add one would lead in a circle.
                message = f"{quoted(text)} is read as an expression, and names nothing that is known in a step."
                remedy = f"For text write '\"{text}\"', with both pairs of quotes."
                self.report(document.problem(document.at(path), message, remedy))
                return None
            for remark in compiled.problems:
                self.remark(document, path, remark)
            return None
        for remark in compiled.warnings:
            self.remark(document, path, remark, warning=True)
        for mention in compiled.mentions:
            self.check_mention(document, path, mention, journey, step, consequence)
        self.check_roots(document, path, text, compiled.expression, journey)
        for aggregate in compiled.aggregates:
            self.aggregates[aggregate.id] = aggregate
            if journey is not None:
                self.journey_aggregates.add(aggregate.id)
        return compiled.expression

    def remark(self, document: Document, path: Path, remark: Remark, warning: bool = False) -> None:
        place = document.within(path, remark.offset)
        severity: Severity = "warning" if warning else "error"
        self.report(document.problem(place, remark.message, remark.remedy, severity))

    def check_mention(
        self,
        document: Document,
        path: Path,
        mention: Mention,
        journey: _Journey | None,
        step: Placed | None,
        consequence: str,
    ) -> None:
        """Looks up one name that an expression uses."""

        def wrong(message: str, remedy: str, warning: bool = False) -> None:
            self.remark(document, path, Remark(mention.offset, mention.length, "", message, remedy), warning)

        kind, name = mention.kind, mention.name
        if kind == "event":
            self.check_event(name, wrong)
        elif kind in ("property", "trigger", "item"):
            event = mention.event
            each = _each(journey) if kind == "item" else ()
            if kind == "item" and (not each or document.is_broken(("trigger", "for_each"))):
                return
            absent = self.catalogue.absent(event, (*each, *mention.path))
            if absent is not None:
                part, known = absent
                ending = consequence if kind == "property" else "so this is always null"
                instead = "Remove where" if path[-1] == "where" else "Correct it"
                remedy = did_you_mean(part, known, f"{instead}, or have the shop send {part}.")
                wrong(f"{quoted(event or '')} has no {part} in the catalogue, {ending}.", remedy)
        elif kind in ("stage", "segment", "topic"):
            self.check_known(kind, name, wrong)
        elif kind == "step" and journey is not None:
            self.check_step_mention(mention, journey, step, wrong)
        elif kind == "var" and journey is not None and journey.layout.sound:
            variable, are_set = mention.path[0], journey.layout.variables
            if variable not in are_set:
                remedy = did_you_mean(variable, are_set, f"Add a step: set: {{vars.{variable}: …}}.")
                wrong(f"no step of this journey sets vars.{variable}.", remedy)

    def check_known(self, kind: str, name: str, wrong: Callable[[str, str], None]) -> None:
        known = self.known[kind]
        if known is None or name in known:
            return
        file = f"{kind}s.yaml"
        wrong(
            f"{file} has no {kind} {quoted(name)}.", did_you_mean(name, known, f"Add it there, or use {_some(known)}.")
        )

    def check_event(self, name: str, wrong: Callable[[str, str, bool], None]) -> None:
        known = self.catalogue.events
        if name in known:
            return
        if self.catalogue.described:
            remedy = did_you_mean(name, known, "Add it to the catalogue, or correct the name.")
            wrong(f"no file under events/ describes {quoted(name)}.", remedy, False)
        elif name not in USUAL:
            meant = nearest(name, USUAL)
            if meant is not None and meant.casefold()[:5] == name.casefold()[:5]:
                wrong(f"{quoted(name)} is not the usual name.", f'Did you mean "{meant}"?', True)

    def check_step_mention(
        self, mention: Mention, journey: _Journey, step: Placed | None, wrong: Callable[[str, str], None]
    ) -> None:
        """What an earlier step left behind: the event that a wait_for waited for, or the arm of a split."""
        layout, name = journey.layout, mention.name
        placed = layout.by_id.get(name)
        if placed is None:
            if layout.sound:
                remedy = did_you_mean(name, layout.by_id, f"This journey has {_some(layout.by_id)}.")
                wrong(f"no step is called {quoted(name)}.", remedy)
        elif step is not None and name not in step.before:
            wrong(f"step {quoted(name)} never runs before this one.", "Move it up, or ask for another step.")
        elif isinstance(placed.step, SplitStep):
            if mention.path != ("arm",):
                wrong("a split leaves its arm behind and nothing else.", f"Write steps.{name}.arm.")
        elif not isinstance(placed.step, WaitForStep):
            wrong(f"step {quoted(name)} leaves nothing behind.", "Ask for a wait_for or a split.")
        elif mention.path[:1] != ("event",):
            wrong("a wait_for leaves its event behind and nothing else.", f"Write steps.{name}.event.")
        elif isinstance(placed.step.wait_for, EventMatch):
            absent = self.catalogue.absent(placed.step.wait_for.event, mention.path[1:])
            if absent is not None:
                part, known = absent
                message = (
                    f"{quoted(placed.step.wait_for.event)} has no {part} in the catalogue, so this is always null."
                )
                wrong(message, did_you_mean(part, known, f"Correct it, or have the shop send {part}."))

    def check_roots(
        self, document: Document, path: Path, text: str, expression: Expression, journey: _Journey | None
    ) -> None:
        """Names that are known where the expression stands, and still lead nowhere."""

        def wrong(word: str, message: str, remedy: str) -> None:
            found = re.search(rf"(?<![\w.\"-]){re.escape(word)}(?![\w-])", text)
            self.remark(document, path, Remark(found.start() if found else 0, len(word), "", message, remedy))

        for name in sorted(expression.names):
            root = name[0]
            if journey is None or document.is_broken(("trigger",)) or isinstance(journey.shape.trigger, Hole):
                continue
            trigger = journey.shape.trigger
            keyed = isinstance(trigger, EventTrigger) and trigger.key is not None
            if root == "key" and not keyed and not document.is_broken(("trigger", "key")):
                wrong("key", "this journey has no key.", "Add key: to the trigger, such as key: event.cart_id.")
            if root == "item" and not _each(journey) and not document.is_broken(("trigger", "for_each")):
                remedy = "Add for_each: to the trigger, such as for_each: event.products."
                wrong("item", "this journey has no for_each.", remedy)
            if root == "trigger" and not isinstance(trigger, EventTrigger):
                message = "this journey does not begin with an event, so trigger is null."
                wrong("trigger", message, "Use traits or customer.")

    # Stages and segments

    def check_stages(self) -> None:
        document = self.documents.get("stages.yaml")
        if document is None or not self.stages:
            return
        names = list(self.stages)
        for name, text in self.stages.items():
            path: Path = ("stages", name)
            expression = self.compile(document, path, text, STAGE)
            if expression is None:
                continue
            self.stage_expressions[name] = expression
            self.check_watched(document, path, expression)
            always = text.strip() == "true"
            if always and name != names[-1]:
                message = f"everybody is in {quoted(name)}, so the stages below are never reached."
                self.report(document.problem(document.at(path), message, "Move it to the end."))
            elif name == names[-1] and not always:
                message = "who matches none of the stages has no stage."
                self.report(document.problem(document.at(path), message, "Let the last one be true: attract: true."))

    def check_watched(self, document: Document, path: Path, expression: Expression) -> None:
        """A condition that is watched must let its next flip be foreseen, and may not ask for all segments."""
        for remark in unsolvable(expression):
            self.remark(document, path, remark)
        if ("customer", "segments") in expression.names:
            node = document.node(path)
            at = node.text.find("customer.segments") if isinstance(node, Scalar) else 0
            message = "customer.segments is not known here, since segments are being decided."
            self.remark(document, path, Remark(max(at, 0), 17, "", message, 'Use in_segment("name").'))

    def check_segments(self) -> None:
        document = self.documents.get("segments.yaml")
        if document is None or self.segments is None:
            return
        for name, entry in self.segments.segments.items():
            if isinstance(entry, Hole):
                continue
            path: Path = ("segments", name, "when")
            expression = self.compile(document, path, entry.when, SEGMENT)
            if expression is not None:
                self.segment_expressions[name] = expression
                self.check_watched(document, path, expression)
        self.check_circles(document)

    def check_circles(self, document: Document) -> None:
        """Segments and the stage that ask for one another in a circle."""
        stage = "the stage"
        asks: dict[str, list[str]] = {stage: []}
        for name, text in self.stages.items():
            asks[stage] += self.asked(text, STAGE) if name in self.stage_expressions else []
        for name in self.segment_expressions:
            entry = cast(SegmentsFile, self.segments).segments[name]
            asks[name] = self.asked(entry.when, SEGMENT)
            if any(used[:2] == ("customer", "stage") for used in self.segment_expressions[name].names):
                asks[name].append(stage)
        done: set[str] = set()
        for start in asks:
            circle = _circle(start, asks, done)
            if circle is None:
                continue
            done.update(circle)
            first = next(name for name in circle if name != stage)
            turned = circle[circle.index(first) :] + circle[: circle.index(first)]
            shown = [name if name == stage else quoted(name) for name in [*turned, first]]
            place = document.at(("segments", first, "when"))
            message = f"{shown[0]} asks for {', which asks for '.join(shown[1:])}, so none can be decided first."
            self.report(document.problem(place, message, "Take one of them out of the circle."))

    def asked(self, text: str, site: Site) -> list[str]:
        """The segments that a condition asks for."""
        compiled = self.compiled.get((text, site, None, None, ()))
        return [] if not isinstance(compiled, Compiled) else [m.name for m in compiled.mentions if m.kind == "segment"]

    # Messages

    def read_messages(self) -> None:
        for name, locales in self.sorted.messages.items():
            folder = f"messages/{name}"
            message = self.messages[name] = MessageTemplates(name, folder)
            texts = self.texts[name] = {}
            for locale, paths in sorted(locales.items()):
                texts[locale] = {}
                if "message.yaml" in paths:
                    self.read_message_file(message, locale, paths["message.yaml"])
                for file, path in sorted(paths.items()):
                    if file != "message.yaml":
                        self.read_template(message, locale, file, path)
                if set(paths) >= _BODIES:
                    text = "this message has body.mjml and body.html."
                    self.report(Problem(paths["body.html"], 1, 1, text, "Keep one of them."))
            own = self.brand.locale if self.brand is not None else "en"
            default = {**locales.get("", {}), **locales.get(own, {})}
            if "subject.txt" not in default:
                text = "this message has no subject."
                self.report(Problem(f"{folder}/subject.txt", 1, 1, text, "Write it into this file."))
            if not _BODIES & set(default):
                text = "this message has no body."
                self.report(Problem(f"{folder}/body.mjml", 1, 1, text, "Write body.mjml or body.html."))

    def read_message_file(self, message: MessageTemplates, locale: str, file: str) -> None:
        document = self.document(file)
        shape = None if document is None else read(document, MessageFile, self.report)
        if document is None or shape is None:
            message.variables_known = False
            return
        self.message_files[message.name, locale] = shape
        message.variables = tuple(dict.fromkeys((*message.variables, *shape.variables)))
        node = document.node(("preheader",))
        if shape.preheader is not None and isinstance(node, Scalar):
            place = document.within(("preheader",), 0)
            template = TemplateFile(file, node.text, place.line, place.column)
            examine(template, "text", self.report)
            message.files.append(template)

    def read_template(self, message: MessageTemplates, locale: str, file: str, path: str) -> None:
        text = decode(path, self.files[path], self.report)
        if text is None:
            message.files.append(TemplateFile(path, ""))
            return
        self.texts[message.name][locale][file] = text
        template = TemplateFile(path, text)
        message.files.append(template)
        if not text.strip():
            self.report(Problem(path, 1, 1, "this file is empty.", "Write its text, or remove the file."))
            return
        kind = file.rsplit(".", 1)[1]
        examine(template, kind if file.startswith("body") else "text", self.report)
        if file.startswith("body"):
            message.bodies.append(template)
        lines = text.strip().splitlines()
        if file == "subject.txt" and len(lines) > 1 and "{%" not in text:
            starts_at = text[: len(text) - len(text.lstrip())].count("\n") + 2
            self.report(Problem(path, starts_at, 1, "a subject is one line.", "Put it all on the first line."))

    # Journeys

    def check_journey(self, file: str) -> None:
        document = self.document(file)
        shape = None if document is None else read(document, JourneyFile, self.report)
        if document is None or shape is None:
            return
        stem = file.rsplit("/", 1)[-1].removesuffix(".yaml")
        if shape.journey != stem:
            message = f"this file is {stem}.yaml, and its journey is called {quoted(shape.journey)}."
            self.report(document.problem(document.at(("journey",)), message, "Give both the same name."))
        journey = _Journey(document, shape, lay_out(document, shape, self.report))
        self.journeys[stem] = journey
        self.check_trigger(journey)
        if isinstance(shape.goal, Goal):
            match = EventMatch.model_construct(event=shape.goal.event, where=shape.goal.where)
            ending = "so this goal is never reached and buyers keep getting mail"
            self.check_match(journey, ("goal",), match, None, ending)
            if shape.goal.value is not None:
                self.expression(journey, ("goal", "value"), shape.goal.value, VALUE, shape.goal.event)
        for position, match in enumerate(shape.exit_on):
            if not isinstance(match, Hole):
                self.check_match(journey, ("exit_on", position), match, None, "so this exit never happens")
        if not isinstance(shape.defaults, Hole) and shape.defaults.topic is not None:
            self.check_name(journey, ("defaults", "topic"), "topic", shape.defaults.topic)
        for placed in journey.layout.placed:
            self.check_step(journey, placed)
        if shape.holdout is not None:
            self.check_holdout(journey)

    def expression(
        self,
        journey: _Journey,
        path: Path,
        text: str,
        site: Site,
        event: str | None = None,
        step: Placed | None = None,
        consequence: str = "so this is always null",
    ) -> None:
        trigger = journey.shape.trigger
        began = trigger.event if isinstance(trigger, EventTrigger) else None
        compiled = self.compile(
            journey.document,
            path,
            text,
            site,
            event=event,
            trigger=began,
            each=_each(journey),
            journey=journey,
            step=step,
            consequence=consequence,
        )
        if compiled is not None:
            journey.expressions[path] = compiled

    def wrong_at(self, document: Document, path: Path) -> Callable[..., None]:
        """Reports a problem with the value at a path."""

        def wrong(message: str, remedy: str, warning: bool = False) -> None:
            severity: Severity = "warning" if warning else "error"
            self.report(document.problem(document.at(path), message, remedy, severity))

        return wrong

    def check_name(self, journey: _Journey, path: Path, kind: str, name: str) -> None:
        self.check_known(kind, name, self.wrong_at(journey.document, path))

    def check_trigger(self, journey: _Journey) -> None:
        trigger, path = journey.shape.trigger, ("trigger",)
        if isinstance(trigger, Hole):
            return
        event: str | None = None
        if isinstance(trigger, EventTrigger):
            event = trigger.event
            self.check_event(event, self.wrong_at(journey.document, (*path, "event")))
            ending = "so this journey never begins"
            absent = self.catalogue.absent(event, _each(journey))
            if absent is not None:
                part, known = absent
                remedy = did_you_mean(part, known, f"Correct it, or have the shop send {part}.")
                message = f"{quoted(event)} has no {part} in the catalogue, {ending}."
                self.wrong_at(journey.document, (*path, "for_each"))(message, remedy)
                journey.document.broken.add((*path, "for_each"))
            if trigger.where is not None:
                self.expression(journey, (*path, "where"), trigger.where, TRIGGER, event, consequence=ending)
            if trigger.key is not None:
                self.expression(journey, (*path, "key"), trigger.key, TRIGGER_KEY, event)
        elif isinstance(trigger, StageTrigger):
            self.check_name(journey, (*path, "stage"), "stage", trigger.stage)
        elif isinstance(trigger, SegmentTrigger):
            self.check_name(journey, (*path, "segment"), "segment", trigger.segment)
        for position, name in enumerate(trigger.unless_in):
            here = (*path, "unless_in", position)
            if name == journey.shape.journey:
                message = f"{quoted(name)} is this journey, and who is in it does not enter anyway."
                self.wrong_at(journey.document, here)(message, "Remove it.")
            elif name not in self.journey_names:
                others = [other for other in self.journey_names if other != journey.shape.journey]
                remedy = did_you_mean(name, others, f"There are {_some(others)}.")
                self.wrong_at(journey.document, here)(f"there is no journey {quoted(name)}.", remedy)
        if trigger.if_ is not None:
            site = TRIGGER if event is not None else TRIGGER_WITHOUT_EVENT
            self.expression(journey, (*path, "if"), trigger.if_, site, event)

    def check_holdout(self, journey: _Journey) -> None:
        """Those who are held out are compared by the goal; and nobody is kept from what has to reach them."""
        shape = journey.shape
        wrong = self.wrong_at(journey.document, ("holdout",))
        if shape.holdout == 1:
            wrong("nobody is left to get anything.", "Hold out less: 10%.")
        if not isinstance(shape.goal, Hole) and (shape.goal is None or shape.goal.within is None):
            message = "those who are held out are compared by the goal, and this journey has none within a time."
            wrong(message, "Add goal: {event: Order Completed, within: 7d}, or remove holdout.")
        for placed, mail in journey.layout.mails():
            topic = mail.topic if mail.topic is not None else getattr(shape.defaults, "topic", None)
            entry = self.topics.get(topic) if topic is not None else None
            if entry is not None and entry.kind == "transactional":
                message = f"{quoted(placed.id)} is transactional mail, which has to reach everybody."
                wrong(message, "Remove holdout, or send it from a journey of its own.")
                break

    def check_match(
        self, journey: _Journey, path: Path, match: EventMatch, step: Placed | None, consequence: str
    ) -> None:
        self.check_event(match.event, self.wrong_at(journey.document, (*path, "event")))
        if match.where is not None:
            self.expression(journey, (*path, "where"), match.where, MATCH, match.event, step, consequence)

    def check_step(self, journey: _Journey, placed: Placed) -> None:
        step, path = placed.step, placed.path
        if isinstance(step, IfStep):
            self.expression(journey, (*path, "if"), step.if_, CONDITION, step=placed)
        elif isinstance(step, WaitForStep):
            if isinstance(step.wait_for, EventMatch):
                ending = "so this always waits until the timeout"
                self.check_match(journey, (*path, "wait_for"), step.wait_for, placed, ending)
            else:
                self.check_clicked(journey, placed, step.wait_for)
        elif isinstance(step, EmailStep):
            self.check_mail(journey, placed, step)
        elif isinstance(step, ChooseStep):
            for position, way in enumerate(step.choose):
                if isinstance(way, Way):
                    self.expression(journey, (*path, "choose", position, "if"), way.if_, CONDITION, step=placed)
        elif isinstance(step, SetStep):
            for name, text in step.set.items():
                self.expression(journey, (*path, "set", name), text, GIVEN, step=placed)
        elif isinstance(step, EmitStep):
            self.check_emitted(journey, placed, step)

    def check_emitted(self, journey: _Journey, placed: Placed, step: EmitStep) -> None:
        """The event that a step reports, against the catalogue; nobody may pass for Rapport itself."""
        path = (*placed.path, "emit")
        wrong = self.wrong_at(journey.document, path)
        if step.emit in OWN:
            wrong(f"{quoted(step.emit)} is said by Rapport itself.", "Give your event another name.")
        else:
            self.check_event(step.emit, wrong)
        for name, text in step.properties.items():
            here = (*placed.path, "properties", name)
            absent = self.catalogue.absent(step.emit, (name,))
            if absent is not None:
                message = f"{quoted(step.emit)} has no {name} in the catalogue."
                remedy = did_you_mean(name, absent[1], "Add it there, or remove it here.")
                self.report(journey.document.problem(journey.document.at_key(here), message, remedy))
            self.expression(journey, here, text, GIVEN, step=placed)

    def check_loops(self) -> None:
        """Journeys that begin one another without end: each is begun by any event that the one before it reports, and
        takes a customer in again at once."""
        begun_by: dict[str, list[str]] = {}
        for name, journey in self.journeys.items():
            trigger = journey.shape.trigger
            if not isinstance(trigger, EventTrigger) or journey.shape.again != "always":
                continue
            if trigger.where is None and trigger.if_ is None:
                begun_by.setdefault(trigger.event, []).append(name)
        emits: dict[str, list[str]] = {}
        for name, journey in self.journeys.items():
            events = [placed.step.emit for placed in journey.layout.placed if isinstance(placed.step, EmitStep)]
            emits[name] = [begun for event in events for begun in begun_by.get(event, ())]
        done: set[str] = set()
        for start in emits:
            circle = _circle(start, emits, done)
            if circle is None:
                continue
            done.update(circle)
            following = circle[1] if len(circle) > 1 else circle[0]
            journey = self.journeys[circle[0]]
            placed = next(
                placed
                for placed in journey.layout.placed
                if isinstance(placed.step, EmitStep) and following in begun_by.get(placed.step.emit, ())
            )
            shown = [quoted(name) for name in [*circle[1:], circle[0]]]
            message = f"this begins {', which begins '.join(shown)}, and so without end."
            self.wrong_at(journey.document, (*placed.path, "emit"))(message, "Add again: to one of them, or a where.")

    def check_clicked(self, journey: _Journey, placed: Placed, wanted: Clicked) -> None:
        document, path = journey.document, (*placed.path, "wait_for", "clicked")
        layout = journey.layout
        sender, candidates = layout.clicked(wanted.clicked)
        if sender is None and not candidates:
            if layout.sound:
                names = [mail.id for mail, _ in layout.mails()]
                otherwise = f"It sends {_some(names)}." if names else "Send it in a step above."
                remedy = did_you_mean(wanted.clicked, names, otherwise)
                message = f"this journey sends no mail {quoted(wanted.clicked)}."
                self.report(document.problem(document.at(path), message, remedy))
        elif sender is None:
            message = f"several steps send {quoted(wanted.clicked)}."
            remedy = f"Name one of them: {listed([candidate.id for candidate in candidates])}."
            self.report(document.problem(document.at(path), message, remedy))
        elif sender.id not in placed.before:
            message = f"{quoted(wanted.clicked)} has not been sent when this step begins."
            self.report(document.problem(document.at(path), message, "Move this step behind it."))

    def check_mail(self, journey: _Journey, placed: Placed, step: EmailStep) -> None:
        document, path, shape = journey.document, placed.path, journey.shape
        if step.email not in self.messages:
            remedy = did_you_mean(step.email, self.messages, f"Add the folder messages/{step.email}.")
            message = f"there is no message {quoted(step.email)}."
            self.report(document.problem(document.at((*path, "email")), message, remedy))
        topic_path = (*path, "topic") if step.topic is not None else ("defaults", "topic")
        topic = step.topic
        if topic is not None:
            self.check_name(journey, topic_path, "topic", topic)
        elif not isinstance(shape.defaults, Hole):
            topic = shape.defaults.topic
            if topic is None and not document.is_broken(topic_path) and not document.is_broken((*path, "topic")):
                known = self.known["topic"]
                use = f": {_some(known)}" if known else ""
                message = "this mail has no topic, so nobody could opt out of it."
                remedy = f"Add topic: to it or to defaults{use}."
                self.report(document.problem(document.at((*path, "email")), message, remedy))
        for name, text in step.with_.items():
            given = (*path, "with", name)
            if name in _TAKEN:
                place = document.at_key(given)
                message = f"{quoted(name)} means something else in every template."
                self.report(document.problem(place, message, "Give it another name."))
            else:
                self.expression(journey, given, text, GIVEN, step=placed)
        entry = self.topics.get(topic) if topic is not None else None
        self.check_expiry(journey, placed, step, entry)
        self.note_sender(journey, placed, step, entry)

    def check_expiry(self, journey: _Journey, placed: Placed, step: EmailStep, topic: TopicEntry | None) -> None:
        """A mail that expires before the quiet hours end."""
        quiet = self.brand.quiet_hours if self.brand is not None else None
        defaults = journey.shape.defaults
        if quiet is None or isinstance(defaults, Hole) or (topic is not None and topic.kind == "transactional"):
            return
        expires = step.expires if step.expires is not None else defaults.expires
        path = (*placed.path, "expires") if step.expires is not None else ("defaults", "expires")
        start = timedelta(hours=quiet.start.hour, minutes=quiet.start.minute)
        end = timedelta(hours=quiet.end.hour, minutes=quiet.end.minute)
        length = (end - start) % DAY
        if expires < length:
            shown = f"{quiet.start:%H:%M}-{quiet.end:%H:%M}"
            last = (end - expires) % DAY
            until = f"{last // timedelta(hours=1):02d}:{last % timedelta(hours=1) // timedelta(minutes=1):02d}"
            message = (
                f"{format_duration(expires)} is shorter than the quiet hours {shown}: what falls due from "
                f"{quiet.start:%H:%M} to {until} is never sent."
            )
            self.wrong_at(journey.document, path)(message, f"Use {format_duration(length)} or more.", True)

    def note_sender(self, journey: _Journey, placed: Placed, step: EmailStep, topic: TopicEntry | None) -> None:
        message = self.messages.get(step.email)
        if message is None:
            return
        document, path = journey.document, placed.path
        trigger = journey.shape.trigger
        place = document.at((*path, "email"))
        gives = {}
        for name in step.with_:
            at = document.at_key((*path, "with", name))
            gives[name] = (at.line, at.column)
        sound = not isinstance(trigger, Hole) and not any(broken[: len(path)] == path for broken in document.broken)
        promotional = topic is not None and topic.kind == "promotional"
        begins_with = trigger.event if isinstance(trigger, EventTrigger) else None
        message.senders.append(Sender(document.file, place.line, place.column, gives, promotional, begins_with, sound))

    # What passed

    def to_playbook(self) -> proven.Playbook:
        """The playbook, once nothing is wrong."""
        assert self.brand is not None
        return proven.Playbook(
            hash=playbook_hash(self.files),
            files=dict(self.files),
            brand=_brand(self.brand),
            stages=tuple(proven.Stage(name, expression) for name, expression in self.stage_expressions.items()),
            segments={
                name: proven.Segment(name, cast(SegmentsFile, self.segments).segments[name].title or name, expression)
                for name, expression in self.segment_expressions.items()
            },
            topics={name: _topic(name, entry) for name, entry in self.topics.items()},
            journeys={name: _journey(journey) for name, journey in self.journeys.items()},
            messages={name: self.message(name) for name in self.messages},
            aggregates=self.aggregates,
            journey_aggregates=frozenset(self.journey_aggregates),
        )

    def message(self, name: str) -> proven.Message:
        own = cast(BrandFile, self.brand).locale
        described = {locale: shape for (message, locale), shape in self.message_files.items() if message == name}
        preheaders = {locale: shape.preheader for locale, shape in described.items() if shape.preheader is not None}
        title = next((described[locale].title for locale in ("", own) if locale in described), None)
        return proven.Message(
            name=name,
            title=title or name,
            preheader=preheaders.get("", preheaders.get(own, "")),
            files=self.texts[name],
            preheaders=preheaders,
        )


_BODIES = frozenset({"body.mjml", "body.html"})
_TAKEN = frozenset({*STANDARD, *GLOBALS, "loop"})
"""Names that a template knows already."""


def _some(names: Sequence[str] | frozenset[str] | Mapping[str, object]) -> str:
    """A few names as an example of what there is."""
    shown = list(names) if isinstance(names, Sequence) else sorted(names)
    return f"{', '.join(shown[:6])}, …" if len(shown) > 6 else listed(shown) if shown else "none yet"


def _circle(start: str, asks: Mapping[str, Sequence[str]], done: set[str]) -> list[str] | None:
    """The circle that a walk from `start` runs into, in its order."""
    trail: list[str] = []
    pending: list[tuple[str, int]] = [(start, 0)]
    while pending:
        name, depth = pending.pop()
        del trail[depth:]
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            continue
        if not any(below in asks for below in asks[name]):
            done.add(name)
            continue
        trail.append(name)
        pending.extend((below, depth + 1) for below in asks[name] if below in asks)
    done.update(trail)
    return None


def _brand(shape: BrandFile) -> proven.Brand:
    return proven.Brand(
        name=shape.name,
        sender=shape.sender,
        reply_to=shape.reply_to,
        postal_address=shape.postal_address,
        timezone=shape.timezone,
        locale=shape.locale,
        currency=shape.currency,
        rates=shape.rates,
        urls=shape.urls,
        quiet_hours=shape.quiet_hours,
        caps=tuple(proven.Cap(cap.limit, cap.within) for cap in shape.caps.email),
        carts=shape.carts,
    )


def _topic(name: str, entry: TopicEntry) -> proven.Topic:
    default = entry.default or ("opt_in" if entry.kind == "promotional" else "opt_out")
    return proven.Topic(name, entry.title, entry.description, entry.kind, default)


def _journey(journey: _Journey) -> proven.Journey:
    shape = journey.shape
    steps: dict[str, proven.Step] = {}
    first = _link(journey, ("steps",), shape.steps, None, steps)
    goal = shape.goal
    return proven.Journey(
        name=shape.journey,
        title=shape.title or shape.journey,
        version=_version(shape),
        status=shape.status,
        trigger=_trigger(journey),
        condition=journey.expression(("trigger", "if")),
        unless_in=frozenset(shape.trigger.unless_in),
        holdout=shape.holdout or Decimal(0),
        mode=shape.mode,
        again=shape.again,
        max_age=shape.max_age,
        goal=None
        if goal is None
        else proven.Goal(
            match=proven.EventMatch(goal.event, journey.expression(("goal", "where"))),
            within=goal.within,
            value=journey.expression(("goal", "value")),
        ),
        exit_on=tuple(
            proven.EventMatch(match.event, journey.expression(("exit_on", position, "where")))
            for position, match in enumerate(shape.exit_on)
        ),
        topic=shape.defaults.topic,
        first=first,
        steps={placed.id: steps[placed.id] for placed in journey.layout.placed},
    )


def _version(shape: JourneyFile) -> str:
    """A hash of what the journey does: everything that is not its default, without title and status."""
    data = shape.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"title", "status"})
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]


def _each(journey: _Journey | None) -> tuple[str, ...]:
    """The path of the list in the event that begins a journey for each of its items; empty where it begins once."""
    trigger = journey.shape.trigger if journey is not None else None
    if not isinstance(trigger, EventTrigger) or trigger.for_each is None:
        return ()
    return tuple(trigger.for_each.split(".")[1:])


def _trigger(journey: _Journey) -> proven.Trigger:
    trigger = journey.shape.trigger
    if isinstance(trigger, EventTrigger):
        where, key = journey.expression(("trigger", "where")), journey.expression(("trigger", "key"))
        return proven.EventTrigger(trigger.event, where, key, _each(journey) or None)
    if isinstance(trigger, StageTrigger):
        return proven.StageTrigger(trigger.stage)
    if isinstance(trigger, SegmentTrigger):
        return proven.SegmentTrigger(trigger.segment, trigger.change)
    assert isinstance(trigger, DateTrigger)
    return proven.DateTrigger(tuple(trigger.date.split(".")[1:]), trigger.every, trigger.at, trigger.before)


def _link(
    journey: _Journey, path: Path, steps: Sequence[Step], after: str | None, linked: dict[str, proven.Step]
) -> str | None:
    """Makes the steps of a list, from its end; the name of the first, or `after` where the list is empty."""
    following = after
    for position in range(len(steps) - 1, -1, -1):
        here = (*path, position)
        placed = journey.layout.by_path[here]
        linked[placed.id] = _step(journey, placed, following, linked)
        following = placed.id
    return following


def _step(journey: _Journey, placed: Placed, following: str | None, linked: dict[str, proven.Step]) -> proven.Step:
    step, path, name = placed.step, placed.path, placed.id
    if isinstance(step, WaitStep):
        return _wait(step, name, following)
    if isinstance(step, WaitForStep):
        clicked: Placed | None = None
        match: proven.EventMatch | None = None
        if isinstance(step.wait_for, EventMatch):
            match = proven.EventMatch(step.wait_for.event, journey.expression((*path, "wait_for", "where")))
        else:
            clicked, _ = journey.layout.clicked(step.wait_for.clicked)
        return proven.WaitFor(
            id=name,
            matched=_link(journey, (*path, "then"), step.then, following, linked),
            timed_out=_link(journey, (*path, "on_timeout"), step.on_timeout, following, linked),
            match=match,
            clicked=clicked.id if clicked is not None else None,
            timeout=step.timeout,
        )
    if isinstance(step, EmailStep):
        defaults = journey.shape.defaults
        return proven.Email(
            id=name,
            next=following,
            message=step.email,
            topic=cast(str, step.topic if step.topic is not None else defaults.topic),
            priority=step.priority if step.priority is not None else defaults.priority,
            expires=step.expires if step.expires is not None else defaults.expires,
            with_={given: journey.expressions[(*path, "with", given)] for given in step.with_},
        )
    if isinstance(step, IfStep):
        return proven.If(
            id=name,
            condition=journey.expressions[(*path, "if")],
            then=_link(journey, (*path, "then"), step.then, following, linked),
            otherwise=_link(journey, (*path, "else"), step.else_, following, linked),
        )
    if isinstance(step, ChooseStep):
        ways: list[tuple[Expression, str | None]] = []
        otherwise = following
        for position, way in enumerate(step.choose):
            here = (*path, "choose", position)
            if isinstance(way, Way):
                first = _link(journey, (*here, "then"), way.then, following, linked)
                ways.append((journey.expressions[(*here, "if")], first))
            elif isinstance(way, OtherWay):
                otherwise = _link(journey, (*here, "else"), way.else_, following, linked)
        return proven.Choose(name, tuple(ways), otherwise)
    if isinstance(step, SplitStep):
        arms = {
            arm: proven.Arm(one.share, _link(journey, (*path, "split", arm, "then"), one.then, following, linked))
            for arm, one in step.split.items()
        }
        return proven.Split(name, arms, step.by)
    if isinstance(step, SetStep):
        given = {target: journey.expressions[(*path, "set", target)] for target in step.set}
        return proven.Set(name, following, _below("vars", given), _below("traits", given))
    if isinstance(step, EmitStep):
        properties = {given: journey.expressions[(*path, "properties", given)] for given in step.properties}
        return proven.Emit(name, following, step.emit, properties)
    assert isinstance(step, ExitStep)
    return proven.Exit(name, step.exit)


def _wait(step: WaitStep, name: str, following: str | None) -> proven.Wait:
    wait = step.wait
    if isinstance(wait, WaitBetween):
        return proven.Wait(name, following, None, None, None, between=(wait.between[0], wait.between[1]))
    if not isinstance(wait, WaitUntil):
        return proven.Wait(name, following, wait, None, None)
    days = None if wait.on is None else frozenset(WEEKDAYS.index(day) for day in wait.on)
    if isinstance(wait.until, str):
        return proven.Wait(name, following, wait.for_, wait.at, None, date=tuple(wait.until.split(".")[1:]))
    return proven.Wait(name, following, wait.for_, wait.until, days)


def _below(root: str, given: Mapping[str, Expression]) -> dict[str, Expression]:
    """Those of dotted names that stand under one root, without it."""
    return {name.split(".", 1)[1]: value for name, value in given.items() if name.split(".", 1)[0] == root}
