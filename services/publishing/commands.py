"""`rapport playbook plan | apply | history`."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten
from typing import Annotated

import typer

from services.terminal import DEFAULT_DATA, By, Data, Folder, Form, columns, database, one_of, out, run, say, somebody
from shared.errors import RapportError

_SUMMARY = 200
"""Characters of what a playbook changed that are shown."""


def publish_in(playbook_app: typer.Typer) -> None:
    """Put these commands under `rapport playbook`."""
    playbook_app.command("plan")(playbook_plan)
    playbook_app.command("apply")(playbook_apply)
    playbook_app.command("history")(playbook_history)


def playbook_plan(
    folder: Folder,
    form: Annotated[str, typer.Option("--format", help="text, markdown (for a pull request) or json.")] = "text",
    exit_code: Annotated[bool, typer.Option("--exit-code", help="Exit with 2 where something would change.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """What would change if this playbook came into force, and what would become of those who are inside. Reads only."""
    one_of(form, "text", "markdown", "json")

    async def work() -> None:
        from rich.console import Console
        from rich.progress import Progress

        from services.publishing.plan import as_data, as_markdown, as_text, make_plan
        from shared.language import load, read_folder

        playbook = load(read_folder(folder))
        async with database(data) as connection:
            with Progress(console=Console(stderr=True), transient=True) as progress:
                task = progress.add_task("Looking through the customers", total=None, visible=False)

                def passed(partitions: int) -> None:
                    progress.update(task, advance=1, total=partitions, visible=True)

                plan = await make_plan(connection, playbook, passed)
        if form == "json":
            typer.echo(json.dumps(as_data(plan), indent=2))
        else:
            typer.echo(as_text(plan) if form == "text" else as_markdown(plan))
        if exit_code and plan.sections:
            raise typer.Exit(2)

    run(work())


def playbook_apply(
    folder: Annotated[Path | None, typer.Argument(help="The playbook's folder.", show_default=False)] = None,
    to: Annotated[
        str | None, typer.Option(help="Instead: go back to one of `rapport playbook history`, by its hash.")
    ] = None,
    by: By = None,
    data: Data = DEFAULT_DATA,
) -> None:
    """Check, store and put in force, at the same place of the road for all services."""
    if (folder is None) == (to is None):
        raise typer.BadParameter("give a folder, or --to a hash of `rapport playbook history`.")

    async def work() -> None:
        from services import serving
        from services.journeys.store import playbooks_in_use
        from shared.language import load, read_folder
        from shared.language.folder import NAMED_BY
        from shared.processing import playbooks

        playbook = load(read_folder(folder)) if folder is not None else None
        async with serving.open_runtime(serving.visited(data), visiting=True) as runtime:
            assert runtime.database is not None
            async with runtime.database.connect() as connection:
                if playbook is None:
                    assert to is not None
                    content_hash = await playbooks.named(connection, to)
                    playbook = await playbooks.PlaybookShelf().get(connection, content_hash)
                if await playbooks.in_force(connection) == playbook.hash:
                    say(f"{playbook.hash[:NAMED_BY]} is in force already")
                    return
                in_use = await playbooks_in_use(connection)
                now = runtime.clock.now()
                summary = await playbooks.activate(runtime.log, connection, playbook, now, in_use, by=by or somebody())
        say(f"{playbook.hash[:NAMED_BY]} is in force")
        for part in summary.split("; "):
            say(f"  {part}")

    run(work())


def playbook_history(
    limit: Annotated[int, typer.Option(help="How many, newest first.")] = 20,
    form: Form = "text",
    data: Data = DEFAULT_DATA,
) -> None:
    """The playbooks that were put in force: when, by whom, and what each changed. The first is in force."""
    one_of(form, "text", "json")

    async def work() -> None:
        from shared.language.folder import NAMED_BY
        from shared.processing import playbooks

        async with database(data) as connection:
            found = await playbooks.history(connection, limit)
        if form == "json":
            typer.echo(json.dumps([{**one._asdict(), "at": one.at.isoformat()} for one in found], indent=2))
            return
        if not found:
            raise RapportError("no playbook was ever applied. Apply one: rapport playbook apply FOLDER.")
        table = columns("hash", "in force since (UTC)")
        table.add_column("by", overflow="fold")
        table.add_column("what changed", overflow="fold")
        for one in found:
            at = one.at.strftime("%Y-%m-%d %H:%M:%S")
            # A first playbook, or another shop's, changes everything there is: --format json names it all.
            table.add_row(one.playbook[:NAMED_BY], at, one.by, shorten(one.summary, _SUMMARY, placeholder=" …"))
        out.print(table)

    run(work())
