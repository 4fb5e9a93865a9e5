"""Whatever becomes of a valid playbook, the checker says where it is wrong, or takes it; it never falls over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from shared.language import SHIPPED, Problem, check, read_folder
from shared.language.source import parse, plain

FILES = read_folder(SHIPPED)
YAML = sorted(name for name in FILES if name.endswith(".yaml"))
TEXT = sorted(FILES)

Path = tuple[str | int, ...]


def data_of(name: str) -> Any:
    document = parse(name, FILES[name], lambda problem: None)
    assert document is not None
    return plain(document.root)


def paths(data: Any, path: Path = ()) -> Iterator[Path]:
    """Every field and every list item, from the outside in."""
    inside = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from paths(value, (*path, key))


DATA = {name: data_of(name) for name in YAML}
NODES = [(name, path) for name in YAML for path in paths(DATA[name])]


def holder(data: Any, path: Path) -> Any:
    for part in path[:-1]:
        data = data[part]
    return data


def without(data: Any, path: Path) -> None:
    del holder(data, path)[path[-1]]


def renamed(data: Any, path: Path) -> None:
    """A field under another name; a text with another letter, a number one higher."""
    around, key = holder(data, path), path[-1]
    if isinstance(around, dict):
        around[f"{key}x"] = around.pop(key)
    else:
        around[key] = f"{around[key]}x" if isinstance(around[key], str) else [around[key]]


def doubled(data: Any, path: Path) -> None:
    around, key = holder(data, path), path[-1]
    if isinstance(around, dict):
        around[f"{key}-2"] = deepcopy(around[key])
    else:
        around.insert(key, deepcopy(around[key]))


def reworded(data: Any, path: Path) -> None:
    """The value with another letter, or wrapped where it is no text."""
    around, key = holder(data, path), path[-1]
    around[key] = f"{around[key]}x" if isinstance(around[key], str) else {"other": around[key]}


def emptied(data: Any, path: Path) -> None:
    holder(data, path)[path[-1]] = None


def assert_true_places(files: dict[str, bytes], problems: list[Problem]) -> None:
    for problem in problems:
        assert problem.message, problem
        assert problem.remedy, problem
        if problem.file not in files:
            # A file that is missing has no other place than its beginning.
            assert (problem.line, problem.column) == (1, 1), problem
            continue
        lines = files[problem.file].decode(errors="replace").split("\n")
        assert 1 <= problem.line <= len(lines), problem
        assert 1 <= problem.column <= len(lines[problem.line - 1]) + 1, problem


@settings(max_examples=80, deadline=None)
@given(st.sampled_from(NODES), st.sampled_from([without, renamed, doubled, reworded, emptied]))
def test_any_node_deleted_renamed_doubled_or_changed(node: tuple[str, Path], change: Any) -> None:
    name, path = node
    data = deepcopy(DATA[name])
    change(data, path)
    files = {**FILES, name: json.dumps(data, indent=1).encode()}
    assert_true_places(files, check(files))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(TEXT), st.data())
def test_any_line_lost_doubled_or_cut(name: str, data: st.DataObject) -> None:
    lines = FILES[name].decode().split("\n")
    number = data.draw(st.integers(0, len(lines) - 1))
    column = data.draw(st.integers(0, len(lines[number])))
    line = lines[number]
    instead = data.draw(
        st.sampled_from([[], [line, line], [line[:column]], [line[column:]], [line[:column] + line[column + 1 :]]])
    )
    files = {**FILES, name: "\n".join([*lines[:number], *instead, *lines[number + 1 :]]).encode()}
    assert_true_places(files, check(files))


@settings(max_examples=15, deadline=None)
@given(st.sampled_from(TEXT))
def test_any_file_lost(name: str) -> None:
    files = {other: data for other, data in FILES.items() if other != name}
    assert_true_places(files, check(files))
