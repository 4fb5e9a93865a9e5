"""What the mailer decided in a history, decided once more in memory, message by message.

Triggers write down, inside the mailer's own transactions, what it took, decided and learnt, and in which order. The
room of the house in memory (`services.rehearsal.mailroom`) takes the same records up to the same places, hears of the
same outcomes and of the same words at the doors, and has to decide the same of each message each time: hand it over,
hold it until then, or skip it, and why.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any

import msgspec

from services.mailer.consent import Decision, merge
from services.mailer.lines import read
from services.mailer.turn import RECEIVER_AWAY, RELEASE, Turn
from services.rehearsal.mailroom import Mailroom, accepted, unwritten
from services.rehearsal.timers import Timers
from services.rehearsal.witness import Witness
from shared.contracts import messages
from shared.contracts.customers import Activation
from shared.contracts.streams import MESSAGES
from shared.language.playbook import Playbook
from shared.log.port import Record
from shared.processing.playbooks import name_in_force
from tests.simulation.replay import Journal

TRAIL = """
    CREATE TABLE mailer.trail (
        number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        turn bigint NOT NULL DEFAULT pg_current_xact_id()::text::bigint,
        what text NOT NULL,
        was text,
        owner uuid,
        said jsonb NOT NULL
    );
    CREATE FUNCTION mailer.note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO mailer.trail (what, was, owner, said) VALUES (TG_ARGV[0],
            CASE WHEN TG_OP = 'UPDATE' THEN to_jsonb(OLD)->>'status' END,
            (SELECT owner FROM processing.partitions
              WHERE service = 'mailer' AND partition = (to_jsonb(NEW)->>'partition')::smallint),
            to_jsonb(NEW) - 'request' - 'links');
        RETURN NULL;
    END $$;
    CREATE TRIGGER noted AFTER UPDATE ON mailer.messages FOR EACH ROW EXECUTE FUNCTION mailer.note('message');
    CREATE TRIGGER noted AFTER UPDATE ON processing.partitions FOR EACH ROW
        WHEN (NEW.service = 'mailer' AND NEW.next_offset <> OLD.next_offset) EXECUTE FUNCTION mailer.note('taken');
    CREATE TRIGGER noted AFTER INSERT OR UPDATE ON mailer.consent FOR EACH ROW
        EXECUTE FUNCTION mailer.note('consent');
    CREATE TRIGGER noted AFTER UPDATE ON mailer.addresses FOR EACH ROW
        WHEN (NEW.suppressed <> OLD.suppressed) EXECUTE FUNCTION mailer.note('suppressed')"""
"""Takes down what the mailer does, where it does it."""
READ = "SELECT turn, what, was, said::text FROM mailer.trail ORDER BY number"

INTERRUPTED = """
    SELECT late.said->>'id' FROM mailer.trail early JOIN mailer.trail late USING (what, owner)
     WHERE what = 'message' AND early.said->>'status' = 'sending' AND late.said->>'status' = 'unknown'
       AND early.was = 'requested' AND early.said->>'taken' = late.said->>'taken'
       AND late.said->>'reason' = 'interrupted'"""
"""The mails of which it is not known what they came to, though who handed them over was there to say so."""

Noted = tuple[int, str, str | None, Mapping[str, Any]]

_DOOR = "unsubscribe link"
_LATENESS = timedelta(minutes=1)
_BEFORE = datetime(1970, 1, 1, tzinfo=UTC)
_decode = msgspec.json.Decoder(messages.MessageRecord).decode


def noted(rows: Sequence[tuple[int, str, str | None, str]]) -> list[Noted]:
    return [(turn, what, was, msgspec.json.decode(said)) for turn, what, was, said in rows]


def differences(
    journal: Journal, trail: Sequence[Noted], playbooks: Mapping[str, Playbook], partitions: int
) -> list[str]:
    """Where the room in memory decides something else, a line each. `playbooks` by the names under which they are in
    force (`name_in_force`)."""
    consent: dict[str, dict[str, Decision]] = {}
    suppressed: dict[str, str] = {}
    rooms = [_Room(journal[MESSAGES, one], playbooks, consent, suppressed) for one in range(partitions)]
    found: list[str] = []
    batches = {turn for turn, what, _, _ in trail if what == "taken"}
    for (turn, what), some in groupby(trail, key=lambda one: one[:2]):
        rows = [(was, said) for _, _, was, said in some]
        if what == "taken":
            for _, said in rows:
                rooms[said["partition"]].advance(said["next_offset"])
        elif what == "consent":
            for said in [said for _, said in rows if said["source"] == _DOOR]:
                word = Decision(said["topic"], said["subscribed"], _moment(said["decided_at"]), said["source"])
                consent[said["address"]] = merge(consent.get(said["address"], {}), [word])
        elif what == "suppressed":
            suppressed.update({said["address"]: said["suppressed"] for _, said in rows})
        else:
            for partition, room in enumerate(rooms):
                mine = [(was, said) for was, said in rows if said["partition"] == partition]
                room.conclude([said for was, said in mine if was == "sending" != said["status"] or _put_off(said)])
                # What a batch in the same transaction has cancelled is over here, too.
                again = [
                    said
                    for was, said in mine
                    if was == "requested" and not _put_off(said) and not (turn in batches and room.over(said))
                ]
                for channel in dict.fromkeys(said["channel"] for said in again):
                    found += room.decide_again([said for said in again if said["channel"] == channel])
    return found


def in_force(journal: Journal) -> Iterator[tuple[str, str]]:
    """The names of the playbooks that came into force, and the hash of each."""
    for (stream, _), records in journal.items():
        for said in map(_decode, [record.value for record in records] if stream == MESSAGES else []):
            if isinstance(said, Activation):
                yield name_in_force(said.playbook, said.paused), said.playbook


class _Out:
    """Where a room's timers go; what it would tell is recorded already."""

    partition = 0

    def __init__(self) -> None:
        self.as_of = _BEFORE
        self.timers = Timers()

    def emit(self, stream: str, key: str, record: Any) -> None:
        """The outcomes that came are in the journal."""

    def emit_here(self, stream: str, key: str, record: Any) -> None:
        """Nobody has to be told the time."""

    def emit_everywhere(self, stream: str, record: Any) -> None:
        raise NotImplementedError

    def set_timer(self, kind: str, subject: str, due: datetime | None) -> None:
        self.timers.set(0, kind, subject, due)

    def dead_letter(self, key: str, body: bytes, code: str, message: str) -> None:
        raise AssertionError(f"{code}: {message}")


class _Room(Mailroom):
    """The room in memory, which hands nothing over by itself."""

    def __init__(
        self,
        records: Sequence[Record],
        playbooks: Mapping[str, Playbook],
        consent: dict[str, dict[str, Decision]],
        suppressed: dict[str, str],
    ) -> None:
        super().__init__(playbooks, unwritten, accepted, Witness())
        # Several customers may have one address, in whichever partitions.
        self._consent, self._suppressed = consent, suppressed
        self._means = self._means._replace(lateness=_LATENESS)
        self._records = list(records)
        self._out = _Out()
        self._counts: dict[str, datetime] = {}
        """When each of the messages that caps count went out, or was in hand."""

    def advance(self, offset: int) -> None:
        """Take the records before that place, and what was due before each."""
        out = self._out
        while self._records and self._records[0].offset < offset:
            record = _decode(self._records.pop(0).value)
            while (ring := out.timers.pop(record.as_of)) is not None:
                out.as_of = max(out.as_of, ring.due)
                self.fire(ring.timer, out)
            out.as_of = max(out.as_of, record.as_of)
            self.take(record, out)

    def over(self, said: Mapping[str, Any]) -> bool:
        return said["id"] not in self._messages

    def conclude(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """What hand-overs came to, as it was recorded."""
        for said in rows:
            message = self._messages[said["id"]]
            message.status, message.due, message.reason = said["status"], _moment(said["due"]), said["reason"]
            if said["counted_at"] is None:
                self._uncount(message.customer, message.channel, said["id"])
            if said["ended_at"] is not None:
                del self._messages[said["id"]]
                continue
            self._attempts[said["id"]] = said["attempts"]
            if message.status == "held":
                self._requested.pop(message.id, None)
                self._out.set_timer(RELEASE, message.id, message.due)
            else:
                self._requested[message.id] = message

    def decide_again(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """A turn's decisions: where they are others here, a line each."""
        out, told = _Out(), {said["id"]: said for said in rows}
        out.as_of = _now(rows)
        if absent := [id for id in told if id not in self._messages]:
            yield f"{absent} were decided, and are not there"
            return
        turn = self._decided([self._messages[id] for id in told], out)
        decided = {change.id: change for change in turn.changes}
        for id, said in told.items():
            mine = decided[id]
            ours = (mine.status, mine.due, mine.reason, mine.counted_at)
            counted = said["counted_at"] and _moment(said["counted_at"])
            theirs = (said["status"], _moment(said["due"]), said["reason"], counted)
            if ours != theirs:
                yield f"{id} ({said['message']} to {said['customer']}) was decided {theirs}, and is {ours}; {out.as_of}"
        self._apply(turn)

    def _apply(self, turn: Turn) -> None:
        for change in turn.changes:
            message = self._messages[change.id]
            self._requested.pop(change.id, None)
            message.status, message.due, message.reason = change.status, change.due, change.reason
            if change.ended_at is not None:
                del self._messages[change.id]
            elif change.status == "held":
                self._out.set_timer(RELEASE, change.id, change.due)
            if change.counted_at is not None:
                insort(self._counted.setdefault((message.customer, message.channel), []), change.counted_at)
                self._counts[change.id] = change.counted_at

    def _uncount(self, customer: str, channel: str, id: str) -> None:
        at, counted = self._counts.pop(id, None), self._counted.get((customer, channel), [])
        if at in counted:
            counted.remove(at)


def _put_off(said: Mapping[str, Any]) -> bool:
    """It was not decided: nobody could be called."""
    return bool(said["status"] == "held" and said["reason"] == RECEIVER_AWAY)


def _now(rows: Sequence[Mapping[str, Any]]) -> datetime:
    """When a turn decided: it says so of what it held or skipped, to the second at least."""
    moments = [
        _moment(said["counted_at"] or said["ended_at"] or said["due"]) for said in rows if said["status"] != "held"
    ]
    for said in rows:
        if said["status"] == "held" and (line := read(said["held"][-1])) is not None:
            moments.append(line.at)
    return max(moments)


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
