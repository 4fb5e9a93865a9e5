"""From nodes to the typed shapes of the files, and from what does not fit to problems in a marketer's words."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from pydantic_core import ErrorDetails

from shared.language.journey_file import TRIGGERS, Defaults, EventTrigger, JourneyFile
from shared.language.playbook_files import EventFile
from shared.language.problems import Problem, did_you_mean, listed, nearest, quoted
from shared.language.sections import Reading, Section, attempt
from shared.language.source import Document, ListNode, MappingNode, Node, Path, Scalar
from shared.language.steps import ANSWERS, STEPS, WaitForStep
from shared.language.tests_file import GIVENS, TestsFile

T = TypeVar("T", bound=Section)
_WITH_NULLS = (EventFile, TestsFile)
"""Files in which null says something."""
_MAY_BE_EMPTY = frozenset({"then", "else", "on_timeout", "exit_on"})


def read(document: Document, shape: type[T], report: Callable[[Problem], None]) -> T | None:
    """The document as its typed shape; None where too little of it could be read. Every complaint is reported.

    Where only parts were wrong the shape comes without them, so that what depends on the rest can still be checked.
    """
    if not isinstance(document.root, MappingNode):
        message = f"this file holds {_kind(document.root)}, and should hold fields."
        report(document.problem(document.at(()), message, f"Begin with {next(iter(shape.model_fields))}:."))
        return None
    reading = Reading({})
    empty: list[Path] = []
    data = _plain(document.root, (), reading.paths, None if issubclass(shape, _WITH_NULLS) else empty)
    for path in empty:
        if document.is_broken(path):
            continue
        document.broken.add(path)
        message = f"{quoted(str(path[-1]))} is empty."
        report(document.problem(document.at_key(path), message, "Write a value, or remove the line."))
    model = attempt(data, lambda part: shape.model_validate(part, context=reading), reading)
    problems = {
        (place, problem)
        for around, error in reading.complaints
        if (found := _problem(document, reading, around, error)) is not None
        for place, problem in [found]
    }
    for path, problem in sorted(problems, key=lambda pair: pair[1]):
        document.broken.add(path)
        report(problem)
    return model if isinstance(model, shape) else None


def _plain(node: Node, path: Path, paths: dict[int, Path], empty: list[Path] | None) -> object:
    """A node as dictionaries and lists, whose paths are noted; values that were left empty go to `empty`."""
    if isinstance(node, Scalar):
        return node.value
    data: dict[str, object] | list[object]
    if isinstance(node, ListNode):
        data = [_plain(item, (*path, position), paths, empty) for position, item in enumerate(node.items)]
    else:
        data = {}
        for key, (_, value) in node.entries.items():
            if empty is not None and isinstance(value, Scalar) and value.value is None and key not in _MAY_BE_EMPTY:
                empty.append((*path, key))
            else:
                data[key] = _plain(value, (*path, key), paths, empty)
    paths[id(data)] = path
    return data


def _problem(document: Document, reading: Reading, around: Path, error: ErrorDetails) -> tuple[Path, Problem] | None:
    """A complaint of pydantic in the words of the language, with the path that it is about."""
    path, on_key = around, False
    for part in error["loc"]:
        if part == "[key]":
            on_key = True
        elif isinstance(part, int) or not part.startswith("@"):
            path = (*path, part)
    if document.is_broken(path):
        return None
    kind, given = error["type"], error.get("ctx", {})
    node = document.node(path)
    place = document.at_key(path) if on_key or kind == "extra_forbidden" else document.at(path)

    def problem(message: str, remedy: str) -> tuple[Path, Problem]:
        return path, document.problem(place, message, remedy)

    if kind == "refused":
        return problem(given["message"], given["remedy"])
    if kind == "missing":
        shape, beside = reading.classes.get(path[:-1], Section), document.node(path[:-1])
        known = [info.alias or field_name for field_name, info in shape.model_fields.items()]
        unknown = [key for key in (beside.entries if isinstance(beside, MappingNode) else ()) if key not in known]
        # A misspelt field is reported as such; that it is missing under its right name is the same slip.
        return None if nearest(str(path[-1]), unknown) else _missing(document, shape, path)
    if kind == "extra_forbidden":
        shape, name = reading.classes.get(path[:-1], Section), str(path[-1])
        known = [info.alias or field_name for field_name, info in shape.model_fields.items()]
        if name in shape.later:
            return problem(f"{quoted(name)} comes later.", "Leave it out for now.")
        if shape is JourneyFile:
            for part, below in _PARTS.items():
                if name in {info.alias or field for field, info in below.model_fields.items()}:
                    return problem(f"{quoted(name)} does not stand here.", f"Write it under {part}:.")
        around_it = document.node(path[:-1])
        taken = around_it.entries if isinstance(around_it, MappingNode) else {}
        free = [field_name for field_name in known if field_name not in taken]
        remedy = did_you_mean(name, free, f"Known here: {listed(known, 'and')}.")
        return problem(f"unknown {shape.noun} {quoted(name)}.", remedy)
    if kind in _CHOICES:
        if any(document.is_broken((*path, key)) for key in _CHOICES[kind][1]):
            return None
        return path, _chosen_wrongly(document, path, kind, node)
    if kind == "literal_error":
        known = re.findall(r"'([^']*)'", str(given.get("expected", "")))
        shown = _shown(node)
        return problem(f"{shown} is not known here.", did_you_mean(shown.strip('"'), known, f"Use {listed(known)}."))
    if kind in ("string_too_short", "too_short"):
        name = str(path[-1]) if path else "this"
        return problem(f"{quoted(name)} is empty.", "Write something there, or remove it.")
    if kind in ("string_too_long", "too_long"):
        return problem(f"this is longer than {given.get('max_length')} characters.", "Write it shorter.")
    if kind in ("greater_than_equal", "less_than_equal"):
        bound = f"{given['ge']} or more" if "ge" in given else f"{given['le']} or less"
        return problem(f"{_shown(node)} is out of bounds.", f"Use {bound}.")
    expected = _EXPECTED.get(kind)
    if expected is None:
        return problem(f"{error['msg']}.", "Look it up in the reference.")
    what, remedy = expected
    if kind == "string_type" and isinstance(node, Scalar):
        remedy = f"Put it in quotes: {quoted(node.text)}."
    if kind == "list_type" and path[-1] in _STEPS_UNDER and isinstance(node, Scalar):
        example = "exit: done" if node.text == "exit" else "wait: 1h"
        remedy = f"Write each step on a line of its own below, such as - {example}."
    elif kind == "list_type" and isinstance(node, Scalar) and node.text:
        item = f"{{event: {node.text}}}" if path[-1] == "exit_on" else node.text
        remedy = f"Put it in brackets: [{item}]."
    name = f"{quoted(str(path[-1]))} takes" if path and isinstance(path[-1], str) else "here belongs"
    return problem(f"{name} {what}, and here stands {_kind(node)}.", remedy)


_STEPS_UNDER = frozenset({"steps", "then", "else", "on_timeout"})
_EXPECTED = {
    "string_type": ("text", "Write the text on the same line."),
    "int_type": ("a whole number", "Write digits only, without quotes."),
    "list_type": ("a list", 'Begin each item with "- ".'),
    "dict_type": ("fields", "Write each field on a line of its own below, indented."),
    "model_type": ("fields", "Write each field on a line of its own below, indented."),
    "model_attributes_type": ("fields", "Write each field on a line of its own below, indented."),
}

_PARTS: Mapping[str, type[Section]] = {"defaults": Defaults, "trigger": EventTrigger}
"""Of what stands at the top of a journey's file by mistake, where it belongs."""
_ELSEWHERE = {
    **dict.fromkeys(("delay", "sleep", "after"), "wait"),
    **dict.fromkeys(("mail", "send", "message", "send_email"), "email"),
    **dict.fromkeys(("text", "text_message"), "sms"),
    **dict.fromkeys(("notification", "notify"), "push"),
    **dict.fromkeys(("stop", "end", "leave", "quit"), "exit"),
    **dict.fromkeys(("condition", "branch", "when"), "if"),
    **dict.fromkeys(("switch", "case"), "choose"),
    **dict.fromkeys(("random", "ab", "ab_test", "experiment"), "split"),
    **dict.fromkeys(("http", "call", "url"), "webhook"),
    **dict.fromkeys(("tag", "update", "trait", "traits"), "set"),
}
"""What other systems call a step."""

_CHOICES: Mapping[str, tuple[str, Sequence[str], Sequence[str], str]] = {
    "step": ("step", tuple(STEPS), (), "- wait: 1h"),
    "trigger": ("trigger", tuple(TRIGGERS), (), "event: Order Completed"),
    "wait_for": ("wait_for", tuple(ANSWERS), (), "wait_for: {event: Order Completed}"),
    "given": ("given", tuple(GIVENS), (), "{at: 1h, event: Order Completed}"),
    "way": ("way", ("if", "else"), (), '- {if: traits.country == "NO", then: […]}'),
}
"""What decides the kind of a mapping: its name, the keys of which it has one, those that come later, an example."""


def _chosen_wrongly(document: Document, path: Path, kind: str, node: Node | None) -> Problem:
    """A step, trigger or wait_for that has none, or more than one, of the keys that say what it is."""
    noun, known, later, example = _CHOICES[kind]
    name, colon, rest = node.text.partition(":") if isinstance(node, Scalar) else ("", "", "")
    if colon and name in known:
        message = f"a space is missing after {quoted(name + ':')}."
        return document.problem(document.at(path), message, f"Write {name}: {rest}." if rest else f"Write {name}: ….")
    if not isinstance(node, MappingNode):
        message = f"a {noun} consists of fields, and here stands {_kind(node)}."
        return document.problem(document.at(path), message, f"Write it as {example}.")
    keys = list(node.entries)
    found = [key for key in keys if key in known]
    if len(found) > 1:
        second = document.at_key((*path, found[1]))
        one = "A step does one thing" if kind == "step" else f"A {noun} has one of them"
        remedy = 'Begin each with "- ".' if kind == "step" else "Keep one of them."
        return document.problem(second, f"{listed(found, 'and')} stand in one {noun}. {one}.", remedy)
    for key in keys:
        if key in later:
            what = f"{key} steps come" if kind == "step" else f"{quoted(key)} comes"
            it = "this one" if kind == "step" else "it"
            return document.problem(document.at_key((*path, key)), f"{what} later.", f"Leave {it} out for now.")
    for key in keys:
        meant = _ELSEWHERE.get(key) if kind == "step" else None
        meant = meant or nearest(key, (*known, *later))
        if meant in known:
            message = f"unknown {noun} {quoted(key)}." if kind == "step" else f"unknown {noun} field {quoted(key)}."
            return document.problem(document.at_key((*path, key)), message, f'Did you mean "{meant}"?')
    message = f"nothing here says what this {noun} is."
    return document.problem(document.at(path), message, f"It needs one of {listed(known)}.")


def _missing(document: Document, shape: type[Section], path: Path) -> tuple[Path, Problem]:
    name = str(path[-1])
    if shape is WaitForStep and name == "timeout":
        return path, _waits_for_ever(document, path[:-1])
    info = next((info for key, info in shape.model_fields.items() if (info.alias or key) == name), None)
    example = info.examples[0] if info is not None and info.examples else ""
    what = "file" if len(path) == 1 else shape.noun.removesuffix(" field")
    what = "mapping" if what == "field" else what
    message = f"this {what} has no {quoted(name)}."
    remedy = f"Add {name}: {example}" if example else f"Add {name}:"
    return path, document.problem(document.at(path[:-1]), message, f"{remedy}." if example else f"Add {quoted(name)}.")


def _waits_for_ever(document: Document, step: Path) -> Problem:
    """A wait_for without timeout; where its event names nothing of the enrollment, that is said as well."""
    message, remedy = "without timeout this waits for ever.", "Add timeout: 10d, or as long as you want to wait."
    event = document.node((*step, "wait_for", "event"))
    key = document.node(("trigger", "key"))
    if isinstance(event, Scalar) and document.node((*step, "wait_for", "where")) is None and isinstance(key, Scalar):
        message = f"without timeout this waits for ever, and any {event.text} ends it."
        remedy = f"Add timeout: 10d and where: {key.text} == key."
    return document.problem(document.at((*step, "wait_for")), message, remedy)


def _shown(node: Node | None) -> str:
    return quoted(node.text) if isinstance(node, Scalar) else "this"


def _kind(node: Node | None) -> str:
    """What a node is, in a marketer's words."""
    if isinstance(node, MappingNode):
        return "a group of fields"
    if isinstance(node, ListNode):
        return "a list"
    value = node.value if node is not None else None
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    return "text" if isinstance(value, str) else "a number"
