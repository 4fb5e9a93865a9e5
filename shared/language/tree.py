"""The tree of an expression, and the one way to write it as text."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Final

import msgspec
from msgspec.structs import astuple

from shared.language.durations import format_duration


class Node(msgspec.Struct, frozen=True, eq=False):
    """`offset` and `end` say where it stands in the text, and do not count when two trees are compared."""

    offset: int
    end: int

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and _without_place(self) == _without_place(other)

    def __hash__(self) -> int:
        return hash(_without_place(self))


class Literal(Node, frozen=True, eq=False):
    value: bool | int | float | str | timedelta | None


class ListOf(Node, frozen=True, eq=False):
    items: tuple[Node, ...]


class Name(Node, frozen=True, eq=False):
    path: tuple[str, ...]


class Unary(Node, frozen=True, eq=False):
    """`not` or `-`."""

    operator: str
    operand: Node


class Logic(Node, frozen=True, eq=False):
    """`and` or `or` between two and more."""

    operator: str
    operands: tuple[Node, ...]


class Binary(Node, frozen=True, eq=False):
    """A comparison or arithmetic."""

    operator: str
    left: Node
    right: Node


class Argument(Node, frozen=True, eq=False):
    """An argument by name, `within=30d`."""

    name: str
    value: Node


class Call(Node, frozen=True, eq=False):
    function: str
    arguments: tuple[Node, ...]
    named: tuple[Argument, ...]


class Broken(Node, frozen=True, eq=False):
    """Where something was expected and not found; the problem has been noted."""


def _without_place(node: Node) -> tuple[Any, ...]:
    return astuple(node)[2:]


def children(node: Node) -> tuple[Node, ...]:
    match node:
        case ListOf(items=items):
            return items
        case Unary(operand=operand):
            return (operand,)
        case Logic(operands=operands):
            return operands
        case Binary(left=left, right=right):
            return (left, right)
        case Argument(value=value):
            return (value,)
        case Call(arguments=arguments, named=named):
            return (*arguments, *named)
    return ()


def walk(node: Node) -> Iterator[Node]:
    yield node
    for child in children(node):
        yield from walk(child)


COMPARISONS: Final = frozenset({"==", "!=", "<", "<=", ">", ">=", "in", "not in"})
_STRENGTH: Final = {"or": 1, "and": 2, "not": 3} | dict.fromkeys(COMPARISONS, 4) | {"+": 5, "-": 5, "*": 6, "/": 6}
_NEGATION: Final = 7


def render(node: Node) -> str:
    """The one way to write a tree: equal trees give equal texts, and the text parses to the tree."""
    match node:
        case Literal(value=value):
            return _render_literal(value)
        case ListOf(items=items):
            return "[" + ", ".join(map(render, items)) + "]"
        case Name(path=path):
            return ".".join(path)
        case Unary(operator=operator, operand=operand):
            strength = _STRENGTH["not"] if operator == "not" else _NEGATION
            space = " " if operator == "not" else ""
            return operator + space + _bracketed(operand, strength)
        case Logic(operator=operator, operands=operands):
            return f" {operator} ".join(_bracketed(operand, _STRENGTH[operator] + 1) for operand in operands)
        case Binary(operator=operator, left=left, right=right):
            strength = _STRENGTH[operator]
            compared = operator in COMPARISONS
            return f"{_bracketed(left, strength + compared)} {operator} {_bracketed(right, strength + 1)}"
        case Argument(name=name, value=value):
            return f"{name}={render(value)}"
        case Call(function=function, arguments=arguments, named=named):
            ordered = sorted(named, key=lambda argument: argument.name)
            return f"{function}({', '.join(map(render, (*arguments, *ordered)))})"
    raise TypeError(f"{type(node).__name__} has no text")


def _bracketed(node: Node, least: int) -> str:
    match node:
        case Binary(operator=operator) | Logic(operator=operator):
            strength = _STRENGTH[operator]
        case Unary(operator="not"):
            strength = _STRENGTH["not"]
        case Unary():
            strength = _NEGATION
        case _:
            return render(node)
    return render(node) if strength >= least else f"({render(node)})"


def _render_literal(value: bool | int | float | str | timedelta | None) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t") + '"'
    if isinstance(value, timedelta):
        return format_duration(value)
    if isinstance(value, float):
        return f"{value:f}" if "e" in repr(value) else repr(value)
    return str(value)
