"""What sort of value comes out of an expression, as far as that is known before there is one."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Final, Literal

import msgspec

from shared.language.tree import Literal as Constant

KindName = Literal["number", "text", "bool", "moment", "duration", "list", "mapping", "null", "data", "unknown"]


class Kind(msgspec.Struct, frozen=True):
    """What sort of value comes out. `data` is anything that JSON holds, so no moment and no duration.

    `item` is the kind of a list's elements, `options` all values that the catalogue allows.
    """

    name: KindName
    item: Kind | None = None
    options: tuple[Any, ...] = ()

    def element(self) -> Kind:
        """Of a list, the kind of what it holds."""
        return DATA if self.name != "list" else self.item or DATA

    def __str__(self) -> str:
        return NAMED[self.name]


NAMED: Final = {
    "number": "a number",
    "text": "text",
    "bool": "true or false",
    "moment": "a point in time",
    "duration": "a duration",
    "list": "a list",
    "mapping": "a group of fields",
    "null": "null",
    "data": "what the shop sent",
    "unknown": "a value",
}

NUMBER, TEXT, BOOL = Kind("number"), Kind("text"), Kind("bool")
MOMENT, DURATION, NULL = Kind("moment"), Kind("duration"), Kind("null")
DATA, UNKNOWN = Kind("data"), Kind("unknown")

_JSON_KINDS: Final[Mapping[str, KindName]] = {
    "string": "text",
    "number": "number",
    "integer": "number",
    "boolean": "bool",
    "array": "list",
    "object": "mapping",
}


def kind_of_schema(schema: Mapping[str, Any]) -> Kind:
    """The kind that a JSON Schema describes; `data` where it leaves it open."""
    names = schema.get("type")
    options = schema.get("enum")
    if names is None and options and all(isinstance(option, str) for option in options):
        names = "string"
    found = {_JSON_KINDS.get(name) for name in ([names] if isinstance(names, str) else names or ()) if name != "null"}
    name = found.pop() if len(found) == 1 else None
    if name is None:
        return DATA
    items = schema.get("items")
    return Kind(
        name,
        kind_of_schema(items) if name == "list" and isinstance(items, Mapping) else None,
        tuple(options) if isinstance(options, (list, tuple)) else (),
    )


def schema_at(properties: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any] | None:
    """The JSON Schema of a property, by its path; through a list it is a list of what its items hold there.

    None where the catalogue has no such property; an empty schema where it leaves open what lies inside.
    """
    schema: Any = properties.get(path[0]) if path else {"type": "object"}
    if not isinstance(schema, Mapping):
        return None
    if len(path) <= 1:
        return schema
    inside: Any = schema
    through_list = False
    while isinstance(inside.get("items"), Mapping):
        inside, through_list = inside["items"], True
    fields = inside.get("properties")
    if not isinstance(fields, Mapping) or not fields:
        closed = inside.get("type") in ("string", "number", "integer", "boolean")
        return None if closed else {}
    found = schema_at(fields, path[1:])
    return {"type": "array", "items": found} if through_list and found is not None else found


def may_equal(left: Kind, right: Kind) -> bool:
    names = {left.name, right.name}
    if names & {"unknown", "null"} or len(names) == 1:
        return True
    return "data" in names and not names & {"moment", "duration"}


def may_order(left: Kind, right: Kind) -> bool:
    if {left.name, right.name} & {"bool", "list", "mapping", "null"}:
        return False
    return may_equal(left, right)


_SUMS: Final[Mapping[tuple[str, KindName, KindName], Kind]] = {
    ("+", "number", "number"): NUMBER,
    ("-", "number", "number"): NUMBER,
    ("*", "number", "number"): NUMBER,
    ("/", "number", "number"): NUMBER,
    ("+", "text", "text"): TEXT,
    ("+", "duration", "duration"): DURATION,
    ("-", "duration", "duration"): DURATION,
    ("+", "moment", "duration"): MOMENT,
    ("+", "duration", "moment"): MOMENT,
    ("-", "moment", "duration"): MOMENT,
    ("-", "moment", "moment"): DURATION,
    ("*", "duration", "number"): DURATION,
    ("*", "number", "duration"): DURATION,
    ("/", "duration", "number"): DURATION,
    ("/", "duration", "duration"): NUMBER,
}


def calculated(operator: str, left: Kind, right: Kind) -> Kind | None:
    """The kind of a sum or product; None where it is always null."""

    def may_be(kind: Kind, name: KindName) -> bool:
        return kind.name in (name, "unknown") or (kind.name == "data" and name in ("number", "text"))

    kinds = {
        result for (sign, a, b), result in _SUMS.items() if sign == operator and may_be(left, a) and may_be(right, b)
    }
    if not kinds:
        return None
    return kinds.pop() if len(kinds) == 1 else UNKNOWN


def kind_of_constant(node: Constant) -> Kind:
    value = node.value
    if value is None:
        return NULL
    if isinstance(value, bool):
        return BOOL
    if isinstance(value, str):
        return TEXT
    return DURATION if isinstance(value, timedelta) else NUMBER


def plural(kind: Kind) -> str:
    return {"number": "numbers", "text": "texts", "moment": "points in time", "duration": "durations"}.get(
        kind.name, f"values that are {kind}"
    )
