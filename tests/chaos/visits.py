"""Links that were followed and images that were fetched, by people and by programs, and what must be so of them.

What a person does counts, once for a minute; what a program does, or whoever is quicker than people are, never. A
process that is killed may take with it what it has not yet told: clicks within seconds of its end, or since the log
could not be reached. Nothing else is lost. Knows nothing of the services.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

CLOCKS_APART = 1.2
"""Seconds by which the clock of a host may be wrong, either way."""
AT_ONCE = 10 / 60
"""Seconds here; ten of the playbook's. So soon after the yes was written down, nobody counts as a person."""
RUSH = 1 / 60
"""The same: within this, no person follows two links of a mail."""
TOLD_WITHIN = 5.0
"""Seconds after its answer, by which a click is in the log that can be reached, however busy the machine."""
WAITED_FOR = 0.9
"""Seconds. Whoever was answered sooner was so since the log had it, where the mail has no other link."""
TRIED_FOR = 65.0
"""Seconds, and a little: so long a process tries to tell of a click."""

Use = tuple[str, str, bool]
"""A message, the link (empty: the image), and whether it was taken for a machine."""


@dataclass
class Visit:
    """A link that was followed, or an image that was fetched."""

    message: str
    link: str
    """Where it leads; empty for the image."""
    scanner: bool
    """It says that it is a program."""
    alone: bool
    """The mail has no other link; or it is the image."""
    begun: float
    pid: int
    """Of the process that was asked."""
    answered: float | None = None
    before_yes: bool = False
    """It was over before the mail server had said yes to the mail."""


@dataclass
class Losses:
    """What may have kept a click from being told."""

    ended: dict[int, float] = field(default_factory=dict)
    """When a process was killed, at the earliest."""
    said: set[int] = field(default_factory=set)
    """Processes that have said that they lost one."""
    troubles: list[tuple[float, float]] = field(default_factory=list)
    """When the log could not be reached, or not by all."""
    stops: list[tuple[int, float, float]] = field(default_factory=list)
    """When a process stood still."""

    def may_have(self, visit: Visit) -> bool:
        """Whether this visit may be lost."""
        if visit.answered is None or visit.pid in self.said:
            return True
        ended = self.ended.get(visit.pid)
        if ended is None or (visit.alone and visit.answered - visit.begun < WAITED_FOR):
            return False
        by = visit.answered + TOLD_WITHIN
        return ended <= by or (not self.calm(visit, by) and ended <= visit.answered + TRIED_FOR)

    def hindered(self, begun: float, until: float) -> bool:
        """Whether anything was in anybody's way between these moments."""
        ways = [*self.troubles, *((since, end) for _, since, end in self.stops)]
        return any(since <= until and begun <= end for since, end in ways)

    def calm(self, visit: Visit, until: float) -> bool:
        """Whether nothing kept its process from telling of it."""
        hindered = any(begun <= until and visit.begun <= end for begun, end in self.troubles)
        stood = any(pid == visit.pid and begun <= until and visit.begun <= end for pid, begun, end in self.stops)
        return not hindered and not stood


def wrong(
    visits: Sequence[Visit],
    uses: Counter[Use],
    written_down: Mapping[str, float],
    doubtful: frozenset[str],
    losses: Losses,
) -> Iterator[str]:
    """`written_down`: by message, when it was seen that it is known to be sent. `doubtful` are messages of which it was
    not known at some time: then nobody knows whether a visit came before or after."""
    by_place: defaultdict[tuple[str, str], list[Visit]] = defaultdict(list)
    by_message: defaultdict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        by_place[visit.message, visit.link].append(visit)
        by_message[visit.message].append(visit)
    for message, link in {(message, link) for message, link, _ in uses} - by_place.keys():
        yield f"{link or 'the image'} of {message} is told of, and nobody was there"
    for (message, link), here in by_place.items():
        people, machines = uses[message, link, False], uses[message, link, True]
        may, must, told = 0, False, False
        certain_machines, possible_machines = False, 0
        for visit in here:
            early = visit.before_yes and visit.answered is not None and message not in doubtful
            is_person = _is_person(visit, by_message[message], written_down)
            kept = not losses.may_have(visit)
            may += not visit.scanner and not early
            possible_machines += not is_person
            must |= is_person and kept
            told |= kept
            certain_machines |= kept and (visit.scanner or early)
        what = f"{link or 'the image'} of {message} counts {people} times for people, {machines} for machines"
        if people > may or machines > possible_machines or people + machines > len(here):
            yield f"{what}, and was visited so: {here}"
        elif (must and not people) or (certain_machines and not machines) or (told and not people + machines):
            yield f"{what}; somebody is not told of: {here}"


def _is_person(visit: Visit, all_of_it: Sequence[Visit], written_down: Mapping[str, float]) -> bool:
    """Whether it must be taken for a person, whatever clocks say."""
    known = written_down.get(visit.message)
    if visit.scanner or visit.answered is None or known is None:
        return False
    if visit.begun < known + AT_ONCE + 2 * CLOCKS_APART:
        return False
    margin = RUSH + 2 * CLOCKS_APART
    return not visit.link or not any(
        other.link not in ("", visit.link)
        and other.begun <= visit.answered + margin
        and (other.answered is None or visit.begun <= other.answered + margin)
        for other in all_of_it
    )


def certain(visits: Sequence[Visit], written_down: Mapping[str, float], losses: Losses) -> Iterator[Visit]:
    """Those that people must be known to have made."""
    by_message: defaultdict[str, list[Visit]] = defaultdict(list)
    for visit in visits:
        by_message[visit.message].append(visit)
    for visit in visits:
        if _is_person(visit, by_message[visit.message], written_down) and not losses.may_have(visit):
            yield visit
