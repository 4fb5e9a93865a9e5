"""The brand, and the catalogue of events."""

from __future__ import annotations

from typing import cast

from shared.language.checks.book import SPENDING, Book
from shared.language.checks.names import compile_at
from shared.language.expressions import aggregate_from
from shared.language.playbook_files import BrandFile, EventFile
from shared.language.problems import Problem, did_you_mean, quoted
from shared.language.reading import read
from shared.language.source import MappingNode
from shared.language.source import plain as plain_data
from shared.language.tree import Call


def read_brand(book: Book) -> None:
    if "rapport.yaml" not in book.sorted.top:
        remedy = "Write at least name: and sender: in it."
        book.report(Problem("rapport.yaml", 1, 1, "a playbook needs this file, and it is not there.", remedy))
    else:
        book.brand = book.read_top("rapport.yaml", BrandFile)
    if "stages.yaml" not in book.sorted.top:
        remedy = 'Write "stages:" in it, and below that at least "attract: true".'
        book.report(Problem("stages.yaml", 1, 1, "a playbook needs this file, and it is not there.", remedy))


def check_postal_address(book: Book) -> None:
    if book.brand is None or book.brand.postal_address:
        return
    if any(topic.kind == "promotional" for topic in book.topics.values()):
        place = book.documents["rapport.yaml"].at(())
        message = "there is no postal_address, which the law asks for in advertising by mail in many countries."
        remedy = "Add postal_address: and show {{ brand.postal_address }} in the mails."
        book.report(Problem("rapport.yaml", place.line, place.column, message, remedy, "warning"))


def read_spend(book: Book) -> None:
    """What counts as spending, where the brand says it."""
    path = ("spend",)
    if book.brand is None or book.brand.spend is None:
        return
    document = book.documents["rapport.yaml"]
    expression = compile_at(book, document, path, book.brand.spend, SPENDING)
    match expression.tree if expression is not None else None:
        case None:
            return
        case Call(function="sum", named=named) as call if all(one.name != "within" for one in named):
            book.spend_declared = aggregate_from(call)
        case _:
            message = "customers are ranked by one sum over all time, and this is none."
            book.report(document.problem(document.at(path), message, 'Write sum("Order Completed", "total").'))


def read_catalogue(book: Book) -> None:
    for file in book.sorted.events:
        document = book.document(file)
        shape = None if document is None else read(document, EventFile, book.report)
        book.catalogue.described = True
        if document is None or shape is None:
            continue
        other = book.catalogue.files.get(shape.event)
        if other is not None:
            place = document.at(("event",))
            message = f"{quoted(shape.event)} is described in {other} already."
            book.report(document.problem(place, message, "Keep one of the two files."))
            continue
        book.catalogue.files[shape.event] = file
        node = document.node(("properties",))
        data = plain_data(node) if isinstance(node, MappingNode) else {}
        book.catalogue.events[shape.event] = cast(dict[str, object], data)
        for position, name in enumerate(shape.required):
            if name not in shape.properties:
                place = document.at(("required", position))
                remedy = did_you_mean(name, shape.properties, "Add it under properties.")
                book.report(document.problem(place, f"{quoted(name)} is not among the properties.", remedy))
    if book.brand is None or book.brand.carts == "derived":
        book.catalogue.derive_carts()
