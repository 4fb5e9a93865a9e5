"""Events in the order in which they were received: as files have them, or sorted with bounded memory."""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from datetime import datetime
from operator import itemgetter
from pathlib import Path

import msgspec

from services.backtest.reading import Refusal
from shared.contracts.events import Event
from shared.errors import RapportError

HELD = 100_000
"""How many events are held in memory while they are sorted: about 150 MB."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Event).decode
_Told = Event | Refusal


class OutOfOrder(RapportError):
    """An event came before the one in front of it: the history has to be sorted first."""


def in_order(history: Iterable[_Told]) -> Iterator[_Told]:
    """The same, proven to be in order. Raises OutOfOrder where it is not."""
    latest: datetime | None = None
    for one in history:
        if isinstance(one, Event):
            if latest is not None and one.received_at < latest:
                raise OutOfOrder(f"an event of {one.received_at} follows one of {latest}")
            latest = one.received_at
        yield one


def sort(history: Iterable[_Told], held: int = HELD) -> Iterator[_Told]:
    """The events by the time they were received; those of one instant keep their order. Refusals come first.

    Sorted runs of `held` events lie in temporary files meanwhile (https://en.wikipedia.org/wiki/External_sorting).
    """
    with tempfile.TemporaryDirectory(prefix="rapport-sort-") as name:
        runs: list[Path] = []
        waiting: list[Event] = []
        for one in history:
            if isinstance(one, Refusal):
                yield one
                continue
            waiting.append(one)
            if len(waiting) >= held:
                runs.append(_written(waiting, Path(name) / str(len(runs))))
                waiting = []
        waiting.sort(key=_received)
        yield from merge([*map(_read, runs), waiting])


def merge(histories: Iterable[Iterable[_Told]]) -> Iterator[_Told]:
    """Several histories, each in order, as one. Those of one instant come in the order of their histories."""
    keyed = [_keyed(number, history) for number, history in enumerate(histories)]
    yield from map(itemgetter(2), heapq.merge(*keyed))


def _keyed(number: int, history: Iterable[_Told]) -> Iterator[tuple[datetime, tuple[int, int], _Told]]:
    """With a key of its own for each, so that two events are never compared."""
    moment: datetime | None = None
    for place, one in enumerate(history):
        moment = one.received_at if isinstance(one, Event) else moment or _EARLIEST
        yield moment, (number, place), one


def _received(event: Event) -> datetime:
    return event.received_at


def _written(events: list[Event], path: Path) -> Path:
    events.sort(key=_received)
    with path.open("wb") as file:
        for event in events:
            file.write(_encode(event))
            file.write(b"\n")
    return path


def _read(path: Path) -> Iterator[Event]:
    with path.open("rb") as file:
        yield from map(_decode, file)


_EARLIEST = datetime.fromisoformat("0001-01-01T00:00:00+00:00")
