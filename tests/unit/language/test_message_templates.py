"""What is said of a message's templates: their syntax, the names that nobody gives, and how advertising is stopped."""

from __future__ import annotations

import pytest
from sample_playbook import BODY, CART, RAPPORT, journey, said_of, sample

from shared.language import load

HTML = "messages/cart-reminder/body.html"
STOP = '<a href="{{ unsubscribe_url }}">Stop</a>\n'


def of_body(body: str, **changes: str | None) -> list[str]:
    """What is said with this body (and the way to unsubscribe in its last line), without the file's name."""
    said = said_of(sample(messages__cart·reminder__body_html=body + STOP, **changes))
    return [line.removeprefix(f"{HTML}:") for line in said]


# Syntax


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        ("<p>\n{% if traits.a %}\nb\n", "4:1: unexpected end of template."),
        ("<p>a</p>\n  {{ traits.a | mony }}\n", "2:17: no filter named 'mony'."),
        ("<p>a</p>\n{% include 'x' %}\n", "2:1: include, import, extends, block and autoescape are not known here"),
    ],
)
def test_a_slip_in_jinja_is_named_with_its_line(body: str, begins: str) -> None:
    found = of_body(body)
    assert len(found) == 1
    assert found[0].split(": ")[0] == begins.split(": ")[0] or begins.startswith("4:1")
    assert begins.split(": ", 1)[1].rstrip(".") in found[0]


@pytest.mark.parametrize("kind", ["html", "text"])
def test_what_the_mailer_cannot_compile_does_not_pass(kind: str) -> None:
    """Each tag of these is sound by itself."""
    files = {"html": "messages__cart·reminder__body_html", "text": "messages__cart·reminder__body_txt"}

    def said(text: str) -> str:
        (line,) = said_of(sample(**{files[kind]: text + STOP}))
        return line.partition(": ")[2]

    assert said("{% raw %} {{ traits.a }}") == "missing end of raw directive. Correct the template."
    assert said("a" * 200_000).startswith("the template has 200,0")


@pytest.mark.parametrize("opening", ["{{", "{%", "{#", "{% raw %}"])
def test_many_tags_without_an_end_are_not_looked_through_for_each(opening: str) -> None:
    """That would take minutes here."""
    assert of_body(opening * 15_000)


MJML = """\
<mjml>
  <mj-body>
    <mj-section>
      <mj-column>
        <mj-text>Hello {{ traits.name }}, {% if traits.orders < 3 %}new{% endif %}</mj-text>
        <mj-text><a href="{{ unsubscribe_url }}">Stop</a></mj-text>
      </mj-column>
    </mj-section>
  </mj-body>
</mjml>
"""


def of_mjml(body: str) -> list[str]:
    files = sample(messages__cart·reminder__body_html=None, messages__cart·reminder__body_mjml=body)
    return [line.removeprefix("messages/cart-reminder/body.mjml:") for line in said_of(files)]


def test_mjml_is_read_as_it_will_be_rendered() -> None:
    assert of_mjml(MJML) == []
    assert of_mjml(MJML.replace("<mj-column>", "<mj-colum>"))[0].startswith("4:8: <mj-colum> is no element of MJML.")
    assert of_mjml(MJML.replace("</mj-column>", ""))[0].startswith("8:7: </mj-section> comes before </mj-column>")
    (said,) = of_mjml(MJML.replace("<mj-text><a", "<mj-text><p><a"))
    assert said.endswith("Check its quotes and its nesting.")


# Names


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            "<p>\n  {{ code }}</p>\n",
            '2:6: "code" is not given by journeys/cart.yaml:10. Add it under with there, or remove it here.',
        ),
        ("{{ trait.name }}\n", '1:4: "trait" is not given by journeys/cart.yaml:10. Did you mean "traits"?'),
        (
            "{{ urls.shopp }}\n",
            '1:4: rapport.yaml has no "shopp" under urls. Did you mean "shop"?',
        ),
        (
            "{{ brand.urls.blog }}\n",
            '1:4: rapport.yaml has no "blog" under urls. Add blog: https://… to urls there.',
        ),
        ("{{ customer['stge'] }}\n", '1:4: customer has no "stge". Did you mean "stage"?'),
        ("{{ brand.logo }}\n", '1:4: brand has no "logo". Known: name, sender, reply_to, postal_address, timezone, '
         "locale, currency and urls."),
        ("{{ message.title }}\n", '1:4: message has no "title". Known: id, name and topic.'),
    ],
)  # fmt: skip
def test_a_name_that_no_template_is_given(body: str, said: str) -> None:
    assert of_body(body) == [said]


@pytest.mark.parametrize(
    "body",
    [
        "{% set code = traits.code %}{{ code }}",
        "{% for item in trigger.products %}{{ item.name }} {{ loop.index }}{% endfor %}",
        "{% if code is defined %}{{ code }}{% endif %}",
        "{{ code | default('none') }}",
        "{% macro button(text) %}{{ text }}{% endmacro %}{{ button('a') }}",
        "{{ traits.anything.at_all }} {{ traits['x'] }} {{ key }} {{ range(3) | join }} {{ urls.items() }}",
        "{{ customer.first_seen | date }} {{ trigger.total | money(brand.currency) }} {{ message.topic }}",
        "{% for name, address in urls.items() %}{{ name }}{% endfor %}",
    ],
)
def test_names_that_are_known(body: str) -> None:
    assert of_body(body + "\n") == []


def test_what_a_step_gives_is_known_and_should_be_used() -> None:
    given = CART + "    with: {code: key}\n"
    assert of_body("{{ code }}\n", journeys__cart_yaml=given) == []
    assert of_body("nothing\n", journeys__cart_yaml=given) == [
        'journeys/cart.yaml:11:12: warning: no template of message "cart-reminder" uses "code". '
        "Remove it, or use it there."
    ]


def test_every_step_that_sends_a_message_gives_what_it_needs() -> None:
    steps = """
        - {id: one, email: cart-reminder, with: {code: key}}
        - {id: two, email: cart-reminder}
        - {id: three, email: cart-reminder}
    """
    text = journey(steps, trigger="event: Cart Updated\nkey: event.cart_id")
    assert of_body("{{ code }}\n", journeys__cart_yaml=text) == [
        '1:4: "code" is not given by journeys/cart.yaml:8 and 1 more. Add it under with there, or remove it here.'
    ]


def test_a_message_that_nobody_sends_declares_its_variables() -> None:
    unsent = {"journeys__cart_yaml": None, "messages__cart·reminder__message_yaml": "variables: [code]\n"}
    assert of_body("{{ code }}\n", **unsent) == []
    assert of_body("{{ cdoe }}\n", **unsent) == [
        '1:4: warning: no journey sends this message, so "cdoe" is given by nobody. Did you mean "code"?'
    ]


def test_declared_variables_are_given_by_every_sender() -> None:
    said = said_of(sample(messages__cart·reminder__message_yaml="variables: [code]\n"))
    assert said == [
        'journeys/cart.yaml:10:12: message "cart-reminder" needs "code", and this step does not give it. '
        "Add with: {code: …}."
    ]


def test_a_preheader_is_a_template_too() -> None:
    said = said_of(sample(messages__cart·reminder__message_yaml="title: Cart\npreheader: Your {{ code }} waits\n"))
    assert said == [
        'messages/cart-reminder/message.yaml:2:20: "code" is not given by journeys/cart.yaml:10. '
        "Add it under with there, or remove it here."
    ]


def test_what_begins_the_journey_is_known_from_the_catalogue() -> None:
    catalogue = {"events__order_yaml": "event: Order Completed\nproperties: {total: {type: number}}\n"}
    stages = "stages: {attract: true}"
    assert of_body("{{ trigger.totl }}\n", stages_yaml=stages, **catalogue) == [
        '1:4: "Cart Updated", with which journeys/cart.yaml begins, has no totl in the catalogue. Did you mean "total"?'
    ]
    staged = journey("- email: cart-reminder", trigger="stage: attract")
    assert of_body("{{ trigger.total }}\n", journeys__cart_yaml=staged) == [
        "1:4: warning: journeys/cart.yaml does not begin with an event, so trigger.total is empty here. "
        "Use traits or customer, or give it under with."
    ]


# Files


def test_advertising_says_how_to_stop_it() -> None:
    body = BODY.replace("unsubscribe_url", "urls.shop")
    said = (
        "journeys/cart.yaml sends this under a promotional topic, and it has no way to unsubscribe. "
        "Add a link to {{ unsubscribe_url }}."
    )
    text = {"messages__cart·reminder__body_txt": "Hello\n"}
    assert said_of(sample(messages__cart·reminder__body_html=body, **text)) == [
        f"{HTML}:1:1: {said}",
        f"messages/cart-reminder/body.txt:1:1: {said}",
    ]
    receipts = CART.replace("cart-reminders", "receipts")
    assert said_of(sample(messages__cart·reminder__body_html=body, journeys__cart_yaml=receipts, **text)) == []


def test_a_message_has_a_subject_of_one_line_and_one_body() -> None:
    assert said_of(sample(messages__cart·reminder__subject_txt=None, messages__cart·reminder__body_html=None)) == [
        'journeys/cart.yaml:10:12: there is no message "cart-reminder". Add the folder messages/cart-reminder.'
    ]
    assert said_of(sample(messages__cart·reminder__subject_txt=None, messages__cart·reminder__body_mjml=MJML)) == [
        "messages/cart-reminder/body.html:1:1: this message has body.mjml and body.html. Keep one of them.",
        "messages/cart-reminder/subject.txt:1:1: this message has no subject. Write it into this file.",
    ]
    assert said_of(sample(messages__cart·reminder__body_html=None)) == [
        "messages/cart-reminder/body.mjml:1:1: this message has no body. Write body.mjml or body.html."
    ]
    assert said_of(sample(messages__cart·reminder__subject_txt="\none\ntwo\n")) == [
        "messages/cart-reminder/subject.txt:3:1: a subject is one line. Put it all on the first line."
    ]
    assert said_of(sample(messages__cart·reminder__subject_txt=" \n")) == [
        "messages/cart-reminder/subject.txt:1:1: this file is empty. Write its text, or remove the file."
    ]


def test_files_that_nothing_would_read_are_named() -> None:
    files = sample()
    extra = {
        "messages/cart-reminder/subjct.txt": 'nothing reads this file. Did you mean "subject.txt"?',
        "messages/cart-reminder/logo.png": "warning: nothing reads this file. "
        "A message has message.yaml, subject.txt, body.mjml, body.html, body.txt, sms.txt and push.yaml.",
        "messages/cart-reminder/norsk/subject.txt": '"norsk" is no locale. Name the folder like nb or nb-NO.',
        "messages/Cart/subject.txt": '"Cart" cannot be a message\'s name. '
        "Use small letters, digits and single hyphens.",
        "messages/subject.txt": "a message is a folder. Move this into a folder named like the message.",
        "stage.yaml": 'a playbook has no file of this name. Did you mean "stages.yaml"?',
        "segments.yml": "this file is not read: its name ends in .yml. Rename it segments.yaml.",
        "journey/a.yaml": 'a playbook has no folder "journey". Did you mean "journeys"?',
        "journeys/old/a.yaml": "journeys has no folders in it. Move it to journeys/a.yaml.",
        "surveys/a.yaml": "surveys come later. Leave this file out for now.",
        "referrals.yaml": "referrals come later. Leave this file out for now.",
    }
    assert said_of(files | dict.fromkeys(extra, b"x")) == [
        f"{file}:1:1: {said}" for file, said in sorted(extra.items(), key=lambda pair: pair[0])
    ]
    unread = ["README.md", ".git/config", "docs/notes.txt", ".schema/journey.json", "messages/README.md"]
    assert said_of(files | dict.fromkeys(unread, b"\xff")) == []


def test_translations_stand_beside_the_message() -> None:
    nb = {
        "messages/cart-reminder/nb/subject.txt": b"Handlekurven venter\n",
        "messages/cart-reminder/nb/message.yaml": b"preheader: Hei\n",
        "messages/cart-reminder/message.yaml": b"title: Cart\npreheader: Hello\n",
    }
    found = load(sample() | nb).messages["cart-reminder"]
    assert (found.title, found.preheader) == ("Cart", "Hello")
    assert found.preheaders == {"": "Hello", "nb": "Hei"}
    assert found.files["nb"] == {"subject.txt": "Handlekurven venter\n"}
    assert set(found.files[""]) == {"subject.txt", "body.html"}


def test_a_message_may_be_written_in_the_brands_own_locale_only() -> None:
    files = sample(rapport_yaml=RAPPORT)
    moved = {name.replace("reminder/", "reminder/en/"): data for name, data in files.items()}
    assert said_of(moved) == []
    other = {name.replace("reminder/", "reminder/nb/"): data for name, data in files.items()}
    assert [line.split(": ", 1)[1] for line in said_of(other)] == [
        "this message has no body. Write body.mjml or body.html.",
        "this message has no subject. Write it into this file.",
    ]
