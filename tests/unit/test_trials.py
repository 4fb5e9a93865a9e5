"""`rapport playbook test`: a customer's story, next to what was expected of it."""

from __future__ import annotations

import xml.etree.ElementTree as xml
from pathlib import Path

from typer.testing import CliRunner

from services.__main__ import app
from services.mailer.composing import Composer
from services.mailer.links import Links
from services.trials.coverage import covered
from services.trials.report import explained, for_github, in_junit, in_text, of_coverage
from services.trials.running import Verdict, run
from shared.language import SHIPPED, WithTests, load_with_tests, read_folder

COMPOSE = Composer(Links(b"tested", "https://links.invalid"))
BRAND = "name: Shop\nsender: shop@example.com\npostal_address: Harbour Street 12\ntimezone: Europe/Oslo\ncarts: sent\n"
TOPICS = "topics: {news: {title: News, kind: promotional, default: opt_in}}"
JOURNEY = """
journey: hello
trigger: {event: Start}
defaults: {topic: news}
status: draft
holdout: 50%
goal: {event: Bought, within: 30d}
steps:
  - wait: 1d
  - id: tone
    split:
      warm: {share: 50%, then: [{email: warm}]}
      cool: {share: 50%, then: [{email: cool}]}
  - if: traits.country == "NO"
    then: [{exit: norwegian}]
  - email: last
"""
MESSAGE = {"subject.txt": "Hello", "body.html": '<a href="{{ unsubscribe_url }}">Stop</a>'}


def loaded(tests: str, **files: str) -> WithTests:
    texts = {
        "rapport.yaml": BRAND,
        "stages.yaml": "stages: {all: true}",
        "segments.yaml": "segments: {}",
        "topics.yaml": TOPICS,
        "journeys/hello.yaml": JOURNEY,
        "journeys/hello.test.yaml": tests,
        **{f"messages/{name}/{file}": text for name in ("warm", "cool", "last") for file, text in MESSAGE.items()},
        **files,
    }
    return load_with_tests({name: text.encode() for name, text in texts.items()})


def verdicts(found: WithTests) -> list[Verdict]:
    return [run(found, COMPOSE, one, number) for one in found.tests for number in range(len(one.tests))]


def test_a_test_says_how_many_have_spent_less() -> None:
    journey = """
journey: hello
trigger: {segment: top, change: entered}
defaults: {topic: news}
steps:
  - email: warm
  - wait: 2d
  - if: customer.spend_percentile >= 95
    then: [{email: cool}]
    else: [{email: last}]
"""
    tests = """
tests:
  - name: who has bought more than others meanwhile is thanked
    customer: {spend_percentile: 70}
    given:
      - {at: 1d, spend_percentile: 50}
      - {at: 1d, spend_percentile: 92}
      - {at: 2d, spend_percentile: 96}
    expect:
      entered: 1
      segments: [top]
      sent: [{message: warm, at: 1d}, {message: cool, at: 3d}]
  - name: whoever is at the top when the playbook begins to ask is not
    customer: {spend_percentile: 92}
    expect: {entered: 0, segments: [top]}
  - name: and nobody is ranked by what one customer spends alone
    given:
      - {at: 1d, event: Order Completed, properties: {total: 5000}}
    expect: {entered: 0, segments: []}
"""
    segments = "segments:\n  top: {title: Top, when: customer.spend_percentile >= 90}\n"
    found = verdicts(loaded(tests, **{"journeys/hello.yaml": journey, "segments.yaml": segments}))
    assert [list(verdict.differences) for verdict in found] == [[], [], []]
    assert any("has spent more than 92 % of the others" in line for line in explained(found[0]))


def test_lots_are_pinned_nobody_is_held_out_and_a_draft_sends() -> None:
    found = verdicts(
        loaded("""
tests:
  - name: the warm way
    given: [{at: 0m, event: Start}]
    arms: {tone: warm}
    expect: {sent: [{message: warm, at: 1d}, last], exit: completed}
  - name: the cool way
    given: [{at: 0m, event: Start}]
    arms: {tone: cool}
    customer: {traits: {country: "NO"}}
    expect: {sent: [cool], exit: norwegian, inside: false, entered: 1}
""")
    )
    assert [verdict.differences for verdict in found] == [[], []]


def test_a_failure_shows_the_story_next_to_what_was_expected() -> None:
    [verdict] = verdicts(
        loaded("""
tests:
  - name: nothing but a cool word
    given: [{at: 0m, event: Start, properties: {page: home}}]
    arms: {tone: warm}
    outcomes: {last: failed}
    expect: {sent: [{message: cool, at: 2d}], exit: bored, goal: false}
""")
    )
    assert explained(verdict) == [
        "    what happened                                                                 what was expected",
        "         0m  Mon  2 Mar 2026 13:00  Start {page: home}",
        "         0m  Mon  2 Mar 2026 13:00  enters",
        "         0m  Mon  2 Mar 2026 13:00  waits at wait-1d until Tue  3 Mar 2026 13:00",
        "         1d  Tue  3 Mar 2026 13:00  tone: warm",
        "         1d  Tue  3 Mar 2026 13:00  sends warm                                    ✗ nothing",
        '         1d  Tue  3 Mar 2026 13:00  if traits.country == "NO": else',
        "         1d  Tue  3 Mar 2026 13:00  last fails: rejected: 554 tested",
        "         1d  Tue  3 Mar 2026 13:00  leaves: completed",
        "         2d  Wed  4 Mar 2026 13:00  nothing                                       ✗ cool at 2d",
        "    exit: completed                                                               ✗ bored",
    ]
    assert in_text([verdict], 0.01)[0].startswith("✗ journeys/hello.test.yaml:3:5: nothing but a cool word")
    assert in_text([verdict], 0.01)[-1] == "0 passed, 1 failed, in 0.0 s"
    comment = for_github([verdict], "shop")[0]
    assert comment.startswith(
        "::error file=shop/journeys/hello.test.yaml,line=7,col=20::nothing but a cool word: sent:"
    )
    suite = xml.fromstring(in_junit([verdict], 0.01))
    assert suite.attrib["failures"] == "1"
    assert "leaves: completed" in (suite.findtext("testsuite/testcase/failure") or "")


def test_a_click_on_what_was_not_sent_and_an_event_that_ingest_refuses_are_told_where_they_stand() -> None:
    [verdict] = verdicts(
        loaded("""
tests:
  - name: too early
    given:
      - {at: 0m, event: Start}
      - {at: 1h, clicked: last}
      - {at: 2h, event: Start, occurred_at: 1960-01-01T00:00:00Z}
    expect: {entered: 1}
""")
    )
    early, refused = verdict.differences
    assert (early.found, early.expected, early.place.line) == ("nothing was sent by then", "a mail of step last", 6)
    assert refused.found.startswith("ingest refuses this: ")
    assert refused.place.line == 7


def test_a_mistake_in_a_template_fails_the_mail_and_says_where_it_is() -> None:
    tests = """
tests:
  - name: a subject without words
    given: [{at: 0m, event: Start}]
    arms: {tone: warm}
    expect: {sent: [warm, last]}
"""
    [verdict] = verdicts(loaded(tests, **{"messages/warm/subject.txt": "{{ trigger.title }}"}))
    place = "rendering: messages/warm/subject.txt:1: the subject is empty for this customer."
    assert any(f"warm fails: {place}" in line for line in explained(verdict))


def test_coverage_says_which_steps_no_test_reaches_and_which_ways_none_goes() -> None:
    found = loaded("""
tests:
  - name: the warm way
    given: [{at: 0m, event: Start}]
    arms: {tone: warm}
    expect: {sent: [warm, last]}
""")
    footprints = {one for verdict in verdicts(found) for one in verdict.story.footprints}
    assert of_coverage(covered(found.playbook, found.places, footprints)) == [
        "hello: 63% (7 of 11 steps and ways)",
        "  journeys/hello.yaml:10: no test leaves tone by cool.",
        "  journeys/hello.yaml:13: no test reaches cool.",
        "  journeys/hello.yaml:14: no test leaves if-1 by then.",
        "  journeys/hello.yaml:15: no test reaches exit-1.",
    ]


def test_a_task_given_to_a_person_is_compared_by_its_title() -> None:
    journey = "journey: hello\ntrigger: {event: Start}\nsteps: [{id: call, task: {title: customer.stage}}]\n"
    tests = """
tests:
  - name: a call
    given: [{at: 0m, event: Start}]
    expect: {tasks: [Call them], exit: completed}
"""
    [verdict] = verdicts(loaded(tests, **{"journeys/hello.yaml": journey}))
    assert [(one.what, one.expected) for one in verdict.differences] == [("tasks", "Call them")]


def test_calls_are_no_messages_and_may_be_told_to_fail() -> None:
    journey = """
journey: hello
trigger: {event: Start}
defaults: {topic: news}
steps:
  - {id: code, coupon: ten}
  - {id: tell, webhook: {url: "https://shop.example/hooks", with: {code: steps.code.code}}}
  - email: last
"""
    tests = """
tests:
  - name: the shop answers
    given: [{at: 0m, event: Start}]
    expect: {sent: [last], called: [tell]}
  - name: the shop does not
    given: [{at: 0m, event: Start}]
    outcomes: {tell: failed}
    expect: {sent: [last], called: []}
"""
    pool = "codes: [A, B]\nannounce: webhook\nurl: https://shop.example/codes"
    found = verdicts(loaded(tests, **{"journeys/hello.yaml": journey, "coupons/ten.yaml": pool}))
    assert [verdict.differences for verdict in found] == [[], []]
    assert any("tells the shop of a code of ten" in line.text for line in found[0].story.lines)
    assert any("calls tell, which fails: " in line.text for line in found[1].story.lines)


def test_the_story_says_what_each_step_did_and_by_which_channel() -> None:
    journey = """
journey: hello
trigger: {event: Start}
defaults: {topic: news}
steps:
  - choose:
      - if: trigger.n > 9
        then: [{exit: many}]
      - if: trigger.n > 1
        then: [{set: {vars.n: trigger.n}}, {pause: 30d}, {pause: 0d}]
  - {id: code, coupon: ten}
  - {id: again, coupon: none}
  - sms: last
"""
    tests = """
tests:
  - name: a few
    given: [{at: 0m, event: Start, properties: {n: 2}}]
    expect: {sent: [last]}
"""
    pools = {"coupons/ten.yaml": "codes: [A]", "coupons/none.yaml": "limit: 1"}
    files = {"journeys/hello.yaml": journey, "messages/last/sms.txt": "Hello", **pools}
    found = loaded(tests, **files)
    [verdict] = verdicts(found)
    assert [line.text for line in verdict.story.lines] == [
        "Start {n: 2}",
        "enters",
        "if trigger.n > 1: then",
        "keeps vars.n",
        "pauses advertising for 30d",
        "lifts the pause of advertising",
        "a code of ten",
        "a code of none",
        "sends last as a text message",
        "leaves: completed",
    ]


def test_what_several_enrollments_send_at_one_moment_has_no_order_and_what_was_given_is_shown() -> None:
    journey = """
journey: hello
trigger: {event: Start, for_each: event.products, key: item.sku}
defaults: {topic: news}
steps:
  - {email: last, with: {sku: key}}
"""
    tests = """
tests:
  - name: one way round
    given: [{at: 0m, event: Start, properties: {products: [{sku: a}, {sku: b}, {sku: c}]}}]
    expect: {sent: [{message: last, with: {sku: a}}, {message: last, with: {sku: b}}, last]}
  - name: and the other
    given: [{at: 0m, event: Start, properties: {products: [{sku: a}, {sku: b}, {sku: c}]}}]
    expect: {sent: [{message: last, with: {sku: c}}, {message: last, with: {sku: b}}, {message: last, with: {sku: a}}]}
  - name: none of them
    given: [{at: 0m, event: Start, properties: {products: [{sku: a}]}}]
    expect: {sent: [{message: last, with: {sku: x}, at: 2026-03-02T14:00:00+01:00}]}
"""
    body = {"messages/last/body.html": '{{ sku }} <a href="{{ unsubscribe_url }}">Stop</a>'}
    one, other, none = verdicts(loaded(tests, **{"journeys/hello.yaml": journey}, **body))
    assert not one.differences
    assert not other.differences
    [line] = [line for line in explained(none) if "sends last" in line]
    assert line.endswith("✗ at Mon  2 Mar 2026 14:00; ✗ sku: x, found sku: a")


def test_the_command_fails_where_a_test_does(tmp_path: Path) -> None:
    passed = CliRunner().invoke(app, ["playbook", "test", str(SHIPPED), "-k", "within the hour"])
    assert passed.output.startswith("1 passed")
    nobody = CliRunner().invoke(app, ["playbook", "test", str(SHIPPED), "-k", "of no such name"])
    assert nobody.exit_code == 1
    for name, content in read_folder(SHIPPED).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content.replace(b"at: 24h", b"at: 25h"))
    failed = CliRunner().invoke(app, ["playbook", "test", str(tmp_path), "--coverage"])
    assert failed.exit_code == 1
    assert "sends cart-last-call" in failed.output
    assert "23 passed, 1 failed" in failed.output
    assert "birthday: 100%" in failed.output
