"""What an expression's tree means where it stands: which names it uses, and what in it cannot be right.

Errors are what nobody could evaluate: unknown names and functions, wrong arguments. Warnings are what can be evaluated
and never does what it says, such as comparing a number with a text; they need to know the kinds of values, which come
from the functions, and from the catalogue where there is one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from shared.language.calls import kind_of_call
from shared.language.functions import FUNCTIONS, PLAIN_FUNCTIONS, example_of
from shared.language.kinds import (
    BOOL,
    DATA,
    MOMENT,
    NUMBER,
    TEXT,
    UNKNOWN,
    Kind,
    calculated,
    kind_of_constant,
    kind_of_schema,
    may_equal,
    may_order,
    plural,
    schema_at,
)
from shared.language.problems import Remark, nearest
from shared.language.tree import Binary, Broken, Call, ListOf, Logic, Name, Node, Unary, render, walk
from shared.language.tree import Literal as Constant
from shared.language.values import number_or_none
from shared.language.variables import CUSTOMER

Catalogue = Mapping[str, Mapping[str, Mapping[str, Any]]]
"""An event's name to its properties, each as JSON Schema."""

ROOTS: Final = frozenset({"traits", "customer", "event", "trigger", "key", "steps", "item", "vars", "now"})

_PERCENTILE: Final = ("customer", "spend_percentile")

ANSWER: Final = "steps.<step>"
"""Stands in a remedy where only the journey knows the step."""

_WHERE_TO_FIND: Final = {
    "event": "It is known where an event is at hand: in where, in a trigger and in goal.value.",
    "trigger": "It is known inside a journey that an event begins.",
    "key": "It is known inside a journey.",
    "steps": "It is known in a journey's steps.",
    "vars": "It is known in a journey's steps.",
    "item": "It is known in a journey whose trigger has for_each.",
    "traits": "Only event and constants are known there.",
    "customer": "Only event and constants are known there.",
    "now": "Only event and constants are known there.",
}


class Mention(msgspec.Struct, frozen=True):
    """A name that an expression uses and that something else must know.

    - `event`: an event's name, in an aggregate
    - `property`: `path` of the event `event` (None where the caller did not say which event is at hand)
    - `trigger`: `path` in the properties of the event that began the journey
    - `item`: `path` in the element of a list in those properties for which the enrollment began
    - `segment`, `stage`, `topic`: by `name`
    - `step`: a step's id is `name`, what is asked of it is `path`
    - `trait`, `var`: `path`
    - `spend`: what customers have spent
    """

    kind: Literal["event", "property", "trigger", "item", "segment", "stage", "topic", "step", "trait", "var", "spend"]
    name: str
    path: tuple[str, ...]
    event: str | None
    offset: int
    length: int


class Surroundings(msgspec.Struct, frozen=True):
    """Where an expression stands; see `compile_expression`."""

    allowed: Collection[str]
    functions: Collection[str]
    place: str
    event: str | None
    trigger: str | None
    catalogue: Catalogue
    each: tuple[str, ...] = ()


class Analysis(msgspec.Struct):
    surroundings: Surroundings
    problems: list[Remark] = []
    warnings: list[Remark] = []
    mentions: list[Mention] = []

    def error(self, node: Node, code: str, message: str, remedy: str) -> None:
        self.problems.append(Remark(node.offset, max(node.end - node.offset, 1), code, message, remedy))

    def warn(self, node: Node, code: str, message: str, remedy: str) -> None:
        self.warnings.append(Remark(node.offset, max(node.end - node.offset, 1), code, message, remedy))

    def mention(
        self, kind: Any, node: Node, name: str = "", path: tuple[str, ...] = (), event: str | None = None
    ) -> None:
        self.mentions.append(Mention(kind, name, path, event, node.offset, node.end - node.offset))

    # -- any node

    def condition(self, node: Node) -> None:
        """The whole of a `when`, `if` or `where`: something that can be true."""
        kind = self.kind(node)
        if kind.name in ("bool", "data", "unknown"):
            return
        if isinstance(node, Constant) and isinstance(node.value, str):
            remedy = (
                f"Write {node.value} without quotation marks." if node.value in ("true", "false") else "Compare it."
            )
        else:
            remedy = f"Compare it: {_shortened(node)} >= 1." if kind.name == "number" else "Compare it with something."
        self.error(node, "no-condition", f"This is {kind}, and a condition is true or false.", remedy)

    def kind(self, node: Node) -> Kind:
        """Analyse a node and all below it; what kind of value it gives."""
        match node:
            case Constant():
                return kind_of_constant(node)
            case ListOf(items=items):
                kinds = {self.kind(item) for item in items}
                return Kind("list", kinds.pop() if len(kinds) == 1 else None)
            case Name():
                return self.name(node)
            case Unary(operator="not", operand=operand):
                self.truth("not", operand)
                return BOOL
            case Unary(operand=operand):
                kind = self.kind(operand)
                if kind.name in ("number", "duration", "unknown"):
                    return kind
                if kind.name != "data":
                    self.warn(node, "arithmetic", f"A minus before {kind} gives null.", "Remove it.")
                return NUMBER
            case Logic(operator=operator, operands=operands):
                for operand in operands:
                    self.truth(operator, operand)
                return BOOL
            case Binary(operator="==" | "!="):
                self.equality(node)
                return BOOL
            case Binary(operator="in" | "not in"):
                self.membership(node)
                return BOOL
            case Binary(operator="<" | "<=" | ">" | ">="):
                self.ordering(node)
                return BOOL
            case Binary():
                return self.arithmetic(node)
            case Call():
                return kind_of_call(self, node)
        return UNKNOWN

    def condition_on_event(self, node: Node, event: str | None) -> None:
        """A condition inside an aggregate: it knows the event and constants alone."""
        surroundings = Surroundings(
            allowed=frozenset({"event"}),
            functions=PLAIN_FUNCTIONS - {"days_since"},
            place="in the where of an aggregate",
            event=event,
            trigger=None,
            catalogue=self.surroundings.catalogue,
        )
        Analysis(surroundings, self.problems, self.warnings, self.mentions).condition(node)

    def truth(self, operator: str, node: Node) -> None:
        kind = self.kind(node)
        if kind.name not in ("bool", "data", "unknown"):
            message = f'"{operator}" takes what is true or false, and this is {kind}: it counts as false.'
            self.warn(
                node, "truth", message, f"Compare it: {_shortened(node)} >= 1." if kind == NUMBER else "Compare it."
            )

    # -- operators

    def equality(self, node: Binary) -> None:
        left, right = self.kind(node.left), self.kind(node.right)
        always = "false" if node.operator == "==" else "true"
        if not may_equal(left, right):
            message = f"This compares {left} with {right}, which is always {always}."
            self.warn(node, "kinds", message, _remedy(node, left, right))
        for name, kind, other in ((node.left, left, node.right), (node.right, right, node.left)):
            if isinstance(other, Constant):
                self.option(name, kind, other)
        self.profile_names(node.left, [node.right])
        self.profile_names(node.right, [node.left])

    def membership(self, node: Binary) -> None:
        left, right = self.kind(node.left), self.kind(node.right)
        always = "false" if node.operator == "in" else "true"
        if right.name not in ("list", "text", "data", "unknown"):
            message = f'"{node.operator}" looks into a list or a text, and this is {right}: always {always}.'
            self.warn(node.right, "kinds", message, "Write a list: [a, b].")
        elif right.name == "text" and left.name not in ("text", "data", "unknown"):
            message = f"This looks for {left} in text, which is always {always}."
            self.warn(node, "kinds", message, "Write a text, or a list: [a, b].")
        elif right.item is not None and not may_equal(left, right.item):
            message = f"This looks for {left} among {plural(right.item)}, which is always {always}."
            self.warn(node, "kinds", message, _remedy(node, left, right.item))
        if isinstance(node.right, ListOf):
            for item in node.right.items:
                if isinstance(item, Constant):
                    self.option(node.left, left, item)
            self.profile_names(node.left, node.right.items)
        if isinstance(node.left, Constant) and right.item is not None:
            self.option(node.right, right.item, node.left)
        self.profile_names(node.right, [node.left])

    def option(self, name: Node, kind: Kind, constant: Constant) -> None:
        """A constant that the catalogue does not have among the values of a property."""
        if not kind.options or constant.value is None or constant.value in kind.options:
            return
        known = [option for option in kind.options if isinstance(option, str)]
        meant = nearest(constant.value, known) if isinstance(constant.value, str) else None
        remedy = f'Did you mean "{meant}"?' if meant else f"It may be {', '.join(map(str, kind.options[:8]))}."
        message = f"{render(constant)} is none of the values that the catalogue has for {_shortened(name)}."
        self.warn(constant, "option", message, remedy)

    def profile_names(self, name: Node, others: Collection[Node]) -> None:
        """Stages and segments that are named by comparing `customer.stage` or looking into `customer.segments`."""
        if not isinstance(name, Name) or name.path not in (("customer", "stage"), ("customer", "segments")):
            return
        for other in others:
            if isinstance(other, Constant) and isinstance(other.value, str):
                self.mention("stage" if name.path[1] == "stage" else "segment", other, name=other.value)

    def ordering(self, node: Binary) -> None:
        left, right = self.kind(node.left), self.kind(node.right)
        for name, other in ((node.left, node.right), (node.right, node.left)):
            if isinstance(name, Name) and name.path == _PERCENTILE and isinstance(other, Constant):
                self.percentile(other)
        if may_order(left, right):
            for known, constant in ((left, node.right), (right, node.left)):
                if known.name == "data" and isinstance(constant, Constant) and _is_number(constant.value):
                    message = f'"{constant.value}" is text, which no number is above or below.'
                    self.warn(constant, "kinds", message, f"Write {constant.value} without quotation marks.")
            return
        if left.name == right.name:
            self.warn(node, "kinds", f"There is no order among {plural(left)}: always false.", 'Use "==" or "in".')
        else:
            message = f"This compares {left} with {right}, which is always false."
            self.warn(node, "kinds", message, _remedy(node, left, right))

    def percentile(self, constant: Constant) -> None:
        """A number that no percentile passes, or that is meant as a share."""
        number = number_or_none(constant.value)
        if number is None or number == 0 or 1 <= number <= 99:
            return
        remedy = f"Write {number * 100:.0f}." if 0 < number < 1 else "The best hundredth are at 99."
        self.warn(constant, "percentile", "A percentile is a whole number from 0 to 99.", remedy)

    def arithmetic(self, node: Binary) -> Kind:
        left, right = self.kind(node.left), self.kind(node.right)
        result = calculated(node.operator, left, right)
        if result is None:
            message = f'"{node.operator}" between {left} and {right} gives null.'
            self.warn(node, "arithmetic", message, _remedy(node, left, right))
            return UNKNOWN
        if node.operator == "/" and isinstance(node.right, Constant) and node.right.value == 0:
            self.warn(node, "arithmetic", "Dividing by 0 gives null.", "Divide by another number.")
        return result

    # -- names

    def name(self, node: Name) -> Kind:
        root, *rest = node.path
        path = tuple(rest)
        if root not in self.surroundings.allowed:
            self.unknown_name(node, root)
            return UNKNOWN
        match root:
            case "now":
                return self.without_fields(node, path, MOMENT)
            case "key":
                return self.without_fields(node, path, DATA)
            case "customer":
                return self.customer_field(node, path)
            case "event":
                self.mention("property", node, path=path, event=self.surroundings.event)
                return self.property_kind(self.surroundings.event, path)
            case "trigger":
                self.mention("trigger", node, path=path, event=self.surroundings.trigger)
                return self.property_kind(self.surroundings.trigger, path)
            case "item":
                self.mention("item", node, path=path, event=self.surroundings.trigger)
                each = self.surroundings.each
                return self.property_kind(self.surroundings.trigger, (*each, *path)).element() if each else DATA
            case "traits":
                self.mention("trait", node, path=path)
                return DATA if path else Kind("mapping")
            case "steps" if not path:
                self.error(node, "name", '"steps" needs the id of a step.', "Write steps.<step>.event.<field>.")
            case "steps":
                self.mention("step", node, name=path[0], path=path[1:])
            case "vars" if not path:
                self.error(node, "name", '"vars" needs a name.', "Write vars.<name>.")
            case "vars":
                self.mention("var", node, path=path)
        return DATA

    def without_fields(self, node: Name, path: tuple[str, ...], kind: Kind) -> Kind:
        if path:
            self.error(node, "name", f'"{node.path[0]}" has no fields.', f"Write {node.path[0]}.")
        return kind

    def customer_field(self, node: Name, path: tuple[str, ...]) -> Kind:
        if not path:
            known = ", ".join(CUSTOMER)
            self.error(
                node, "name", '"customer" needs a field.', f"There are {known}. What the shop told is in traits."
            )
            return UNKNOWN
        first = path[0]
        if first not in CUSTOMER:
            meant = nearest(first, CUSTOMER)
            remedy = f"Did you mean customer.{meant}?" if meant else f"What the shop told is in traits: traits.{first}."
            self.error(node, "name", f'"customer" has no "{first}".', remedy)
        elif len(path) > 1:
            self.error(node, "name", f'"customer.{first}" has no fields.', f"Write customer.{first}.")
        elif first == "segments":
            return Kind("list", TEXT)
        elif first in ("first_seen", "last_seen"):
            return MOMENT
        elif first == "spend_percentile":
            self.mention("spend", node)
            return NUMBER
        return TEXT

    def property_kind(self, event: str | None, path: tuple[str, ...]) -> Kind:
        if not path:
            return Kind("mapping")
        properties = self.surroundings.catalogue.get(event) if event is not None else None
        schema = schema_at(properties, path) if properties is not None else None
        return DATA if schema is None else kind_of_schema(schema)

    def unknown_name(self, node: Name, root: str) -> None:
        allowed, place = self.surroundings.allowed, self.surroundings.place
        rest = ".".join(node.path[1:]) or "<field>"
        if root in ROOTS:
            remedy = _WHERE_TO_FIND[root]
            if root == "event" and "steps" in allowed:
                remedy = f"For the answer to a step write {ANSWER}.event.{rest}"
                remedy += f", for the event that began the journey trigger.{rest}." if "trigger" in allowed else "."
            self.error(node, "name", f'"{root}" is not known {place}.', remedy)
            return
        if root in FUNCTIONS and len(node.path) == 1:
            self.error(node, "function", f'"{root}" is a function.', f"Call it: {example_of(root)}.")
            return
        meant = nearest(root, allowed)
        whole = ".".join(node.path)
        remedy = f"Did you mean {'.'.join((meant, *node.path[1:]))}?" if meant else f"Known are {_listed(allowed)}."
        if len(node.path) == 1:
            hyphen = " For a difference put the minus between spaces." if "-" in whole else ""
            remedy = f'For text write "{whole}".{hyphen} {remedy}'
        self.error(node, "name", f'"{root}" is not known {place}.', remedy)


def _shortened(node: Node) -> str:
    if any(isinstance(part, Broken) for part in walk(node)):
        return "..."
    if isinstance(node, Call):
        return f"{node.function}(...)"
    text = render(node)
    return text if len(text) <= 40 else "..."


def _remedy(node: Binary, left: Kind, right: Kind) -> str:
    """What to do about two kinds that do not go together."""
    for here, mine, other in ((node.left, left, right), (node.right, right, left)):
        if other.name == "moment" and mine.name in ("data", "text"):
            return f"Make it a point in time: date({_shortened(here)})."
        if mine.name == "duration" and other.name == "number" and isinstance(here, Constant):
            days = here.value / timedelta(days=1) if isinstance(here.value, timedelta) else 0
            return f"days_since gives a number of days: write {days:g}."
        if mine.name == "text" and other.name == "number" and isinstance(here, Constant):
            text = str(here.value)
            return f"Write {text} without quotation marks." if _is_number(text) else "Compare it with a number."
    return "Compare two of the same kind."


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names))


def _is_number(value: object) -> bool:
    return isinstance(value, str) and value.replace(".", "", 1).isdecimal()
