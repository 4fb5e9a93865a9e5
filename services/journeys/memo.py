"""What a partition remembers from batch to batch."""

from __future__ import annotations

from datetime import datetime

import msgspec


class Moving(msgspec.Struct, frozen=True):
    """Who was inside a journey at this time is taken along to its version in the playbook that was in force then (by
    `name_in_force`). Moves are numbered through, since several may come at the same time."""

    at: datetime
    playbook: str
    number: int


class Memo(msgspec.Struct, frozen=True, omit_defaults=True):
    """`playbook` is what `name_in_force` calls the one in force.

    `told` is the latest time that `messages` was told. `resumed` says when a journey that had been paused went on,
    `moves` where those go who were inside, and `moved` how many moves there were; `removed`, since when a journey is
    not in the playbook any more.
    """

    playbook: str = ""
    told: datetime | None = None
    resumed: dict[str, datetime] = {}
    moves: dict[str, Moving] = {}
    moved: int = 0
    removed: dict[str, datetime] = {}


decode_memo = msgspec.msgpack.Decoder(Memo).decode
encode_memo = msgspec.msgpack.Encoder().encode
