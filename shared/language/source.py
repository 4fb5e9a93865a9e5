"""YAML as text with places: which line and column every key and value came from, and the traps that YAML sets.

Scalars are those of YAML 1.2's core schema, narrowed to what a marketer writes: `NO`, `on`, `21:00` and `012` are text;
`true`, `false`, `null`, whole numbers and decimals are not. Anchors, aliases, tags, several documents and duplicate
keys are refused, each with its place. https://yaml.org/spec/1.2.2/#103-core-schema
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import pairwise

import msgspec
import yaml

from shared.language.problems import Problem, Severity, quoted

MAX_BYTES = 256 * 1024
"""The size of one file that is read; a journey of 200 steps has about 15 KB."""
MAX_DEPTH = 48
"""How deep lists and mappings may nest."""

Path = tuple[str | int, ...]
"""The way from a document's root to a value: keys and list positions."""
Value = None | bool | int | Decimal | str

_WHOLE = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\.[0-9]{1,18}")
_NULLS = frozenset(("", "~", "null", "Null", "NULL"))
_BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_ODD_INDENT = re.compile("^[ \t]*([\u00a0\u2000-\u200b\u202f\u3000])", re.MULTILINE)
_CUT = re.compile(r"[ \t]+#")
_ESCAPES = {"x": 2, "u": 4, "U": 8}


class Place(msgspec.Struct, frozen=True):
    """Line and column, counted from 1 in characters, as editors do."""

    line: int
    column: int


class Scalar(msgspec.Struct, frozen=True):
    """A single value. `text` is what was written, `value` what it means; `start` and `end` are places in the text."""

    text: str
    value: Value
    style: str
    start: int
    end: int


class ListNode(msgspec.Struct, frozen=True):
    items: list[Node]
    start: int


class MappingNode(msgspec.Struct, frozen=True):
    entries: dict[str, tuple[Scalar, Node]]
    start: int


Node = Scalar | ListNode | MappingNode


class Document(msgspec.Struct):
    """One YAML file. `broken` are the paths whose value was cut by a trap that has been reported already."""

    file: str
    text: str
    root: Node
    broken: set[Path] = set()
    _lines: list[int] = []

    def place_of(self, index: int) -> Place:
        """The place of the character with this index in the text."""
        if not self._lines:
            self._lines = line_starts(self.text)
        line = bisect_right(self._lines, index)
        return Place(line, index - self._lines[line - 1] + 1)

    def node(self, path: Path) -> Node | None:
        """The node at a path, or None where there is none."""
        node: Node | None = self.root
        for part in path:
            node = child(node, part)
        return node

    def at(self, path: Path) -> Place:
        """Where the value at `path` begins; where there is none, the nearest value around it."""
        node = self.root
        for part in path:
            below = child(node, part)
            if below is None:
                break
            node = below
        return self.place_of(node.start)

    def at_key(self, path: Path) -> Place:
        """Where the key at the end of `path` begins; for a list item, the item."""
        parent = self.node(path[:-1]) if path else None
        if isinstance(parent, MappingNode) and path[-1] in parent.entries:
            return self.place_of(parent.entries[str(path[-1])][0].start)
        return self.at(path)

    def within(self, path: Path, offset: int) -> Place:
        """Where the character with this offset in the value at `path` was written, through quotes and folds."""
        node = self.node(path)
        if not isinstance(node, Scalar):
            return self.at(path)
        passed = 0
        for index, width in _characters(self.text, node):
            passed += width
            if offset < passed:
                return self.place_of(index)
        return self.place_of(node.end if node.style == "" else max(node.start, node.end - 1))

    def is_broken(self, path: Path) -> bool:
        """Whether a trap has cut the value at `path` or one around it."""
        return any(path[:length] in self.broken for length in range(len(path) + 1))

    def problem(self, place: Place, message: str, remedy: str, severity: Severity = "error") -> Problem:
        return Problem(self.file, place.line, place.column, message, remedy, severity)


def child(node: Node | None, part: str | int) -> Node | None:
    """What lies under a key or list position."""
    if isinstance(node, MappingNode):
        entry = node.entries.get(str(part))
        return entry[1] if entry else None
    if isinstance(node, ListNode) and isinstance(part, int) and part < len(node.items):
        return node.items[part]
    return None


def plain(node: Node) -> object:
    """A node as dictionaries, lists and scalars, without places."""
    if isinstance(node, MappingNode):
        return {key: plain(value) for key, (_, value) in node.entries.items()}
    if isinstance(node, ListNode):
        return [plain(item) for item in node.items]
    return node.value


def line_starts(text: str) -> list[int]:
    """The index at which each line begins; a line ends with a line feed, a carriage return, or both."""
    return [0, *(found.end() for found in re.finditer(r"\r\n|\n|\r", text))]


def decode(file: str, data: bytes, report: Callable[[Problem], None], limit: int = MAX_BYTES) -> str | None:
    """A file's text; a byte order mark is dropped. What is too large or not UTF-8 is reported, and None returned."""
    if len(data) > limit:
        message = f"this file has {len(data) // 1024} KB, and {limit // 1024} KB is the most that is read."
        report(Problem(file, 1, 1, message, "Split it."))
        return None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8", "replace").removeprefix("\ufeff")
        place = _place(before, len(before))
        wide = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        found = "it looks like UTF-16" if wide else f"the byte 0x{data[error.start]:02x} is none of it"
        report(Problem(file, place.line, place.column, f"this file is not UTF-8: {found}.", "Save it as UTF-8."))
        return None


def parse(file: str, data: bytes, report: Callable[[Problem], None]) -> Document | None:
    """Reads one YAML file. Problems go to `report`; None where nothing can be said about the rest of the file."""
    text = decode(file, data, report)
    if text is None:
        return None
    refused = _refused_characters(file, text)
    if refused:
        for problem in refused:
            report(problem)
        return None
    reader = _Reader(file, text, report)
    try:
        return reader.read()
    except yaml.MarkedYAMLError as error:
        problem = _reworded(file, text, error)
        if problem.line not in reader.cut_lines:
            report(problem)
    except yaml.YAMLError as error:
        report(Problem(file, 1, 1, f"this is not YAML: {' '.join(str(error).split())}.", "Check the file."))
    return None


def _refused_characters(file: str, text: str) -> list[Problem]:
    problems = []
    for found in _FORBIDDEN.finditer(text):
        place = _place(text, found.start())
        name = f"U+{ord(found.group()):04X}"
        message = f"an invisible character ({name}) stands here."
        problems.append(Problem(file, place.line, place.column, message, "Remove it."))
    for found in _ODD_INDENT.finditer(text):
        place = _place(text, found.start(1))
        message = "this line is indented with a special space, as web pages have them, and YAML does not count it."
        problems.append(Problem(file, place.line, place.column, message, "Replace it by plain spaces."))
    return problems[:20]


def _place(text: str, index: int) -> Place:
    starts = line_starts(text[:index])
    return Place(len(starts), index - starts[-1] + 1)


def _start(event: yaml.Event) -> int:
    return event.start_mark.index if event.start_mark else 0


def _end(event: yaml.Event) -> int:
    return event.end_mark.index if event.end_mark else 0


class _Stop(Exception):
    """The rest of the file cannot be understood; the reason has been reported."""


class _Reader:
    """Builds nodes from YAML's events, and reports traps as it meets them."""

    def __init__(self, file: str, text: str, report: Callable[[Problem], None]) -> None:
        self.text = text
        self.report = report
        self.document = Document(file, text, Scalar("", None, "", 0, 0))
        self.cut_lines: set[int] = set()
        """Lines with a value that was cut short: that has been said, and what the parser finds there follows of it."""
        self.events: Iterator[yaml.Event] = iter(yaml.parse(text, Loader=yaml.CSafeLoader))

    def read(self) -> Document | None:
        document = self.document
        root: Node | None = None
        try:
            for event in self.events:
                if isinstance(event, yaml.DocumentStartEvent):
                    if root is not None:
                        self.trap(_start(event), "a second document begins here.", "Keep one to a file.")
                        return None
                    root = self.node(next(self.events), (), 0, flow=False)
        except _Stop:
            return None
        if root is None:
            self.trap(0, "this file is empty.", "Write its content, or remove the file.")
            return None
        document.root = root
        return document

    def trap(self, index: int, message: str, remedy: str, severity: Severity = "error") -> None:
        self.report(self.document.problem(self.document.place_of(index), message, remedy, severity))

    def node(self, event: yaml.Event, path: Path, depth: int, flow: bool) -> Node:
        start = _start(event)
        if depth > MAX_DEPTH:
            self.trap(start, f"this lies more than {MAX_DEPTH} levels deep.", "Write it flatter.")
            raise _Stop
        if isinstance(event, yaml.AliasEvent):
            message = 'a value that begins with "*" is a YAML alias, which playbooks do not have.'
            self.trap(start, message, "Write the value out, or put it in single quotes if it is text.")
            self.document.broken.add(path)
            return Scalar("", None, "", start, _end(event))
        assert isinstance(event, yaml.NodeEvent)
        self.refuse_properties(event, path)
        if isinstance(event, yaml.ScalarEvent):
            return self.scalar(event, path, flow)
        if isinstance(event, yaml.SequenceStartEvent):
            return self.list(event, path, depth)
        assert isinstance(event, yaml.MappingStartEvent)
        return self.mapping(event, path, depth)

    def refuse_properties(self, event: yaml.NodeEvent, path: Path) -> None:
        start = _start(event)
        tag = getattr(event, "tag", None)
        if event.anchor:
            message = 'a value that begins with "&" gets a YAML anchor, which playbooks do not have.'
            self.trap(start, message, "Remove it, or put the value in single quotes if it is text.")
        elif tag is not None:
            message = 'a value that begins with "!" gets a YAML tag, which playbooks do not have.'
            self.trap(start, message, 'Put the value in single quotes; in an expression write "not" and "!=".')
        else:
            return
        self.document.broken.add(path)

    def scalar(self, event: yaml.ScalarEvent, path: Path, flow: bool) -> Scalar:
        style = event.style or ""
        start, end = _start(event), _end(event)
        text: str = event.value
        if style:
            return Scalar(text, text, style, start, end)
        self.find_cuts(text, end, path, flow)
        return Scalar(text, resolved(text), "", start, end)

    def find_cuts(self, text: str, end: int, path: Path, flow: bool) -> None:
        """Reports a plain value that ` #` or a comma has cut short of what its writer meant."""
        if not text:
            return
        after = _CUT.match(self.text, end)
        closing = _unfinished(text)
        line_end = self.text.find("\n", end)
        rest = self.text[end : line_end if line_end >= 0 else len(self.text)]
        cut = closing is not None and closing in rest
        if after and cut:
            inside = "inside a quotation" if closing in ("'", '"') else "before its bracket closes"
            message = f'" #" starts a YAML comment, so the expression ends {inside}.'
            self.trap(after.start(), message, "Put the whole value in single quotes.")
            self.document.broken.add(path)
        elif after and after.end() - end == 2 and self.text[after.end() : after.end() + 1].isalnum():
            message = f'" #" starts a YAML comment, so this value is only {quoted(text)}.'
            remedy = "Put the whole value in single quotes, or a blank after # where a comment is meant."
            self.trap(after.start(), message, remedy, "warning")
        elif flow and cut and rest.lstrip().startswith(","):
            message = "inside { } and [ ] a comma ends the value, so the expression is cut here."
            self.trap(end + rest.index(","), message, "Put the whole value in single quotes.")
            self.cut_lines.add(self.document.place_of(end).line)
            self.document.broken.add(path[:-1])

    def list(self, event: yaml.SequenceStartEvent, path: Path, depth: int) -> ListNode:
        items: list[Node] = []
        while not isinstance(below := next(self.events), yaml.SequenceEndEvent):
            items.append(self.node(below, (*path, len(items)), depth + 1, bool(event.flow_style)))
        return ListNode(items, _start(event))

    def mapping(self, event: yaml.MappingStartEvent, path: Path, depth: int) -> MappingNode:
        entries: dict[str, tuple[Scalar, Node]] = {}
        flow = bool(event.flow_style)
        while not isinstance(below := next(self.events), yaml.MappingEndEvent):
            if not isinstance(below, yaml.ScalarEvent):
                message = "a key must be a word, and here stands a list or a mapping."
                self.trap(_start(below), message, "Begin the line with the field's name.")
                raise _Stop
            self.refuse_properties(below, path)
            name: str = below.value
            key = Scalar(name, name, below.style or "", _start(below), _end(below))
            value = self.node(next(self.events), (*path, name), depth + 1, flow)
            if name in entries:
                first = self.document.place_of(entries[name][0].start)
                message = f"{quoted(name)} stands twice: here, and in line {first.line}, column {first.column}."
                self.trap(key.start, message, "Keep one of the two.")
            else:
                entries[name] = (key, value)
        return MappingNode(entries, _start(event))


def resolved(text: str) -> Value:
    """What an unquoted scalar means."""
    if text in _NULLS:
        return None
    if text in _BOOLEANS:
        return _BOOLEANS[text]
    if _WHOLE.fullmatch(text):
        return int(text)
    if _DECIMAL.fullmatch(text):
        return Decimal(text)
    return text


_OPENS = re.compile(r"[\"'(\[]")


def _unfinished(text: str) -> str | None:
    """What a text still lacks that ends inside a quotation or a bracket: the sign that would close it."""
    if not _OPENS.search(text):
        return None
    quote: str | None = None
    brackets: list[str] = []
    escaped = False
    for before, character in pairwise(" " + text):
        if escaped:
            escaped = False
        elif quote is not None:
            escaped = character == "\\"
            quote = None if character == quote else quote
        elif character == '"' or (character == "'" and not before.isalnum()):
            quote = character
        elif character in "([":
            brackets.append(")" if character == "(" else "]")
        elif character in ")]" and brackets:
            brackets.pop()
    return quote or (brackets[-1] if brackets else None)


def _characters(text: str, node: Scalar) -> Iterator[tuple[int, int]]:
    """For each character of a scalar's value, the index at which it was written, with how many it stands for."""
    if node.style in ("|", ">"):
        yield from _block_characters(text, node)
        return
    index, end = node.start, node.end
    if node.style:
        index, end = index + 1, end - 1
    while index < end:
        character = text[index]
        fold = re.compile(r"[ \t]*(\r\n|\n|\r)\s*").match(text, index, end)
        if fold:
            breaks = len(re.findall(r"\r\n|\n|\r", fold.group()))
            yield index, max(1, breaks - 1)
            index = fold.end()
        elif node.style == "'" and text.startswith("''", index):
            yield index, 1
            index += 2
        elif node.style == '"' and character == "\\":
            continued = re.compile(r"\\(\r\n|\n|\r)[ \t]*").match(text, index, end)
            if continued:
                index = continued.end()
                continue
            yield index, 1
            index += 2 + _ESCAPES.get(text[index + 1 : index + 2], 0)
        else:
            yield index, 1
            index += 1


def _block_characters(text: str, node: Scalar) -> Iterator[tuple[int, int]]:
    """The same for `|` and `>`: the header line is skipped, and each line's indentation."""
    starts = [node.start + start for start in line_starts(text[node.start : node.end])][1:]
    lines = [text[start:end] for start, end in pairwise([*starts, node.end])]
    # With an indentation indicator (`|2`) the value itself begins with blanks.
    written = next((_blanks(line) for line in lines if line.strip()), 0)
    indent = written - next((_blanks(line) for line in node.text.splitlines() if line.strip()), 0)
    value = 0
    for start, line in zip(starts, lines, strict=True):
        index = min(indent, _blanks(line))
        for offset, character in enumerate(line[index:].rstrip("\r\n") + "\n", index):
            if value < len(node.text) and (node.text[value] == character or character == "\n"):
                if character == "\n" and not node.text[value].isspace():
                    continue
                yield start + offset, 1
                value += 1


def _blanks(line: str) -> int:
    return len(line) - len(line.lstrip(" "))


_GLUED = re.compile(r"([ \t]*(?:- +)?)([A-Za-z_][\w-]*):(?!//)([^\s:][^\n]*)\n")


def _reworded(file: str, text: str, error: yaml.MarkedYAMLError) -> Problem:
    """A parser's complaint in words that say what to do about it."""
    said = " ".join(filter(None, (error.context, error.problem)))
    mark = error.problem_mark or error.context_mark
    index = min(mark.index, len(text)) if mark else 0
    begin = error.context_mark.index if error.context_mark else index
    starts = line_starts(text)
    place_line = bisect_right(starts, index)
    line_start = starts[place_line - 1]
    before, character = text[line_start:index], text[index : index + 1]

    def problem(at: int, message: str, remedy: str) -> Problem:
        place = _place(text, at)
        return Problem(file, place.line, place.column, message, remedy)

    indentation = text[line_start : line_start + len(text[line_start:]) - len(text[line_start:].lstrip(" \t"))]
    quote = "Put the whole value in single quotes."
    if character == "\t" or "\t" in indentation:
        at = index if character == "\t" else line_start + indentation.index("\t")
        return problem(at, "a tab stands here, and YAML indents with spaces.", "Replace it by spaces.")
    if "cannot start any token" in said:
        return problem(index, f'a value cannot begin with "{character}" in YAML.', quote)
    if "directive" in said:
        return problem(begin, 'a line cannot begin with "%" in YAML.', "Put the text in single quotes.")
    if "quoted scalar" in said:
        message = "this quotation is never closed."
        return problem(begin, message, f"Add the missing {text[begin : begin + 1]} where it ends.")
    if "could not find expected ':'" in said and "simple key" in said:
        word = text[begin:].partition("\n")[0].partition(" #")[0].strip()
        return problem(begin, f"{quoted(word)} stands alone, and here a field is expected.", f'Write "{word}:".')
    if "mapping values are not allowed" in said:
        glued = _GLUED.match(text, starts[max(place_line - 2, 0)])
        if glued:
            remedy = f'Write "{glued[2]}: {glued[3]}".'
            return problem(glued.start(2), f"a blank is missing after the colon of {quoted(glued[2])}.", remedy)
        if re.search(r":\s", before):
            return problem(index, '": " stands inside a value, where YAML begins a new field.', quote)
        message = "this line stands deeper than the one before, which already has its value."
        return problem(line_start + len(indentation), message, "Indent both alike.")
    if "block scalar" in said:
        return problem(begin, f'a value cannot begin with "{text[begin : begin + 1]}" in YAML.', quote)
    if "block sequence entries" in said:
        message = '"- " begins a list item, and here stands a field\'s value.'
        return problem(index, message, "Put each item on a line of its own, or the value in single quotes.")
    if re.search(r"parsing a flow (mapping|sequence)", said):
        if character and character in "[{":
            message = f'inside {{ }} and [ ] a "{character}" begins a new list or mapping, so the value is cut here.'
            return problem(index, message, quote)
        if not text[index:].strip() or place_line > bisect_right(starts, begin):
            bracket = text[begin : begin + 1]
            return problem(
                begin, f'"{bracket}" is never closed.', f'Add the missing "{ {"{": "}"}.get(bracket, "]") }".'
            )
        return problem(index, "the value before this is finished, and more follows.", "Add a comma, or use quotes.")
    if "node content" in said and character:
        return problem(index, f'a value cannot begin with "{character}" in YAML.', quote)
    if re.search(r":\s+(?P<q>[\"'])(?:(?!(?P=q)).)*(?P=q)\s*$", before) or re.match(r"\s*- ([\"']).*\1\s*$", before):
        other = "double" if before.rstrip().endswith("'") else "single"
        message = "the quotation ends before this, and more text follows."
        return problem(index, message, f"Put the whole value in {other} quotes.")
    if "'-' indicator" in said:
        message = 'this line stands where another "- " item of the list is expected.'
        return problem(index, message, 'Begin it with "- ", or indent it like the field that it belongs to.')
    if "expected key" in said and not before.strip(" "):
        message = "this line is indented like nothing above it."
        return problem(index, message, "Indent it like the fields that it belongs to.")
    if "anchor" in said or "alias" in said or "tag" in said:
        return problem(begin, f'a value cannot begin with "{text[begin : begin + 1]}" in YAML.', quote)
    return problem(index, f"this is not YAML: {error.problem}.", "Values with special characters need quotes.")
