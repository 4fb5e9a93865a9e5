"""Journeys drawn: what stands where, which ways meet, and that every step is in the picture."""

from __future__ import annotations

import re
from decimal import Decimal
from pathlib import Path

import pytest
from lxml import etree
from msgspec.structs import replace
from sample_playbook import journey, sample

from shared.language import SHIPPED, load, read_folder
from shared.language.flowchart import Flow, as_mermaid, as_text, boxes, flow_of
from shared.language.flowchart_svg import as_svg

STEPS = """
- wait: {for: 2d, until: "10:00", on: [tue, thu]}
- if: traits.country == "NO"
  then:
    - email: cart-reminder
    - wait_for: {event: Order Completed, where: event.total > 5}
      timeout: 2d
      then:
        - exit: bought
  else:
    - choose:
        - {if: trigger.total > 100, then: [{emit: Big Cart Left}]}
        - {if: trigger.total > 50, then: []}
        - {else: [{exit: small}]}
- id: tone
  split: {warm: {share: 62.5%, then: [{set: {vars.n: 1}}]}, short: {share: 37.5%, then: [{exit: lots}]}}
- wait: {between: [1d, 3d]}
- wait: {until: traits.renewal, at: "09:00"}
"""
EXPECTED = """\
Cart Updated: where event.total >= 20, if traits.x == 1
wait: 2d, until 10:00, on Tue, Thu
if: traits.country == "NO"
  yes:
    email: cart-reminder, topic cart-reminders
    wait for: Order Completed, where event.total > 5
      came:
        exit: bought
      not within 2d:
        (goes on below)
  no:
    choose
      trigger.total > 100:
        emit: Big Cart Left
      trigger.total > 50:
        (goes on below)
      else:
        exit: small
split: tone, by enrollment
  warm 62.5%:
    (goes on below)
  short 37.5%:
    exit: lots
set: vars.n
wait: 1d to 3d   [1,200 inside]
wait: until traits.renewal, 09:00
completed"""


def flow(steps: str, trigger: str = "event: Cart Updated") -> Flow:
    return flow_of(load(sample(journeys__cart_yaml=journey(steps, trigger=trigger))).journeys["cart"])


def whole() -> Flow:
    return flow(STEPS, "event: Cart Updated\nwhere: event.total >= 20\nif: traits.x == 1")


def test_a_journey_as_text_stands_as_it_was_written() -> None:
    assert as_text(whole(), {"wait-between": 1200}) == EXPECTED


def test_what_comes_after_two_ways_that_both_leave_is_not_drawn() -> None:
    drawn = flow("- if: traits.x == 1\n  then: [{exit: a}]\n  else: [{exit: b}]")
    assert [box.lines[-1] for box in boxes(drawn)] == ["Cart Updated", "traits.x == 1", "a", "b"]


def test_a_way_that_leaves_takes_nothing_of_what_follows_with_it() -> None:
    drawn = flow("- if: traits.x == 1\n  then: [{exit: a}]\n- email: cart-reminder")
    assert as_text(drawn).splitlines()[-2:] == ["email: cart-reminder, topic cart-reminders", "completed"]


@pytest.mark.parametrize("name", load(read_folder(SHIPPED)).journeys)
def test_every_step_of_the_shipped_journeys_is_drawn_once(name: str) -> None:
    shipped = load(read_folder(SHIPPED)).journeys[name]
    assert sorted(box.id for box in boxes(flow_of(shipped))) == sorted([*shipped.steps, "begin", "end"])


def test_mermaid_leads_from_every_box_to_the_next() -> None:
    drawn = as_mermaid(whole(), {"cart-reminder": 3})
    names = dict(re.findall(r'^    (n\d+)[^\w -]+"([^"<]*)', drawn, re.MULTILINE))
    ways = [(names[a], label, names[b]) for a, label, b in re.findall(r'(n\d+) -->(?:\|"([^"]*)"\|)? (n\d+)', drawn)]
    assert ("if", "yes", "email") in ways
    assert ("wait for", "not within 2d", "split") in ways
    assert ("choose", "trigger.total #gt; 50", "split") in ways
    assert ("split", "warm 62.5%", "set") in ways
    assert ("exit", "", "split") not in ways
    assert "3 inside" in drawn


def test_who_is_held_out_is_told_apart_before_the_first_step() -> None:
    shipped = load(read_folder(SHIPPED)).journeys["abandoned-cart"]
    flow = flow_of(replace(shipped, holdout=Decimal("0.125")))
    assert as_text(flow).splitlines()[1:7] == [
        "hold out: by customer, always the same",
        "  12.5%:",
        "    held out: gets nothing, goal watched for 1w",
        "  87.5%:",
        "    (goes on below)",
        "wait: 1h",
    ]
    drawn = as_mermaid(flow)
    assert 'n1 -->|"12.5%"| n2' in drawn
    assert 'n1 -->|"87.5%"| n3' in drawn
    assert "n2 -->" not in drawn
    assert "held out" in as_svg(flow, "A cart")


def test_the_picture_is_sound_and_no_two_boxes_overlap() -> None:
    root = etree.fromstring(as_svg(whole(), 'A <"title">', {"cart-reminder": 12345}).encode())
    space = {"s": "http://www.w3.org/2000/svg"}
    assert root.findtext("s:title", namespaces=space) == 'A <"title">'
    found = [
        tuple(float(rect.get(name)) for name in ("x", "y", "width", "height"))
        for rect in root.iterfind(".//s:g/s:rect", space)
        if rect.getparent().get("class") != "badge"
    ]
    assert len(found) == len(list(boxes(whole())))
    for place, (x, y, width, height) in enumerate(found):
        assert x >= 0
        assert x + width <= float(root.get("width"))
        assert y + height <= float(root.get("height"))
        for other in found[place + 1 :]:
            apart = (
                x + width <= other[0] or other[0] + other[2] <= x or y + height <= other[1] or other[1] + other[3] <= y
            )
            assert apart
    assert "12,345" in "".join(root.itertext())


def test_what_ends_it_at_any_step_is_told_where_it_begins() -> None:
    text = journey(
        "- email: cart-reminder",
        head="goal: {event: Order Completed}\nexit_on: [{event: Cart Emptied, where: event.cart_id == key}]",
        trigger="event: Cart Updated\nkey: event.cart_id",
    )
    drawn = as_text(flow_of(load(sample(journeys__cart_yaml=text)).journeys["cart"]))
    assert drawn.splitlines()[0] == (
        "Cart Updated: one for each event.cart_id, until the goal: Order Completed, "
        "until Cart Emptied where event.cart_id == key"
    )


def test_the_picture_in_the_readme_is_the_shipped_journey() -> None:
    shipped = load(read_folder(SHIPPED)).journeys["abandoned-cart"]
    picture = Path(__file__).parents[3] / "docs" / "abandoned-cart.svg"
    assert picture.read_text() == as_svg(flow_of(shipped), shipped.title) + "\n"
