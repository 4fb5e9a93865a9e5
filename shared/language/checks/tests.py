"""The tests of journeys: whether what they name exists."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import msgspec

from shared.language.checks.book import Book, ReadJourney, some_of
from shared.language.checks.names import check_event, check_known
from shared.language.journey_file import DateTrigger
from shared.language.problems import did_you_mean, quoted
from shared.language.reading import read
from shared.language.sections import Hole
from shared.language.source import Document, Path, Place
from shared.language.steps import EmailStep, SplitStep, WebhookStep
from shared.language.tests_file import (
    ExpectedMessage,
    ExpectedSkip,
    GivenClick,
    GivenEvent,
    GivenOpen,
    GivenTraits,
    JourneyTest,
    TestsFile,
)
from shared.walltime import read_day

DEFAULT_START = datetime(2026, 3, 2, 12, tzinfo=UTC)
"""When a test begins that does not say: on a Monday."""


class TestedJourney(msgspec.Struct, frozen=True):
    """The tests of one journey, with the file that they stand in."""

    journey: str
    document: Document
    tests: tuple[JourneyTest, ...]

    @property
    def file(self) -> str:
        return self.document.file

    def place(self, number: int, *path: str | int) -> Place:
        """Where something of a test stands."""
        return self.document.at(("tests", number, *path))


def instant_of(moment: timedelta | datetime, start: datetime) -> datetime:
    """A time of a test: told from its start, or as it is."""
    return start + moment if isinstance(moment, timedelta) else moment.astimezone(UTC)


def check_tests(book: Book) -> Iterator[TestedJourney]:
    for file in book.sorted.tests:
        stem = file.rsplit("/", 1)[-1].removesuffix(".test.yaml")
        document = book.document(file)
        shape = None if document is None else read(document, TestsFile, book.report)
        if document is None or shape is None:
            continue
        if stem not in book.journey_names:
            message = f"there is no journey {quoted(stem)} to be tested."
            remedy = did_you_mean(stem, book.journey_names, f"Call this file like its journey: {stem}.yaml is none.")
            book.report(document.problem(document.at(()), message, remedy))
            continue
        names: dict[str, int] = {}
        for number, test in enumerate(shape.tests):
            if isinstance(test, Hole):
                continue
            path: Path = ("tests", number)
            if test.name in names:
                wrong = book.wrong_at(document, (*path, "name"))
                wrong("another test of this file has the same name.", "Say in what they differ.")
            names[test.name] = number
            _check_test(book, document, path, test, book.journeys.get(stem))
        tests = tuple(test for test in shape.tests if not isinstance(test, Hole))
        yield TestedJourney(stem, document, tests)


def _check_test(book: Book, document: Document, path: Path, test: JourneyTest, journey: ReadJourney | None) -> None:
    for topic in test.customer.consent if test.customer is not None else ():
        check_known(book, "topic", topic, book.wrong_at(document, (*path, "customer", "consent", topic)))
    _check_given(book, document, path, test, journey)
    _check_dates(book, document, path, test, journey)
    calls = [] if journey is None else [p.id for p in journey.layout.placed if isinstance(p.step, WebhookStep)]
    for message in test.outcomes:
        if message not in calls:
            _check_message(book, document, (*path, "outcomes", message), message, journey)
    if journey is not None and journey.layout.sound:
        _check_arms(book, document, path, test, journey)
    expect = test.expect
    if isinstance(expect, Hole):
        return
    for listed in ("sent", "skipped"):
        for position, item in enumerate(getattr(expect, listed) or ()):
            where = (*path, "expect", listed, position)
            if isinstance(item, ExpectedMessage | ExpectedSkip):
                _check_message(book, document, (*where, "message"), item.message, journey)
            elif isinstance(item, str):
                _check_message(book, document, where, item, journey)
    for position, step in enumerate(expect.called or ()):
        if step not in calls and journey is not None and journey.layout.sound:
            remedy = did_you_mean(step, calls, f"Its webhooks are {some_of(calls)}." if calls else "Remove it.")
            wrong = book.wrong_at(document, (*path, "expect", "called", position))
            wrong(f"this journey has no webhook {quoted(step)}.", remedy)
    if expect.stage is not None:
        check_known(book, "stage", expect.stage, book.wrong_at(document, (*path, "expect", "stage")))
    for position, segment in enumerate(expect.segments or ()):
        check_known(book, "segment", segment, book.wrong_at(document, (*path, "expect", "segments", position)))


def _check_given(book: Book, document: Document, path: Path, test: JourneyTest, journey: ReadJourney | None) -> None:
    start = test.start or DEFAULT_START
    latest = start
    for position, given in enumerate(test.given):
        if isinstance(given, Hole):
            continue
        where = (*path, "given", position)
        at = instant_of(given.at, start)
        if at < latest:
            wrong = book.wrong_at(document, (*where, "at"))
            wrong("this is earlier than what stands above it.", "Put them in order of time.")
        latest = max(latest, at)
        if isinstance(given, GivenEvent):
            check_event(book, given.event, book.wrong_at(document, (*where, "event")))
            for name in given.properties:
                absent = book.absent(given.event, (name,))
                if absent is not None:
                    message = f"{quoted(given.event)} has no {name} in the catalogue."
                    remedy = did_you_mean(name, absent[1], f"Add it to the catalogue, or remove {name} here.")
                    book.wrong_at(document, (*where, "properties", name))(message, remedy)
        elif isinstance(given, GivenClick | GivenOpen) and journey is not None and journey.layout.sound:
            step = given.clicked if isinstance(given, GivenClick) else given.opened
            senders = [id for id, placed in journey.layout.by_id.items() if isinstance(placed.step, EmailStep)]
            if step not in senders:
                key = "clicked" if isinstance(given, GivenClick) else "opened"
                remedy = did_you_mean(step, senders, f"This journey sends {some_of(senders)}.")
                book.wrong_at(document, (*where, key))(f"no step {quoted(step)} of this journey sends a mail.", remedy)


def _check_dates(book: Book, document: Document, path: Path, test: JourneyTest, journey: ReadJourney | None) -> None:
    """Whether the date that begins the journey is one, in the traits that a test gives."""
    trigger = journey.shape.trigger if journey is not None else None
    if not isinstance(trigger, DateTrigger) or isinstance(trigger.date, Hole):
        return
    name = trigger.date.removeprefix("traits.")
    told = [((*path, "customer", "traits", name), test.customer.traits)] if test.customer is not None else []
    for position, given in enumerate(test.given):
        if isinstance(given, GivenTraits):
            told.append(((*path, "given", position, "traits", name), given.traits))
    for place, traits in told:
        value = traits.get(name)
        if isinstance(value, str) and read_day(value) is None:
            message = f"{quoted(value)} is no date, so this journey does not begin by it."
            book.wrong_at(document, place)(message, "Write it as 1990-12-31.", True)


def _check_message(book: Book, document: Document, path: Path, name: str, journey: ReadJourney | None) -> None:
    if journey is None or not journey.layout.sound:
        return
    sent = {sent.message for _, sent in journey.layout.sends()}
    if name not in sent:
        remedy = did_you_mean(name, sent, f"It sends {some_of(sorted(sent))}.")
        book.wrong_at(document, path)(f"this journey never sends {quoted(name)}.", remedy)


def _check_arms(book: Book, document: Document, path: Path, test: JourneyTest, journey: ReadJourney) -> None:
    splits = {id: placed.step for id, placed in journey.layout.by_id.items() if isinstance(placed.step, SplitStep)}
    for split, arm in test.arms.items():
        wrong = book.wrong_at(document, (*path, "arms", split))
        if split not in splits:
            wrong(
                f"this journey has no split {quoted(split)}.", did_you_mean(split, splits, f"It has {some_of(splits)}.")
            )
        elif arm not in splits[split].split:
            known = splits[split].split
            wrong(
                f"split {quoted(split)} has no way {quoted(arm)}.",
                did_you_mean(arm, known, f"It has {some_of(known)}."),
            )
