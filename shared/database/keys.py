"""Asking for rows of several partitions by their keys, of which each belongs to one of them.

`partition = ANY (…) AND key = ANY (…)` looks in each partition for the keys of all: with twelve it took 31 µs a row
where this takes 7. A join with the pairs takes a third more than this where all are of one partition.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

K = TypeVar("K")

ASKED = "unnest($1::smallint[], $2::integer[], $3::integer[]) AS asked (partition, first, last)"
"""A row for each partition, beside which a table is looked at: `FROM {ASKED}, LATERAL (SELECT … WHERE partition =
asked.partition AND key = {THEIRS} OFFSET 0) AS …`. With OFFSET nothing else can be planned, however little was in the
table then. The first four arguments are those of `by_partition`."""
THEIRS = "ANY (($4::text[])[asked.first:asked.last])"
ALSO_ASKED = "unnest($5::smallint[], $6::integer[], $7::integer[]) AS asked (partition, first, last)"
"""For a second table in the same statement, whose keys are bytes: the next four arguments."""
ALSO_THEIRS = "ANY (($8::bytea[])[asked.first:asked.last])"


def by_partition(keys: Iterable[tuple[int, K]]) -> tuple[list[int], list[int], list[int], list[K]]:
    """Keys, each named with its partition, as the arguments of ASKED: the partitions, where in the keys those of each
    begin and end (from 1 on), and the keys."""
    grouped: dict[int, list[K]] = {}
    for partition, key in keys:
        grouped.setdefault(partition, []).append(key)
    firsts, lasts, ordered = list[int](), list[int](), list[K]()
    for of_partition in grouped.values():
        firsts.append(len(ordered) + 1)
        ordered += of_partition
        lasts.append(len(ordered))
    return list(grouped), firsts, lasts, ordered
