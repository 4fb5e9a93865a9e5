"""Stages and segments, whose conditions are watched all the time."""

from __future__ import annotations

from typing import cast

from shared.language.checks.book import SEGMENT, STAGE, Book, Site
from shared.language.checks.certain import check_possible, check_stages_apart
from shared.language.checks.circles import circles
from shared.language.checks.names import compile_at
from shared.language.expressions import Compiled, Expression
from shared.language.flips import unsolvable
from shared.language.playbook_files import SegmentsFile
from shared.language.problems import Remark, quoted
from shared.language.sections import Hole
from shared.language.source import Document, Path, Scalar


def check_stages(book: Book) -> None:
    document = book.documents.get("stages.yaml")
    if document is None or not book.stages:
        return
    names = list(book.stages)
    for name, text in book.stages.items():
        path: Path = ("stages", name)
        expression = compile_at(book, document, path, text, STAGE)
        if expression is None:
            continue
        book.stage_expressions[name] = expression
        check_watched(book, document, path, expression)
        everybody = text.strip() == "true"
        if everybody and name != names[-1]:
            message = f"everybody is in {quoted(name)}, so the stages below are never reached."
            book.report(document.problem(document.at(path), message, "Move it to the end."))
        elif name == names[-1] and not everybody:
            message = "who matches none of the stages has no stage."
            book.report(document.problem(document.at(path), message, "Let the last one be true: attract: true."))
    check_stages_apart(book, document)


def check_watched(book: Book, document: Document, path: Path, expression: Expression) -> None:
    """A condition that is watched must let its next flip be foreseen, and may not ask for all segments."""
    for remark in unsolvable(expression):
        book.remark(document, path, remark)
    if ("customer", "segments") in expression.names:
        node = document.node(path)
        at = node.text.find("customer.segments") if isinstance(node, Scalar) else 0
        message = "customer.segments is not known here, since segments are being decided."
        book.remark(document, path, Remark(max(at, 0), 17, "", message, 'Use in_segment("name").'))


def check_segments(book: Book) -> None:
    document = book.documents.get("segments.yaml")
    if document is None or book.segments is None:
        return
    for name, entry in book.segments.segments.items():
        if isinstance(entry, Hole):
            continue
        path: Path = ("segments", name, "when")
        expression = compile_at(book, document, path, entry.when, SEGMENT)
        if expression is not None:
            book.segment_expressions[name] = expression
            check_possible(book, document, path, expression, "so nobody is ever in this segment")
            check_watched(book, document, path, expression)
    check_circles(book, document)


def check_circles(book: Book, document: Document) -> None:
    """Segments and the stage that ask for one another in a circle."""
    stage = "the stage"
    asks: dict[str, list[str]] = {stage: []}
    for name, text in book.stages.items():
        asks[stage] += asked(book, text, STAGE) if name in book.stage_expressions else []
    for name in book.segment_expressions:
        entry = cast(SegmentsFile, book.segments).segments[name]
        asks[name] = asked(book, entry.when, SEGMENT)
        if any(used[:2] == ("customer", "stage") for used in book.segment_expressions[name].names):
            asks[name].append(stage)
    for circle in circles(asks):
        first = next(name for name in circle if name != stage)
        turned = circle[circle.index(first) :] + circle[: circle.index(first)]
        shown = [name if name == stage else quoted(name) for name in [*turned, first]]
        place = document.at(("segments", first, "when"))
        message = f"{shown[0]} asks for {', which asks for '.join(shown[1:])}, so none can be decided first."
        book.report(document.problem(place, message, "Take one of them out of the circle."))


def asked(book: Book, text: str, site: Site) -> list[str]:
    """The segments that a condition asks for."""
    compiled = book.compiled.get((text, site, None, None, ()))
    return [] if not isinstance(compiled, Compiled) else [m.name for m in compiled.mentions if m.kind == "segment"]
