"""Which names a template takes from outside, and whether it can be compiled; each part of it read once.

The mails of one shop are much alike: a head, a table of products, a foot. So a template is cut into parts that stand by
themselves, a tag or a block from its first tag to its last, without the words between them, and what is known of a part
is kept. A template that cannot be cut so, or of which a part is wrong, is read as a whole.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import msgspec
from jinja2 import Environment, TemplateError, nodes

from shared.language.bodies import jinja_tags
from shared.language.template_filters import GLOBALS
from shared.language.templating import check_size, compile_template, environment


class Use(msgspec.Struct, frozen=True):
    """A name in a template, with what is asked of it (`urls.shop`: `("urls", "shop")`), and its line."""

    path: tuple[str, ...]
    line: int


class Used(msgspec.Struct, frozen=True):
    """The names that a template takes from outside; `optional` are those whose absence it provides for."""

    uses: tuple[Use, ...] = ()
    optional: frozenset[str] = frozenset()

    @property
    def names(self) -> frozenset[str]:
        return frozenset(use.path[0] for use in self.uses)


class _Found(msgspec.Struct, frozen=True):
    """What a stretch of a template asks for, and the names that it sets for what follows."""

    uses: tuple[Use, ...]
    optional: frozenset[str]
    sets: frozenset[str]


class _Part(NamedTuple):
    text: str
    line: int


def used_in(source: str) -> Used:
    """The names of a template. Raises TemplateInvalid where it cannot be read."""
    uses: dict[Use, None] = {}
    optional: set[str] = set()
    known: set[str] = set()
    for part, found in _read(source):
        for use in found.uses:
            if use.path[0] not in known:
                uses[Use(use.path, use.line + part.line - 1)] = None
        optional |= found.optional
        known |= found.sets
    return Used(tuple(sorted(uses, key=lambda use: (use.line, use.path))), frozenset(optional))


def _read(source: str) -> list[tuple[_Part, _Found]]:
    check_size(source)
    parts = _parts(source)
    if parts is not None:
        found = [(part, _part(part.text)) for part in parts]
        sound = [(part, one) for part, one in found if one is not None]
        if len(sound) == len(found):
            return sound
    compile_template(source, html=True, name="template")
    return [(_Part(source, 1), _names(environment(html=True).parse(source)))]


_OPENING = frozenset({"if", "for", "macro", "call", "filter", "with"})
_WORD = re.compile(r"\{%[-+]?\s*(\w*)")
_LOOKS_LIKE_A_TAG = re.compile(r"\{[{%#]")


def _parts(source: str) -> list[_Part] | None:
    """The template's tags and blocks from its beginning to its end; None where they are not told apart so easily."""
    parts: list[_Part] = []
    block: list[str] = []
    depth, line, begins, at = 0, 1, 1, 0
    for found in jinja_tags(source):
        between = source[at : found.start()]
        if _LOOKS_LIKE_A_TAG.search(between):
            return None
        at = found.end()
        lines = between.count("\n")
        line += lines
        tag = found[0]
        word = _WORD.match(tag)
        closes = word is not None and word[1].startswith("end")
        depth -= closes
        if depth < 0:
            return None
        if block:
            block.append("\n" * lines)
        else:
            begins = line
        block.append(tag)
        depth += word is not None and (word[1] in _OPENING or (word[1] == "set" and "=" not in tag))
        if not depth:
            parts.append(_Part("".join(block), begins))
            block = []
        line += tag.count("\n")
    return None if depth or _LOOKS_LIKE_A_TAG.search(source, at) else parts


@lru_cache(maxsize=4096)
def _part(text: str) -> _Found | None:
    """What a part asks for; None where it cannot be compiled."""
    if text.startswith("{#"):
        return _Found((), frozenset(), frozenset())
    jinja = environment(html=True)
    try:
        tree = jinja.parse(text)
        found = _names(tree)
        if not _is_plain(tree, jinja):
            jinja.compile(tree, "part", "part")
    except (TemplateError, SyntaxError, RecursionError, MemoryError, ValueError):
        return None
    return found


_PLAIN = (
    nodes.Template,
    nodes.Output,
    nodes.If,
    nodes.For,
    nodes.Assign,
    nodes.Name,
    nodes.Getattr,
    nodes.Getitem,
    nodes.Slice,
    nodes.List,
    nodes.Const,
    nodes.TemplateData,
    nodes.Compare,
    nodes.Operand,
    nodes.BinExpr,
    nodes.UnaryExpr,
    nodes.CondExpr,
    nodes.Concat,
)
_DEEPEST = 16
"""Python takes twenty loops inside each other, and far deeper expressions."""


def _is_plain(node: nodes.Node, jinja: Environment, depth: int = 0) -> bool:
    """Whether a part does so little that it can be compiled once it can be read: values, conditions, loops, names for
    values. To compile it takes four times as long as to read it."""
    match node:
        case nodes.Filter() | nodes.Test():
            known = jinja.filters if isinstance(node, nodes.Filter) else jinja.tests
            sound = node.name in known
        case nodes.For():
            sound = not node.recursive and node.test is None
        case nodes.Compare():
            sound = len(node.ops) == 1
        case nodes.Name():
            sound = not (node.ctx == "store" and node.name == "loop")
        case _:
            sound = isinstance(node, _PLAIN)
    return sound and depth < _DEEPEST and all(_is_plain(below, jinja, depth + 1) for below in node.iter_child_nodes())


def _names(tree: nodes.Template) -> _Found:
    reader = _Reader()
    sets: set[str] = set()
    reader.read(tree, sets)
    return _Found(tuple(reader.uses), frozenset(reader.optional), frozenset(sets))


class _Reader:
    """Walks a template's tree with the names that are bound where it stands."""

    def __init__(self) -> None:
        self.uses: dict[Use, None] = {}
        self.optional: set[str] = set()

    def read(self, node: nodes.Node, bound: set[str]) -> None:
        match node:
            case nodes.Name() | nodes.Getattr() | nodes.Getitem():
                self.name(node, bound)
            case nodes.For():
                self.read(node.iter, bound)
                inside = bound | _targets(node.target) | {"loop"}
                if node.test is not None:
                    self.read(node.test, inside)
                self.all(node.body, inside)
                self.all(node.else_, set(bound))
            case nodes.Assign():
                self.read(node.node, bound)
                bound |= _targets(node.target)
            case nodes.AssignBlock():
                if node.filter is not None:
                    self.read(node.filter, bound)
                self.all(node.body, set(bound))
                bound |= _targets(node.target)
            case nodes.Macro() | nodes.CallBlock():
                if isinstance(node, nodes.Macro):
                    bound.add(node.name)
                else:
                    self.read(node.call, bound)
                self.all(node.defaults, bound)
                arguments = {argument.name for argument in node.args}
                self.all(node.body, bound | arguments | {"caller", "varargs", "kwargs"})
            case nodes.With():
                self.all(node.values, bound)
                self.all(node.body, bound.union(*map(_targets, node.targets)))
            case nodes.FilterBlock():
                self.read(node.filter, bound)
                self.all(node.body, set(bound))
            case _:
                if isinstance(node, nodes.Test) and node.name in ("defined", "undefined"):
                    self.may_be_absent(node.node)
                if isinstance(node, nodes.Filter) and node.name in ("default", "d"):
                    self.may_be_absent(node.node)
                for child in node.iter_child_nodes():
                    self.read(child, bound)

    def all(self, several: list[nodes.Node] | list[nodes.Expr], bound: set[str]) -> None:
        for node in several:
            self.read(node, bound)

    def name(self, node: nodes.Name | nodes.Getattr | nodes.Getitem, bound: set[str]) -> None:
        path = _path(node)
        if path is not None and path[0] not in bound and path[0] not in GLOBALS:
            self.uses[Use(path, node.lineno)] = None
        below: nodes.Node = node
        while isinstance(below, nodes.Getattr | nodes.Getitem):
            if isinstance(below, nodes.Getitem):
                self.read(below.arg, bound)
            below = below.node
        if path is None:
            self.read(below, bound)

    def may_be_absent(self, node: nodes.Node | None) -> None:
        if isinstance(node, nodes.Name):
            self.optional.add(node.name)


def _targets(node: nodes.Node) -> set[str]:
    return {name.name for name in _with(node) if isinstance(name, nodes.Name)}


def _with(node: nodes.Node) -> Iterator[nodes.Node]:
    yield node
    yield from node.find_all(nodes.Name)


def _path(node: nodes.Expr) -> tuple[str, ...] | None:
    """`a.b["c"]` as its parts; None where it does not begin with a name. What is computed is left out."""
    if isinstance(node, nodes.Name):
        return (node.name,)
    if isinstance(node, nodes.Getattr):
        before = _path(node.node)
        return (*before, node.attr) if before is not None else None
    if isinstance(node, nodes.Getitem):
        before = _path(node.node)
        if before is not None and isinstance(node.arg, nodes.Const) and isinstance(node.arg.value, str):
            return (*before, node.arg.value)
        return before
    return None
