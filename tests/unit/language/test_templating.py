"""Templates: what they can say, and that whatever they say ends, and stays small."""

from __future__ import annotations

import contextlib
import re
import time
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.language.template_values import MAX_WORK, Rendition
from shared.language.templating import MAX_SOURCE, TemplateInvalid, compile_template, render

DATA = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


def said(source: str, *, html: bool = False, locale: str = "en", **variables: Any) -> str:
    rendition = Rendition(locale, ZoneInfo("Europe/Oslo"), "NOK", lambda url: f"[{url}]")
    return render(compile_template(source, html=html, name="t"), variables, rendition)


# Null, and what is missing.


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ a }}{{ a.b }}{{ a.b[3].c }}{{ t.none }}{{ t.none.x }}", ""),
        ("{% for x in a %}x{% endfor %}{% for x in t.none %}x{% endfor %}", ""),
        ("{{ a | default('you') }} {{ t.none | default('you') }} {{ '' | default('you', true) }}", "you you you"),
        ("{{ a == none }} {{ t.none == a }} {{ a != 1 }} {{ a == 1 }}", "true true true false"),
        ("{{ a < 1 }} {{ a > 1 }} {{ t.none >= 1 }} {{ 1 in a }} {{ 1 not in a }}", "false false false false true"),
        ("{{ a * 2 }}{{ 1 + t.none }}{{ a - b }}", ""),
        ("{{ a | money }}{{ a | date }}{{ a | upper }}{{ a | join(', ') }}{{ a | length }}{{ a | round }}", "0"),
        ("{{ t.none | map(attribute='x') | join }}{{ t.none | sum(attribute='x') }}", "0"),
        ("{% if a is defined %}d{% endif %}{% if t.none is none %}n{% endif %}{% if a is none %}n{% endif %}", "nn"),
    ],
)
def test_nothing_fails_for_what_is_missing(source: str, expected: str) -> None:
    assert said(source, t={"none": None}) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "{{ '10' < 9 }} {{ 'b' > 'a' }} {{ true < 2 }} {{ 1 < 2 < 3 }} {{ 1 < 3 < 2 }}",
            "false true false true false",
        ),
        ("{{ t.price * t.quantity }} {{ t.price + 1 }} {{ 7 // 2 }} {{ 1 / 0 }}", "25.00 13.50 3 "),
        ("{{ t.items | length }} {{ t.items[0].name }} {{ t.keys }}", "2 Alva mine"),
        ("{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}", "a1"),
        ("{{ 20.0 }}{{ t.whole }} {{ t.part }} {{ t.yes }} {{ t.names }}", "2020 1.25 true Anna, Bo"),
        (
            "{{ t.items | sum(attribute='price') }} {{ t.items | map(attribute='name') | join(' & ') }}",
            "30.3 Alva & Nils",
        ),
        ("{{ 'a' ~ 1 ~ t.names }}{{ 'a' + 'b' }}{{ ([1] + [2]) | join }}", "a1Anna, Boab12"),
        (
            "{% set n = namespace(s=0) %}{% for p in t.items %}{% set n.s = n.s + p.price %}{% endfor %}{{ n.s }}",
            "30.3",
        ),
        (
            "{{ t.items | batch(1) | length }}{{ 'abc' | replace('b', 'x') }}{{ 3.456 | round(2) }}{{ 2.5 | round }}",
            "2axc3.463",
        ),
        ("{% macro m(x) %}<{{ x }}>{% endmacro %}{{ m(1) }}{{ m(t.yes) }}", "<1><true>"),
    ],
)
def test_values_behave_as_a_marketer_expects(source: str, expected: str) -> None:
    trigger = {
        "price": "12.50",
        "quantity": 2,
        "items": [{"name": "Alva", "price": 10.1}, {"name": "Nils", "price": 20.2}],
        "keys": "mine",
        "whole": 20.0,
        "part": 1.25,
        "yes": True,
        "names": ["Anna", "Bo"],
    }
    assert said(source, t=trigger) == expected


def test_html_is_escaped_wherever_it_comes_from() -> None:
    source = "{{ x }}{{ x ~ x }}{{ [x, x] | join(x) }}{{ x | upper }}{{ x | replace('a', x) }}{{ [x] }}{{ x | nl2br }}"
    assert "<" not in said(source, html=True, x="<a>")
    assert said("{{ 'a\n<' | nl2br }}", html=True) == "a<br>&lt;"
    assert said("{% macro m(x) %}<b>{{ x }}</b>{% endmacro %}{{ m(x) ~ '!' }}", html=True, x="<") == "<b>&lt;</b>!"


@pytest.mark.parametrize(
    "source", ["{{ x | safe }}", "{% autoescape false %}{{ x }}{% endautoescape %}", "{{ x | tojson }}"]
)
def test_escaping_cannot_be_switched_off(source: str) -> None:
    with pytest.raises(TemplateInvalid):
        said(source, html=True, x="<")


@settings(deadline=None)
@given(DATA)
def test_any_data_renders_or_is_refused_in_words(data: Any) -> None:
    source = (
        "{{ t.a }}{{ t.a.b }}{% if t.a > 3 %}x{% endif %}{{ t.a == t.b }}{{ t.a | money(t.b) }}{{ t.a | date }}"
        "{{ t.a | default('x') | string | upper }}{{ t.a | round(2) }}{{ t | length if t is mapping }}"
    )
    variables = {"t": data if isinstance(data, dict) else {"a": data, "b": data}}
    with contextlib.suppress(TemplateInvalid):
        said(source, html=True, **variables)


# Bounds.


TWINS = "{% set a = [1] %}{% set b = [1] %}" + "{% set a = [a, a] %}{% set b = [b, b] %}" * 24
"""Two values that look alike, each of 24 lists, and of millions for whoever goes through all of it."""


@pytest.mark.parametrize(
    "source",
    [
        "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}",
        "{% for i in range(1000) %}{% for j in range(1000) %}x{% endfor %}{% endfor %}",
        "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
        "{% macro f(n) %}{% if n > 0 %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(40) }}",
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x ~ x %}" * 60 + "{{ x }}",
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x + x %}" * 60 + "{{ x }}",
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x %}{{ x }}{{ x }}{% endset %}" * 60 + "{{ x }}",
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = [x, x] | join %}" * 60 + "{{ x }}",
        "{% set x = 'aaaaaaaaaa' %}" + "{% set x = x | replace('a', x) %}" * 9 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x == x }}",
        "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}",
        "{% set x = [1] %}" + "{% set x = x + x %}" * 60,
        TWINS + "{{ a | upper | length }}",
        TWINS + "{{ a | e | length }}",
        TWINS + "{{ [['a', a]] | urlencode | length }}",
        TWINS + "{{ namespace(x=a) | truncate(9) }}",
        TWINS + "{{ [a, b] | sort | length }}",
        TWINS + "{{ [a, b] | max | length }}",
        TWINS + "{{ [[a], [b]] | map('first') | min | length }}",
        TWINS + "{{ [{'k': a}, {'k': b}] | groupby('k') | length }}",
        TWINS + "{{ {'k': a}.items() == {'k': b}.items() }}",
        TWINS + "{{ {'j': a, 'k': b}.values() | sort | length }}",
        "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 24 + "{{ {x: 1} | length }}",
        "{% set x = (1,) %}" + "{% set x = (x, x) %}" * 24 + "{{ '2026-03-02' | date(x) }}",
        "{% set x = 'a' %}" + "{% set x = ({x: x}.items() | first) %}" * 24 + "{{ x | length }}",
        "{{ 'aaaaaaaaaa'" + " | replace('a', 'aaaaaaaaaa')" * 6 + " | length }}",
        "{% for i in range(1000) %}{{ 'aaaaaaaaaa' | replace('a', '" + "a" * 999 + "') }}{% endfor %}",
        "{% set n = namespace(x='a') %}{% for i in range(900) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
        "{% for i in range(1000) %}{{ big | sort | join }}{% endfor %}",
        "{% for i in range(1000) %}{% if i in big %}{% endif %}{% endfor %}",
        "{% for i in range(1000) %}{{ long == long ~ i }}{% endfor %}",
        "{{ 'a' * 1000000000 }}",
        "{{ [1] * 1000000000 }}",
        "{{ 10 ** 10 ** 10 }}",
        "{% set x = 9999999999 %}" + "{% set x = x * x %}" * 40 + "{{ x }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'a'.ljust(1000000000) }}",
        "{{ range(1000000000) | list }}",
        "{{ [1] | batch(1000000000) }}",
        "{{ 1 | round(1000000000) }}",
        "{{ lipsum(1000000) }}",
        "{{ 'a' | center(1000000000) }}",
        "{% for x in [[1]] recursive %}{{ loop(x) }}{% endfor %}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ f() }}",
        "{{ range.__globals__ | length }}{{ f.__globals__() }}",
        "{{ cycler('a').__init__() }}",
        "(" * 500 + "{{ " + "(" * 5000 + ")" * 5000 + " }}",
        "{% if x %}" * 200 + "{% endif %}" * 200,
        "x" * (MAX_SOURCE + 1),
    ],
)
def test_no_template_takes_long_or_grows_large(source: str) -> None:
    begun = time.process_time()
    with pytest.raises(TemplateInvalid) as refused:
        said(source, big=list(range(5000)), long="a" * 100_000, f=open)
    assert time.process_time() - begun < 5
    assert re.search(r"[.…]$", str(refused.value))


@pytest.mark.parametrize(
    "source",
    [
        "{{ '{0.__class__}'.format(x) }}",
        "{{ '%s' | format(f) }}",
        "{{ x | attr('__class__') }}",
        "{{ x['__class__'] }}{{ x.__class__ }}{{ x['__cla' ~ 'ss__'] }}",
        "{{ [x] | map('attr', '__class__') | list }}",
        "{{ [x] | map(attribute='__class__.__mro__') | join }}",
        "{{ [x] | join(attribute='__class__') }}{{ [x] | sort(attribute='__class__') | first }}",
        "{{ self._TemplateReference__context }}{{ self.__init__.__globals__ }}",
        "{{ namespace.__init__.__globals__ }}{{ range.__self__ }}{{ money.__globals__ }}",
        "{% for a in [1] %}{{ loop.__class__ }}{{ loop['__init__'] }}{{ loop._iterable }}{% endfor %}",
        "{% macro m() %}{{ m.__globals__ }}{{ caller }}{% endmacro %}{{ m() }}",
        "{{ ''.join.__self__ }}{{ d.items.__func__ }}{{ d.get.__self__ }}",
        "{{ environment }}{{ context }}{{ config }}{{ g }}{{ request }}",
        "{{ f.secret }}{{ f['secret'] }}{{ f.__dict__ }}",
        "{{ _link('a') }}",
    ],
)
def test_nothing_reaches_behind_the_data(source: str) -> None:
    class Object:
        secret = "the secret"

    try:
        printed = said(source, x="abc", d={"a": 1}, f=Object)
    except TemplateInvalid:
        return
    assert printed in ("", "abc")


def test_a_long_mail_is_within_bounds() -> None:
    products = [{"name": f"Lamp {n}", "price": 9.5 * n} for n in range(100)]
    row = "<tr>" + "<td style='padding: 4px'>" * 20 + "{{ p.name }} {{ p.price | money }}</tr>"
    assert len(said("{% for p in products %}" + row + "{% endfor %}", products=products)) < MAX_WORK


def test_work_is_counted_alike_every_time() -> None:
    source = "{% for p in products %}{{ p.name | upper }}{% endfor %}"
    template = compile_template(source, html=True, name="t")
    left = set()
    for _ in range(3):
        rendition = Rendition("en", ZoneInfo("UTC"), "EUR", str)
        render(template, {"products": [{"name": "x" * n} for n in range(50)]}, rendition)
        left.add(rendition.left)
    assert len(left) == 1


def test_errors_tell_the_line() -> None:
    for source, line in (("a\n{{ b", 2), ("\n\n{{ x | nope }}", 3), ("\n{% for p in t %}\n{{ p }}{% endfor %}", 3)):
        with pytest.raises(TemplateInvalid) as refused:
            said(source, t=[{"a": 1}])
        assert refused.value.line == line


def test_data_cannot_be_changed() -> None:
    data = {"a": [1]}
    for source in ("{{ t.a.append(2) }}", "{{ t.update({'b': 1}) }}", "{% set t.b = 1 %}", "{{ t.clear() }}"):
        with pytest.raises(TemplateInvalid):
            said(source, t=data)
    assert data == {"a": [1]}


# Filters of our own.


@pytest.mark.parametrize(
    ("source", "locale", "expected"),
    [
        ("{{ 1234.5 | money('EUR') }}", "en", "€1,234.50"),
        ("{{ 1234.5 | money('NOK') }}", "nb-NO", "1\u00a0234,50\u00a0kr"),
        ("{{ 1234567.891 | money('EUR') }}", "de", "1.234.567,89\u00a0€"),
        ("{{ 1234 | money('EUR') }}", "es", "1234,00\u00a0€"),
        ("{{ 12345 | money('EUR') }}", "es", "12.345,00\u00a0€"),
        ("{{ -5 | money('USD') }}", "en-US", "-$5.00"),
        ("{{ 1234 | money('JPY') }}", "en", "¥1,234"),
        ("{{ '19.90' | money }}", "sv", "19,90\u00a0kr"),
        ("{{ 'nineteen' | money }}", "en", ""),
        ("{{ 5 | money('{x}') }}", "en", "{X}5.00"),
        ("{{ 0.005 | money('EUR') }}", "fr", "0,01\u00a0€"),
        ("{{ '2026-03-02' | date }}", "en", "2 March 2026"),
        ("{{ '2026-03-02' | date }}", "en-US", "March 2, 2026"),
        ("{{ '2026-03-02' | date('full') }}", "de-AT", "Montag, 2. März 2026"),
        ("{{ '2026-03-02' | date('short') }}", "nb", "02.03.2026"),
        ("{{ '2026-03-02T23:30:00Z' | date }}", "nb", "3. mars 2026"),
        ("{{ '2026-03-02T23:30:00' | date }}", "xx", "3 March 2026"),
        ("{{ 'yesterday' | date }}{{ 5 | date }}", "en", ""),
    ],
)
def test_money_and_dates_in_the_readers_way(source: str, locale: str, expected: str) -> None:
    assert said(source, locale=locale) == expected


def test_styles_of_dates_that_are_not_known_are_refused() -> None:
    with pytest.raises(TemplateInvalid, match="Use short, long or full"):
        said("{{ '2026-03-02' | date('%Y') }}")
