"""A playbook without chance: for tests, which tell the same story each time."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from msgspec.structs import replace

from shared.language.playbook import Playbook, Split, Step


def pinned(playbook: Playbook, journey: str | None, arms: Mapping[str, str], holdout: int = 0) -> Playbook:
    """The same, with lots that always fall on these arms of the splits of `journey` (None: of every journey), which is
    live. `holdout` is the share that is held out where any is: nobody (0), or everybody (1)."""

    def certain(step: Step) -> Step:
        if not isinstance(step, Split) or step.id not in arms:
            return step
        return replace(step, arms={arms[step.id]: replace(step.arms[arms[step.id]], share=Decimal(1))})

    journeys = {}
    for name, one in playbook.journeys.items():
        one = replace(one, holdout=Decimal(holdout) if one.holdout else one.holdout)
        if journey in (None, name):
            one = replace(one, steps={id: certain(step) for id, step in one.steps.items()})
        journeys[name] = replace(one, status="live") if name == journey else one
    return replace(playbook, journeys=journeys)
