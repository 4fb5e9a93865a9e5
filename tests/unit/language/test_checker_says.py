"""What the checker says: for each slip a small playbook with it, and every line that comes of it."""

from __future__ import annotations

import pytest
from sample_playbook import CART, RAPPORT, journey, said_of, sample

QUIET = RAPPORT + "quiet_hours: 21:00-08:00\n"
SENT = RAPPORT + "carts: sent\n"
ALL = "stages: {attract: true}\n"
ORDER = """\
event: Order Completed
properties:
  order_id: {type: string}
  total: {type: number}
  status: {enum: [paid, open]}
"""
UPDATED = "event: Cart Updated\nproperties: {cart_id: {type: string}, total: {type: number}}\n"
CATALOGUE = {
    "rapport_yaml": SENT,
    "stages_yaml": ALL,
    "events__order_yaml": ORDER,
    "events__updated_yaml": UPDATED,
}
BY_ORDER = "event: Order Completed\nkey: event.order_id"
ANSWER = """
    - id: answer
      wait_for: {event: Survey Answered}
      timeout: 1d
    - if: event.score > 8
      then: [email: cart-reminder]
"""
BIRTHDAY = 'date: traits.birthday\nevery: year\nat: "22:00"'
FLOW = "exit_on:\n  - {event: Cart Emptied, where: %s}\n"


CODE_BODY = {"messages/cart-reminder/body.html": b'<a href="{{ urls.shop }}">{{ code }}</a> {{ unsubscribe_url }}'}


def cart(text: str, **changes: str | None) -> dict[str, bytes]:
    return sample(journeys__cart_yaml=text, **changes)


def segments(text: str) -> dict[str, bytes]:
    return sample(segments_yaml=f"segments:\n{text}")


CASES: dict[str, tuple[dict[str, bytes], list[str]]] = {
    # the examples of the language's document
    "a goal asks for what the shop does not send": (
        cart(CART + "goal:\n  event: Order Completed\n  where: event.cart_id == key\n", **CATALOGUE),
        [
            'journeys/cart.yaml:13:10: "Order Completed" has no cart_id in the catalogue, so this goal is '
            "never reached and buyers keep getting mail. Remove where, or have the shop send cart_id.",
        ],
    ),
    "a webhook that anybody can read": (
        cart(journey("- webhook: {url: http://shop.example/hooks, with: {n: trigger.total, m: trigr.total}}")),
        [
            "journeys/cart.yaml:6:20: warning: this call goes out unencrypted: whoever is on the way can read it. Begin"
            " it with https://.",
            'journeys/cart.yaml:6:75: "trigr" is not known in a step. Did you mean trigger.total?',
        ],
    ),
    "a name that only the text message has is asked of its own step": (
        cart(journey("- sms: parcel\n- {id: app, push: parcel, with: {code: now}}"))
        | {"messages/parcel/sms.txt": b"{{ code }}", "messages/parcel/push.yaml": b"title: Soon\nbody: Soon"},
        [
            'journeys/cart.yaml:7:36: warning: no template of message "parcel" uses "code". Remove it, or use it '
            "there.",
            'messages/parcel/sms.txt:1:4: "code" is not given by journeys/cart.yaml:6. Add it under with there, or '
            "remove it here.",
        ],
    ),
    "pools that nobody is told of, or not in secret": (
        cart(journey("- {id: a, coupon: no-url}\n- {id: b, coupon: no-call}\n- {id: c, coupon: open}"))
        | {
            "coupons/no-url.yaml": b"announce: webhook",
            "coupons/no-call.yaml": b"prefix: NO-\nurl: https://shop.example",
            "coupons/open.yaml": b"announce: webhook\nurl: http://shop.example",
        },
        [
            "coupons/no-call.yaml:1:1: nobody calls this url. Add announce: webhook, or remove url.",
            "coupons/no-url.yaml:1:1: announce: webhook calls a web address, and none is named. Add url: https://….",
            "coupons/open.yaml:2:6: warning: this call goes out unencrypted: whoever is on the way can read it. Begin "
            "it with https://.",
        ],
    ),
    "a text message without a text, and one that is very long": (
        cart(journey("- sms: cart-reminder\n- push: parcel"))
        | {"messages/parcel/sms.txt": b"x" * 1531, "messages/parcel/push.yaml": b"title: '{{ nam }}'\nbody: Soon"},
        [
            'journeys/cart.yaml:6:10: message "cart-reminder" has no sms.txt. Write messages/cart-reminder/sms.txt.',
            'messages/parcel/push.yaml:1:12: "nam" is not given by journeys/cart.yaml:7. Add it under with there, or '
            "remove it here.",
            "messages/parcel/sms.txt:1:1: warning: this goes out as 11 text messages or more, and each is charged. "
            "Shorten it to 1530 characters.",
        ],
    ),
    "a coupon that is not there": (
        cart(journey("- {id: code, coupon: birthday-51}")) | {"coupons/birthday-15.yaml": b"expires: 7d"},
        [
            "coupons/birthday-15.yaml:1:1: warning: no journey issues these coupons. Add a step: coupon: birthday-15,"
            " or remove this file.",
            'journeys/cart.yaml:6:24: there is no coupon "birthday-51". Did you mean "birthday-15"?',
        ],
    ),
    "a coupon in a receipt": (
        cart(
            journey(
                """
    - coupon: thanks
    - email: cart-reminder
      with: {code: steps.thanks.code}
""",
                head="defaults: {topic: receipts}",
            ),
            coupons__thanks_yaml="prefix: THX-",
        )
        | CODE_BODY,
        [
            "journeys/cart.yaml:6:13: a coupon in a transactional message makes it advertising, and this topic ignores"
            " unsubscribes. Use a promotional topic, or drop the coupon.",
        ],
    ),
    "a mail that leaves after its coupon has expired": (
        cart(
            journey(
                """
    - coupon: birthday-15
    - wait: 4d
    - email: cart-reminder
      with: {code: steps.birthday-15.code}
    - wait_for: {clicked: cart-reminder}
      timeout: 1d
      on_timeout:
        - wait: {between: [6d, 9d]}
        - id: late
          email: cart-reminder
          with: {code: steps.birthday-15.code}
"""
            ),
        )
        | {"coupons/birthday-15.yaml": b"expires: 7d"}
        | CODE_BODY,
        [
            "journeys/cart.yaml:16:22: this mail leaves 11 days or more after the coupon, which lives 7. Set"
            " expires: 14d in coupons/birthday-15.yaml, or wait less.",
        ],
    ),
    "a mail expires within the quiet hours": (
        cart(
            journey("- email: cart-reminder", head="defaults: {topic: cart-reminders, expires: 6h}"), rapport_yaml=QUIET
        ),
        [
            "journeys/cart.yaml:4:44: warning: 6h is shorter than the quiet hours 21:00-08:00: what falls due"
            " from 21:00 to 02:00 is never sent. Use 11h or more.",
        ],
    ),
    "an answer is asked for as if it were at hand": (
        cart(journey(ANSWER)),
        [
            'journeys/cart.yaml:9:9: "event" is not known in a step. For the answer write steps.answer.event.score.',
        ],
    ),
    "a # cuts a quotation": (
        cart(CART.replace("event.total >= 20", 'contains(event.x, "a # b")')),
        [
            'journeys/cart.yaml:4:30: " #" starts a YAML comment, so the expression ends inside a quotation. '
            "Put the whole value in single quotes.",
        ],
    ),
    "a translation asks for what no step gives": (
        cart(CART, messages__cart·reminder__nb__body_html="<p>{{ code }}</p>\n{{ unsubscribe_url }}"),
        [
            'messages/cart-reminder/nb/body.html:1:7: "code" is not given by journeys/cart.yaml:10. Add it '
            "under with there, or remove it here.",
        ],
    ),
    "a wait_for has no end": (
        cart(journey("- wait_for: {event: Order Delivered}\n- email: cart-reminder", trigger=BY_ORDER)),
        [
            "journeys/cart.yaml:7:15: without timeout this waits for ever, and any Order Delivered ends it. "
            "Add timeout: 10d and where: event.order_id == key.",
        ],
    ),
    # names
    "an unknown step": (
        cart(journey("- emial: cart-reminder")),
        [
            'journeys/cart.yaml:6:5: unknown step "emial". Did you mean "email"?',
        ],
    ),
    "an unknown field of a step": (
        cart(journey("- email: cart-reminder\n  topc: receipts")),
        [
            'journeys/cart.yaml:7:5: unknown step field "topc". Did you mean "topic"?',
        ],
    ),
    "an unknown message": (
        cart(CART.replace("email: cart-reminder", "email: cart-remindr")),
        [
            'journeys/cart.yaml:10:12: there is no message "cart-remindr". Did you mean "cart-reminder"?',
        ],
    ),
    "an unknown topic": (
        cart(CART.replace("topic: cart-reminders", "topic: cart-reminder")),
        [
            'journeys/cart.yaml:7:10: topics.yaml has no topic "cart-reminder". Did you mean "cart-reminders"?',
        ],
    ),
    "an unknown segment": (
        cart(journey("- email: cart-reminder", trigger="segment: vpi")),
        [
            'journeys/cart.yaml:3:12: segments.yaml has no segment "vpi". Did you mean "vip"?',
        ],
    ),
    "an unknown segment in a condition": (
        cart(journey('- if: in_segment("vips")\n  then: [email: cart-reminder]')),
        [
            'journeys/cart.yaml:6:20: segments.yaml has no segment "vips". Did you mean "vip"?',
        ],
    ),
    "an unknown stage": (
        cart(journey("- email: cart-reminder", trigger="stage: atract")),
        [
            'journeys/cart.yaml:3:10: stages.yaml has no stage "atract". Did you mean "attract"?',
        ],
    ),
    "an unknown property": (
        cart(CART.replace("event.total", "event.totl"), **CATALOGUE),
        [
            'journeys/cart.yaml:4:10: "Cart Updated" has no totl in the catalogue, so this journey never '
            'begins. Did you mean "total"?',
        ],
    ),
    "an unknown event": (
        cart(CART.replace("Cart Updated", "Cart Updatd"), **CATALOGUE),
        [
            'journeys/cart.yaml:3:10: no file under events/ describes "Cart Updatd". Did you mean "Cart Updated"?',
        ],
    ),
    "a value that the catalogue does not know": (
        cart(CART + 'goal:\n  event: Order Completed\n  where: event.status == "payd"\n', **CATALOGUE),
        [
            'journeys/cart.yaml:13:26: warning: "payd" is none of the values that the catalogue has for '
            'event.status. Did you mean "paid"?',
        ],
    ),
    "an unknown function": (
        segments('  a:\n    when: cuont("Order Completed") >= 1\n'),
        [
            'segments.yaml:3:11: there is no function "cuont". Did you mean count("Order Completed")?',
        ],
    ),
    "an unknown journey": (
        cart(journey("- email: cart-reminder", trigger="event: A\nunless_in: [welcome]")),
        [
            'journeys/cart.yaml:4:15: there is no journey "welcome". There are none yet.',
        ],
    ),
    # steps that nobody reaches
    "a step behind an exit": (
        cart(journey("- exit: done\n- email: cart-reminder")),
        [
            "journeys/cart.yaml:7:5: nobody gets here: every way to this step ends with exit before it. "
            "Remove it, or the exit above.",
        ],
    ),
    "a step behind two ways that end": (
        cart(journey("- if: traits.a == 1\n  then: [exit: a]\n  else: [exit: b]\n- email: cart-reminder")),
        [
            "journeys/cart.yaml:9:5: nobody gets here: every way to this step ends with exit before it. "
            "Remove it, or the exit above.",
        ],
    ),
    "a condition that is never true": (
        cart(journey("- if: trigger.total > 9 and trigger.total < 5\n  then: [email: cart-reminder]")),
        [
            'journeys/cart.yaml:6:31: warning: "trigger.total > 9" and "trigger.total < 5" are never both '
            "true, so nobody gets to then. Correct the condition, or remove it.",
        ],
    ),
    "a condition that is always true": (
        cart(journey("- if: true\n  then: [email: cart-reminder]\n  else: [exit: never]")),
        [
            "journeys/cart.yaml:6:9: warning: this is always true, so nobody gets to else. Correct the "
            "condition, or remove else.",
        ],
    ),
    "a way behind one that takes everybody of it": (
        cart(
            journey(
                "- choose:\n    - {if: trigger.total >= 10, then: [email: cart-reminder]}\n"
                "    - {if: trigger.total >= 50, then: [exit: rich]}"
            )
        ),
        [
            "journeys/cart.yaml:8:14: warning: whoever this is true of has gone the way in line 7, so nobody "
            "goes this one. Move it up, or remove it.",
        ],
    ),
    "else before another way": (
        cart(journey("- choose:\n    - else: [exit: x]\n    - {if: traits.a == 1, then: [email: cart-reminder]}")),
        [
            "journeys/cart.yaml:6:5: else stands before other ways, which are then never taken. Move it to the end.",
        ],
    ),
    "a stage behind one that takes everybody of it": (
        sample(stages_yaml='stages:\n  retain: count("A") >= 1\n  delight: count("A") >= 3\n  attract: true\n'),
        [
            'stages.yaml:3:12: whoever this is true of is in "retain" already, so nobody is ever in '
            '"delight". Move it above "retain".',
        ],
    ),
    "a stage behind the one of all": (
        sample(stages_yaml="stages:\n  attract: true\n  all: true\n"),
        [
            'stages.yaml:2:12: everybody is in "attract", so the stages below are never reached. Move it to the end.',
        ],
    ),
    "a lot that nobody draws": (
        cart(
            journey(
                "- id: tone\n  split:\n    warm: {share: 100%, then: []}\n"
                "    cold: {share: 0%, then: [email: cart-reminder]}"
            )
        ),
        [
            "journeys/cart.yaml:9:21: warning: nobody draws this. Give it a share, or remove it.",
        ],
    ),
    # what can never match
    "a trigger that nothing matches": (
        cart(CART.replace("event.total >= 20", "event.total >= 20 and event.total < 10")),
        [
            'journeys/cart.yaml:4:32: "event.total >= 20" and "event.total < 10" are never both true, so this'
            " journey never begins. Correct the condition, or remove it.",
        ],
    ),
    "a goal that nothing matches": (
        cart(CART + "goal: {event: Order Completed, where: false}\n"),
        [
            "journeys/cart.yaml:11:39: this is never true, so this goal is never reached and buyers keep "
            "getting mail. Correct the condition, or remove it.",
        ],
    ),
    "an exit that nothing matches": (
        cart(CART + 'exit_on:\n  - event: Order Completed\n    where: event.a == "x" and event.a in ["y", "z"]\n'),
        [
            'journeys/cart.yaml:13:31: event.a == "x" and event.a in ["y", "z"] are never both true, so this '
            "exit never happens. Correct the condition, or remove it.",
        ],
    ),
    "an exit behind the goal": (
        cart(CART + "goal: {event: Order Completed}\nexit_on: [{event: Order Completed}]\n"),
        [
            "journeys/cart.yaml:12:19: warning: any such event reaches the goal first, so this exit never "
            "happens. Remove it, or give the first a where.",
        ],
    ),
    "an event awaited that nothing matches": (
        cart(
            journey(
                "- wait_for: {event: Order Completed, where: 1 > 2}\n  timeout: 1d\n- email: cart-reminder",
            )
        ),
        [
            "journeys/cart.yaml:6:47: this is never true, so this always waits until the timeout. Correct the"
            " condition, or remove it.",
        ],
    ),
    "a click in a mail that leads nowhere": (
        cart(
            journey("- email: cart-reminder\n- wait_for: {clicked: cart-reminder}\n  timeout: 1d\n- wait: 2d"),
            messages__cart·reminder__body_html="<a href='{{ unsubscribe_url }}'>Stop</a>",
        ),
        [
            'journeys/cart.yaml:7:25: warning: message "cart-reminder" has no link to click, so this always '
            "waits until the timeout. Add one, or wait for something else.",
        ],
    ),
    "a segment that nobody is ever in": (
        segments('  a:\n    when: count("A") > 3 and not count("A") > 1\n'),
        [
            "segments.yaml:3:11: this is never true, so nobody is ever in this segment. Correct the "
            "condition, or remove it.",
        ],
    ),
    "kinds that are never equal": (
        cart(CART.replace("event.total >= 20", 'event.total == "20"'), **CATALOGUE),
        [
            "journeys/cart.yaml:4:10: warning: this compares a number with text, which is always false. Write"
            " 20 without quotation marks.",
        ],
    ),
    # mails
    "a mail without topic": (
        cart(CART.replace("defaults:\n  topic: cart-reminders\n", "")),
        [
            "journeys/cart.yaml:8:12: this mail has no topic, so nobody could opt out of it. Add topic: to it"
            " or to defaults: cart-reminders or receipts.",
        ],
    ),
    "a name that is given for nothing": (
        cart(CART + "    with: {code: 1}\n"),
        [
            'journeys/cart.yaml:11:12: warning: no template of message "cart-reminder" uses "code". Remove '
            "it, or use it there.",
        ],
    ),
    "a name that nobody gives, since nobody sends the message": (
        sample(messages__other__subject_txt="Hello", messages__other__body_html="<p>{{ code }}</p>"),
        [
            'messages/other/body.html:1:7: warning: no journey sends this message, so "code" is given by nobody. '
            "Remove messages/other, or send it; for words to come, write variables: [code] in message.yaml.",
        ],
    ),
    "a name that may be given where a comma cut the step": (
        cart(
            journey('- email: cart-reminder\n  with: {code: max("Order Completed", "total")}'),
            messages__cart·reminder__body_html="{{ code }} <a href='{{ unsubscribe_url }}'>Stop</a>",
        ),
        [
            "journeys/cart.yaml:7:39: inside { } and [ ] a comma ends the value, so the expression is cut here. Put "
            "the whole value in single quotes.",
        ],
    ),
    "a value that nothing asks for": (
        cart(journey("- set: {vars.score: 1}\n- email: cart-reminder")),
        [
            "journeys/cart.yaml:6:11: warning: nothing in this journey asks for vars.score. Remove it, or use"
            " it in a later step.",
        ],
    ),
    # time
    "a date in the quiet hours, and a mail that does not live so long": (
        cart(
            journey("- email: cart-reminder", "defaults: {topic: cart-reminders, expires: 6h}", BIRTHDAY),
            rapport_yaml=QUIET,
        ),
        [
            "journeys/cart.yaml:5:7: 22:00 lies in the quiet hours 21:00-08:00, and the mail behind it "
            "expires after 6h, so it is never sent. Use a time from 08:00 to 21:00, or expires: 10h.",
        ],
    ),
    "a date in the quiet hours": (
        cart(journey("- email: cart-reminder", trigger=BIRTHDAY), rapport_yaml=QUIET),
        [
            "journeys/cart.yaml:5:7: warning: 22:00 lies in the quiet hours 21:00-08:00, so the date is never"
            " kept: the mail leaves at 08:00 of the day after. Use a time from 08:00 to 21:00.",
        ],
    ),
    "an hour within the quiet hours": (
        cart(
            journey(
                '- wait: {until: "23:00"}\n- wait: 2d\n- email: cart-reminder',
                "defaults: {topic: cart-reminders, expires: 8h}",
            ),
            rapport_yaml=QUIET,
        ),
        [
            "journeys/cart.yaml:6:19: 23:00 lies in the quiet hours 21:00-08:00, and the mail behind it "
            "expires after 8h, so it is never sent. Use a time from 08:00 to 21:00, or expires: 9h.",
        ],
    ),
    "no time at all": (
        cart(journey("- wait: 0m\n- email: cart-reminder")),
        [
            "journeys/cart.yaml:6:11: this takes no time at all. Write at least 1m, or leave it out.",
        ],
    ),
    # splits and names
    "shares that do not add up": (
        cart(
            journey(
                "- id: tone\n  split:\n    warm: {share: 60%, then: [email: cart-reminder]}\n    cold: {share: 50%}"
            )
        ),
        [
            "journeys/cart.yaml:6:5: these shares make 110%. Let them make 100%.",
        ],
    ),
    "two steps of one name": (
        cart(journey("- wait: 1h\n- email: cart-reminder\n- wait: 1h\n- exit: done")),
        [
            'journeys/cart.yaml:8:5: two steps are called "wait-1h": this one and the one in line 6. Give '
            "this one an id: wait-1h-2.",
        ],
    ),
    "two steps of one id": (
        cart(journey("- id: a\n  wait: 1h\n- id: a\n  email: cart-reminder")),
        [
            'journeys/cart.yaml:8:9: two steps are called "a": this one and the one in line 6. Give one of '
            "them another id.",
        ],
    ),
    # YAML
    "a # cuts a condition": (
        segments("  a:\n    when: traits.name == #1\n"),
        [
            'segments.yaml:3:25: warning: " #" starts a YAML comment, so this value is only "traits.name ==".'
            " Put the whole value in single quotes, or a blank after # where a comment is meant.",
            "segments.yaml:3:25: something is missing at the end. Complete it, or remove the last word.",
        ],
    ),
    "a comma within { }": (
        cart(CART + FLOW % 'contains(event.cart_id, "a")'),
        [
            "journeys/cart.yaml:12:56: inside { } and [ ] a comma ends the value, so the expression is cut "
            "here. Put the whole value in single quotes.",
        ],
    ),
    "a comma within { }, before a name": (
        cart(CART + FLOW % 'count("A", within=3d) == 2'),
        [
            "journeys/cart.yaml:12:43: inside { } and [ ] a comma ends the value, so the expression is cut "
            "here. Put the whole value in single quotes.",
        ],
    ),
    "a bracket within { }": (
        cart(CART + FLOW % "event.cart_id in [1, 2]"),
        [
            'journeys/cart.yaml:12:51: inside { } and [ ] a "[" begins a new list or mapping, so the value is'
            " cut here. Put the whole value in single quotes.",
        ],
    ),
    "a tab": (
        cart("journey: cart\ntrigger:\n\tevent: Cart Updated\n"),
        [
            "journeys/cart.yaml:3:1: a tab stands here, and YAML indents with spaces. Replace it by spaces.",
        ],
    ),
    "a day where days belong": (
        cart(journey('- wait: {until: "10:00", on: tue}\n- email: cart-reminder')),
        [
            'journeys/cart.yaml:6:32: "on" takes a list, and here stands text. Put it in brackets: [tue].',
        ],
    ),
    "on: yes": (
        cart(journey("- wait: {on: [yes]}\n- email: cart-reminder")),
        [
            'journeys/cart.yaml:6:17: "yes" is not known here. Use mon, tue, wed, thu, fri, sat or sun.',
        ],
    ),
    "a colon in a value": (
        cart(CART.replace("event.total >= 20", 'event.name == "a: b"')),
        [
            'journeys/cart.yaml:4:26: ": " stands inside a value, where YAML begins a new field. Put the '
            "whole value in single quotes.",
        ],
    ),
    "a value that begins with a quotation": (
        cart(CART.replace("event.total >= 20", '"a" in event.tags')),
        [
            "journeys/cart.yaml:4:14: the quotation ends before this, and more text follows. Put the whole "
            "value in single quotes.",
        ],
    ),
    "a field that stands twice": (
        cart(CART.replace("  where:", "  event: Other\n  where:")),
        [
            'journeys/cart.yaml:4:3: "event" stands twice: here, and in line 3, column 3. Keep one of the two.',
        ],
    ),
    "an anchor": (
        cart(CART.replace("event: Cart", "event: &cart Cart")),
        [
            'journeys/cart.yaml:3:10: a value that begins with "&" gets a YAML anchor, which playbooks do not'
            " have. Remove it, or put the value in single quotes if it is text.",
        ],
    ),
    "a colon without a blank": (
        cart("journey:cart\ntrigger: {event: A}\nsteps: [{exit: x}]\n"),
        [
            'journeys/cart.yaml:1:1: a blank is missing after the colon of "journey". Write "journey: cart".',
        ],
    ),
    "a field without a colon": (
        cart("journey: cart\ntrigger\n  event: A\n"),
        [
            'journeys/cart.yaml:2:1: "trigger" stands alone, and here a field is expected. Write "trigger:".',
        ],
    ),
    "a date that is none": (
        segments('  a:\n    when: date(traits.renewal) > date("1.3.2026")\n'),
        [
            'segments.yaml:3:39: warning: "1.3.2026" is no date, so this is null. Write date("2026-03-01").',
        ],
    ),
    # what could not be decided
    "a flip that cannot be foreseen": (
        segments('  a:\n    when: days_since(first("A")) * days_since(last("A")) > 3\n'),
        [
            'segments.yaml:3:11: when this becomes true cannot be foreseen: both sides of "*" change at every'
            " moment. Compare days_since(...) or now directly with a value that stays.",
        ],
    ),
    "segments in a circle": (
        segments('  a:\n    when: in_segment("b")\n  b:\n    when: not in_segment("a")\n'),
        [
            'segments.yaml:3:11: "a" asks for "b", which asks for "a", so none can be decided first. Take one'
            " of them out of the circle.",
        ],
    ),
    "a mail that asks for much of an event that is none": (
        cart(journey("- email: cart-reminder", trigger=BIRTHDAY.replace("22:00", "09:00")))
        | {"messages/cart-reminder/body.html": b"{{ trigger.total }} {{ trigger.cart_id }} {{ unsubscribe_url }}"},
        [
            "messages/cart-reminder/body.html:1:4: warning: journeys/cart.yaml does not begin with an event, so "
            "trigger.total and 1 more are empty here. Use traits or customer, or give it under with.",
        ],
    ),
    "a journey that begins itself": (
        cart(journey("- emit: Cart Updated")),
        [
            'journeys/cart.yaml:6:11: this begins "cart", and so without end. Add again: to one of them, or a where.',
        ],
    ),
    "a number that is compared with a text": (
        cart(journey("- {if: 'traits.age > \"18\"', then: [email: cart-reminder]}")),
        [
            'journeys/cart.yaml:6:24: warning: "18" is text, which no number is above or below. Write 18 without '
            "quotation marks.",
        ],
    ),
    "an if that nothing comes of, and one that has only an else": (
        cart(journey("- if: traits.age > 18\n- if: traits.age > 20\n  then: []\n  else: [email: cart-reminder]")),
        [
            "journeys/cart.yaml:6:9: warning: the journey goes on in the same way whatever this says. Add then:, or "
            "remove this step.",
            "journeys/cart.yaml:7:9: warning: nothing happens where this is true. Add then:, or turn the condition "
            "round and write then for else.",
        ],
    ),
    "what other systems call it": (
        cart(
            journey(
                """
    - delay: 1h
    - stop: done
    - wait: 1 hour
    - wait: 1 month
    - if: in_segment("vip")
      then: exit
"""
            )
            + "priority: 60\n"
        ),
        [
            'journeys/cart.yaml:6:5: unknown step "delay". Did you mean "wait"?',
            'journeys/cart.yaml:7:5: unknown step "stop". Did you mean "exit"?',
            'journeys/cart.yaml:8:11: "1 hour" is no duration. Did you mean "1h"?',
            'journeys/cart.yaml:9:11: "1 month" is no duration. Did you mean "30d"?',
            'journeys/cart.yaml:11:11: "then" takes a list, and here stands text. Write each step on a line of its own '
            "below, such as - exit: done.",
            'journeys/cart.yaml:12:1: "priority" does not stand here. Write it under defaults:.',
        ],
    ),
    "a step without a space after its colon": (
        cart(journey("- email:cart-reminder")),
        ['journeys/cart.yaml:6:5: a space is missing after "email:". Write email: cart-reminder.'],
    ),
    # files
    "a file where a folder belongs": (
        sample(coupons="x"),
        ["coupons:1:1: this is a file, and a folder of this name is read. Rename it, and make the folder."],
    ),
    "a file that nothing would read": (
        sample(segment_yaml="segments: {}\n"),
        [
            'segment.yaml:1:1: a playbook has no file of this name. Did you mean "segments.yaml"?',
        ],
    ),
    "a journey in a folder of its own": (
        sample(journeys__old__cart_yaml=CART),
        [
            "journeys/old/cart.yaml:1:1: journeys has no folders in it. Move it to journeys/cart.yaml.",
        ],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_the_checker_says(case: str) -> None:
    files, said = CASES[case]
    assert said_of(files) == said
