"""YAML with places: what scalars mean, and what is said about each trap that YAML sets."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.language.problems import Problem
from shared.language.source import MAX_BYTES, MAX_DEPTH, Document, Place, Scalar, parse, plain


def problems_of(text: str | bytes) -> list[str]:
    found: list[Problem] = []
    parse("a.yaml", text.encode() if isinstance(text, str) else text, found.append)
    return [str(problem) for problem in found]


def document(text: str) -> Document:
    found: list[Problem] = []
    read = parse("a.yaml", text.encode(), found.append)
    assert read is not None, found
    assert not found
    return read


def value_of(text: str) -> object:
    return plain(document(f"value: {text}").root)["value"]  # type: ignore[index]


# Scalars of YAML 1.2


@pytest.mark.parametrize("word", ["NO", "no", "on", "Off", "yes", "y", "21:00", "012", "1_000", "0x1F", "0o17", "1e3"])
def test_words_that_older_yaml_takes_for_something_else_are_text(word: str) -> None:
    assert value_of(word) == word


@pytest.mark.parametrize("word", ["2026-03-02", ".5", "5.", ".inf", ".nan", "=", "<<", "2026-03-02T20:30:00+01:00"])
def test_dates_and_odd_numbers_are_text(word: str) -> None:
    assert value_of(word) == word


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("0", 0),
        ("-12", -12),
        ("+3", 3),
        ("0.10", Decimal("0.10")),
        ("-2.5", Decimal("-2.5")),
        ("'true'", "true"),
        ('"12"', "12"),
    ],
)
def test_the_core_schema_stays(word: str, value: object) -> None:
    assert value_of(word) == value
    assert type(value_of(word)) is type(value)


def test_a_number_too_long_for_one_is_text() -> None:
    assert value_of("9" * 30) == "9" * 30


def test_keys_are_always_text() -> None:
    assert plain(document("on: 1\nNO: 2\n12: 3\ntrue: 4").root) == {"on": 1, "NO": 2, "12": 3, "true": 4}


# Places


def test_places_of_keys_values_and_items_count_from_one() -> None:
    found = document("steps:\n  - wait: 1h\n  - {email: welcome, with: {code: key}}\n")
    assert found.at(()) == Place(1, 1)
    assert found.at_key(("steps", 0, "wait")) == Place(2, 5)
    assert found.at(("steps", 0, "wait")) == Place(2, 11)
    assert found.at(("steps", 1)) == Place(3, 5)
    assert found.at(("steps", 1, "with", "code")) == Place(3, 35)
    assert found.at(("steps", 1, "nowhere", "deeper")) == Place(3, 5)


def test_columns_count_characters_and_a_byte_order_mark_counts_for_nothing() -> None:
    found = parse("a.yaml", "\ufeffé: 😀 x\nb: y".encode(), lambda problem: None)
    assert found is not None
    assert found.at(("é",)) == Place(1, 4)
    assert found.at(("b",)) == Place(2, 4)


@pytest.mark.parametrize(
    ("text", "word", "line", "column"),
    [
        ("when: a and b", "b", 1, 13),
        ("when: 'it''s and b'", "b", 1, 18),
        ('when: "x \\" y \\u00e9 b"', "b", 1, 22),
        ("when: a\n  and b", "b", 2, 7),
        ("when: a\n\n  and b", "b", 3, 7),
        ("when: >-\n  a and\n  b", "b", 3, 3),
        ("when: |\n  a and\n   b", "b", 3, 4),
        ("- when: |2-\n    a and\n\n    b", "b", 4, 5),
        ("when: 'a\n   and b'", "b", 2, 8),
        ('when: "a \\\n   and b"', "b", 2, 8),
    ],
)
def test_a_word_is_found_where_it_was_written_through_quotes_and_folds(
    text: str, word: str, line: int, column: int
) -> None:
    found = document(text)
    path = (0, "when") if text.startswith("-") else ("when",)
    node = found.node(path)
    assert isinstance(node, Scalar)
    assert found.within(path, node.text.rindex(word)) == Place(line, column)


@given(st.text(alphabet="ab '\"\\é:#\n", max_size=30), st.sampled_from(["'", '"', "|", ">"]))
def test_every_character_of_a_scalar_has_a_place_inside_it(text: str, style: str) -> None:
    import yaml

    written = "when: " + yaml.dump(text, Dumper=yaml.CSafeDumper, default_style=style, allow_unicode=True, width=20)
    found = parse("a.yaml", written.encode(), lambda problem: None)
    if found is None or not isinstance(node := found.node(("when",)), Scalar):
        return
    lines = written.splitlines()
    places = [found.within(("when",), offset) for offset in range(len(node.text))]
    assert places == sorted(places, key=lambda place: (place.line, place.column))
    for place, character in zip(places, node.text, strict=True):
        assert 1 <= place.line <= len(lines)
        if character in "abé":
            assert lines[place.line - 1][place.column - 1] in (character, "\\")


# Traps


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "event: A\nkey: b\nevent: C",
            'a.yaml:3:1: "event" stands twice: here, and in line 1, column 1. Keep one of the two.',
        ),
        (
            "a: &x 1",
            'a.yaml:1:4: a value that begins with "&" gets a YAML anchor, which playbooks do not have. '
            "Remove it, or put the value in single quotes if it is text.",
        ),
        (
            "a: *x",
            'a.yaml:1:4: a value that begins with "*" is a YAML alias, which playbooks do not have. '
            "Write the value out, or put it in single quotes if it is text.",
        ),
        (
            "a: !consented",
            'a.yaml:1:4: a value that begins with "!" gets a YAML tag, which playbooks do not have. '
            'Put the value in single quotes; in an expression write "not" and "!=".',
        ),
        (
            "a: @home",
            'a.yaml:1:4: a value cannot begin with "@" in YAML. Put the whole value in single quotes.',
        ),
        (
            "a: `b`",
            'a.yaml:1:4: a value cannot begin with "`" in YAML. Put the whole value in single quotes.',
        ),
        (
            "a: %b",
            'a.yaml:1:4: a value cannot begin with "%" in YAML. Put the whole value in single quotes.',
        ),
        ("%b: 1", 'a.yaml:1:1: a line cannot begin with "%" in YAML. Put the text in single quotes.'),
        (
            "a: >= 3",
            'a.yaml:1:4: a value cannot begin with ">" in YAML. Put the whole value in single quotes.',
        ),
        (
            "a: ]",
            'a.yaml:1:4: a value cannot begin with "]" in YAML. Put the whole value in single quotes.',
        ),
        ("a:\n\tb: 1", "a.yaml:2:1: a tab stands here, and YAML indents with spaces. Replace it by spaces."),
        ("a: b\n \tc: 1", "a.yaml:2:2: a tab stands here, and YAML indents with spaces. Replace it by spaces."),
        (
            'when: "vip" in customer.segments',
            "a.yaml:1:13: the quotation ends before this, and more text follows. Put the whole value in single quotes.",
        ),
        (
            "when: 'a' == b",
            "a.yaml:1:11: the quotation ends before this, and more text follows. Put the whole value in double quotes.",
        ),
        ('a: "b\nc: d', 'a.yaml:1:4: this quotation is never closed. Add the missing " where it ends.'),
        (
            "a: b: c",
            'a.yaml:1:5: ": " stands inside a value, where YAML begins a new field. '
            "Put the whole value in single quotes.",
        ),
        (
            "a: b\n  c: d",
            "a.yaml:2:3: this line stands deeper than the one before, which already has its value. Indent both alike.",
        ),
        (
            "a:\n  b: c\n d: e",
            "a.yaml:3:2: this line is indented like nothing above it. Indent it like the fields that it belongs to.",
        ),
        (
            "- a\nb: c",
            'a.yaml:2:1: this line stands where another "- " item of the list is expected. '
            'Begin it with "- ", or indent it like the field that it belongs to.',
        ),
        (
            "a: - b",
            'a.yaml:1:4: "- " begins a list item, and here stands a field\'s value. '
            "Put each item on a line of its own, or the value in single quotes.",
        ),
        ("a: {b: c", 'a.yaml:1:4: "{" is never closed. Add the missing "}".'),
        ("a: [b, c", 'a.yaml:1:4: "[" is never closed. Add the missing "]".'),
        (
            'a: {where: event.x in ["b"]}',
            'a.yaml:1:23: inside { } and [ ] a "[" begins a new list or mapping, so the value is cut here. '
            "Put the whole value in single quotes.",
        ),
        (
            '- {event: A, where: count("B", within=1d) > 1}',
            "a.yaml:1:30: inside { } and [ ] a comma ends the value, so the expression is cut here. "
            "Put the whole value in single quotes.",
        ),
        (
            'where: event.name == "a #1"',
            'a.yaml:1:24: " #" starts a YAML comment, so the expression ends inside a quotation. '
            "Put the whole value in single quotes.",
        ),
        (
            "where: event.name == 'a #1'",
            'a.yaml:1:24: " #" starts a YAML comment, so the expression ends inside a quotation. '
            "Put the whole value in single quotes.",
        ),
        (
            "where: (a or # b)",
            'a.yaml:1:13: " #" starts a YAML comment, so the expression ends before its bracket closes. '
            "Put the whole value in single quotes.",
        ),
        (
            "title: Deal #1",
            'a.yaml:1:12: warning: " #" starts a YAML comment, so this value is only "Deal". '
            "Put the whole value in single quotes, or a blank after # where a comment is meant.",
        ),
        (
            "? [a]\n: b",
            "a.yaml:1:3: a key must be a word, and here stands a list or a mapping. "
            "Begin the line with the field's name.",
        ),
        ("a: 1\n---\nb: 2", "a.yaml:2:1: a second document begins here. Keep one to a file."),
        ("", "a.yaml:1:1: this file is empty. Write its content, or remove the file."),
        ("# nothing\n", "a.yaml:1:1: this file is empty. Write its content, or remove the file."),
        ("a: b\u200bc\u2028d", "a.yaml:1:7: an invisible character (U+2028) stands here. Remove it."),
        ("a: b\x07", "a.yaml:1:5: an invisible character (U+0007) stands here. Remove it."),
        (
            "a:\n \u00a0b: c",
            "a.yaml:2:2: this line is indented with a special space, as web pages have them, and YAML does not count "
            "it. Replace it by plain spaces.",
        ),
        (b"a: caf\xe9", "a.yaml:1:7: this file is not UTF-8: the byte 0xe9 is none of it. Save it as UTF-8."),
        ("a: b".encode("utf-16"), "a.yaml:1:1: this file is not UTF-8: it looks like UTF-16. Save it as UTF-8."),
    ],
)
def test_each_trap_is_named_where_it_stands(text: str | bytes, said: str) -> None:
    assert said in problems_of(text)


def test_an_ordinary_comment_is_not_remarked_on() -> None:
    assert problems_of("a: don't rock 'n roll  # so\nb: {c: rock 'n roll, d: 1}\n") == []
    assert problems_of("a: b  # counted from entry\nc: d # why not\n# whole line\n") == []


def test_too_deep_and_too_large_are_refused() -> None:
    assert problems_of("[" * (MAX_DEPTH + 3) + "]" * (MAX_DEPTH + 3)) == [
        f"a.yaml:1:{MAX_DEPTH + 2}: this lies more than {MAX_DEPTH} levels deep. Write it flatter."
    ]
    assert problems_of(b"a" * (MAX_BYTES + 1)) == [
        "a.yaml:1:1: this file has 256 KB, and 256 KB is the most that is read. Split it."
    ]


def test_all_duplicates_of_a_file_are_reported_at_once() -> None:
    assert len(problems_of("a: 1\na: 2\nb: {c: 1, c: 2}\n")) == 2


@given(st.one_of(st.binary(max_size=80), st.text(alphabet="ab:-{}[]&*!|>'\"%@`#,?\n \t\\", max_size=60)))
def test_no_bytes_make_the_reader_fail_otherwise_than_by_a_problem(data: bytes | str) -> None:
    found: list[Problem] = []
    read = parse("a.yaml", data if isinstance(data, bytes) else data.encode(), found.append)
    assert read is not None or found
    for problem in found:
        assert problem.line >= 1
        assert problem.column >= 1


def test_a_word_that_stands_alone_may_be_the_last_of_the_file() -> None:
    (said,) = problems_of("journey: cart\ntrigger:\n  event: A\nstep")
    assert said.endswith(' Write "step:".')
