"""History from files: Segment messages (NDJSON, packed by gzip or not) or CSV, as events with their places.

An event is taken as received when its line says so (`receivedAt`), else when it was sent, else when it happened.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from services.backtest.columns import BadRow, Columns, NotCsv, Row
from services.backtest.shares import EVERYBODY, Share
from services.ingest.admission import Envelope, admit, instant
from services.ingest.calls import MAX_EVENT_BYTES, Call
from services.ingest.reading import GZIP
from services.ingest.refusals import Rejection
from shared.contracts.events import Event
from shared.errors import RapportError

SOURCE = "history"
"""The source of events whose line names none."""

AFTER_FILES = 1 << 31
"""In the order of refusals: beyond the number of any file."""

_BUFFER = 1 << 20
_MARK = codecs.BOM_UTF8
"""What some editors begin a file with; where files were joined, it stands within."""
_LONGEST_LINE = 4 * MAX_EVENT_BYTES


class Refusal(NamedTuple):
    """A line that is no event, or an event that could not be taken: where it stands, and why. `order` says which comes
    first: the number of the file and the line; after all files, when it was."""

    order: tuple[int, int]
    place: str
    code: str
    message: str


class History:
    """The file with this number; of a share of the customers, what is theirs. `read_bytes` says how far reading has
    come, of `size`."""

    def __init__(self, path: Path, columns: Columns | None = None, number: int = 0, share: Share = EVERYBODY) -> None:
        if not path.is_file():
            raise RapportError(f"{path} is no file. Give a file of events: one JSON message a line, or CSV.")
        self.path = path
        self.size = path.stat().st_size
        self.columns = columns
        self.number = number
        self.share = share
        if columns is None and path.name.removesuffix(".gz").endswith(".csv"):
            raise RapportError(
                f"{path} is CSV, and nothing says what its columns mean. Give --mapping FILE (see docs/simulate.md)."
            )
        self._file: io.FileIO | None = None
        self._call: Call | None = None
        """What the line at hand says, as far as it could be read."""

    @property
    def read_bytes(self) -> int:
        return self._file.tell() if self._file is not None and not self._file.closed else 0

    def __iter__(self) -> Iterator[Event | Refusal]:
        for row in self.rows():
            yield self._event(row.message, row.line) if type(row) is Row else self._refusal(cast("BadRow", row))

    def is_packed(self) -> bool:
        """By gzip."""
        with self.path.open("rb") as file:
            return file.read(2) == GZIP

    def rows(self) -> Iterator[Row | BadRow]:
        """What is to be read, unread."""
        packed = self.is_packed()
        with ExitStack() as stack:
            self._file = stack.enter_context(self.path.open("rb", buffering=0))
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=self._file)) if packed else self._file
            reader = stack.enter_context(io.BufferedReader(cast("io.RawIOBase", file), _BUFFER))
            try:
                if self.columns is None:
                    yield from self._lines(reader)
                else:
                    yield from self.columns.rows(reader, self.share)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                if self.share.speaks_for_all:
                    yield BadRow(0, "invalid_gzip", f"the packed file is damaged ({error}). Pack it again.")
            except NotCsv as error:
                if self.share.speaks_for_all:
                    yield BadRow(error.line, "invalid_csv", str(error))

    def messages(self, part: int, of: int) -> Iterator[bytes]:
        """What is to be read, without its places: of so many parts of the file this one. What is packed, or a table,
        has one."""
        if self.columns is not None or self.is_packed():
            if part == self.number % of:
                yield from (row.message for row in self.rows() if isinstance(row, Row))
            return
        begin, end = self.size * part // of, self.size * (part + 1) // of
        with self.path.open("rb", _BUFFER) as reader:
            if begin:
                # The line that has the byte before is of the part before.
                reader.seek(begin - 1)
                begin += len(reader.readline()) - 1
            while begin < end and (line := reader.readline(_LONGEST_LINE)):
                begin += len(line)
                yield line.removeprefix(_MARK)

    def _lines(self, reader: IO[bytes]) -> Iterator[Row]:
        has = self.share.has_message
        whole = self.share.of == 1
        number = 0
        while line := reader.readline(_LONGEST_LINE):
            number += 1
            item = line.removeprefix(_MARK).strip()
            if not line.endswith(b"\n") and len(line) == _LONGEST_LINE:
                while rest := reader.readline(_LONGEST_LINE):
                    if rest.endswith(b"\n"):
                        break
            if item and (whole or has(item)):
                yield Row(number, item)

    def _refusal(self, row: BadRow) -> Refusal:
        return Refusal((self.number, row.line), self._place(row.line), row.code, row.text)

    def _place(self, line: int) -> str:
        return f"{self.path}:{line}" if line else str(self.path)

    def _event(self, item: bytes, line: int) -> Event | Refusal:
        admitted = admit(item, None, self._surrounding)
        call, self._call = self._call, None
        if isinstance(admitted, Rejection):
            if call is None or _received(call) is None:
                return self._refusal(_untimed(item, line))
            return self._refusal(BadRow(line, admitted.code, admitted.message))
        assert call is not None
        if isinstance(call.metadata, dict):
            # Where `rapport events export` says that it comes from.
            source, hops = call.metadata.get("rapport_source"), call.metadata.get("rapport_hops", 0)
            if isinstance(source, str) and source and type(hops) is int:
                return msgspec.structs.replace(admitted, source=source, hops=hops)
        if admitted.historical and call.received_at is None:
            # Marked for an import; here it is lived through as it happened.
            return msgspec.structs.replace(admitted, historical=False)
        return admitted

    def _surrounding(self, call: Call) -> Envelope | None:
        self._call = call
        return _received(call)


def _received(call: Call) -> Envelope | None:
    for text in (call.received_at, call.sent_at, call.timestamp, call.original_timestamp):
        moment = instant(text) if text is not None else None
        if moment is not None:
            try:
                moment = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
                return Envelope(SOURCE, moment, read_from=text)
            except OverflowError:
                return None
    return None


def _untimed(item: bytes, line: int) -> BadRow:
    """Why a line has no time: it is no message, or says none."""
    if item.startswith(b"["):
        return BadRow(line, "invalid_json", "A list stands here. Write one message a line: jq -c '.[]' FILE.")
    admitted = admit(item, None, Envelope(SOURCE, _ANY_TIME))
    if isinstance(admitted, Rejection) and admitted.code != "invalid_timestamp":
        return BadRow(line, admitted.code, admitted.message)
    return BadRow(line, "invalid_timestamp", "The message says no time. Write timestamp: 2025-03-01T12:30:00Z.")


_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
