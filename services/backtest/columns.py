"""CSV as Segment messages: a mapping file says which column is what.

    event: Order Completed                            # the same for all rows, or {column: what}
    userId: {column: customer}
    timestamp: {column: paid_at, format: "%d.%m.%Y %H:%M", timezone: Europe/Oslo}
    messageId: {column: id}
    properties:
      order_id: {column: id}
      total: {column: amount, as: number}
    delimiter: ";"                                    # comma unless given
    encoding: latin-1                                 # UTF-8 unless given

An empty cell is a field that is absent.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple
from zoneinfo import ZoneInfo

import msgspec

from services.backtest.shares import EVERYBODY, Share
from shared.errors import RapportError
from shared.language.problems import Problem, did_you_mean, listed
from shared.language.source import Document, ListNode, MappingNode, Node, Scalar, parse
from shared.walltime import known_zone

_FIELDS = ("type", "event", "name", "userId", "anonymousId", "messageId", "timestamp", "receivedAt")
_IDS = ("userId", "anonymousId")
_OBJECTS = ("properties", "traits", "context")
_SETTINGS = ("delimiter", "encoding")
_OF_A_COLUMN = ("column", "as", "format", "timezone")
_KINDS = ("text", "number", "boolean", "json", "time")
_TRUE, _FALSE = frozenset({"true", "t", "yes", "y", "1"}), frozenset({"false", "f", "no", "n", "0"})
_LONGEST_CELL = 32 * 1024

csv.field_size_limit(_LONGEST_CELL)


class MappingInvalid(RapportError):
    """A mapping file that cannot be used; the text names every place."""


class NotCsv(RapportError):
    """The rest of a file cannot be read."""

    def __init__(self, line: int, text: str) -> None:
        super().__init__(text)
        self.line = line


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row as a Segment message."""

    line: int
    message: bytes


class BadRow(NamedTuple):
    line: int
    code: str
    text: str


@dataclass(frozen=True, slots=True)
class Cell:
    """Where a value comes from: a column, and how its text is read."""

    column: str
    kind: str = "text"
    format: str | None = None
    zone: ZoneInfo | None = None

    def read(self, text: str) -> Any:
        """Raises ValueError where the text is none of its kind."""
        match self.kind:
            case "number":
                plain = text.replace("\u00a0", "").replace(" ", "")
                if "," in plain and "." not in plain:
                    plain = plain.replace(",", ".")
                number = float(plain)
                if number != number or number in (float("inf"), float("-inf")):
                    raise ValueError(text)
                return int(number) if number.is_integer() and abs(number) < 2**53 else number
            case "boolean":
                if text.lower() in _TRUE | _FALSE:
                    return text.lower() in _TRUE
                raise ValueError(text)
            case "json":
                return msgspec.json.decode(text)
            case "time":
                return self._moment(text).isoformat()
        return text

    def _moment(self, text: str) -> datetime:
        # The zone of a column stands in the mapping, where the text has none.
        moment = datetime.strptime(text, self.format) if self.format else datetime.fromisoformat(text)  # noqa: DTZ007
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=self.zone or UTC)


_OF_A_CUSTOMER = {"userId", "anonymousId", "messageId", "timestamp", "receivedAt"}
"""Fields that no two rows need have alike: a text that is also the name of a column was meant as one."""

Value = Cell | str | int | float | bool


@dataclass(frozen=True, slots=True)
class Columns:
    """A mapping, read: how a row becomes a message."""

    fields: Mapping[str, Value]
    objects: Mapping[str, Mapping[str, Value]]
    delimiter: str = ","
    encoding: str = "utf-8-sig"

    def rows(self, file: IO[bytes], share: Share = EVERYBODY) -> Iterator[Row | BadRow]:
        """Every row after the header that is of this share of the customers, in turn. Raises NotCsv where nothing more
        can be read."""
        text = io.TextIOWrapper(file, self.encoding, newline="")
        reader = csv.reader(text, delimiter=self.delimiter)
        try:
            header = next(reader, None)
            if header is None:
                raise NotCsv(1, "the file is empty: its first line names the columns.")
            places = self._places([column.strip() for column in header])
            whose = {name: self.fields[name] for name in _IDS if name in self.fields}
            for cells in reader:
                if cells and (share.of == 1 or _is_of(share, whose, cells, len(header), places)):
                    yield self._row(reader.line_num, cells, len(header), places)
        except csv.Error as error:
            raise NotCsv(reader.line_num, f"this is no CSV ({error}). Nothing after this line was read.") from None
        except UnicodeDecodeError as error:
            said = f"this is not {self.encoding} ({error.reason}). Say encoding: in the mapping, latin-1 perhaps."
            raise NotCsv(reader.line_num + 1, said) from None
        finally:
            text.detach()

    def _cells(self) -> Iterator[Cell]:
        for values in (self.fields, *self.objects.values()):
            yield from (value for value in values.values() if isinstance(value, Cell))

    def _places(self, header: list[str]) -> dict[str, int]:
        places = {column: place for place, column in reversed(list(enumerate(header)))}
        for cell in self._cells():
            if cell.column not in places:
                remedy = did_you_mean(cell.column, places, f"There are {listed(header, 'and')}.")
                raise NotCsv(1, f'there is no column "{cell.column}". {remedy}')
        for field in _OF_A_CUSTOMER & self.fields.keys():
            value = self.fields[field]
            if isinstance(value, str) and value in places:
                said = f'the mapping gives every row the {field} "{value}", which is the name of a column.'
                raise NotCsv(1, f"{said} Write {field}: {{column: {value}}}.")
        return places

    def _row(self, line: int, cells: list[str], width: int, places: Mapping[str, int]) -> Row | BadRow:
        if len(cells) != width:
            return BadRow(line, "invalid_csv", f"This row has {len(cells)} cells, and the header has {width}.")
        message: dict[str, Any] = {"type": "track"}
        try:
            message |= _read(self.fields, cells, places)
            for name, values in self.objects.items():
                found = _read(values, cells, places)
                if found:
                    message[name] = found
        except _BadCell as bad:
            return BadRow(line, "invalid_field", str(bad))
        return Row(line, msgspec.json.encode(message))


class _BadCell(Exception):
    pass


def _read(values: Mapping[str, Value], cells: list[str], places: Mapping[str, int]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, Cell):
            found[name] = value
            continue
        text = cells[places[value.column]].strip()
        if not text:
            continue
        try:
            found[name] = value.read(text)
        except (ValueError, OverflowError):
            shown = text if len(text) <= 40 else text[:39] + "…"
            how = f" as {value.format}" if value.format else ""
            raise _BadCell(f"Column {value.column}: “{shown}” is no {value.kind}{how}.") from None
    return found


def _is_of(share: Share, whose: Mapping[str, Value], cells: list[str], width: int, places: Mapping[str, int]) -> bool:
    """Without reading more of the row than whose it is."""
    if len(cells) != width:
        return share.speaks_for_all
    try:
        named = _read(whose, cells, places)
    except _BadCell:
        return share.speaks_for_all
    return share.has(*map(named.get, _IDS))


def read_mapping(path: Path) -> Columns:
    """Raises MappingInvalid with every problem and its place, or RapportError where there is nothing to read."""
    problems: list[Problem] = []
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RapportError(
            f"{path} cannot be read: {error.strerror}. Give the file that says what columns mean."
        ) from None
    document = parse(str(path), text, problems.append)
    columns = _Reader(document, problems).read() if document is not None else None
    if problems or columns is None:
        raise MappingInvalid("\n".join(map(str, sorted(problems))))
    return columns


class _Reader:
    def __init__(self, document: Document, problems: list[Problem]) -> None:
        self._document = document
        self._problems = problems

    def read(self) -> Columns | None:
        root = self._document.root
        if not isinstance(root, MappingNode):
            self._report(root.start, "a mapping is a list of fields.", "Write userId: {column: customer}, and so on.")
            return None
        fields: dict[str, Value | None] = {}
        objects: dict[str, Mapping[str, Value]] = {}
        settings: dict[str, str] = {}
        known = (*_FIELDS, *_OBJECTS, *_SETTINGS)
        for name, (key, node) in root.entries.items():
            if name in _FIELDS:
                fields[name] = self._value(node, "time" if name in ("timestamp", "receivedAt") else "text")
            elif name in _OBJECTS:
                objects[name] = self._object(name, node)
            elif name in _SETTINGS and isinstance(node, Scalar):
                settings[name] = node.text
            else:
                self._report(
                    key.start, f'"{name}" is unknown.', did_you_mean(name, known, f"Known are {listed(known)}.")
                )
        if not {"userId", "anonymousId"} & fields.keys():
            self._report(root.start, "nothing says whose a row is.", "Add userId: {column: …}.")
        if not {"timestamp", "receivedAt"} & fields.keys():
            self._report(root.start, "nothing says when a row happened.", "Add timestamp: {column: …}.")
        if len(settings.get("delimiter", ",")) != 1:
            self._report(root.start, "a delimiter is one character.", 'Write delimiter: ";", or leave it out.')
        try:
            "".encode(settings.get("encoding", "utf-8"))
        except LookupError:
            self._report(
                root.start, f"there is no encoding {settings['encoding']!r}.", "Write latin-1, or leave it out."
            )
        return Columns({name: value for name, value in fields.items() if value is not None}, objects, **settings)

    def _object(self, name: str, node: Node) -> dict[str, Value]:
        if not isinstance(node, MappingNode):
            self._report(node.start, f"{name} is a list of fields.", "Write total: {column: amount, as: number}.")
            return {}
        values = {field: self._value(value, "text") for field, (_, value) in node.entries.items()}
        return {field: value for field, value in values.items() if value is not None}

    def _value(self, node: Node, kind: str) -> Value | None:
        if isinstance(node, Scalar):
            return _constant(node)
        if isinstance(node, ListNode):
            self._report(node.start, "a list cannot stand here.", "Write {column: name}, or a constant.")
            return None
        told: dict[str, str] = {}
        before = len(self._problems)
        for name, (key, value) in node.entries.items():
            if name not in _OF_A_COLUMN or not isinstance(value, Scalar):
                remedy = did_you_mean(name, _OF_A_COLUMN, f"Of a column, write {listed(_OF_A_COLUMN, 'and')}.")
                self._report(key.start, f'"{name}" cannot stand here.', remedy)
            else:
                told[name] = value.text
        if len(self._problems) > before:
            return None
        if "column" not in told:
            self._report(node.start, "it names no column.", "Write {column: name}.")
            return None
        kind = told.get("as", "time" if "format" in told or "timezone" in told else kind)
        if kind not in _KINDS:
            self._report(node.start, f'there is no kind "{kind}".', f"Write {listed(_KINDS)}.")
        zone = known_zone(told.get("timezone"))
        if "timezone" in told and zone is None:
            self._report(node.start, f'there is no timezone "{told["timezone"]}".', "Write Europe/Oslo, say.")
        return Cell(told["column"], kind, told.get("format"), zone)

    def _report(self, index: int, message: str, remedy: str) -> None:
        place = self._document.place_of(index)
        self._problems.append(self._document.problem(place, message, remedy))


def _constant(node: Scalar) -> Value:
    value = node.value
    return value if isinstance(value, bool | int) else node.text if value is None else str(value)
