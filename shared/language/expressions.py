"""Expressions of the playbook: text to a checked, compiled condition or value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from shared.errors import RapportError
from shared.language.aggregates import Aggregate


@dataclass(slots=True)
class Scope:
    """What an expression is evaluated in. Only `now` is always needed; what is absent is null.

    `customer` maps `key stage segments first_seen last_seen locale timezone`. `event` and `trigger` are decoded
    properties. `aggregates` maps an aggregate's id to its state. `currency` and `rates` are the brand's.
    """

    now: datetime
    traits: Mapping[str, Any] = field(default_factory=dict)
    customer: Mapping[str, Any] = field(default_factory=dict)
    event: Mapping[str, Any] | None = None
    trigger: Mapping[str, Any] | None = None
    key: Any = None
    steps: Mapping[str, Any] = field(default_factory=dict)
    vars: Mapping[str, Any] = field(default_factory=dict)
    aggregates: Mapping[str, Any] = field(default_factory=dict)
    consented: Callable[[str], bool] = lambda topic: False
    segments: Collection[str] = ()
    currency: str = ""
    rates: Mapping[str, Decimal] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Remark:
    """Something wrong or doubtful in an expression: where (0-based, in characters), what, and what to do."""

    offset: int
    length: int
    code: str
    message: str
    remedy: str


class ExpressionError(RapportError):
    """An expression that cannot be compiled; `problems` are all that were found, in order of their place."""

    def __init__(self, problems: Iterable[Remark]) -> None:
        self.problems = sorted(problems, key=lambda problem: problem.offset)
        super().__init__(" ".join(f"{p.offset + 1}: {p.message} {p.remedy}" for p in self.problems))


@dataclass(frozen=True, slots=True)
class Mention:
    """A name that an expression uses and that something else must know.

    - `event`: an event's name, in an aggregate
    - `property`: `path` of the event `event` (None where the caller did not say which event is at hand)
    - `trigger`: `path` in the properties of the event that began the journey
    - `segment`, `stage`, `topic`: by `name`
    - `step`: a step's id is `name`, what is asked of it is `path`
    - `trait`, `var`: `path`
    """

    kind: Literal["event", "property", "trigger", "segment", "stage", "topic", "step", "trait", "var"]
    name: str
    path: tuple[str, ...]
    event: str | None
    offset: int
    length: int


class Expression:
    """A compiled expression."""

    source: str
    canonical: str
    aggregates: frozenset[str]
    names: frozenset[tuple[str, ...]]

    def evaluate(self, scope: Scope) -> Any:
        """Its value. Null is None; numbers are int, float or Decimal; moments are aware datetimes."""
        raise NotImplementedError

    def truth(self, scope: Scope) -> bool:
        """Whether it holds: only true is true; null and everything else is not."""
        return self.evaluate(scope) is True

    def matches(self, properties: Mapping[str, Any]) -> bool:
        """`truth` for an expression that names only `event`."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression with what was learned about it."""

    expression: Expression
    aggregates: tuple[Aggregate, ...]
    mentions: tuple[Mention, ...]
    warnings: tuple[Remark, ...]


ROOTS = frozenset({"traits", "customer", "event", "trigger", "key", "steps", "vars", "now"})
AGGREGATES = frozenset({"count", "sum", "avg", "min", "max", "first", "last", "exists"})
PROFILE_FUNCTIONS = frozenset({"consented", "in_segment"})
PLAIN_FUNCTIONS = frozenset({"days_since", "date", "lower", "contains", "starts_with", "len", "round", "coalesce"})
FUNCTIONS = AGGREGATES | PROFILE_FUNCTIONS | PLAIN_FUNCTIONS


def compile_expression(
    text: str,
    *,
    allowed: Collection[str],
    functions: Collection[str] = FUNCTIONS,
    place: str = "here",
    condition: bool = False,
    event: str | None = None,
    trigger: str | None = None,
    catalogue: Mapping[str, Mapping[str, Any]] | None = None,
) -> Compiled:
    """Text to a compiled expression. Raises ExpressionError with all problems at once.

    `allowed` are the roots (of ROOTS) that are known where the text stands and `functions` what may be called there;
    `place` says where that is, in a message ("in a step"). With `condition` a value that can never be true or false
    is remarked on. `event` and `trigger` name the events that `event.` and `trigger.` refer to. `catalogue` maps an
    event's name to its properties, each a JSON Schema; only warnings come of it.
    """
    raise NotImplementedError


def plain(value: Any) -> Any:
    """A value as JSON can carry it: decimals as numbers, moments as RFC 3339 text, durations as `2d`."""
    raise NotImplementedError
