"""Timers fire in one order, however many of them are read at once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from shared.processing.agenda import Agenda
from shared.processing.port import Timer

START = datetime(2026, 3, 1, tzinfo=UTC)
subjects = st.sampled_from("abcdef")
moments = st.integers(0, 9)
# What the firing of a subject does: sets others to a moment, or removes them.
effects = st.dictionaries(subjects, st.lists(st.tuples(subjects, st.none() | moments), max_size=2), max_size=4)


@given(st.dictionaries(subjects, moments), effects, st.integers(1, 4), moments)
def test_portions_fire_what_one_reading_fires(
    timers: dict[str, int], effects: dict[str, list[tuple[str, int | None]]], portion: int, until: int
) -> None:
    assert fired(timers, effects, portion, until) == fired(timers, effects, 1000, until)


def fired(
    timers: dict[str, int], effects: dict[str, list[tuple[str, int | None]]], portion: int, until: int
) -> list[Timer]:
    """The first timers to fire, where `portion` of those that are kept are read at once."""
    kept = {subject: START + timedelta(seconds=at) for subject, at in timers.items()}
    end = START + timedelta(seconds=until)
    found: list[Timer] = []
    more = True
    while more and len(found) < 30:
        due = sorted(Timer(at, "kind", subject) for subject, at in kept.items() if at <= end)[:portion]
        more = len(due) == portion
        agenda = Agenda(due, more=more)
        while len(found) < 30 and (timer := agenda.pop(end)) is not None:
            found.append(timer)
            for subject, at in effects.get(timer.subject, []):
                agenda.set("kind", subject, None if at is None else START + timedelta(seconds=at))
        for (_, subject), due_at in agenda.changed.items():
            if due_at is None:
                kept.pop(subject, None)
            else:
                kept[subject] = due_at
    return found


def test_a_timer_that_is_set_again_for_the_same_moment_fires_once() -> None:
    agenda = Agenda([Timer(START, "kind", "a")])
    agenda.set("kind", "a", START)
    assert agenda.pop(START) == Timer(START, "kind", "a")
    assert agenda.pop(START) is None
    assert agenda.changed == {("kind", "a"): None}
