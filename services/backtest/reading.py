"""History from files: Segment messages (NDJSON, packed by gzip or not) or CSV, as events with their places.

An event is taken as received when its line says so (`receivedAt`), else when it was sent, else when it happened.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import msgspec

from services.backtest.columns import Columns, NotCsv, Row
from services.ingest.admission import Envelope, admit, instant
from services.ingest.calls import MAX_EVENT_BYTES
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


class _Origin(msgspec.Struct):
    rapport_source: str | None = None
    rapport_hops: int = 0


class _When(msgspec.Struct, rename="camel"):
    """What a line says of its times, and where `rapport events export` says that it comes from."""

    received_at: Any = None
    sent_at: Any = None
    timestamp: Any = None
    original_timestamp: Any = None
    metadata: _Origin | None = msgspec.field(default=None, name="_metadata")


_when = msgspec.json.Decoder(_When).decode


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
                yield self._event(item, f"{self.path}:{number}")

    def _of_columns(self, reader: IO[bytes]) -> Iterator[Event | Refusal]:
        assert self.columns is not None
        try:
            for row in self.columns.rows(reader, str(self.path)):
                place = f"{self.path}:{row.line}"
                yield self._event(row.message, place) if isinstance(row, Row) else Refusal(place, row.code, row.text)
        except NotCsv as error:
            yield Refusal(f"{self.path}:{error.line}", "invalid_csv", str(error))

    def _event(self, item: bytes, place: str) -> Event | Refusal:
        try:
            said = _when(item)
        except (ValueError, RecursionError):
            said = _When()
        received_at = _received(said)
        if received_at is None:
            return _untimed(item, place)
        admitted = admit(item, None, Envelope(SOURCE, received_at))
        if isinstance(admitted, Rejection):
            return Refusal(place, admitted.code, admitted.message)
        origin = said.metadata
        if origin is not None and origin.rapport_source:
            return msgspec.structs.replace(admitted, source=origin.rapport_source, hops=origin.rapport_hops)
        if admitted.historical and said.received_at is None:
            # Marked for an import; here it is lived through as it happened.
            return msgspec.structs.replace(admitted, historical=False)
        return admitted


def _received(said: _When) -> datetime | None:
    for text in (said.received_at, said.sent_at, said.timestamp, said.original_timestamp):
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

Progress = Callable[[int], None]
"""Is told how many bytes of history have been read."""
