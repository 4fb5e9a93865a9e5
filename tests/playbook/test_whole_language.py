"""A playbook that uses everything there is in the language (`whole/`), with tests that go every way of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from services.mailer.composing import Composer
from services.mailer.links import Links
from services.trials.coverage import covered
from services.trials.report import explained, of_coverage
from services.trials.running import Verdict, run
from shared.language import check, load_with_tests, read_folder
from shared.language.flowchart import as_mermaid, as_text, flow_of
from shared.language.flowchart_svg import as_svg
from shared.language.functions import FUNCTIONS
from shared.language.journey_file import TRIGGERS
from shared.language.playbook import Email
from shared.language.steps import ANSWERS, STEPS

FILES = read_folder(Path(__file__).parent / "whole")
LOADED = load_with_tests(FILES)
WRITTEN = "\n".join(data.decode() for name, data in FILES.items() if name.endswith(".yaml"))
VERDICTS = [
    run(LOADED, Composer(Links(b"tested", "https://links.invalid")), tested, number)
    for tested in LOADED.tests
    for number in range(len(tested.tests))
]


def test_the_checker_has_nothing_to_say() -> None:
    assert [str(problem) for problem in check(FILES)] == []


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda one: f"{one.tested.journey}: {one.test.name}")
def test_journey(verdict: Verdict) -> None:
    assert not verdict.differences, "\n".join(explained(verdict))


def test_every_step_is_reached_and_left_by_every_way() -> None:
    footprints = {one for verdict in VERDICTS for one in verdict.story.footprints}
    journeys = list(covered(LOADED.playbook, LOADED.places, footprints))
    assert [one for one in journeys if one.missed] == [], "\n".join(of_coverage(journeys))


def test_nothing_of_the_language_is_left_out() -> None:
    fields = {*TRIGGERS, *STEPS, *ANSWERS}
    fields |= {"where", "key", "if", "unless_in", "for_each", "every", "at", "before", "change", "mode", "again"}
    fields |= {"goal", "within", "value", "exit_on", "holdout", "topic", "priority", "expires", "with"}
    fields |= {"for", "until", "on", "between", "timeout", "on_timeout", "by", "share", "prefix", "length", "limit"}
    fields |= {"codes", "announce", "quiet_hours", "caps", "rates", "outcomes", "arms", "opened", "clicked", "reply"}
    fields |= {"spend", "spend_percentile"}
    assert [word for word in sorted(fields) if not re.search(rf"[\s{{]{word}:", WRITTEN)] == []
    assert [name for name in sorted(FUNCTIONS) if f"{name}(" not in WRITTEN] == []
    names = [
        "traits.",
        "customer.",
        "customer.spend_percentile",
        "event.",
        "trigger.",
        "steps.",
        "item.",
        "vars.",
        " now",
        "== key",
    ]
    assert [name for name in names if name not in WRITTEN] == []
    signs = ["==", "!=", ">", ">=", "<", "<=", " in ", " not in ", " and ", " or ", "not ", " + ", " - ", " * ", " / "]
    assert [sign for sign in signs if sign not in WRITTEN] == []


@pytest.mark.parametrize("name", LOADED.playbook.journeys)
def test_every_journey_can_be_drawn(name: str) -> None:
    journey = LOADED.playbook.journeys[name]
    flow, messages = flow_of(journey), {step.message for step in journey.steps.values() if isinstance(step, Email)}
    for drawn in (as_text(flow), as_mermaid(flow), as_svg(flow, journey.title)):
        assert {message for message in messages if message not in drawn} == set()
