"""Which steps of the journeys no test has reached, and which ways out of them none has gone."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from services.trials.story import Footprint
from shared.language.places import Place, Places
from shared.language.playbook import Choose, If, Playbook, Split, Step, WaitFor


class Missed(NamedTuple):
    """A step that no test reached; or, where `way` says which, one that was reached and left by no test this way."""

    journey: str
    step: str
    way: str
    place: Place | None


class Covered(NamedTuple):
    """How many of a journey's steps and ways were gone, of how many; and the others, in the order of the file."""

    journey: str
    gone: int
    of: int
    missed: list[Missed]


def covered(playbook: Playbook, places: Places, footprints: Iterable[Footprint]) -> Iterator[Covered]:
    """How much of each journey the tests have gone through, from the footprints that all of them left."""
    reached = {(one.journey, one.step) for one in footprints}
    gone = {(one.journey, one.step, one.way) for one in footprints if one.way}
    for name, journey in playbook.journeys.items():
        missed: list[Missed] = []
        count = 0
        went = 0
        for step in journey.steps:
            ways, place = _ways(journey.steps[step]), places.step(name, step)
            count += 1 + len(ways)
            if (name, step) not in reached:
                missed.append(Missed(name, step, "", place))
                continue
            untrodden = [Missed(name, step, way, place) for way in ways if (name, step, way) not in gone]
            missed += untrodden
            went += 1 + len(ways) - len(untrodden)
        yield Covered(name, went, count, missed)


def _ways(step: Step) -> list[str]:
    """The words of `services.journeys.commands.Passed` for each way out of a step that has several."""
    match step:
        case If():
            return ["then", "else"]
        case WaitFor():
            return ["matched", "timeout"]
        case Choose():
            return [*(str(number) for number in range(1, len(step.ways) + 1)), "else"]
        case Split():
            return list(step.arms)
    return []
