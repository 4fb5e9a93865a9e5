"""Aggregates: what is kept up over a customer's events, so that a condition never reads history.

A state is plain data (lists, mappings of text, ints, text) and small. Two shapes:

- Without a window it is the *amount* (`shared.language.amounts`), what each event gave put together, in O(1) and the
  same in whatever order the events came.
- With a window it is `[times, amounts]`, two lists of the same length sorted by time (microseconds since 1970): one
  entry per event up to EXACT entries, in whatever order they came. Beyond that, entries of the same bucket of
  `window / 256` are folded into one that keeps the time of its latest event, so that an event may count up to
  `window / 256` too long. `last` and `exists` need only their latest event and are always exact.

`median_gap` and `list` keep the latest entries alone, with a window or without: `median_gap` the times of up to GAPS
events, `list` up to LISTED events as `[microseconds, event id, values]`, both sorted.

An event that happened exactly `window` ago no longer counts: the window holds `now - window < occurred_at`. Events are
de-duplicated before they come here. What a state amounts to at a moment is in `shared.language.aggregate_values`.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from shared.language.amounts import AMOUNTS, MERGES
from shared.language.durations import format_duration
from shared.language.values import MICROSECOND, micros

if TYPE_CHECKING:
    from shared.language.expressions import Expression

Function = Literal["count", "sum", "avg", "min", "max", "first", "last", "exists", "median_gap", "list"]

LATEST: Final = frozenset({"median_gap", "list"})
"""Functions that keep the latest entries alone, with a window or without."""

HISTORY: Final = timedelta(days=731)
"""The longest window: so long is history kept, from which a new window is filled."""

EXACT: Final = 256
"""So many entries of a window are kept one by one; and so many buckets has a window beyond that."""


class Aggregate(msgspec.Struct, frozen=True):
    """One value kept up over a customer's events called `event`.

    `field` is a path into the properties, `where` names only `event` and constants. `id` is a hash of all the rest as
    text, the same wherever and however often the aggregate is written. `width` is the window in microseconds. Made by
    `aggregate_of`.
    """

    id: str
    function: Function
    event: str
    field: tuple[str, ...] | None
    where: Expression | None
    window: timedelta | None
    width: int


def aggregate_of(
    function: Function,
    event: str,
    field: tuple[str, ...] | None = None,
    where: Expression | None = None,
    window: timedelta | None = None,
) -> Aggregate:
    """The aggregate with its id."""
    condition = None if where is None else where.canonical
    written = None if window is None else format_duration(window)
    id = hashlib.sha256(msgspec.json.encode([function, event, field, condition, written])).hexdigest()[:16]
    width = 0 if window is None else window // MICROSECOND
    return Aggregate(id, function, event, field, where, window, width)


SPEND: Final = aggregate_of("sum", "Order Completed", ("total",))
"""What a customer has spent, by which `customer.spend_percentile` ranks them."""


def observe(
    aggregate: Aggregate,
    state: Any,
    event_id: str,
    occurred_at: datetime,
    properties: Mapping[str, Any],
    received_at: datetime,
) -> Any:
    """The state after one more event called `aggregate.event`; `state` is None at first, and is not changed in place.

    `received_at` is the time at which the event is handled; what is older than the window then is not kept.
    """
    at = micros(occurred_at)
    window = aggregate.window
    if window is not None:
        width = aggregate.width
        # What a shop sends at once has one time for both, the same object.
        oldest = (at if received_at is occurred_at else micros(received_at)) - width
        if at <= oldest:
            return state
    where = aggregate.where
    if where is not None and not where.matches(properties):
        return state
    function = aggregate.function
    amount = 1 if function == "count" else AMOUNTS[function](aggregate, event_id, at, properties)
    if amount is None:
        return state
    if window is None or function == "last":
        return amount if state is None else MERGES[function](state, amount)
    if function == "exists":
        return at if state is None else max(state, at)
    if function in LATEST:
        return amount if state is None else MERGES[function](state[first_after(state, oldest) :], amount)
    if state is None:
        return [[at], [amount]]
    times, amounts = state
    if times[0] > oldest and times[-1] < at and len(times) < EXACT:
        return [[*times, at], [*amounts, amount]]
    return _insert(function, state, at, amount, width, oldest)


def _insert(function: str, state: Any, at: int, amount: Any, width: int, oldest: int) -> Any:
    times, amounts = state
    if times[0] <= oldest:
        living = bisect_right(times, oldest)
        times, amounts = times[living:], amounts[living:]
    later = not times or at > times[-1] or (at == times[-1] and amounts[-1] == amount)
    if later and len(times) < EXACT:
        return [[*times, at], [*amounts, amount]]
    times, amounts = list(times), list(amounts)
    if len(times) >= EXACT:
        bucket_width = max(width // EXACT, 1)
        if _joins(function, times, amounts, at, amount, bucket_width):
            return [times, amounts]
        times, amounts = _folded(function, times, amounts, bucket_width)
    place = bisect_right(times, at)
    # Entries of one instant have an order of their own, so that it does not matter which came first.
    while place and times[place - 1] == at and repr(amounts[place - 1]) > repr(amount):
        place -= 1
    times.insert(place, at)
    amounts.insert(place, amount)
    return [times, amounts]


def _joins(function: str, times: list[int], amounts: list[Any], at: int, amount: Any, bucket_width: int) -> bool:
    """Put the amount into an entry of its own bucket, where there is one."""
    bucket = at // bucket_width
    after = bisect_right(times, at)
    for place in (after - 1, after):
        if 0 <= place < len(times) and times[place] // bucket_width == bucket:
            times[place] = max(times[place], at)
            amounts[place] = MERGES[function](amounts[place], amount)
            return True
    return False


def _folded(function: str, times: list[int], amounts: list[Any], bucket_width: int) -> tuple[list[int], list[Any]]:
    """One entry for each bucket, at the time of its latest event."""
    merge = MERGES[function]
    kept_times: list[int] = []
    kept_amounts: list[Any] = []
    for at, amount in zip(times, amounts, strict=True):
        if kept_times and kept_times[-1] // bucket_width == at // bucket_width:
            kept_times[-1] = at
            kept_amounts[-1] = merge(kept_amounts[-1], amount)
        else:
            kept_times.append(at)
            kept_amounts.append(amount)
    return kept_times, kept_amounts


def first_after(state: list[Any], oldest: int) -> int:
    """Where, among the latest entries (see `LATEST`), those after `oldest` (microseconds) begin."""
    return bisect_right(state, oldest, key=time_of)


def time_of(entry: Any) -> int:
    """When (microseconds) an event happened that one of the latest entries tells of."""
    at: int = entry if type(entry) is int else entry[0]
    return at
