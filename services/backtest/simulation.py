"""A history through one playbook or two: read once, lived through by each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import NamedTuple

from services.backtest.comparing import compare
from services.backtest.observing import Observer
from services.backtest.ordering import HELD, OutOfOrder, in_order, merge, sort
from services.backtest.parts import Part
from services.backtest.reading import SOURCE, History, Refusal
from services.backtest.report import Findings, Report
from services.rehearsal.coupons import PoolsByCause
from services.rehearsal.house import House
from shared.contracts.events import (
    EMAIL_LINK_CLICKED,
    EMAIL_OPENED,
    TOPIC_SUBSCRIBED,
    TOPIC_UNSUBSCRIBED,
    UNSUBSCRIBED,
    Event,
)
from shared.language.playbook import Playbook

_CHUNK = 2_000
_OURS = "rapport/"
_OF_PEOPLE = frozenset({EMAIL_LINK_CLICKED, EMAIL_OPENED, UNSUBSCRIBED, TOPIC_SUBSCRIBED, TOPIC_UNSUBSCRIBED})
"""What a person did with a mail that history knows of. All else that Rapport itself reported comes about anew."""


class Reached(NamedTuple):
    """How far a simulation is: bytes of the files that have been read, and how many codes each playbook has asked for
    of each pool."""

    read: int
    wanted: list[Mapping[str, int]]


Progress = Callable[[Reached], None]


class Simulation:
    """One playbook at work, with what is found."""

    def __init__(self, playbook: Playbook, begins: datetime | None) -> None:
        self.findings = Findings(playbook)
        self.playbook = playbook
        # The playbook is in force before the first event, which is to find it so.
        begins = (begins or _ANY_TIME) - timedelta(microseconds=1)
        witness, pools = Observer(self.findings), PoolsByCause()
        self.house = House(playbook, begins, witness=witness, all_tags=False, coupons=pools)

    def run(self, events: Sequence[Event]) -> None:
        """The next events of the history, in order."""
        if not events:
            return
        findings = self.findings
        findings.events += len(events)
        findings.begin = findings.begin or events[0].received_at
        findings.end = events[-1].received_at
        self.house.run(events)

    def wait_until(self, moment: datetime) -> None:
        """Time goes on with nothing of the history, as it does for those who are simulated elsewhere."""
        if moment > self.house.as_of:
            self.house.pass_to(moment)

    @property
    def wanted(self) -> Mapping[str, int]:
        """How many codes of each pool have been asked for."""
        return self.house.coupons.given + self.house.coupons.refused

    def report(self) -> Report:
        """What has been found; nothing is taken any more."""
        findings, house = self.findings, self.house
        for person in house.people.values():
            for enrollment in person.enrollments:
                if enrollment.inside and enrollment.status != "held_out":
                    findings.still_inside(enrollment.journey, enrollment.step)
        for (journey, reason), count in house.declined.items():
            findings.declined(journey, reason, count)
        findings.duplicates = house.duplicates
        findings.coupons, findings.coupons_missing = house.coupons.given, house.coupons.refused
        stages, segments = Counter[str](), Counter[str]()
        for stage, groups in house.tags():
            stages[stage] += 1
            segments.update(groups)
        playbook = self.playbook
        return findings.report(
            len(house.profiles),
            {stage.name: stages[stage.name] for stage in playbook.stages},
            {name: segments[name] for name in playbook.segments},
        )


def simulate(
    playbooks: Sequence[Playbook], files: Sequence[History], progress: Progress, held: int = HELD
) -> list[Simulation]:
    """Each playbook over the same history. What is not in order is sorted first, with `held` events in memory."""
    try:
        return _simulate(playbooks, in_order(merge(files) if len(files) > 1 else files[0]), files, progress)
    except OutOfOrder:
        in_turn = (one for file in files for one in file)
        return _simulate(playbooks, sort(in_turn, held), files, progress)


def found(simulations: Sequence[Simulation]) -> Part:
    """What they came to; nothing is taken any more."""
    reports = [simulation.report() for simulation in simulations]
    comparison = None
    if len(reports) == 2:
        comparison = compare(simulations[0].findings, reports[0], simulations[1].findings, reports[1])
    return Part(reports, [simulation.findings.refusals for simulation in simulations], comparison)


def _simulate(
    playbooks: Sequence[Playbook], history: Iterable[Event | Refusal], files: Sequence[History], progress: Progress
) -> list[Simulation]:
    told = iter(history)
    simulations: list[Simulation] = []
    waiting: list[Refusal] = []
    for events, refusals in _chunks(told):
        waiting += refusals
        if events and not simulations:
            simulations = [Simulation(playbook, events[0].received_at) for playbook in playbooks]
        for simulation in simulations:
            for refusal in waiting:
                simulation.findings.refused(refusal)
            simulation.run(events)
        if simulations:
            waiting = []
        progress(Reached(sum(file.read_bytes for file in files), [one.wanted for one in simulations]))
    return simulations or [_empty(playbook, waiting) for playbook in playbooks]


def _empty(playbook: Playbook, refusals: Iterable[Refusal]) -> Simulation:
    simulation = Simulation(playbook, None)
    for refusal in refusals:
        simulation.findings.refused(refusal)
    return simulation


def _chunks(history: Iterator[Event | Refusal]) -> Iterator[tuple[list[Event], list[Refusal]]]:
    while chunk := list(islice(history, _CHUNK)):
        events = [one for one in chunk if type(one) is Event and (one.source == SOURCE or _counts(one))]
        refusals = [one for one in chunk if isinstance(one, Refusal)] if len(events) < len(chunk) else []
        yield events, refusals


def _counts(event: Event) -> bool:
    return not event.source.startswith(_OURS) or event.name in _OF_PEOPLE


_ANY_TIME = datetime.fromisoformat("2000-01-01T00:00:00+00:00")
