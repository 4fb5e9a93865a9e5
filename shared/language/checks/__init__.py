"""From a playbook's files to a proven playbook, or to everything that is wrong with it, at once.

Text becomes nodes with places (`source`), nodes become typed shapes (`reading`), and here the shapes meet: every name
is looked up, every expression compiled for the place where it stands, every journey laid out as a graph (`graph`),
every template read (`templates`). What passes is turned into `playbook.Playbook`, which needs no further doubt.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from shared.language import playbook as proven
from shared.language.catalogue import Catalogue
from shared.language.checks.assembly import to_playbook
from shared.language.checks.book import Book
from shared.language.checks.brand import check_postal_address, read_brand, read_catalogue, read_spend
from shared.language.checks.coupons import check_coupons_used, read_coupons
from shared.language.checks.journeys import check_journey
from shared.language.checks.loops import check_loops
from shared.language.checks.messages import read_messages
from shared.language.checks.segments import check_segments, check_stages
from shared.language.checks.tests import TestedJourney, check_tests
from shared.language.playbook_files import SegmentsFile, StagesFile, TopicsFile
from shared.language.problems import Problem
from shared.language.sections import Hole
from shared.language.templates import check_names


class Examined(msgspec.Struct, frozen=True):
    """What came of a playbook's files. `playbook` is None where there is any error."""

    playbook: proven.Playbook | None
    problems: tuple[Problem, ...]
    tests: tuple[TestedJourney, ...] = ()
    catalogue: Catalogue = msgspec.field(default_factory=Catalogue)


def examine_files(files: Mapping[str, bytes], *, tests: bool = False) -> Examined:
    """Reads and checks everything; the problems are sorted by place. Services have no use for the `tests`, and a slip
    in one keeps no playbook from running."""
    book = Book(files)
    _run(book)
    tested = tuple(check_tests(book)) if tests else ()
    problems = tuple(sorted(set(book.problems)))
    sound = not any(problem.severity == "error" for problem in problems)
    return Examined(to_playbook(book) if sound else None, problems, tested, book.catalogue)


def _run(book: Book) -> None:
    read_brand(book)
    read_catalogue(book)
    read_spend(book)
    stages, segments = book.read_top("stages.yaml", StagesFile), book.read_top("segments.yaml", SegmentsFile)
    topics = book.read_top("topics.yaml", TopicsFile)
    if stages is not None:
        book.stages = stages.stages
    book.segments = segments
    if topics is not None:
        book.topics = {name: entry for name, entry in topics.topics.items() if not isinstance(entry, Hole)}
    for kind, file in (("stage", "stages"), ("segment", "segments"), ("topic", "topics")):
        book.known[kind] = book.names_in(f"{file}.yaml", file)
    read_messages(book)
    read_coupons(book)
    check_stages(book)
    check_segments(book)
    for file in book.sorted.journeys:
        check_journey(book, file)
    check_loops(book)
    check_coupons_used(book)
    check_postal_address(book)
    read = [journey.layout.sound for journey in book.journeys.values()]
    all_read = all(read) and len(read) == len(book.journey_names)
    for message in book.messages.values():
        message.senders_known = all_read
        urls = None if book.brand is None else book.brand.urls
        check_names(message, urls, book.absent, book.report)
