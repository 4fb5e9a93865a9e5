"""Circles of names that ask for one another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence


def circles(asks: Mapping[str, Sequence[str]]) -> Iterator[list[str]]:
    """Each circle, in its order; of those that share a name, one."""
    done: set[str] = set()
    for start in asks:
        circle = _circle_from(start, asks, done)
        if circle is not None:
            done.update(circle)
            yield circle


def _circle_from(start: str, asks: Mapping[str, Sequence[str]], done: set[str]) -> list[str] | None:
    """The circle that a walk from `start` runs into, in its order."""
    trail: list[str] = []
    pending: list[tuple[str, int]] = [(start, 0)]
    while pending:
        name, depth = pending.pop()
        del trail[depth:]
        if name in trail:
            return trail[trail.index(name) :]
        if name in done:
            continue
        if not any(below in asks for below in asks[name]):
            done.add(name)
            continue
        trail.append(name)
        pending.extend((below, depth + 1) for below in asks[name] if below in asks)
    done.update(trail)
    return None
