"""The outputs of one transaction for one partition."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from shared.contracts.streams import partition_of
from shared.errors import RapportError, words_of
from shared.log.port import LARGEST_RECORD, Entry, Origin
from shared.processing.agenda import Agenda
from shared.processing.port import Poison
from shared.processing.store import DeadLetter, Destination

if TYPE_CHECKING:
    from shared.processing.frame import Frame


_encode = msgspec.json.Encoder().encode
_new = tuple.__new__


@dataclass(slots=True)
class Run:
    """See `shared.processing.port.Outputs`."""

    frame: Frame
    partition: int
    as_of: datetime
    agenda: Agenda
    out_seqs: dict[str, int]
    trace: str | None = None
    outputs: dict[Destination, list[Entry]] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)

    def emit(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self._emit((stream, partition_of(key, self.frame.log.partitions)), key, record)

    def emit_here(self, stream: str, key: str, record: msgspec.Struct | bytes) -> None:
        self._emit((stream, self.partition), key, record)

    def emit_everywhere(self, stream: str, record: msgspec.Struct | bytes) -> None:
        value = record if isinstance(record, bytes) else _encode(record)
        for partition in range(self.frame.log.partitions):
            self._emit((stream, partition), "", value)

    def _emit(self, destination: Destination, key: str, record: msgspec.Struct | bytes) -> None:
        value = record if isinstance(record, bytes) else _encode(record)
        if len(value) + 4 * len(key) > LARGEST_RECORD and (size := len(key.encode()) + len(value)) > LARGEST_RECORD:
            raise Poison(
                f"an output for {destination[0]} has {size} bytes; {LARGEST_RECORD} is the most. Send less "
                f"data with the event, or keep less on the profile."
            )
        name = f"{destination[0]}/{destination[1]}"
        seq = self.out_seqs[name] = self.out_seqs.get(name, 0) + 1
        # As the classes themselves would make them, without a call in between: there are more than one to a record.
        origin = _new(Origin, (self.frame.service, self.partition, self.frame.generation, seq))
        entry = _new(Entry, (key, value, origin, self.trace))
        entries = self.outputs.get(destination)
        if entries is None:
            self.outputs[destination] = [entry]
        else:
            entries.append(entry)

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.agenda.set(kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        stream = self.frame.processor.stream
        self.letters.append(DeadLetter(stream, None, storable(key), body, self.trace, code, storable(message), False))

    @property
    def is_empty(self) -> bool:
        return not (self.outputs or self.letters or self.agenda.changed)


def storable(text: str) -> str:
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def text_of(error: BaseException) -> str:
    """What a person reads of an error."""
    return str(error) if isinstance(error, RapportError) else words_of(error)
