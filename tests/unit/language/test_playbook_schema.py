"""The JSON Schema that editors check and complete by: it takes what loads, and every field explains itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from sample_playbook import journey, sample

from shared.language import KINDS, SHIPPED, read_folder, schema, write_schemas
from shared.language.source import parse, plain


def data_of(text: bytes) -> Any:
    document = parse("a.yaml", text, lambda problem: None)
    assert document is not None
    return json.loads(json.dumps(plain(document.root), default=float))


def kind_of(file: str) -> str | None:
    if file.startswith("journeys/"):
        return "tests" if file.endswith(".test.yaml") else "journey"
    if file.startswith("events/"):
        return "event"
    if file.endswith("message.yaml"):
        return "message"
    return file.removesuffix(".yaml") if file.endswith(".yaml") else None


FILES = {**sample(), **read_folder(SHIPPED)}
RICH = journey(
    """
    - wait: {for: 2d, until: "10:00", on: [tue]}
    - id: came
      wait_for: {event: Order Completed, where: event.cart_id == key}
      timeout: 2d
      then:
        - exit: bought
      on_timeout:
    - if: true
      then: [{email: cart-reminder, with: {a: 1}}]
    """,
    head="again: never\nmode: restart\nexit_on: [{event: Cart Emptied}]\ngoal: {event: Order Completed, within: 7d}",
    trigger='date: traits.birthday\nevery: year\nat: "09:00"\nbefore: 3d',
)


@pytest.mark.parametrize("file", sorted(name for name in FILES if kind_of(name)))
def test_a_file_that_loads_passes(file: str) -> None:
    jsonschema.validate(data_of(FILES[file]), schema(kind_of(file)))  # type: ignore[arg-type]


def test_a_journey_with_everything_passes() -> None:
    jsonschema.validate(data_of(RICH.encode()), schema("journey"))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("again: never", "again: soon"),
        ("timeout: 2d", "tmeout: 2d"),
        ("timeout: 2d", "timeout: 2 days"),
        ("mode: restart", "mod: restart"),
        ("on: [tue]", "on: [tuesday]"),
        ("exit: bought", "exits: bought"),
        ("every: year", "every: month"),
        ('at: "09:00"', "at: 9:00"),
        ("with: {a: 1}", "with: {a: [1]}"),
        ("with: {a: 1}", "with: {a-b: 1}"),
    ],
)
def test_what_does_not_load_does_not_pass(old: str, new: str) -> None:
    assert old in RICH
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data_of(RICH.replace(old, new).encode()), schema("journey"))


def fields(node: Any, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of a schema and of all its definitions."""
    for name, definition in node.get("$defs", {}).items():
        yield from fields(definition, name)
    for name, field in node.get("properties", {}).items():
        yield f"{where}.{name}", field


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_text_and_every_schema_is_one(kind: str) -> None:
    found = schema(kind)  # type: ignore[arg-type]
    jsonschema.Draft202012Validator.check_schema(found)
    silent = [
        where for where, field in fields(found, kind) if not field.get("description") and "PropertySchema" not in where
    ]
    assert silent == []


def test_schemas_are_written_where_the_files_first_lines_point(tmp_path: Path) -> None:
    write_schemas(tmp_path)
    for name, data in read_folder(SHIPPED).items():
        first = data.decode().splitlines()[0]
        if "$schema=" in first:
            pointed = (tmp_path / name).parent / first.split("$schema=")[1].strip()
            assert json.loads(pointed.resolve().read_bytes())["type"] == "object"


@pytest.mark.parametrize("kind", KINDS)
def test_a_language_server_can_complete_from_it(kind: str) -> None:
    """As tried with yaml-language-server: of oneOf it offers only the last while a word is typed, and it inserts an
    example as it is, so that fields written as text would come in quotes."""
    found = schema(kind)  # type: ignore[arg-type]
    assert "oneOf" not in json.dumps(found)
    assert all(definition["title"].islower() for definition in found.get("$defs", {}).values())
    examples = [one for _, field in fields(found, kind) for one in field.get("examples", ())]
    assert not [one for one in examples if isinstance(one, str) and one[:1] in "{[-"]
