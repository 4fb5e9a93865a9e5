"""Conditions whose answer is certain before any customer has come, and what then never happens."""

from __future__ import annotations

from collections.abc import Sequence

from shared.language.certainty import always, implies, never
from shared.language.checks.book import Book, ReadJourney
from shared.language.expressions import Expression
from shared.language.graph import Placed
from shared.language.problems import Remark, Severity
from shared.language.source import Document, Path
from shared.language.steps import ChooseStep, IfStep, Way


def check_possible(
    book: Book,
    document: Document,
    path: Path,
    expression: Expression,
    consequence: str,
    severity: Severity = "error",
) -> bool:
    """Reports a condition that is never true, with what comes of it; whether it may be true."""
    found = never(expression.tree)
    if found is None:
        return True
    offset, length, message = 0, len(expression.source), "this is never true"
    if found.clash is not None:
        one, other = (expression.source[node.offset : node.end] for node in found.clash)
        offset, length = found.clash[1].offset, len(other)
        message = f"{_shown(one)} and {_shown(other)} are never both true"
    remark = Remark(offset, length, "", f"{message}, {consequence}.", "Correct the condition, or remove it.")
    book.remark(document, path, remark, warning=severity == "warning")
    return False


def check_ways(book: Book, journey: ReadJourney, placed: Placed) -> None:
    """An `if` or `choose` of which a way is never taken. A step may be put out of use so, hence no error."""
    step, path = placed.step, placed.path
    if isinstance(step, IfStep):
        condition = journey.expression((*path, "if"))
        if condition is None:
            return
        check_possible(book, journey.document, (*path, "if"), condition, "so nobody gets to then", "warning")
        if always(condition.tree) and step.else_:
            remedy = "Correct the condition, or remove else."
            remark = Remark(0, len(condition.source), "", "this is always true, so nobody gets to else.", remedy)
            book.remark(journey.document, (*path, "if"), remark, warning=True)
        check_something_happens(book, journey, placed, step)
    elif isinstance(step, ChooseStep):
        before: list[tuple[Path, Expression]] = []
        for position, way in enumerate(step.choose):
            here = (*path, "choose", position, "if")
            condition = journey.expression(here) if isinstance(way, Way) else None
            if condition is None:
                continue
            possible = check_possible(book, journey.document, here, condition, "so nobody goes this way", "warning")
            taken = _covered(condition, before)
            if possible and taken is not None:
                line = journey.document.at(taken).line
                message = f"whoever this is true of has gone the way in line {line}, so nobody goes this one."
                remark = Remark(0, len(condition.source), "", message, "Move it up, or remove it.")
                book.remark(journey.document, here, remark, warning=True)
            before.append((here, condition))


def check_something_happens(book: Book, journey: ReadJourney, placed: Placed, step: IfStep) -> None:
    """An `if` that asks for nothing, or whose way is empty: mostly steps that stand where they do not belong."""
    if step.then or journey.document.is_broken((*placed.path, "then")):
        return
    wrong = book.wrong_at(journey.document, (*placed.path, "if"))
    if step.else_:
        remedy = "Add then:, or turn the condition round and write then for else."
        wrong("nothing happens where this is true.", remedy, True)
    elif not journey.document.is_broken((*placed.path, "else")):
        wrong("the journey goes on in the same way whatever this says.", "Add then:, or remove this step.", True)


def check_stages_apart(book: Book, document: Document) -> None:
    """Stages that nobody is ever in: the condition is never true, or one above it takes everybody."""
    before: list[tuple[Path, Expression]] = []
    for name, expression in book.stage_expressions.items():
        path: Path = ("stages", name)
        literal = expression.source.strip() == "true"
        if not literal and check_possible(book, document, path, expression, "so nobody is ever in this stage"):
            taken = _covered(expression, before)
            if taken is not None:
                message = f'whoever this is true of is in "{taken[-1]}" already, so nobody is ever in "{name}".'
                remark = Remark(0, len(expression.source), "", message, f'Move it above "{taken[-1]}".')
                book.remark(document, path, remark)
        if not always(expression.tree):
            before.append((path, expression))


def _covered(condition: Expression, before: Sequence[tuple[Path, Expression]]) -> Path | None:
    """The first of those that is true whenever the condition is."""
    return next((path for path, other in before if implies(condition.tree, other.tree)), None)


def _shown(text: str) -> str:
    return f'"{text}"' if '"' not in text else text
