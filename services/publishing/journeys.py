"""`rapport journeys`: how they stand, and what a person may do with those who are inside."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from services.terminal import (
    DEFAULT_DATA,
    VERSION_SHOWN,
    By,
    Data,
    Form,
    columns,
    database,
    one_of,
    out,
    run,
    say,
    somebody,
)
from shared.errors import RapportError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from services.journeys.store import Attributed, Standing, Tally
    from shared.language.playbook import Playbook
    from shared.processing.port import Connection
    from shared.runtime import Runtime

journeys_app = typer.Typer(help="The journeys in force, and those who are inside.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="The journey's name.", show_default=False)]

REMOVED = "removed"
"""The status of a journey that the playbook in force has no more."""

PAUSED_BY_HAND = "paused by hand"

_LEFT = frozenset({"watching", "ended"})


@journeys_app.command("list")
def journeys_list(form: Form = "text", data: Data = DEFAULT_DATA) -> None:
    """All journeys: their status, and how many have entered, are inside, have left, and reached the goal."""
    one_of(form, "text", "json")

    async def work() -> None:
        from services.journeys import store
        from shared.processing import playbooks

        async with database(data) as connection:
            playbook, held = await in_force(connection), await playbooks.paused_by_hand(connection)
            counts = await store.counts(connection)
        rows = listed(playbook, counts, held)
        if form == "json":
            typer.echo(json.dumps(rows, indent=2))
            return
        table = columns("journey", "status", "version", "entered", "inside", "left", "goal")
        for row in rows:
            older = sum(row["inside"].values()) - row["inside"].get(row["version"], 0)
            inside = str(sum(row["inside"].values())) + (f" ({older} in older versions)" if older else "")
            shown = [row["journey"], row["status"], row["version"][:VERSION_SHOWN], str(row["entered"]), inside]
            table.add_row(*shown, str(sum(row["left"].values())), str(row["goal"]))
        out.print(table if rows else "there are none")

    run(work())


@journeys_app.command("show")
def journeys_show(
    journey: Name,
    form: Form = "text",
    data: Data = DEFAULT_DATA,
) -> None:
    """One journey: who is at which step of which version, and how the others left."""
    one_of(form, "text", "json")

    async def work() -> None:
        from services.journeys import store
        from services.segmenter.store import last_backfill
        from shared.processing import playbooks

        async with database(data) as connection:
            playbook, held = await in_force(connection), await playbooks.paused_by_hand(connection)
            counts = [(tally, count) for tally, count in await store.counts(connection) if tally.journey == journey]
            standing = await store.standing(connection, journey)
            mailed = (await store.mailed(connection)).get(journey, 0)
            attributed = [worth for worth in await store.attributed(connection) if worth.journey == journey]
            backfill = await last_backfill(connection, journey)
        if journey not in playbook.journeys and not counts:
            raise unknown(journey, playbook)
        (row,) = listed(playbook, counts, held, only=journey)
        row |= results(counts, mailed, attributed)
        if form == "json":
            at = [{**one._asdict(), "next_due": one.next_due and one.next_due.isoformat()} for one in standing]
            typer.echo(json.dumps({**row, "at": at}, indent=2))
            return
        _print_journey(row, standing, playbook)
        if backfill is not None:
            say(f"backfill of {backfill.occasion[:16]}: {backfill.invited:,} invited, {backfill.looked_at:,} looked at")

    run(work())


@journeys_app.command("move")
def journeys_move(
    journey: Name,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of whom.")] = False,
    by: By = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Take those inside older versions along to the one in force, by the id of the step that they are at."""

    async def work() -> None:
        from services.publishing.moves import as_text, foresee

        async with _publisher(data) as (runtime, connection, playbook):
            if journey not in playbook.journeys:
                raise unknown(journey, playbook)
            if dry_run:
                found = await foresee(connection, runtime.log.partitions, playbook.journeys[journey], playbook)
                say(as_text(found))
                return
            await _activate(runtime, connection, by, moves=[journey])
        say(f"those inside {journey} are taken along within seconds: rapport journeys show {journey}")

    run(work())


@journeys_app.command("pause")
def journeys_pause(journey: Name, by: By = None, data: Data = DEFAULT_DATA) -> None:
    """Nobody enters, and what falls due waits, until `rapport journeys resume`: also under another playbook."""

    async def work() -> None:
        from shared.processing import playbooks

        async with _publisher(data) as (runtime, connection, playbook):
            if journey not in playbook.journeys:
                raise unknown(journey, playbook)
            held = await playbooks.paused_by_hand(connection)
            if journey in held:
                say(f"{journey} is paused by hand already")
                return
            await _activate(runtime, connection, by, paused=[*held, journey])
        say(f"{journey} is paused until: rapport journeys resume {journey}")

    run(work())


@journeys_app.command("resume")
def journeys_resume(journey: Name, by: By = None, data: Data = DEFAULT_DATA) -> None:
    """End a pause by hand. What has fallen due meanwhile goes on now."""

    async def work() -> None:
        from shared.processing import playbooks

        async with _publisher(data) as (runtime, connection, playbook):
            held = await playbooks.paused_by_hand(connection)
            in_playbook = journey in playbook.paused
            if journey in held:
                await _activate(runtime, connection, by, paused=[name for name in held if name != journey])
            elif journey not in playbook.journeys:
                raise unknown(journey, playbook)
            elif not in_playbook:
                say(f"{journey} is not paused")
                return
        if in_playbook:
            raise RapportError(
                f"the playbook itself pauses {journey}. Take `status: paused` out of journeys/{journey}.yaml, and "
                f"apply it."
            )
        say(f"{journey} goes on")

    run(work())


@journeys_app.command("backfill")
def journeys_backfill(
    journey: Name,
    rate: Annotated[str | None, typer.Option(help="At most so many in a while: 500/h, 10/m, 2000/d.")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say how many they are.")] = False,
    stop: Annotated[bool, typer.Option("--stop", help="Stop; the next backfill goes on from there.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Take in those who are where the trigger lets others in: the members of its segment or stage."""
    if stop == (rate is not None):
        raise typer.BadParameter("give --rate, such as 500/h, or --stop.")

    async def work() -> None:
        from services.journeys import store
        from services.publishing import backfills
        from shared.processing import playbooks

        pace = backfills.per_hour(rate) if rate is not None else 0.0
        async with _publisher(data) as (runtime, connection, playbook):
            if stop:
                await backfills.invite(runtime, connection, journey, 0)
                say(f"the backfill of {journey} stops")
                return
            if journey not in playbook.journeys:
                raise unknown(journey, playbook)
            found = playbook.journeys[journey]
            backfills.possible(found, await playbooks.paused_by_hand(connection))
            if dry_run:
                inside = sum(one.customers for one in await store.standing(connection, journey))
                say(await backfills.foresee(connection, runtime.log.partitions, found, inside, pace))
                return
            goes_on = await backfills.invite(runtime, connection, journey, pace)
        begun = "goes on where it stopped" if goes_on else "begins"
        say(f"the backfill of {journey} {begun}: rapport journeys show {journey}")

    run(work())


@contextlib.asynccontextmanager
async def _publisher(data: Path) -> AsyncIterator[tuple[Runtime, Connection, Playbook]]:
    """What it takes to switch partitions, and the playbook in force as it was applied."""
    from services import serving

    async with serving.open_runtime(serving.visited(data), visiting=True) as runtime:
        assert runtime.database is not None
        async with runtime.database.connect() as connection:
            yield runtime, connection, await in_force(connection)


async def _activate(runtime: Runtime, connection: Connection, by: str | None, **changes: Any) -> None:
    """The playbook in force once more, with this changed."""
    from services.journeys.store import playbooks_in_use
    from shared.processing import playbooks

    playbook = await in_force(connection)
    in_use = await playbooks_in_use(connection)
    now = runtime.clock.now()
    await playbooks.activate(runtime.log, connection, playbook, now, in_use, by=by or somebody(), **changes)


def _print_journey(row: dict[str, Any], standing: list[Standing], playbook: Playbook) -> None:
    found = playbook.journeys.get(row["journey"])
    title = f": {found.title}" if found is not None else ""
    version = f", version {row['version'][:VERSION_SHOWN]}" if found is not None else ""
    say(f"{row['journey']}{title}")
    say(f"{row['status']}{version}; {row['entered']} entered, {row['goal']} reached the goal")
    worth = ", ".join(f"{amount:.2f} {currency}" for currency, amount in row["attributed"].items())
    lift = "" if row["lift"] is None else f"; lift {row['lift']:+.0%} against those held out"
    counted = ", ".join((_counted(row["sent"], "mail"), f"{_counted(row['orders'], 'order')} attributed"))
    say(f"{counted}{f': {worth}' if worth else ''}{lift}")
    if standing:
        table = columns("version", "step", "status", "customers", "next due (UTC)")
        for column in table.columns:
            column.no_wrap, column.overflow = False, "fold"  # a step is named whole, however narrow the terminal
        steps = list(found.steps) if found is not None else []
        for one in sorted(
            standing, key=lambda one: (one.version != row["version"], one.version, _place(one.step, steps))
        ):
            due = one.next_due.strftime("%Y-%m-%d %H:%M") if one.next_due else ""
            older = "" if one.version == row["version"] else " (older)"
            table.add_row(one.version[:VERSION_SHOWN] + older, one.step, one.status, str(one.customers), due)
        out.print(table)
    else:
        say("nobody is inside")
    if row["left"]:
        say("left: " + ", ".join(f"{reason.replace('_', ' ')} {count}" for reason, count in row["left"].items()))


def _counted(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def results(counts: Sequence[tuple[Tally, int]], mailed: int, attributed: Sequence[Attributed]) -> dict[str, Any]:
    """What came of one journey, as its page says it."""
    from services.journeys.api import JourneyCounts, summed

    found = next(iter(summed(counts, {}, attributed)), JourneyCounts(journey=""))
    lift = found.held_out.lift if found.held_out is not None else None
    return {"sent": mailed, "orders": found.orders, "attributed": found.attributed, "lift": lift}


def _place(step: str, steps: list[str]) -> tuple[int, str]:
    return (steps.index(step) if step in steps else len(steps), step)


def listed(
    playbook: Playbook, counts: list[tuple[Tally, int]], paused: Collection[str] = (), only: str = ""
) -> list[dict[str, Any]]:
    """For each journey of the playbook, and each that somebody still is or was in, how it stands. `paused` are those
    that are paused by hand."""
    from services.journeys.engine import HELD_OUT

    rows: dict[str, dict[str, Any]] = {}
    names = {*playbook.journeys, *(tally.journey for tally, _ in counts)}
    for name in sorted(name for name in names if only in ("", name)):
        journey = playbook.journeys.get(name)
        rows[name] = {
            "journey": name,
            "status": REMOVED if journey is None else PAUSED_BY_HAND if name in paused else journey.status,
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
