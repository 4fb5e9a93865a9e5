"""`rapport coupons`: what is left of each pool, and the codes that were issued, for the shop."""

from __future__ import annotations

import csv
import json
import sys
from datetime import UTC, datetime
from typing import Annotated

import typer

from services.publishing.journeys import in_force
from services.terminal import DEFAULT_DATA, Data, Form, columns, database, one_of, out, run
from shared.errors import RapportError

coupons_app = typer.Typer(help="Pools of coupons: what is left, and what was issued.", no_args_is_help=True)

_AT_ONCE = 10_000
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)


@coupons_app.command("list")
def coupons_list(form: Form = "text", data: Data = DEFAULT_DATA) -> None:
    """Each pool: how many codes were issued, and how many are left."""
    one_of(form, "text", "json")

    async def work() -> None:
        from services.journeys import store

        async with database(data) as connection:
            playbook = await in_force(connection)
            counts = {count.pool: count for count in await store.pool_counts(connection)}
        rows = []
        for name in sorted({*playbook.coupons, *counts}):
            pool, count = playbook.coupons.get(name), counts.get(name)
            issued = count.issued if count is not None else 0
            most = None if pool is None else pool.limit if pool.codes is None else len(pool.codes)
            rows.append(
                {
                    "pool": name,
                    "issued": issued,
                    "left": 0 if pool is None else None if most is None else max(most - issued, 0),
                    "last": count.last.isoformat() if count is not None and count.last is not None else None,
                    "removed": pool is None,
                }
            )
        if form == "json":
            typer.echo(json.dumps(rows, indent=2))
            return
        table = columns("pool", "issued", "left", "last issued")
        for row in rows:
            left = "removed" if row["removed"] else "without end" if row["left"] is None else str(row["left"])
            table.add_row(str(row["pool"]), str(row["issued"]), left, str(row["last"] or "")[:19].replace("T", " "))
        out.print(table if rows else "there are none")

    run(work())


@coupons_app.command("export")
def coupons_export(
    pool: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    since: Annotated[
        str, typer.Option(help="Only codes issued from then on: 2026-03-02, or with a time: 2026-03-02T12:00Z.")
    ] = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """The codes that were issued, as CSV: code, customer, journey, issued_at, expires_at."""

    async def work() -> None:
        from services.journeys import store

        begin = _instant(since) if since else _LONG_AGO
        async with database(data) as connection:
            known = {*(await in_force(connection)).coupons, *(c.pool for c in await store.pool_counts(connection))}
            if pool not in known:
                raise RapportError(f"there is no pool {pool!r}. There are {', '.join(sorted(known)) or 'none'}.")
            written = csv.writer(sys.stdout)
            written.writerow(store.GivenOut._fields)
            after = (begin, "")
            while codes := await store.issued_codes(connection, pool, after, _AT_ONCE):
                for one in codes:
                    expires = one.expires_at.isoformat() if one.expires_at is not None else ""
                    written.writerow([one.code, one.customer, one.journey, one.issued_at.isoformat(), expires])
                after = (codes[-1].issued_at, codes[-1].code)

    run(work())


def _instant(text: str) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise RapportError(f"{text!r} is no date. Write it as 2026-03-02 or 2026-03-02T12:00Z.") from None
    return found if found.tzinfo is not None else found.replace(tzinfo=UTC)
