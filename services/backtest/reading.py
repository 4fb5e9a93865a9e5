"""History from files: Segment messages (NDJSON, packed by gzip or not) or CSV, as events with their places.

An event is taken as received when its line says so (`receivedAt`), else when it was sent, else when it happened.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, NamedTuple, cast

import msgspec

from services.backtest.columns import Columns, NotCsv, Row
from services.ingest.admission import Envelope, admit, instant
from services.ingest.calls import MAX_EVENT_BYTES, Call
from services.ingest.reading import GZIP
from services.ingest.refusals import Rejection
from shared.contracts.events import Event
from shared.errors import RapportError

SOURCE = "history"
"""The source of events whose line names none."""

_BUFFER = 1 << 20
_LONGEST_LINE = 4 * MAX_EVENT_BYTES


class Refusal(NamedTuple):
    """A line that is no event: where it stands, and why."""

    place: str
    code: str
    message: str


class History:
    """One file. `read_bytes` says how far reading has come, of `size`."""

    def __init__(self, path: Path, columns: Columns | None = None) -> None:
        if not path.is_file():
            raise RapportError(f"{path} is no file. Give a file of events: one JSON message a line, or CSV.")
        self.path = path
        self.size = path.stat().st_size
        self.columns = columns
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
        with ExitStack() as stack:
            self._file = stack.enter_context(self.path.open("rb", buffering=0))
            packed = self._file.read(2) == GZIP
            self._file.seek(0)
            file = cast("IO[bytes]", gzip.GzipFile(fileobj=self._file)) if packed else self._file
            reader = stack.enter_context(io.BufferedReader(cast("io.RawIOBase", file), _BUFFER))
            try:
                yield from self._of_columns(reader) if self.columns is not None else self._of_lines(reader)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                yield Refusal(str(self.path), "invalid_gzip", f"the packed file is damaged ({error}). Pack it again.")

    def _of_lines(self, reader: IO[bytes]) -> Iterator[Event | Refusal]:
        number = 0
        while line := reader.readline(_LONGEST_LINE):
            number += 1
            item = line.strip()
            if not line.endswith(b"\n") and len(line) == _LONGEST_LINE:
                while rest := reader.readline(_LONGEST_LINE):
                    if rest.endswith(b"\n"):
                        break
            if item:
                yield self._event(item, number)

    def _of_columns(self, reader: IO[bytes]) -> Iterator[Event | Refusal]:
        assert self.columns is not None
        try:
            for row in self.columns.rows(reader, str(self.path)):
                if isinstance(row, Row):
                    yield self._event(row.message, row.line)
                else:
                    yield Refusal(self._place(row.line), row.code, row.text)
        except NotCsv as error:
            yield Refusal(self._place(error.line), "invalid_csv", str(error))

    def _place(self, line: int) -> str:
        return f"{self.path}:{line}"

    def _event(self, item: bytes, line: int) -> Event | Refusal:
        admitted = admit(item, None, self._surrounding)
        call, self._call = self._call, None
        if isinstance(admitted, Rejection):
            if call is None or _received(call) is None:
                return _untimed(item, self._place(line))
            return Refusal(self._place(line), admitted.code, admitted.message)
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
        received_at = _received(call)
        return Envelope(SOURCE, received_at) if received_at is not None else None


def _received(call: Call) -> datetime | None:
    for text in (call.received_at, call.sent_at, call.timestamp, call.original_timestamp):
        moment = instant(text) if text is not None else None
        if moment is not None:
            try:
                return moment.astimezone(UTC)
            except OverflowError:
                return None
    return None


def _untimed(item: bytes, place: str) -> Refusal:
    """Why a line has no time: it is no message, or says none."""
    if item.startswith(b"["):
        return Refusal(place, "invalid_json", "A list stands here. Write one message a line: jq -c '.[]' FILE.")
    admitted = admit(item, None, Envelope(SOURCE, _ANY_TIME))
    if isinstance(admitted, Rejection) and admitted.code != "invalid_timestamp":
        return Refusal(place, admitted.code, admitted.message)
    return Refusal(place, "invalid_timestamp", "The message says no time. Write timestamp: 2025-03-01T12:30:00Z.")


_ANY_TIME = datetime(2000, 1, 1, tzinfo=UTC)
