"""The shipped playbook's own tests, as `rapport playbook test` runs them."""

from __future__ import annotations

import pytest

from services.mailer.composing import Composer
from services.mailer.links import Links
from services.trials.coverage import covered
from services.trials.report import explained, of_coverage
from services.trials.running import Verdict, run
from shared.language import SHIPPED, load_with_tests, read_folder

LOADED = load_with_tests(read_folder(SHIPPED))
VERDICTS = [
    run(LOADED, Composer(Links(b"tested", "https://links.invalid")), tested, number)
    for tested in LOADED.tests
    for number in range(len(tested.tests))
]


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda one: f"{one.tested.journey}: {one.test.name}")
def test_shipped_journey(verdict: Verdict) -> None:
    assert not verdict.differences, "\n".join(explained(verdict))


def test_every_step_of_every_shipped_journey_is_reached_and_left_by_every_way() -> None:
    footprints = {one for verdict in VERDICTS for one in verdict.story.footprints}
    journeys = list(covered(LOADED.playbook, LOADED.places, footprints))
    assert [one for one in journeys if one.missed] == [], "\n".join(of_coverage(journeys))
