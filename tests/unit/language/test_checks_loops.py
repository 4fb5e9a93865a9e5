"""Journeys that begin themselves, or one another, without end."""

from __future__ import annotations

import pytest
from sample_playbook import journey, said_of, sample


def test_journeys_that_begin_one_another_without_end() -> None:
    ping = journey("- emit: Pong", trigger="event: Ping")
    pong = journey("- emit: Ping", trigger="event: Pong").replace("journey: cart", "journey: pong")
    assert said_of(sample(journeys__cart_yaml=ping, journeys__pong_yaml=pong)) == [
        'journeys/cart.yaml:6:11: this begins "pong", which begins "cart", and so without end. '
        "Add again: to one of them, or a where."
    ]
    for ends in (
        pong.replace("trigger:", "again: 1d\ntrigger:"),
        pong.replace("- emit: Ping", "- if: traits.tired == null\n    then: [emit: Ping]"),
        pong.replace("- emit: Ping", "- if: traits.tired == true\n    then: [exit: tired]\n  - emit: Ping"),
        pong.replace("trigger:", "exit_on: [event: Tired]\ntrigger:").replace("- emit", "- wait: 1d\n  - emit"),
        # The other finds the customer inside still.
        pong.replace("- emit: Ping", "- emit: Ping\n  - wait: 1d"),
    ):
        assert said_of(sample(journeys__cart_yaml=ping, journeys__pong_yaml=ends)) == []


@pytest.mark.parametrize(
    ("begins", "sets"),
    [
        ("{segment: asked, change: entered}", ["false", "true"]),
        ("{segment: asked, change: left}", ["true", "false"]),
        ("{stage: convert}", ["false", "true"]),
    ],
)
def test_a_journey_that_moves_the_segment_or_stage_it_begins_with_begins_without_end(
    begins: str, sets: list[str]
) -> None:
    steps = "\n".join(f"- set: {{traits.asked: {value}}}" for value in sets)
    text = journey(steps, trigger="event: Ping").replace("trigger:\n  event: Ping", f"trigger: {begins}")
    files = {
        "segments_yaml": "segments: {asked: {when: traits.asked == true}}",
        "stages_yaml": "stages: {convert: traits.asked == true, attract: true}",
    }
    said = 'this begins "cart", and so without end. Add again: to one of them, or an if to its trigger.'
    assert [line.partition(": ")[2] for line in said_of(sample(journeys__cart_yaml=text, **files))] == [said]
    once = text.replace(steps.splitlines()[1], "- wait: 1d")
    assert said_of(sample(journeys__cart_yaml=once, **files)) == []


def test_two_journeys_that_move_a_customer_to_and_fro_begin_one_another_without_end() -> None:
    to = journey("- set: {traits.asked: false}", trigger="segment: asked\nchange: entered")
    fro = journey("- set: {traits.asked: true}", trigger="segment: asked\nchange: left").replace(
        ": cart\n", ": fro\n", 1
    )
    segments = 'segments: {asked: {when: "traits.asked == true and traits.country == null"}}'
    assert said_of(sample(journeys__cart_yaml=to, journeys__fro_yaml=fro, segments_yaml=segments)) == []
    segments = 'segments: {asked: {when: "traits.asked == true and traits.asked != 1"}}'
    (said,) = said_of(sample(journeys__cart_yaml=to, journeys__fro_yaml=fro, segments_yaml=segments))
    assert 'this begins "fro", which begins "cart", and so without end.' in said


@pytest.mark.parametrize(
    ("begins", "when", "after"),
    [
        ("{segment: quiet}", 'count("Ping", within=1d) == 0', "1d"),
        ("{segment: quiet}", 'count("Order Completed") >= 2 and not exists("Ping", within=2d)', "2d"),
        ("{segment: quiet, change: left}", 'count("Ping", within=12h) >= 1', "12h"),
        ("{stage: quiet}", 'count("Ping", within=1w) < 1', "1w"),
        # Who does something else, or has had more than one, is another matter.
        ("{segment: quiet}", 'count("Ping", within=1d) == 0 and count("Order Completed", within=1d) == 0', None),
        ("{segment: quiet}", 'count("Ping", within=1d) == 0 and traits.country == "NO"', None),
        ("{segment: quiet}", 'count("Ping", within=1d) <= 1', None),
        ("{segment: quiet, change: left}", 'count("Ping", within=1d) == 0', None),
        ("{segment: quiet}", 'count("Pong", within=1d) == 0', None),
    ],
)
def test_a_journey_that_begins_again_when_its_own_event_is_long_enough_ago(
    begins: str, when: str, after: str | None
) -> None:
    text = journey("- emit: Ping", trigger="event: Ping").replace("trigger:\n  event: Ping", f"trigger: {begins}")
    stages = f"quiet: '{when}', attract: true" if "stage" in begins else "attract: true"
    files = {
        "segments_yaml": f"segments: {{quiet: {{when: '{when}'}}}}",
        "stages_yaml": f"stages: {{{stages}}}",
    }
    said = f'this begins "cart" {after} later, and so without end. Add again: to one of them, or an if to its trigger.'
    found = [line.partition(": ")[2] for line in said_of(sample(journeys__cart_yaml=text, **files))]
    assert found == ([f"warning: {said}"] if after else [])
    assert said_of(sample(journeys__cart_yaml=text.replace("trigger:", "again: 30d\ntrigger:"), **files)) == []
