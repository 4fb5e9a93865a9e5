"""A body on its way to a template: nothing of it is lost, moved out of its table, or taken for markup."""

from __future__ import annotations

import re
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from shared.language.bodies import BodyKind, compile_body
from shared.language.template_values import Rendition
from shared.language.templating import TemplateInvalid, compile_template, render

SECTION = "<mjml><mj-body><mj-section><mj-column>\n{}\n</mj-column></mj-section></mj-body></mjml>"


def both(source: str, kind: Any = "mjml", preheader: str = "", **variables: Any) -> tuple[str, str]:
    """The HTML and the text that a body makes of its variables."""
    body = compile_body(source, kind, preheader)

    def rendition() -> Rendition:
        return Rendition("en", ZoneInfo("UTC"), "EUR", lambda url: f"https://t.example/{len(url)}")

    html = render(compile_template(body.html.text, html=True, name="h"), variables, rendition())
    return html, render(compile_template(body.text.text, html=False, name="t"), variables, rendition())


def test_conditions_and_loops_stand_between_elements() -> None:
    source = SECTION.format(
        "{% if total < 3 and name > 'A' %}<mj-text>few &amp; {{ name }}</mj-text>"
        "{% else %}<mj-text>many</mj-text>{% endif %}"
        "{% for p in products %}<mj-text>{{ p }}</mj-text>{% endfor %}"
    )
    html, text = both(source, total=2, name="B<", products=["x1", "x2"])
    assert "few &amp; B&lt;" in html
    assert html.index("x1") < html.index("x2")
    for_all = re.sub(r"<!--.*?-->", "", html)
    assert for_all.count("<tr>") == for_all.count("</tr>") == 4
    assert text.split() == ["few", "&", "B<", "x1", "x2"]
    assert "many" in both(source, total=3, name="B", products=[])[0]


@pytest.mark.parametrize("kind", ["mjml", "html"])
def test_rows_of_a_table_stay_in_their_table(kind: str) -> None:
    table = "{% for p in products %}<tr><td>{{ p }}</td><td>1</td></tr>{% endfor %}<tr><td>sum</td></tr>"
    source = SECTION.format(f"<mj-table>{table}</mj-table>") if kind == "mjml" else f"<table>{table}</table>"
    html, text = both(source, kind, products=["x1", "x2"])
    assert re.search(r"<tbody><tr>.*x1.*</tr><tr>.*x2.*</tr><tr>.*sum.*</tr></tbody></table>", html)
    assert [line.split() for line in text.split("\n") if line.strip()] == [["x1", "1"], ["x2", "1"], ["sum"]]


def test_conditions_inside_a_sentence_stay_in_it() -> None:
    source = SECTION.format(
        "<mj-text><p>Dear {% if name %}<b>{{ name }}</b>{% else %}you{% endif %}, {% if a %}hello{% endif %}</p>"
        "</mj-text><mj-text>{% if a %}once{% endif %} {% for x in xs %}{{ x }}{% if not loop.last %}, {% endif %}"
        "{% endfor %}.</mj-text>"
    )
    _, text = both(source, name="Bo", a=1, xs=[1, 2])
    assert [line for line in text.split("\n") if line] == ["Dear Bo, hello", "once 1, 2."]


def test_styles_go_inline_and_media_queries_stay() -> None:
    styles = ".big { color: red } @media (max-width: 400px) { .big { color: blue !important } }"
    source = SECTION.format("<mj-text><p class='big'>x</p></mj-text>")
    html, _ = both(source.replace("<mj-body>", f"<mj-head><mj-style>{styles}</mj-style></mj-head><mj-body>"))
    assert re.search(r'<p class="big" style="[^"]*color: red', html)
    assert "@media (max-width: 400px)" in html


def test_nothing_is_fetched_from_elsewhere_unless_it_is_said() -> None:
    assert "googleapis" not in both(SECTION.format("<mj-text>x</mj-text>"))[0]


def test_links_are_tracked_and_images_are_not() -> None:
    source = SECTION.format(
        '<mj-button href="{{ url }}?a=1&amp;b=2">Go</mj-button>'
        '<mj-image src="https://i.example/a.png" href="https://x.example" alt="Lamp"/>'
        '<mj-text><a href="mailto:a@b.example">write</a> <a name="x">no</a></mj-text>'
    )
    html, text = both(source, url="https://y.example/")
    assert re.findall(r'href="(https[^"]*)"', html) == [
        f"https://t.example/{len('https://y.example/?a=1&amp;b=2')}",
        "https://t.example/17",
    ]
    assert 'src="https://i.example/a.png"' in html
    assert 'href="mailto:a@b.example"' in html
    assert "Go <https://y.example/?a=1&b=2>" in text
    assert "Lamp <https://x.example>" in text
    assert "write <a@b.example>" in text


def test_macros_may_stand_before_the_body() -> None:
    source = "{# a note #}{% macro price(p) %}{{ p }} kr{% endmacro %}" + SECTION.format(
        "<mj-text>{{ price(5) }}</mj-text>"
    )
    html, text = both(source)
    assert "5 kr" in html
    assert "5 kr" in text


def test_raw_blocks_and_texts_that_look_like_tags_survive() -> None:
    source = SECTION.format("<mj-text>{% raw %}{{ not a tag }}{% endraw %} {{ '%} }} <b>' }} zj0z</mj-text>")
    html, text = both(source)
    assert "{{ not a tag }} %} }} &lt;b&gt; zj0z" in html
    assert "{{ not a tag }} %} }} <b> zj0z" in text


def test_text_leaves_out_what_is_hidden_and_what_only_one_program_sees() -> None:
    source = (
        "<html><head><title>no</title><style>no</style></head><body><div style='display:none'>no</div>"
        "<!--[if mso]><p>no</p><![endif]--><h1>Yes</h1><p>a<br>b</p><ul><li>c</li></ul></body></html>"
    )
    _, text = both(source, "html", preheader="no")
    assert "no" not in text
    assert [line.strip() for line in text.split("\n") if line.strip()] == ["Yes", "a", "b", "* c"]


def test_a_condition_at_the_end_of_a_line_does_not_pull_up_the_next_one() -> None:
    source = SECTION.format(
        "<mj-text>{% if name %}Dear {{ name }},{% else %}Hello,{% endif %}</mj-text>"
        "<mj-text>Thank you{% if name %}<br />very{% endif %}<br />much</mj-text>"
    )
    _, text = both(source, name="Anna")
    assert text == "Dear Anna,\n\nThank you\nvery\nmuch"
    _, text = both(source)
    assert text == "Hello,\n\nThank you\nmuch"


def test_each_mj_text_is_a_paragraph_of_its_own() -> None:
    _, text = both(SECTION.format("<mj-text>One</mj-text><mj-text>Two<br />three</mj-text>"))
    assert text == "One\n\nTwo\nthree"


def test_nothing_of_the_body_follows_a_short_preheader() -> None:
    html, text = both("<p>Body</p>", "html", preheader="Short")
    assert re.search(r"mso-hide: ?all[^>]*>Short (\u034f\u200c(\u00a0|&nbsp;)){60}</div>", html)
    assert text == "Body"


def test_preheader_of_the_body_wins() -> None:
    source = "<mjml><mj-head><mj-preview>mine</mj-preview></mj-head><mj-body></mj-body></mjml>"
    html, _ = both(source, preheader="theirs")
    assert "mine" in html
    assert "theirs" not in html


@pytest.mark.parametrize(
    ("source", "line", "said"),
    [
        (SECTION.format("\n<mj-txt>x</mj-txt>"), 3, "<mj-txt> is no element of MJML. Did you mean <mj-text>?"),
        (SECTION.format("\n<mj-text>x"), 4, "</mj-column> comes before </mj-text>, which line 3 opened."),
        ("<mjml>\n<mj-body>", 2, "<mj-body> is never closed."),
        ("<mjml>\n</mj-body></mjml>", 2, "</mj-body> comes before </mjml>"),
        ("</mj-body>", 1, "closes nothing"),
        ("<p>hello</p>", 1, "there is no <mjml> in it."),
        (SECTION.format("{{ a\n\n}}<mj-include path='x'/>"), 4, "mj-include is not known here"),
        (
            "<mjml><mj-head><mj-style>\n{% if a %}a{}{% endif %}</mj-style></mj-head><mj-body></mj-body></mjml>",
            2,
            "{% if a %} stands where nothing is kept",
        ),
    ],
)
def test_what_is_wrong_is_told_with_its_line(source: str, line: int, said: str) -> None:
    with pytest.raises(TemplateInvalid) as refused:
        compile_body(source, "mjml")
    assert said in str(refused.value)
    assert refused.value.line == line


@pytest.mark.parametrize(
    ("begins", "remedy"),
    [
        ("<a ", 'Add ">", or the quotation mark that is missing in it.'),
        ('<a href="x', 'Add ">", or the quotation mark that is missing in it.'),
        ("<!-- ", 'Add "-->".'),
    ],
)
@pytest.mark.parametrize("kind", ["html", "mjml"])
def test_markup_without_an_end_is_refused_at_the_first_of_many(kind: BodyKind, begins: str, remedy: str) -> None:
    """To look for the ends of all would take minutes here."""
    source = "<p>{{ a\n}}</p>\n" + f"{begins}\n" * (2 * 15_000 + 1)
    with pytest.raises(TemplateInvalid) as refused:
        compile_body(source, kind)
    assert str(refused.value).endswith(f'"{begins.split()[0]}" has no end. {remedy}')
    assert refused.value.line == 3


@pytest.mark.parametrize(
    ("kind", "source"),
    [
        ("html", "<p>a</p>\n" + "<div>" * 2_000 + "</div>" * 2_000),
        ("html", "<p>a</p>\n" + "<b>" * 2_000),
        ("html", "<p>a</p>\n" + "<table><tr><td>" * 2_000 + "</td></tr></table>" * 2_000),
        ("mjml", "<mjml><mj-body>\n" + "<mj-wrapper>" * 2_000 + "</mj-wrapper>" * 2_000 + "</mj-body></mjml>"),
        ("mjml", SECTION.format("<div>" * 2_000 + "</div>" * 2_000)),
    ],
)
def test_what_is_nested_too_deeply_is_refused(kind: BodyKind, source: str) -> None:
    """Those who parse it call themselves for each level, and end the process where there are very many."""
    with pytest.raises(TemplateInvalid, match="levels deep") as refused:
        compile_body(source, kind)
    assert refused.value.line == 2


def test_what_is_long_is_not_deep() -> None:
    rows = "<tr><td>a<br><img src='x'><p>b<td>c</tr>" * 700
    source = f"<table>{rows}</table>" + "<span>d</span>" * 700 + "<ul>" + "<li>e" * 700 + "</ul>"
    assert compile_body(source, "html").html.text.count("<span>d</span>") == 700


@pytest.mark.parametrize("name", ["style", "title", "script"])
def test_what_holds_no_markup_has_to_end(name: str) -> None:
    with pytest.raises(TemplateInvalid, match=f"<{name}> is never closed. Add </{name}>."):
        compile_body(f"<{name}>{'<table ' * 20_000}", "html")


def test_nothing_is_markup_in_styles_and_scripts() -> None:
    source = "<html><head><style>a {}/* <b '</style><title>1 <2 or <3</title></head><body>{{ name }}</body></html>"
    html, text = both(source, "html", name="Anna")
    assert "Anna" in html
    assert text == "Anna"


def test_a_link_ends_where_the_next_begins() -> None:
    _, text = both("<p><a href='https://a.example'>one <a href='https://b.example'>two</a></p>", "html")
    assert text == "one two <https://b.example>"


def test_lines_of_the_template_lead_to_the_lines_of_the_file() -> None:
    source = SECTION.format("<mj-text>a</mj-text>\n\n<mj-text>\n{{ one }}\n<b>{{ two |\nupper }}</b></mj-text>")
    body = compile_body(source, "mjml")
    for part in (body.html, body.text):
        for number, text in enumerate(part.text.split("\n"), 1):
            if "one" in text:
                assert part.line(number) == 5
            if "two" in text:
                assert part.line(number) == 6
            if "upper" in text:
                assert part.line(number) == 7
