"""The names that a template takes from outside, read part by part."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shared.language.template_names import Used, used_in
from shared.language.templating import TemplateInvalid, compile_template


def names(text: str) -> list[str]:
    return [f"{'.'.join(use.path)}:{use.line}" for use in used_in(text).uses]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{{ a }} and\n{{ b.c['d'].e }}", ["a:1", "b.c.d.e:2"]),
        (
            "{% for one in many.of %}{{ one.x }}{{ loop.index }}{% else %}{{ one.y }}{% endfor %}",
            ["many.of:1", "one.y:1"],
        ),
        ("{% set a = b %}{{ a }}", ["b:1"]),
        ("{{ a }}{% set a = b %}", ["a:1", "b:1"]),
        ("{% if b %}{% set a = 1 %}{% endif %}{{ a }}", ["b:1"]),
        ("{% for x in y %}{% set a = 1 %}{% endfor %}{{ a }}", ["a:1", "y:1"]),
        ("{% set a %}x{{ b }}{% endset %}{{ a }}", ["b:1"]),
        ("{% macro m(x, y=z) %}{{ x }}{{ caller() }}{% endmacro %}{% call m(1) %}{{ q }}{% endcall %}", ["q:1", "z:1"]),
        ("{% with a = b %}{{ a }}{% endwith %}{{ a }}", ["a:1", "b:1"]),
        ("{% filter upper %}{{ a }}{% endfilter %}", ["a:1"]),
        ("{{ a[b].c }}", ["a.c:1", "b:1"]),
        ("{{ (a or b).c }}", ["a:1", "b:1"]),
        ("{% raw %}{{ a }}{% endraw %}{{ b }}", ["b:1"]),
        ("{# {{ a }} #}\n\n{%- if x -%}\n{{ b }}\n{%- endif %}", ["b:4", "x:3"]),
        ("{{ '}}' ~ a }}", ["a:1"]),
    ],
)
def test_names_and_their_lines(text: str, found: list[str]) -> None:
    assert sorted(names(text)) == found


def test_a_name_whose_absence_is_provided_for() -> None:
    assert used_in("{{ a | default('x') }}{% if b is defined %}{{ c }}{% endif %}").optional == {"a", "b"}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\n{% if x %}", 2),
        ("a\n{% endif %}", 2),
        ("{{ a }}\n\n{{ b | nosuchfilter }}", 3),
        ("{% for a in b %}\n{% endif %}", 2),
        ("x\n{{ a", 2),
        ("{% if a %}\n{% include 'x' %}{% endif %}", 2),
    ],
)
def test_what_cannot_be_read_is_refused_in_its_line(text: str, line: int) -> None:
    with pytest.raises(TemplateInvalid) as refused:
        used_in(text)
    assert refused.value.line == line


_name = st.sampled_from(["a", "b", "trigger.total", "traits.name"])
_leaf = st.one_of(
    st.sampled_from(["words", "\n", "<p>", "{# note #}", "}}"]),
    _name.map(lambda name: f"{{{{ {name} }}}}"),
    st.tuples(st.sampled_from("ab"), _name).map(lambda two: f"{{% set {two[0]} = {two[1]} %}}"),
)
_template = st.recursive(
    _leaf,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.tuples(_name, inner, inner).map(lambda t: f"{{% if {t[0]} %}}{t[1]}{{% else %}}{t[2]}{{% endif %}}"),
        st.tuples(_name, inner).map(lambda t: f"{{% for a in {t[0]} %}}{t[1]}\n{{% endfor %}}"),
        inner.map(lambda body: f"{{% set b %}}{body}{{% endset %}}"),
    ),
    max_leaves=12,
)


def _as_a_whole(text: str) -> Used:
    """A block around all of it leaves one part only, one line further down."""
    whole = used_in(f"{{% if true %}}\n{text}{{% endif %}}")
    return Used(tuple(type(use)(use.path, use.line - 1) for use in whole.uses), whole.optional)


@settings(max_examples=150, deadline=None)
@given(_template)
def test_parts_say_the_same_as_the_whole(text: str) -> None:
    assert used_in(text) == _as_a_whole(text)


_value = st.recursive(
    st.sampled_from(["a", "b.c", "loop.index", "1", "'x'", "none", "[a, 1]", "a[:2]", "a | round(2)", "a is defined"]),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "*", "~", "or", "and", "==", "<", "in"]), inner).map(
            lambda three: f"({' '.join(three)})"
        ),
        inner.map(lambda value: f"(not {value})"),
        inner.map(lambda value: f"({value}) | nosuch"),
        st.tuples(inner, inner, inner).map(lambda three: f"({three[0]} if {three[1]} else {three[2]})"),
    ),
    max_leaves=6,
)
_stated = st.recursive(
    st.one_of(
        _value.map(lambda value: f"{{{{ {value} }}}}"),
        st.tuples(st.sampled_from(["a", "b", "loop"]), _value).map(lambda two: f"{{% set {two[0]} = {two[1]} %}}"),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.tuples(_value, inner, inner).map(lambda t: f"{{% if {t[0]} %}}{t[1]}{{% elif b %}}{t[2]}{{% endif %}}"),
        st.tuples(st.sampled_from(["a", "b", "loop", "a, b"]), _value, inner, inner).map(
            lambda t: f"{{% for {t[0]} in {t[1]} %}}{t[2]}{{% else %}}{t[3]}{{% endfor %}}"
        ),
    ),
    max_leaves=10,
)


def _taken(read: Callable[[], object]) -> bool:
    try:
        read()
    except TemplateInvalid:
        return False
    return True


@settings(max_examples=300, deadline=None)
@given(_stated)
@example("{% for a in b %}{% set loop = 1 %}{% endfor %}")
@example("{% for a in b %}" * 25 + "{{ a }}" + "{% endfor %}" * 25)
@example("{{ " + " or ".join("ab" * 400) + " }}")
@example("{% if a %}{% for a in b recursive %}{% endfor %}{% endif %}")
def test_what_is_read_without_being_compiled_could_be(text: str) -> None:
    compiled = _taken(lambda: compile_template(text, html=True, name="template"))
    assert _taken(lambda: used_in(text)) == compiled
