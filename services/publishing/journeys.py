"""`rapport journeys`: how they stand, and what a person may do with those who are inside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.terminal import DEFAULT_DATA, Data, database, one_of, out, run, say
from shared.errors import RapportError

if TYPE_CHECKING:
    from services.journeys.store import Standing, Tally
    from shared.language.playbook import Playbook
    from shared.processing.port import Connection

journeys_app = typer.Typer(help="The journeys in force, and those who are inside.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The journey's name.", show_default=False)]

REMOVED = "removed"
"""The status of a journey that the playbook in force has no more."""

_LEFT = frozenset({"watching", "ended"})
_SHOWN = 8
"""Characters of a version that are shown."""


@journeys_app.command("list")
def journeys_list(
    form: Annotated[str, typer.Option("--format", help="text or json.")] = "text", data: Data = DEFAULT_DATA
) -> None:
    """All journeys: their status, and how many have entered, are inside, have left, and reached the goal."""
    one_of(form, "text", "json")

    async def work() -> None:
        from rich.table import Table

        from services.journeys import store

        async with database(data) as connection:
            playbook = await in_force(connection)
            counts = await store.counts(connection)
        rows = listed(playbook, counts)
        if form == "json":
            typer.echo(json.dumps(rows, indent=2))
            return
        table = Table("journey", "status", "version", "entered", "inside", "left", "goal", box=None)
        for row in rows:
            older = sum(row["inside"].values()) - row["inside"].get(row["version"], 0)
            inside = str(sum(row["inside"].values())) + (f" ({older} in older versions)" if older else "")
            shown = [row["journey"], row["status"], row["version"][:_SHOWN], str(row["entered"]), inside]
            table.add_row(*shown, str(sum(row["left"].values())), str(row["goal"]))
        out.print(table if rows else "there are none")

    run(work())


@journeys_app.command("show")
def journeys_show(
    journey: Name,
    form: Annotated[str, typer.Option("--format", help="text or json.")] = "text",
    data: Data = DEFAULT_DATA,
) -> None:
    """One journey: who is at which step of which version, and how the others left."""
    one_of(form, "text", "json")

    async def work() -> None:
        from services.journeys import store

        async with database(data) as connection:
            playbook = await in_force(connection)
            counts = [(tally, count) for tally, count in await store.counts(connection) if tally.journey == journey]
            standing = await store.standing(connection, journey)
        if journey not in playbook.journeys and not counts:
            raise unknown(journey, playbook)
        (row,) = listed(playbook, counts, only=journey)
        if form == "json":
            at = [{**one._asdict(), "next_due": one.next_due and one.next_due.isoformat()} for one in standing]
            typer.echo(json.dumps({**row, "at": at}, indent=2))
            return
        _print_journey(row, standing, playbook)

    run(work())


def _print_journey(row: dict[str, Any], standing: list[Standing], playbook: Playbook) -> None:
    from rich.table import Table

    found = playbook.journeys.get(row["journey"])
    title = f": {found.title}" if found is not None else ""
    version = f", version {row['version'][:_SHOWN]}" if found is not None else ""
    say(f"{row['journey']}{title}")
    say(f"{row['status']}{version}; {row['entered']} entered, {row['goal']} reached the goal")
    if standing:
        table = Table("version", "step", "status", "customers", "next due", box=None)
        steps = list(found.steps) if found is not None else []
        for one in sorted(
            standing, key=lambda one: (one.version != row["version"], one.version, _place(one.step, steps))
        ):
            due = one.next_due.strftime("%Y-%m-%d %H:%M:%S") if one.next_due else ""
            older = "" if one.version == row["version"] else " (older)"
            table.add_row(one.version[:_SHOWN] + older, one.step, one.status, str(one.customers), due)
        out.print(table)
    else:
        say("nobody is inside")
    if row["left"]:
        say("left: " + ", ".join(f"{reason} {count}" for reason, count in row["left"].items()))


def _place(step: str, steps: list[str]) -> tuple[int, str]:
    return (steps.index(step) if step in steps else len(steps), step)


def listed(playbook: Playbook, counts: list[tuple[Tally, int]], only: str = "") -> list[dict[str, Any]]:
    """For each journey of the playbook, and each that somebody still is or was in, how it stands."""
    from services.journeys.engine import HELD_OUT

    rows: dict[str, dict[str, Any]] = {}
    names = {*playbook.journeys, *(tally.journey for tally, _ in counts)}
    for name in sorted(name for name in names if only in ("", name)):
        journey = playbook.journeys.get(name)
        rows[name] = {
            "journey": name,
            "status": journey.status if journey is not None else REMOVED,
            "version": journey.version if journey is not None else "",
            "entered": 0,
            "inside": {},
            "left": {},
            "goal": 0,
        }
    for tally, count in counts:
        row = rows.get(tally.journey)
        if row is None:
            continue
        row["entered"] += count
        if HELD_OUT not in (tally.status, tally.reason):
            row["goal"] += count * tally.goal
        kind, name = ("left", tally.reason) if tally.status in _LEFT else ("inside", tally.version)
        row[kind][name] = row[kind].get(name, 0) + count
    return list(rows.values())


async def in_force(connection: Connection) -> Playbook:
    """The playbook in force. Raises RapportError where there is none."""
    from shared.processing import playbooks

    found = await playbooks.in_force(connection)
    if found is None:
        raise RapportError("no playbook is in force. Apply one: rapport playbook apply FOLDER.")
    return await playbooks.PlaybookShelf().get(connection, found)


def unknown(journey: str, playbook: Playbook) -> RapportError:
    from shared.language.problems import did_you_mean

    remedy = did_you_mean(journey, playbook.journeys, f"There are {', '.join(playbook.journeys) or 'none'}.")
    return RapportError(f'the playbook in force has no journey "{journey}". {remedy}')
