"""What the checks of one playbook share: the files as far as they have been read, and the list of problems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from shared.language.aggregates import Aggregate
from shared.language.catalogue import Catalogue
from shared.language.expressions import Compiled, Expression, ExpressionError
from shared.language.folder import Sorted, sort_files
from shared.language.functions import FUNCTIONS, PLAIN_FUNCTIONS
from shared.language.graph import Layout
from shared.language.journey_file import EventTrigger, JourneyFile
from shared.language.playbook_files import BrandFile, CouponFile, MessageFile, SegmentsFile, TopicEntry
from shared.language.problems import Problem, Remark, Severity, listed
from shared.language.reading import read
from shared.language.sections import Section
from shared.language.source import Document, MappingNode, Path, parse
from shared.language.templates import MessageTemplates

T = TypeVar("T", bound=Section)


class Site(msgspec.Struct, frozen=True):
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
SPENDING = Site("in spend", frozenset(), frozenset({"sum"}), condition=False)
CONDITION = Site("in a step", _INSIDE)
GIVEN = Site("in a step", _INSIDE, condition=False)


class ReadJourney(msgspec.Struct):
    """A journey on its way: the file, its shape, its graph, and its expressions by their path."""

    document: Document
    shape: JourneyFile
    layout: Layout
    expressions: dict[Path, Expression] = {}

    def expression(self, path: Path) -> Expression | None:
        return self.expressions.get(path)


class Book:
    """One playbook on its way through the checks: what has been read so far, and what is wrong with it."""

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
        self.journeys: dict[str, ReadJourney] = {}
        self.messages: dict[str, MessageTemplates] = {}
        self.message_files: dict[tuple[str, str], MessageFile] = {}
        self.coupons: dict[str, CouponFile] = {}
        self.coupon_names = [file.rsplit("/", 1)[-1].removesuffix(".yaml") for file in self.sorted.coupons]
        self.codes: dict[str, tuple[str, ...]] = {}
        """Those that are listed, by pool."""
        self.texts: dict[str, dict[str, dict[str, str]]] = {}
        self.compiled: dict[tuple[str, Site, str | None, str | None, tuple[str, ...]], Compiled | ExpressionError] = {}
        self.aggregates: dict[str, Aggregate] = {}
        self.journey_aggregates: set[str] = set()
        self.spend: Aggregate | None = None
        """What customers are ranked by, where something asks for that."""
        self.spend_declared: Aggregate | None = None
        self.stage_expressions: dict[str, Expression] = {}
        self.segment_expressions: dict[str, Expression] = {}

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

    def absent(self, event: str, path: tuple[str, ...]) -> tuple[str, list[str]] | None:
        found = self.catalogue.absent(event, path)
        return None if found is None else (found[0], list(found[1]))

    def wrong_at(self, document: Document, path: Path) -> Callable[..., None]:
        """Reports a problem with the value at a path."""

        def wrong(message: str, remedy: str, warning: bool = False) -> None:
            severity: Severity = "warning" if warning else "error"
            self.report(document.problem(document.at(path), message, remedy, severity))

        return wrong

    def remark(self, document: Document, path: Path, remark: Remark, warning: bool = False) -> None:
        place = document.within(path, remark.offset)
        severity: Severity = "warning" if warning else "error"
        message = remark.message[:1].lower() + remark.message[1:]
        self.report(document.problem(place, message, remark.remedy, severity))


def some_of(names: Sequence[str] | frozenset[str] | Mapping[str, object]) -> str:
    """A few names as an example of what there is."""
    shown = list(names) if isinstance(names, Sequence) else sorted(names)
    return f"{', '.join(shown[:6])}, …" if len(shown) > 6 else listed(shown) if shown else "none yet"


def each_of(journey: ReadJourney | None) -> tuple[str, ...]:
    """The path of the list in the event that begins a journey for each of its items; empty where it begins once."""
    trigger = journey.shape.trigger if journey is not None else None
    if not isinstance(trigger, EventTrigger) or trigger.for_each is None:
        return ()
    return tuple(trigger.for_each.split(".")[1:])
