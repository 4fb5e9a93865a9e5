"""What rules are made of a playbook, and of those before it that are still in use."""

from __future__ import annotations

import pytest

from services.segmenter.rules import as_journeys_read, compile_rules
from shared.language import SHIPPED, load, read_folder


def test_what_an_older_journey_counts_is_kept_up_while_somebody_is_in_it() -> None:
    files = read_folder(SHIPPED)
    journey = "journeys/abandoned-cart.yaml"
    counting = files[journey].replace(b'count("Order Completed")', b'count("Product Viewed", within=90d)')
    older = load({**files, journey: counting})
    newer = load(files)
    (counted,) = older.journey_aggregates - newer.journey_aggregates
    alone = compile_rules(newer)
    assert counted not in alone.aggregates
    both = compile_rules(newer, [older])
    assert counted in both.aggregates
    assert counted in both.travelling
    assert both.aggregates[counted] in both.fed_by["Product Viewed"]
    assert both.definition.hash != alone.definition.hash
    assert both.conditions == alone.conditions


@pytest.mark.parametrize(
    ("asks", "read"),
    [
        ('count("Order Completed") >= 1', set()),
        ('in_segment("vip")', {"vip"}),
        ('in_segment("old")', {"old", "vip"}),
        ('customer.stage == "retain"', {"stage", "vip"}),
        ("len(customer.segments) > 2", {"stage", "vip", "old", "other"}),
    ],
)
def test_of_stages_and_segments_those_are_read_that_a_journey_asks_for_and_what_they_ask_for(
    asks: str, read: set[str]
) -> None:
    files = read_folder(SHIPPED)
    files["segments.yaml"] = b"""segments:
  vip: {title: Vip, when: 'count("Order Completed") > 5'}
  old: {title: Old, when: 'in_segment("vip") and count("Order Completed", within=90d) == 0'}
  other: {title: Other, when: 'customer.stage == "retain"'}
"""
    files["stages.yaml"] = b"""stages: {retain: 'in_segment("vip")', attract: true}
"""
    journey = "journeys/abandoned-cart.yaml"
    files[journey] = files[journey].replace(b'if: count("Order Completed") >= 1', f"if: {asks}".encode())
    playbook = load(files)
    lean = as_journeys_read(playbook)
    assert set(lean.segments) | ({"stage"} if lean.stages else set()) == read
    assert compile_rules(lean).aggregates == compile_rules(playbook).aggregates


@pytest.mark.parametrize("trigger", ["{segment: vip, change: left}", "{stage: retain}"])
def test_what_lets_somebody_into_a_journey_is_read(trigger: str) -> None:
    files = read_folder(SHIPPED)
    journey = "journeys/birthday.yaml"
    begin, end = files[journey].index(b"trigger:"), files[journey].index(b"mode:")
    files[journey] = files[journey][:begin] + f"trigger: {trigger}\n".encode() + files[journey][end:]
    lean = as_journeys_read(load(files))
    assert set(lean.segments) == ({"vip"} if "vip" in trigger else set())
    assert bool(lean.stages) is ("stage" in trigger)
