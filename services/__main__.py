"""The `rapport` command."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from services.backtest import commands as backtest
from services.checking import check_in
from services.operating.dead_letters import letters_app
from services.operating.keys import keys_app
from services.operating.partitions import partitions_app
from services.preview import commands as preview
from services.publishing import commands as publishing
from services.publishing.coupons import coupons_app
from services.publishing.journeys import journeys_app
from services.publishing.tasks import tasks_app
from services.terminal import DEFAULT_DATA, READ_KEY, Data, Folder, database, fail, one_of, run, say
from services.trials import commands as trials
from services.why import why_in
from shared.errors import RapportError
from shared.memory import collect_seldom

app = typer.Typer(
    name="rapport",
    help="Relationship marketing: customer events in, the right mail out, once.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
playbook_app = typer.Typer(
    help="The folder that marketers edit: make one, check it, put it in force.", no_args_is_help=True
)


@app.command()
def up(
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = DEFAULT_DATA,
    port: Annotated[int, typer.Option(min=0, max=65535, help="One port for all services.")] = 8080,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    playbook: Annotated[
        Path | None,
        typer.Option(
            help="The playbook's folder, watched; if not given, what is in force stays, at first the shipped one."
        ),
    ] = None,
    smtp: Annotated[
        str, typer.Option(help="smtp://user:password@host:587, smtps://…, or inbox:// to keep mails here.")
    ] = "inbox://",
    write_key: Annotated[
        str | None, typer.Option(help="What shops post with; made and kept in --data if not given.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(help="How the outer world reaches this port; links in mails begin with it.")
    ] = None,
) -> None:
    """Run everything in one process, with a PostgreSQL of its own."""
    from services import embedded
    from services.mailer.settings import INBOX

    options = embedded.Options(
        data=data,
        playbook=playbook,
        host=host,
        port=port,
        smtp=smtp,
        write_key=write_key,
        public_url=public_url,
    )

    async def work() -> None:
        from services.serving import stop_requested

        async with embedded.running(options) as running:
            say(f"Rapport is up at {running.address}")
            say(f"  post events to  {running.address}/v1/batch   write key {running.write_key}")
            # What starts with a machine says this to a journal that more may read than may read customers.
            say(f"  customers       {running.address}/segmenter/v1/customers/KEY   read key in {data / READ_KEY}")
            if smtp == INBOX:
                say(f"  read the mails  {running.address}/mailer/inbox")
            say(f"  API reference   {running.address}/docs")
            await stop_requested(running.server)

    run(work())


@app.command()
def serve(
    service: Annotated[str, typer.Argument(help="ingest, segmenter, journeys or mailer.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port of its HTTP face.")] = 8000,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "0.0.0.0",
) -> None:
    """Run one service on the servers that DATABASE_URL and KAFKA_BOOTSTRAP_SERVERS name."""
    from services import serving

    if service not in serving.SERVICES:
        raise typer.BadParameter(f"there is no service {service!r}. There are {', '.join(serving.SERVICES)}.")
    run(serving.serve(service, host, port))


@app.command()
def migrate() -> None:
    """Bring the database's tables, and Kafka's topics, to what this release needs."""

    async def work() -> None:
        from services import serving
        from shared.database.engine import Database
        from shared.database.migrations import migrate as bring_up
        from shared.log.kafka import kafka_log

        settings = serving.read_settings()
        if settings.database_url is None:
            raise RapportError(serving.NO_DATABASE)
        database = Database(settings.database_url)
        try:
            for line in await bring_up(database, serving.MIGRATIONS):
                say(line)
        finally:
            await database.close()
        if settings.kafka_bootstrap_servers:
            for topic in await kafka_log(settings).ensure_streams(settings.kafka_replication_factor):
                say(f"kafka: topic {topic}")
        say("up to date")

    run(work())


@app.command()
def demo(
    seconds: Annotated[
        float | None,
        typer.Option("--for", help="End by itself after so long, such as 40s.", parser=lambda text: _seconds(text)),
    ] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Print nothing; see --report.")] = False,
    report: Annotated[Path | None, typer.Option(help="Write what happened as JSON.")] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to read the mails on; 0 takes any.")] = 8080,
    data: Annotated[
        Path | None, typer.Option(help="Where everything is kept; a temporary folder if not given.")
    ] = None,
) -> None:
    """A fictional shop, a fast clock, and the mails that its customers get."""
    from services.demo import run_demo

    run(run_demo(seconds=seconds, headless=headless, report=report, port=port, data=data))


@playbook_app.command("init")
def playbook_init(folder: Folder) -> None:
    """Copy the shipped playbook into a new folder, with schemas for the editor."""
    from shared.language import SHIPPED, read_folder, write_schemas

    if folder.is_file() or (folder.exists() and any(folder.iterdir())):
        fail(f"{folder} is not an empty folder. Choose a new one.")
    for name, content in read_folder(SHIPPED).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    write_schemas(folder)
    say(f"{folder} is ready. Edit it, then: rapport playbook check {folder}")


@playbook_app.command("schema")
def playbook_schema(folder: Folder) -> None:
    """Write the JSON Schemas for editors into FOLDER/.schema."""
    from shared.language import write_schemas

    if not folder.is_dir():
        fail(f"there is no folder {folder}. Give the playbook's.")
    write_schemas(folder)
    say(f"written to {folder / '.schema'}")


@playbook_app.command("show")
def playbook_show(
    journey: Annotated[str, typer.Argument(help="Its name.", show_default=False)],
    folder: Annotated[Path, typer.Argument(help="The playbook's folder.")] = Path(),
    form: Annotated[str, typer.Option("--format", help="text, mermaid or svg.")] = "text",
    counts: Annotated[bool, typer.Option("--counts", help="With how many customers are where now.")] = False,
    data: Data = DEFAULT_DATA,
) -> None:
    """Draw a journey: rapport playbook show abandoned-cart my-playbook --format svg > cart.svg"""
    from shared.language import load, read_folder
    from shared.language.flowchart import as_mermaid, as_text, flow_of
    from shared.language.flowchart_svg import as_svg
    from shared.language.problems import did_you_mean

    one_of(form, "text", "mermaid", "svg")

    async def work() -> None:
        journeys = load(read_folder(folder)).journeys
        if journey not in journeys:
            remedy = did_you_mean(journey, journeys, f"There are {', '.join(journeys) or 'none'}.")
            raise RapportError(f'there is no journey "{journey}" in {folder}. {remedy}')
        inside: dict[str, int] = {}
        if counts:
            from services.journeys.store import inside_by_step

            async with database(data) as connection:
                inside = await inside_by_step(connection, journey)
        flow, title = flow_of(journeys[journey]), journeys[journey].title
        drawn = {
            "text": lambda: as_text(flow, inside),
            "mermaid": lambda: as_mermaid(flow, inside),
            "svg": lambda: as_svg(flow, title, inside),
        }
        typer.echo(drawn[form]())

    run(work())


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600}
    number, unit = (text[:-1], text[-1]) if text[-1:] in units else (text, "s")
    try:
        return float(number) * units[unit]
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no duration. Write 40s or 2m.") from None


# In the order in which --help lists them.
check_in(playbook_app)
publishing.publish_in(playbook_app)
backtest.simulate_in(app)
trials.test_in(playbook_app)
preview.preview_in(playbook_app)
why_in(app)
app.add_typer(playbook_app, name="playbook")
app.add_typer(journeys_app, name="journeys")
app.add_typer(coupons_app, name="coupons")
app.add_typer(tasks_app, name="tasks")
app.add_typer(letters_app, name="dead-letters")
app.add_typer(partitions_app, name="partitions")
app.add_typer(keys_app, name="keys")


def leave_out_what_is_not_asked_for(commands: typer.Typer, group: str = "", command: str = "", *_: str) -> None:
    """Typer looks into the parameters of every command before it runs one, for longer than Python takes to begin."""
    for found in commands.registered_groups:
        if found.name == group and (inside := found.typer_instance) is not None:
            commands.registered_groups, commands.registered_commands = [found], []
            asked = [one for one in inside.registered_commands if one.name == command]
            inside.registered_commands = asked or inside.registered_commands


def main() -> None:
    """The console script's entry."""
    collect_seldom()
    # When a process ends, what it leaves need not be looked through for cycles.
    atexit.register(gc.freeze)
    # To look for plugins, of which we have none, pydantic reads what every installed package says of itself.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "1")
    leave_out_what_is_not_asked_for(app, *sys.argv[1:])
    app()


if __name__ == "__main__":
    main()
