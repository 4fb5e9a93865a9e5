"""What only the whole playbook shows: expressions where they stand, stages, segments, and files that are missing."""

from __future__ import annotations

import pytest
from sample_playbook import CART, RAPPORT, SEGMENTS, journey, of_journey, said_of, sample

# Expressions


def test_an_expressions_problem_stands_where_it_was_written() -> None:
    segments = "segments:\n  a:\n    when: >-\n      traits.x == 1 and\n      traits.y = 2\n"
    (said,) = said_of(sample(segments_yaml=segments))
    assert said.startswith("segments.yaml:5:16: ")


@pytest.mark.parametrize(
    ("text", "begins"),
    [
        (
            journey("- if: event.total > 1\n  then: [email: cart-reminder]"),
            '6:9: "event" is not known in a step. For the answer',
        ),
        (
            journey("- if: vars.x == 1\n  then: [email: cart-reminder]"),
            "6:9: no step of this journey sets vars.x. Add a step: set: {vars.x: …}.",
        ),
        (CART.replace("event.total >= 20", "key == 1"), '4:10: "key" is not known in a trigger.'),
        (CART.replace("event.cart_id", 'count("Order Completed")'), '5:8: "count" '),
        (
            journey("- email: cart-reminder", trigger="stage: attract\nif: event.total > 1"),
            '4:7: "event" is not known in this trigger.',
        ),
    ],
)
def test_what_is_known_depends_on_the_place(text: str, begins: str) -> None:
    said = of_journey(text)
    assert any(line.startswith(begins) for line in said), said


def test_an_answer_is_asked_of_the_step_that_waited_for_it() -> None:
    steps = """
        - id: answer
          wait_for: {event: Survey Answered}
          timeout: 7d
        - if: %s
          then: [email: cart-reminder]
    """
    assert of_journey(journey(steps % "steps.answer.event.score >= 9")) == []
    assert of_journey(journey(steps % "steps.anwser.event.score >= 9")) == [
        '9:9: no step is called "anwser". Did you mean "answer"?'
    ]
    assert of_journey(journey(steps % "steps.answer.score >= 9")) == [
        "9:9: a wait_for leaves its event behind and nothing else. Write steps.answer.event."
    ]
    assert of_journey(journey("- wait: 1h\n- if: steps.wait-1h.event.x == 1\n  then: [email: cart-reminder]")) == [
        '7:9: step "wait-1h" leaves nothing behind. Ask for a wait_for, a coupon or a split.'
    ]
    turned = """
        - if: steps.answer.event.score >= 9
          then: [email: cart-reminder]
        - id: answer
          wait_for: {event: Survey Answered}
          timeout: 7d
    """
    assert of_journey(journey(turned)) == [
        '6:9: step "answer" never runs before this one. Move it up, or ask for another step.'
    ]


def test_a_condition_whose_flip_cannot_be_foreseen_is_refused_where_it_is_watched() -> None:
    when = 'days_since(last("Order Completed")) == count("Product Viewed")'
    watched = said_of(sample(segments_yaml=f"segments: {{a: {{when: '{when}'}}}}"))
    assert [line[:18] for line in watched] == ["segments.yaml:1:23"]
    assert of_journey(journey(f"- if: {when}\n  then: [email: cart-reminder]")) == []


# Stages and segments


def test_the_last_stage_holds_for_everybody_and_only_the_last() -> None:
    assert said_of(sample(stages_yaml='stages:\n  attract: traits.x == "y"\n')) == [
        "stages.yaml:2:12: who matches none of the stages has no stage. Let the last one be true: attract: true."
    ]
    turned = said_of(sample(stages_yaml="stages:\n  attract: true\n  convert: true\n"))
    assert turned == [
        'stages.yaml:2:12: everybody is in "attract", so the stages below are never reached. Move it to the end.'
    ]


def test_segments_do_not_ask_for_one_another_in_a_circle() -> None:
    segments = """\
        segments:
          a: {when: in_segment("b")}
          b: {when: in_segment("c") or traits.x == 1}
          c: {when: customer.stage == "convert"}
          d: {when: not in_segment("d")}
        """
    stages = 'stages: {convert: in_segment("a"), attract: true}'
    assert said_of(sample(segments_yaml=segments)) == [
        'segments.yaml:5:13: "d" asks for "d", so none can be decided first. Take one of them out of the circle.'
    ]
    assert said_of(sample(segments_yaml=segments, stages_yaml=stages)) == [
        'segments.yaml:2:13: "a" asks for "b", which asks for "c", which asks for the stage, which asks for "a", '
        "so none can be decided first. Take one of them out of the circle.",
        'segments.yaml:5:13: "d" asks for "d", so none can be decided first. Take one of them out of the circle.',
    ]


def test_a_segment_does_not_ask_for_all_segments() -> None:
    said = said_of(sample(segments_yaml=SEGMENTS + "  a:\n    when: '\"vip\" in customer.segments'\n"))
    assert said == [
        "segments.yaml:6:21: customer.segments is not known here, since segments are being decided. "
        'Use in_segment("name").'
    ]


# Whole files


def test_a_playbook_needs_a_brand_and_stages() -> None:
    assert said_of({}) == [
        "rapport.yaml:1:1: a playbook needs this file, and it is not there. Write at least name: and sender: in it.",
        "stages.yaml:1:1: a playbook needs this file, and it is not there. "
        'Write "stages:" in it, and below that at least "attract: true".',
    ]


def test_a_file_that_cannot_be_read_makes_no_name_unknown() -> None:
    broken = SEGMENTS + " x: 1\n"
    text = journey('- if: in_segment("anything")\n  then: [email: cart-reminder]')
    said = said_of(sample(segments_yaml=broken, journeys__cart_yaml=text))
    assert [line.split(":")[0] for line in said] == ["segments.yaml"]


def test_a_segment_with_a_problem_is_known_all_the_same() -> None:
    segments = SEGMENTS.replace("title:", "tilte:")
    said = said_of(
        sample(
            segments_yaml=segments,
            journeys__cart_yaml=journey('- {if: in_segment("vip"), then: [email: cart-reminder]}'),
        )
    )
    assert [line.split(":")[0] for line in said] == ["segments.yaml"]


def test_advertising_without_a_postal_address_is_remarked_on() -> None:
    said = said_of(sample(rapport_yaml=RAPPORT.replace("postal_address: Harbour Street 12, Oslo\n", "")))
    assert said == [
        "rapport.yaml:1:1: warning: there is no postal_address, which the law asks for in advertising by mail in many "
        "countries. Add postal_address: and show {{ brand.postal_address }} in the mails."
    ]
