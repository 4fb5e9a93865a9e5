"""Several writes as one statement.

A statement waits for its answer as long as the process is busy with other things, whatever little it writes. So what is
known to be written in one transaction goes to the server at once: each write is a common table expression, and together
they are a transaction of their own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from asyncpg import Connection
else:
    Connection = Any

_PLACE = re.compile(r"\$(\d+)")


class Clause(NamedTuple):
    """Common table expressions, `name AS (…), …`, with their own arguments from `$1` on.

    All clauses of a statement see what stood there before it: none may read or change a row that another changes. Of
    one in a statement it is asked what its expression of the name `gives` has."""

    text: str
    arguments: Sequence[object]
    gives: str = ""


async def execute(connection: Connection, clauses: Sequence[Clause], first: str = "") -> list[Any]:
    """Do all of it, or nothing; gives the rows that a clause gives. The expression of the name `first` is carried out
    before any other; it has to be MATERIALIZED."""
    if not clauses:
        return []
    gives = next((clause.gives for clause in clauses if clause.gives), "")
    # What nobody reads is written once what is read here has been.
    if first and gives:
        select = f"SELECT {gives}.*, {first}.* FROM {first} LEFT JOIN {gives} ON true"
    else:
        select = f"SELECT * FROM {first or gives}" if first or gives else "SELECT"
    text = _joined(tuple((clause.text, len(clause.arguments)) for clause in clauses), select)
    found: list[Any] = await connection.fetch(text, *(one for clause in clauses for one in clause.arguments))
    return found if gives else []


def columns(rows: Sequence[tuple[object, ...]], count: int) -> list[Sequence[object]]:
    """Rows as arguments, one for each column; empty ones where there are no rows."""
    return list(zip(*rows, strict=True)) if rows else [()] * count


@lru_cache(maxsize=1024)
def _joined(clauses: tuple[tuple[str, int], ...], select: str) -> str:
    texts, before = [], 0
    for text, count in clauses:
        texts.append(_PLACE.sub(lambda place, before=before: f"${int(place[1]) + before}", text))  # type: ignore[misc]
        before += count
    return f"WITH {', '.join(texts)} {select}"
