"""Aggregates over a customer's events."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from shared.language.expressions import Expression

Function = Literal["count", "sum", "avg", "min", "max", "first", "last", "exists"]


@dataclass(frozen=True, slots=True)
class Aggregate:
    """One number or value kept up over a customer's events called `event`. `id` is a hash of the rest."""

    id: str
    function: Function
    event: str
    field: tuple[str, ...] | None
    where: Expression | None
    window: timedelta | None


def observe(
    aggregate: Aggregate,
    state: Any,
    event_id: str,
    occurred_at: datetime,
    properties: Mapping[str, Any],
    received_at: datetime,
) -> Any:
    """The state after one more event of the aggregate's name; `state` is None at first and never changed in place."""
    raise NotImplementedError


def value(
    aggregate: Aggregate, state: Any, now: datetime, currency: str = "", rates: Mapping[str, Decimal] | None = None
) -> Any:
    """What the aggregate amounts to at `now`."""
    raise NotImplementedError


def expires(aggregate: Aggregate, state: Any, now: datetime) -> datetime | None:
    """The earliest moment after `now` at which time alone changes the value; None where it never does."""
    raise NotImplementedError
