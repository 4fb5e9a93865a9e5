"""Journeys as a whole: steps that nobody reaches, answers that nobody gives, what branches, keeps and reports."""

from __future__ import annotations

from sample_playbook import CART, CATALOGUE, RAPPORT, journey, of_journey, said_of, sample

from shared.language import load
from shared.language.playbook import EventTrigger, WaitFor


def test_two_steps_of_one_name_are_asked_for_an_id() -> None:
    assert of_journey(journey("- wait: 1h\n- email: cart-reminder\n- wait: 1h")) == [
        '8:5: two steps are called "wait-1h": this one and the one in line 6. Give this one an id: wait-1h-2.'
    ]
    assert of_journey(journey("- {id: a, wait: 1h}\n- {id: a, email: cart-reminder}")) == [
        '7:10: two steps are called "a": this one and the one in line 6. Give one of them another id.'
    ]


def test_a_step_that_nobody_reaches() -> None:
    unreached = "nobody gets here: every way to this step ends with exit before it. Remove it, or the exit above."
    assert of_journey(journey("- exit: done\n- email: cart-reminder")) == [f"7:5: {unreached}"]
    both = """
        - if: traits.a == 1
          then: [exit: yes]
          else:
            - wait_for: {event: Order Completed}
              timeout: 1d
              then: [exit: bought]
              on_timeout: [exit: waited]
        - email: cart-reminder
    """
    assert of_journey(journey(both)) == [f"13:5: {unreached}"]
    assert of_journey(journey(both.replace("then: [exit: bought]", "then: []"))) == []


def test_a_click_is_awaited_in_a_mail_that_was_sent() -> None:
    wait = "- wait_for: {clicked: %s}\n  timeout: 1d\n"
    send = "- email: cart-reminder\n"
    assert of_journey(journey(send + wait % "cart-reminder")) == []
    assert of_journey(journey(send + wait % "cart-remindr")) == [
        '7:25: this journey sends no mail "cart-remindr". Did you mean "cart-reminder"?'
    ]
    assert of_journey(journey(wait % "cart-reminder" + send)) == [
        '6:25: "cart-reminder" has not been sent when this step begins. Move this step behind it.'
    ]
    twice = "- {id: one, email: cart-reminder}\n- {id: two, email: cart-reminder}\n"
    assert of_journey(journey(twice + wait % "two")) == []
    assert of_journey(journey(twice + wait % "cart-reminder")) == [
        '8:25: several steps send "cart-reminder". Name one of them: one or two.'
    ]
    elsewhere = f"- if: traits.a == 1\n  then: [email: cart-reminder]\n  else:\n    {wait % 'cart-reminder'}"
    elsewhere = elsewhere.replace("\n  timeout", "\n      timeout")
    assert of_journey(journey(elsewhere)) == [
        '9:29: "cart-reminder" has not been sent when this step begins. Move this step behind it.'
    ]


def test_an_open_is_awaited_as_a_click_is() -> None:
    wait = "- email: cart-reminder\n- {id: w, wait_for: {opened: %s}, timeout: 1d}\n"
    assert of_journey(journey(wait % "cart-reminder")) == []
    assert of_journey(journey(wait % "cart-remindr")) == [
        '7:32: this journey sends no mail "cart-remindr". Did you mean "cart-reminder"?'
    ]
    asked = wait % "cart-reminder" + "- if: steps.w.event.x == 1\n  then: [exit: x]"
    assert of_journey(journey(asked)) == [
        '8:9: step "w" waits for no event, and leaves nothing behind. Ask for another step.'
    ]


def test_what_nobody_is_told_of_is_not_waited_for() -> None:
    untracked = RAPPORT + "opens: untracked\n"
    wait = "- email: cart-reminder\n- {wait_for: {opened: cart-reminder}, timeout: 1d}\n"
    assert of_journey(journey(wait), rapport_yaml=untracked) == [
        "7:25: warning: rapport.yaml says opens: untracked, so nothing but a click ends this. "
        "Wait for clicked, or remove opens there."
    ]
    segments = 'segments:\n  a: {when: count("Email Opened") >= 1}'
    assert said_of(sample(segments_yaml=segments, rapport_yaml=untracked)) == [
        'segments.yaml:2:19: warning: "Email Opened" is never reported: rapport.yaml says opens: untracked. '
        "Remove that."
    ]


ANSWERED = "event: Survey Answered\nproperties: {survey: {type: string, enum: [nps, csat]}, score: {type: number}}\n"


def test_a_reply_is_the_event_survey_answered_of_that_survey() -> None:
    wait = """
        - {id: answer, wait_for: {reply: %s, where: event.score >= 0}, timeout: 5d}
        - {if: steps.answer.event.%s <= 6, then: [email: cart-reminder]}
    """
    answered = {"events__answered_yaml": ANSWERED}
    assert of_journey(journey(wait % ("nps", "score"))) == []
    described = {**CATALOGUE, "events__updated_yaml": "event: Cart Updated\nproperties: {total: {}, cart_id: {}}"}
    assert of_journey(journey(wait % ("nps", "score")), **described) == [
        '6:36: no file under events/ describes "Survey Answered". Add it to the catalogue, or correct the name.'
    ]
    assert of_journey(journey(wait % ("nps", "score")), **described, **answered) == []
    assert of_journey(journey(wait % ("npz", "scor")), **described, **answered) == [
        '6:36: warning: "npz" is none of the values that the catalogue has for event.survey. Did you mean "nps"?',
        '7:10: "Survey Answered" has no scor in the catalogue, so this is always null. Did you mean "score"?',
    ]
    silent = {"events__answered_yaml": "event: Survey Answered\nproperties: {score: {type: number}}\n"}
    assert of_journey(journey(wait % ("nps", "score")), **described, **silent) == [
        '6:36: "Survey Answered" has no survey in the catalogue, so this always waits until the timeout. '
        "Have the shop send survey, the name of the survey."
    ]
    step = load(sample(journeys__cart_yaml=journey(wait % ("nps", "score")))).journeys["cart"].steps["answer"]
    assert isinstance(step, WaitFor)
    assert step.match is not None
    assert step.match.where is not None
    assert step.match.where.source == 'event.survey == "nps" and event.score >= 0'


def test_opens_by_machines_are_none_where_they_are_not_asked_about() -> None:
    def where_of(match: str) -> str | None:
        text = journey("- wait: 1h", trigger=f"event: Email Opened\n{match}".strip())
        trigger = load(sample(journeys__cart_yaml=text)).journeys["cart"].trigger
        assert isinstance(trigger, EventTrigger)
        return trigger.where.source if trigger.where is not None else None

    assert where_of("") == "event.machine != true"
    assert where_of('where: event.step == "a" or event.step == "b"') == (
        '(event.step == "a" or event.step == "b") and event.machine != true'
    )
    assert where_of("where: event.machine in [true, false]") == "event.machine in [true, false]"
    text = 'segments:\n  a: {when: count("Email Opened") >= 1}\n  b:\n    when: count("Email Opened", where=%s) >= 1'
    for asked, meant in (
        ("event.machine", "event.machine"),
        ('event.step == "a"', 'event.step == "a" and event.machine != true'),
    ):
        found = load(sample(segments_yaml=text % asked)).segments
        wheres = [one.when.definitions[0].where for one in (found["a"], found["b"])]
        assert [where and where.canonical for where in wheres] == ["event.machine != true", meant]


def test_a_mail_that_expires_within_the_quiet_hours_is_remarked_on() -> None:
    quiet = RAPPORT + "quiet_hours: 21:00-08:00\n"
    text = journey("- email: cart-reminder", "defaults: {topic: cart-reminders, expires: 6h}")
    said = (
        "6h is shorter than the quiet hours 21:00-08:00: what falls due from 21:00 to 02:00 is never sent. "
        "Use 11h or more."
    )
    assert of_journey(text, rapport_yaml=quiet) == [f"4:44: warning: {said}"]
    assert of_journey(text.replace("6h", "11h"), rapport_yaml=quiet) == []
    assert of_journey(text.replace("cart-reminders", "receipts"), rapport_yaml=quiet) == []
    assert of_journey(journey("- {email: cart-reminder, expires: 6h}"), rapport_yaml=quiet) == [
        f"6:37: warning: {said}"
    ]


def test_a_given_name_does_not_take_the_place_of_one_that_templates_know() -> None:
    assert of_journey(journey("- email: cart-reminder\n  with: {traits: 1}"))[0] == (
        '7:12: "traits" means something else in every template. Give it another name.'
    )


def test_text_given_to_a_template_needs_both_pairs_of_quotes() -> None:
    said = '7:18: "Hello there" is read as an expression, and names nothing that is known in a step. '
    remedy = "For text write '\"Hello there\"', with both pairs of quotes."
    assert said + remedy in of_journey(journey('- email: cart-reminder\n  with: {word: "Hello there"}'))


# Steps that branch, keep and report


def test_what_a_split_leaves_behind_is_its_arm() -> None:
    steps = """
        - id: tone
          split: {warm: {share: 50%%, then: []}, short: {share: 50%%, then: []}}
        - if: %s
          then: [email: cart-reminder]
    """
    assert of_journey(journey(steps % 'steps.tone.arm == "warm"')) == []
    assert of_journey(journey(steps % "steps.tone.event.x == 1")) == [
        "8:9: a split leaves its arm behind and nothing else. Write steps.tone.arm."
    ]


def test_a_variable_is_set_before_it_is_asked_for() -> None:
    steps = """
        - set: {vars.score: trigger.total * 2}
        - if: vars.%s >= 9
          then: [email: cart-reminder]
    """
    assert of_journey(journey(steps % "score")) == []
    assert of_journey(journey(steps % "scroe")) == [
        '7:9: no step of this journey sets vars.scroe. Did you mean "score"?'
    ]


def test_an_item_is_known_where_there_is_for_each() -> None:
    each = "event: Order Completed\nfor_each: event.products\nkey: item.sku"
    mail = "- email: cart-reminder"
    assert of_journey(journey(mail, trigger=each), **CATALOGUE) == []
    assert of_journey(journey(mail, trigger=each.replace("products", "items")), **CATALOGUE) == [
        '4:13: "Order Completed" has no items in the catalogue, so this journey never begins. '
        "Correct it, or have the shop send items."
    ]
    assert of_journey(journey(mail, trigger=each.replace("item.sku", "item.skuu")), **CATALOGUE) == [
        '5:8: "Order Completed" has no skuu in the catalogue, so this is always null. Did you mean "sku"?'
    ]
    assert of_journey(journey(mail, trigger="event: Cart Updated\nkey: item.sku")) == [
        "4:8: this journey has no for_each. Add for_each: to the trigger, such as for_each: event.products."
    ]


def test_journeys_that_keep_people_out_are_looked_up() -> None:
    mail = "- email: cart-reminder"
    assert of_journey(journey(mail, trigger="event: Cart Updated\nunless_in: [crat]")) == [
        '4:15: there is no journey "crat". There are none yet.'
    ]
    assert of_journey(journey(mail, trigger="event: Cart Updated\nunless_in: [cart]")) == [
        '4:15: "cart" is this journey, and who is in it does not enter anyway. Remove it.'
    ]


def test_a_reported_event_stands_in_the_catalogue() -> None:
    assert of_journey(journey("- {emit: Cart Given Up, properties: {total: trigger.total}}")) == []
    assert of_journey(journey("- emit: Email Sent")) == [
        '6:11: "Email Sent" is said by Rapport itself. Give your event another name.'
    ]
    described = "event: Cart Given Up\nproperties: {total: {type: number}}\n"
    said = of_journey(journey("- {emit: Cart Given Up, properties: {totl: 1}}"), events__given·up_yaml=described)
    assert '6:40: "Cart Given Up" has no totl in the catalogue. Did you mean "total"?' in said
    assert any(line.startswith('6:12: no file under events/ describes "Cart Lost"') for line in of_journey(
        journey("- {emit: Cart Lost}"), events__given·up_yaml=described
    ))  # fmt: skip


def test_a_holdout_has_a_goal_to_be_compared_by_and_keeps_nobody_from_a_receipt() -> None:
    goal = "goal: {event: Order Completed, within: 7d}\n"
    held = CART.replace("defaults:", "holdout: 10%\ndefaults:")
    assert of_journey(held) == [
        "6:10: those who are held out are compared by the goal, and this journey has none within a time. "
        "Add goal: {event: Order Completed, within: 7d}, or remove holdout."
    ]
    assert of_journey(held.replace("holdout", f"{goal}holdout")) == []
    assert of_journey(
        held.replace("holdout", f"{goal}holdout").replace("topic: cart-reminders", "topic: receipts")
    ) == [
        '7:10: "cart-reminder" is transactional mail, which has to reach everybody. '
        "Remove holdout, or send it from a journey of its own."
    ]
    assert of_journey(held.replace("10%", "100%").replace("holdout", f"{goal}holdout")) == [
        "7:10: nobody is left to get anything. Hold out less: 10%."
    ]
