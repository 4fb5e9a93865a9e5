"""`rapport tasks`: the work that journeys leave to people."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from services.terminal import DEFAULT_DATA, Data, Form, account, columns, database, one_of, out, run, say
from shared.errors import RapportError

if TYPE_CHECKING:
    from services.journeys.tasks import TaskRow

tasks_app = typer.Typer(help="Work that journeys leave to people: what waits, and what is done.", no_args_is_help=True)

_SHORT = 8
"""Characters of an id that are shown, and enough to name it by."""


@tasks_app.command("list")
def tasks_list(
    done: Annotated[bool, typer.Option("--done", help="Those that are done, the latest first.")] = False,
    customer: Annotated[str | None, typer.Option(help="Only those about one customer.")] = None,
    limit: Annotated[int, typer.Option(help="How many, the most pressing first.")] = 50,
    form: Form = "text",
    data: Data = DEFAULT_DATA,
) -> None:
    """What waits for somebody, the most pressing first."""
    one_of(form, "text", "json")

    async def work() -> None:
        from services.journeys import store

        async with database(data) as connection:
            found = await store.tasks(connection, done=done, limit=limit, customer=customer)
        if form == "json":
            told = [{**task._asdict(), "done": end and end._asdict()} for task, end in found]
            typer.echo(json.dumps(told, indent=2, default=str))
            return
        table = columns("id", "due (UTC)", "customer", "task", "journey", *(["done (UTC)", "by"] if done else []))
        for task, end in found:
            due = task.due.strftime("%Y-%m-%d %H:%M") if task.due is not None else ""
            last = [end.at.strftime("%Y-%m-%d %H:%M"), end.by] if end is not None else []
            table.add_row(task.id[:_SHORT], due, task.customer, task.title, task.journey, *last)
        nothing = "no task is done" if done else "no task waits for anybody"
        out.print(table if found else nothing)

    run(work())


@tasks_app.command("show")
def tasks_show(
    task: Annotated[str, typer.Argument(help="Its id, or how it begins.", show_default=False)],
    data: Data = DEFAULT_DATA,
) -> None:
    """One task with its note."""

    async def work() -> None:
        from services.journeys import store

        async with database(data) as connection:
            found = _one(task, await store.tasks_named(connection, task))
        for name, value in found._asdict().items():
            shown = f"{value:%Y-%m-%d %H:%M} UTC" if isinstance(value, datetime) else value
            say(f"{name.replace('_', ' ') + ':':<12}{shown if shown is not None else ''}".rstrip())

    run(work())


@tasks_app.command("done")
def tasks_done(
    task: Annotated[str, typer.Argument(help="Its id, or how it begins.", show_default=False)],
    by: Annotated[str, typer.Option(help="Who did it; you, unless given.")] = "",
    note: Annotated[str, typer.Option(help="What came of it; journeys see it as event.note.")] = "",
    data: Data = DEFAULT_DATA,
) -> None:
    """Say that a task is done: journeys that wait for Task Done go on."""

    async def work() -> None:
        import msgspec

        from services import serving
        from services.journeys import store
        from services.journeys.tasks import event
        from shared.contracts import streams
        from shared.contracts.events import TASK_DONE
        from shared.log.port import Entry

        async with serving.open_runtime(serving.visited(data), visiting=True) as runtime:
            assert runtime.database is not None
            now, who = runtime.clock.now(), by or account()
            # Its row is held until the log has the event: so it is not done by two, and not done and untold.
            async with runtime.database.transaction() as connection:
                found = _one(task, await store.tasks_named(connection, task))
                if not await store.close_task(connection, found.id, store.Done(now, who, note)):
                    raise RapportError(f"task {found.id[:_SHORT]} was done before. See `rapport tasks list --done`.")
                told = event(TASK_DONE, found, now, by=who, note=note)
                partition = streams.partition_of(found.customer, runtime.log.partitions)
                entry = Entry(found.customer, msgspec.json.encode(told))
                await runtime.log.append(streams.EVENTS, partition, [entry])
        say(f"done: {found.title}")

    run(work())


def _one(wanted: str, found: list[TaskRow]) -> TaskRow:
    if len(found) != 1:
        fact = "several tasks begin with" if found else "no task begins with"
        raise RapportError(f"{fact} {wanted!r}. `rapport tasks list` shows them.")
    return found[0]
